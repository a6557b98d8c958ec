"""The commands of `llm localrun`: each is a function in a module of the same name.

A command is imported when it runs. The docstring of its module is its help text, so the list of
commands is made from the source of the modules. Completion makes it without click.
"""

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

_HELPERS = frozenset(
    {
        "choice",
        "doctor_findings",
        "engine_install",
        "facts",
        "next_steps",
        "progress",
        "pulled",
        "table",
    }
)
"""Modules that hold no command."""


def command_names() -> list[str]:
    """The names of all commands, sorted."""
    modules = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(modules - _HELPERS)


def load_command(name: str) -> "click.Command | None":
    """The command `name`; None if there is none."""
    if name not in command_names():
        return None
    command: click.Command = getattr(import_module(f"{__name__}.{name}"), name)
    return command


def summaries() -> list[tuple[str, str]]:
    """The name of each command and the first line of its help text. Imports no command."""
    return [(name, _summary(name)) for name in command_names()]


def _summary(name: str) -> str:
    source = pkgutil.get_data(__name__, f"{name}.py") or b""
    # It stands in the first line of the file: parsing all files would take too long.
    first = source.decode().partition("\n")[0]
    return first.removeprefix('"""').removesuffix('"""').removesuffix(".")
