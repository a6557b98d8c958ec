"""docs/commands.md: the table of commands, and the help of each."""

import click

from tests.support.commands import GROUP, all_commands, help_of
from tests.support.generated.markdown import table

COMMANDS_DOCUMENT = "docs/commands.md"

# The commands that are not settings, in the order of docs/commands.md.
_COMMAND_GROUPS = {
    "Find out": ("", "models", "show", "which", "doctor", "refresh"),
    "Get and keep models": (
        *("recommend", "search", "pull", "outdated", "update", "verify", "quantize", "rm", "du"),
        "import",
    ),
    "The engine": ("engine", "ps", "unload"),
    "Speed": ("bench", "stats"),
}
_OTHER_GROUP = "Settings"
_SAME = "status"
"""What `llm localrun` alone shows."""


def command_groups() -> dict[str, list[str]]:
    """What is typed for each command, by the heading of its section in docs/commands.md."""
    top = [each for each in all_commands() if each.count(" ") <= 2 and not each.endswith(_SAME)]
    groups = {
        heading: [typed for name in names if (typed := f"{GROUP} {name}".rstrip()) in top]
        for heading, names in _COMMAND_GROUPS.items()
    }
    grouped = {typed for names in groups.values() for typed in names}
    return {**groups, _OTHER_GROUP: [typed for typed in top if typed not in grouped]}


def commands_table() -> str:
    """Markdown: each command with the first line of its help."""
    commands = all_commands()
    rows = [
        (f"[`{typed}`](#{_anchor(typed)})", _first_line(commands[typed]), group)
        for group, names in command_groups().items()
        for typed in names
    ]
    return table(("command", "what it does", "for"), rows)


def _anchor(typed: str) -> str:
    return typed.replace(" ", "-")


def _first_line(command: click.Command) -> str:
    if command.name == "localrun":
        return "Show what is available here, and what to do next"
    return (command.help or "").partition("\n")[0].removesuffix(".")


def command_help(typed: str) -> str:
    """Markdown: what `--help` of a command prints, and of the commands below it."""
    below = [each for each in all_commands() if each.startswith(f"{typed} ")]
    shown = [typed, *(below if typed != GROUP else [])]
    commands = all_commands()
    return "\n".join(f"```text\n{help_of(each, commands[each])}\n```\n" for each in shown)


def help_part(typed: str) -> str:
    """The name of the part with the help of a command."""
    return f"help: {typed}"


def with_all_commands(text: str) -> str:
    """`text`, of docs/commands.md, with an empty section at its end for each command without."""
    for names in command_groups().values():
        for typed in names:
            if f"<!-- {help_part(typed)} -->" not in text:
                part = help_part(typed)
                marks = f"<!-- {part} -->\n\n\n<!-- /{part} -->"
                text = f"{text.rstrip()}\n\n### {typed}\n\n{marks}\n"
    return text
