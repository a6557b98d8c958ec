"""`llm localrun …`: one module a family of commands, all of them listed here."""

import click

from llm_localrun.commands.engines import ps, unload
from llm_localrun.commands.fetch import pull
from llm_localrun.commands.keeping import du, rm, verify
from llm_localrun.commands.listing import models, refresh, which
from llm_localrun.commands.updates import outdated, update

COMMANDS: dict[str, click.Command] = {
    command.name or "": command
    for command in (
        *(models, which, refresh, ps, unload),
        *(pull, rm, verify, outdated, update, du),
    )
}
