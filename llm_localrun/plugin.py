"""llm's hooks, nothing else: what they do is imported when it is needed.

Every `llm` command imports this module, so it must cost nothing and never fail.
"""

from typing import Any

import click
import llm


class _Commands(click.Group):
    """`llm localrun`: its commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from llm_localrun.cli import COMMANDS

        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from llm_localrun.cli import command_called

        return command_called(cmd_name)


@click.pass_context
def _status(context: click.Context) -> None:
    """What `llm localrun` does by itself."""
    if context.invoked_subcommand is None:
        from llm_localrun.cli.status import show_status

        show_status()


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    help_text = "Find, run and manage local models"
    cli.add_command(
        _Commands("localrun", help=help_text, callback=_status, invoke_without_command=True)
    )


# Last, so that the names of all other plugins' models are known and left alone.
@llm.hookimpl(trylast=True)
def register_models(register: Any, model_aliases: list[Any]) -> None:
    from llm_localrun.registration import register_models

    register_models(register, model_aliases)


@llm.hookimpl(trylast=True)
def register_embedding_models(register: Any) -> None:
    from llm_localrun.registration import register_embedding_models

    register_embedding_models(register)
