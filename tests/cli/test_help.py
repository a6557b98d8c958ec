"""Each help text ends with one example, which its command accepts."""

import re
import shlex

import click
import llm.cli
import pytest

from tests.support.commands import HELP_NAMES, all_commands, help_of

pytestmark = pytest.mark.pure

COMMANDS = all_commands()
_EXAMPLE = re.compile(r"^  Example:\n    (?P<command>llm localrun.*)\n(?=\n|\Z)", re.MULTILINE)


def example_of(typed: str) -> str:
    shown = help_of(typed, COMMANDS[typed]) + "\n"
    assert shown.count("Example:") == 1
    (command,) = _EXAMPLE.findall(shown)
    return str(command)


def parse(line: str) -> str:
    """The command that `line` would run, as it is typed; runs nothing.

    Raises `click.UsageError` if an option, an argument or a command in it does not exist.
    """
    program, *words = shlex.split(line)
    command: click.Command = llm.cli.cli
    typed = [program]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, found, words = command.resolve_command(click.Context(command), words)
        assert found is not None
        command = found
        typed.append(str(command.name))
    command.make_context(command.name, [*words], help_option_names=HELP_NAMES)
    return " ".join(typed)


@pytest.mark.parametrize("typed", COMMANDS)
def test_help_has_one_example_that_the_command_accepts(typed: str) -> None:
    example = example_of(typed)
    assert parse(example).startswith(typed)


@pytest.mark.parametrize("typed", COMMANDS)
def test_help_fits_80_columns(typed: str) -> None:
    assert max(map(len, help_of(typed, COMMANDS[typed]).splitlines())) <= 80


@pytest.mark.parametrize(
    "command",
    [
        "llm localrun models --no-such-option",
        "llm localrun no-such-command",
        "llm localrun which",
        "llm localrun engine install no-such-backend",
        "llm localrun engine install --tag nonsense",
    ],
)
def test_a_wrong_example_is_noticed(command: str) -> None:
    with pytest.raises(click.UsageError):
        parse(command)
