"""The hooks that llm calls. The code behind them is imported when it is needed.

Every `llm` command imports this module, so importing it must be fast and must not fail. Registering
the models is left to `registration`, running the commands to `cli`.
"""

import os
from typing import Any

import click
import llm


class _Commands(click.Group):
    """The group `llm localrun`. Imports a command when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from llm_localrun.cli import command_names

        return command_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from llm_localrun.cli import load_command

        return load_command(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands. Unlike click's own method, it imports none of them."""
        from llm_localrun.cli import summaries

        with formatter.section("Commands"):
            formatter.write_dl(summaries())


@click.pass_context
def _run_without_command(context: click.Context, as_json: bool) -> None:
    """Runs `llm localrun status` if the user gave no command."""
    if context.invoked_subcommand is None:
        from llm_localrun.cli.status import status

        context.invoke(status, as_json=as_json)
    elif as_json:
        raise click.UsageError(f"Give --json after {context.invoked_subcommand}.")


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    if "_LLM_COMPLETE" in os.environ:
        from llm_localrun.completion.shells import install

        install()
    help_text = "Find, run and manage local models\n\n\b\nExample:\n  llm localrun pull starter"
    cli.add_command(
        _Commands(
            "localrun",
            help=help_text,
            callback=_run_without_command,
            invoke_without_command=True,
            params=[click.Option(["--json", "as_json"], is_flag=True, help="Output JSON")],
        )
    )


# Called last, so that names which other plugins' models have are left to them.
@llm.hookimpl(trylast=True)
def register_models(register: Any, model_aliases: list[Any]) -> None:
    from llm_localrun.registration import register_models

    register_models(register, model_aliases)


@llm.hookimpl(trylast=True)
def register_embedding_models(register: Any) -> None:
    from llm_localrun.registration import register_embedding_models

    register_embedding_models(register)
