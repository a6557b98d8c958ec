"""`llm localrun …`: one module a family of commands, all of them listed here."""

import click

from llm_localrun.commands.engines import ps, unload
from llm_localrun.commands.fetch import pull
from llm_localrun.commands.listing import models, refresh, which

COMMANDS: dict[str, click.Command] = {
    command.name or "": command for command in (models, which, refresh, ps, unload, pull)
}
