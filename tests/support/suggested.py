"""The commands that messages suggest: whether llm's own parser takes them."""

import re
import shlex

import click
from llm.cli import cli


def commands_in(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def parse(line: str) -> None:
    """Parses a command line, and runs nothing. Raises `click.UsageError`."""
    program, *rest = shlex.split(line)
    assert program == "llm", line
    _parse(cli, "llm", rest, None)


def _parse(command: click.Command, name: str, rest: list[str], above: click.Context | None) -> None:
    context = command.make_context(name, rest, parent=above)
    if not isinstance(command, click.Group):
        return
    arguments = [*context._protected_args, *context.args]
    found, following, rest = command.resolve_command(context, arguments)
    assert found is not None
    assert following is not None
    _parse(following, found, rest, context)
