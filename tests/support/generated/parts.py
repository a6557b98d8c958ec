"""Which part stands in which document."""

import re
from collections.abc import Callable
from functools import partial

from tests.support.generated.commands import (
    COMMANDS_DOCUMENT,
    command_groups,
    command_help,
    commands_table,
    help_part,
)
from tests.support.generated.comparison import compared_table
from tests.support.generated.names import aliases_table
from tests.support.generated.options import option_names_table, options_table
from tests.support.generated.recommended import recommended_table
from tests.support.generated.servers import kinds_table, servers_table
from tests.support.generated.stores import stores_table

PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "servers": ("docs/servers.md", servers_table),
    "kinds": ("docs/servers.md", kinds_table),
    "aliases": ("docs/names.md", aliases_table),
    "stores": ("docs/files.md", stores_table),
    "options": ("docs/options.md", options_table),
    "option-names": ("docs/options.md", option_names_table),
    "recommended": ("README.md", recommended_table),
    "compared": ("README.md", compared_table),
    "commands": (COMMANDS_DOCUMENT, commands_table),
    **{
        help_part(typed): (COMMANDS_DOCUMENT, partial(command_help, typed))
        for names in command_groups().values()
        for typed in names
    },
}
"""By name: the document that a part stands in, and its text, which ends with a line break."""


def regenerated(name: str, text: str) -> str:
    """`text`, a document's, with the part `name` as the code has it.

    Raises ValueError if the document does not have the part once.
    """
    _, part = PARTS[name]
    between = re.compile(rf"(?<=<!-- {name} -->\n\n).*(?=\n<!-- /{name} -->)", re.DOTALL)
    text, count = between.subn(lambda _: part(), text)
    if count != 1:
        raise ValueError(f"there are {count} places for {name}")
    return text
