"""Every command of `llm localrun`, and its help as a terminal of 80 columns shows it."""

from collections.abc import Iterator

import click
import llm.cli

from llm_localrun.cli import command_names, load_command

GROUP = "llm localrun"
HELP_NAMES = ["-h", "--help"]
"""llm's. Click keeps the option of the first context in the command."""


def all_commands() -> dict[str, click.Command]:
    """By what is typed: "llm localrun", "llm localrun engine", "llm localrun engine install"."""
    return {GROUP: llm.cli.cli.commands["localrun"], **dict(_commands())}


def _commands() -> Iterator[tuple[str, click.Command]]:
    for name in command_names():
        command = load_command(name)
        assert command is not None
        yield f"{GROUP} {name}", command
        if isinstance(command, click.Group):
            for each, subcommand in sorted(command.commands.items()):
                yield f"{GROUP} {name} {each}", subcommand


def help_of(typed: str, command: click.Command) -> str:
    """What `--help` prints at 80 columns, of which click leaves two free."""
    with click.Context(
        command, info_name=typed, help_option_names=HELP_NAMES, terminal_width=78
    ) as context:
        return command.get_help(context)
