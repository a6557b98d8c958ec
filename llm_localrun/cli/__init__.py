"""`llm localrun …`: one module a family of commands, all of them listed here.

A module is imported when one of its commands is run: what pulls models need not be there for `ps`.
"""

from importlib import import_module

import click

# In which module each is.
COMMANDS = {
    **dict.fromkeys(("models", "refresh"), "models"),
    **dict.fromkeys(("ps", "unload"), "ps"),
    **dict.fromkeys(("rm", "verify", "du"), "rm"),
    **dict.fromkeys(("outdated", "update"), "outdated"),
    **{"allow": "allow", "doctor": "doctor", "endpoints": "endpoints", "pull": "pull"},
    **{"quantize": "quantize", "show": "show", "which": "which"},
}


def command_called(name: str) -> click.Command | None:
    """The command of that name, if there is one."""
    if (family := COMMANDS.get(name)) is None:
        return None
    module = import_module(f"{__name__}.{family}")
    command: click.Command = getattr(module, name)
    return command
