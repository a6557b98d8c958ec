"""The commands of `llm localrun`: each is a function in a module of the same name.

The module and function of a command whose name is a keyword end in `_`: `import_`.

A command is imported when it runs. The docstring of its module is its help text, so the list of
commands is made from the source of the modules. Completion makes it without click.
"""

import keyword
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
        "llm_settings",
        "next_steps",
        "other_plugins",
        "progress",
        "pulled",
        "table",
    }
)
"""Modules that hold no command."""


def command_names() -> list[str]:
    """The names of all commands, sorted."""
    modules = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(module.removesuffix("_") for module in modules - _HELPERS)


def load_command(name: str) -> "click.Command | None":
    """The command `name`; None if there is none."""
    if name not in command_names():
        return None
    module = _module_of(name)
    command: click.Command = getattr(import_module(f"{__name__}.{module}"), module)
    return command


def summaries() -> list[tuple[str, str]]:
    """The name of each command and the first line of its help text. Imports no command."""
    return [(name, _summary(name)) for name in command_names()]


def _module_of(name: str) -> str:
    """The module of a command, and its function."""
    return f"{name}_" if keyword.iskeyword(name) else name


def _summary(name: str) -> str:
    source = pkgutil.get_data(__name__, f"{_module_of(name)}.py") or b""
    # It stands in the first line of the file: parsing all files would take too long.
    first = source.decode().partition("\n")[0]
    return first.removeprefix('"""').removesuffix('"""').removesuffix(".")
