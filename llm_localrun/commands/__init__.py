"""`llm localrun …`: one module a family of commands, all of them listed here."""

import click

from llm_localrun.commands.card import show
from llm_localrun.commands.doctor import doctor
from llm_localrun.commands.endpoints import endpoints
from llm_localrun.commands.engines import ps, unload
from llm_localrun.commands.fetch import pull
from llm_localrun.commands.listing import models, refresh
from llm_localrun.commands.policy import allow
from llm_localrun.commands.quantize import quantize
from llm_localrun.commands.which import which

COMMANDS: dict[str, click.Command] = {
    command.name or "": command
    for command in (
        *(models, show, which, refresh, doctor, endpoints, allow, ps, unload, pull, quantize),
    )
}
