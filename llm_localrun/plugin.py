"""llm's hooks, nothing else: what they do is imported when it is needed.

Every `llm` command imports this module, so it must cost nothing and never fail.
"""

from typing import Any

import click
import llm


class _Commands(click.Group):
    """`llm localrun`: its commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from llm_localrun.commands import COMMANDS

        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from llm_localrun.commands import command_called

        return command_called(cmd_name)


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    cli.add_command(_Commands("localrun", help="Find, run and manage local models"))


# Last, so that the names of all other plugins' models are known and left alone.
@llm.hookimpl(trylast=True)
def register_models(register: Any, model_aliases: list[Any]) -> None:
    from llm_localrun.registration import register_models

    register_models(register, model_aliases)


@llm.hookimpl(trylast=True)
def register_embedding_models(register: Any) -> None:
    from llm_localrun.registration import register_embedding_models

    register_embedding_models(register)
