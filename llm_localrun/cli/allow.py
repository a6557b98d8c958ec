"""`allow`: which models may run elsewhere than on this machine."""

import shlex
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.table import show_json
from llm_localrun.config import read_config, update_config
from llm_localrun.errors import ConfigError
from llm_localrun.models import LocalModel
from llm_localrun.privacy import WHERE, requires_consent
from llm_localrun.resolve import candidates, order_of


@click.command(short_help="Let a model run elsewhere than on this machine")
@click.argument("name", required=False)
@click.option("--remove", is_flag=True, help="Take it back")
@click.option("json_", "--json", is_flag=True, help="Output JSON")
def allow(name: str | None, remove: bool, json_: bool) -> None:
    """Let the model NAME run in a cloud, or where nobody knows.

    Its prompts leave this machine. Without NAME: list the models that may.
    """
    if name is None:
        if remove:
            raise click.UsageError("Give the name of the model that may no longer.")
        _show(list(read_config().allow), json_)
    elif remove:
        _forbid(name)
    else:
        _allow(name)


def _show(allowed: list[str], json_: bool) -> None:
    if json_:
        show_json(allowed)
    elif allowed:
        click.echo("\n".join(allowed))
    else:
        click.echo("No model may run elsewhere than on this machine.", err=True)


def _allow(name: str) -> None:
    model = _meant(name)
    if not requires_consent(model):
        click.echo(f"{model.id} runs {WHERE[model.runs_on]}: it needs no leave.", err=True)
        return

    def change(settings: dict[str, Any]) -> None:
        allowed = settings.setdefault("allow", [])
        if model.id not in allowed:
            allowed.append(model.id)

    update_config(change)
    where = f" ({model.remote_host})" if model.remote_host else ""
    click.echo(
        f"{model.id} may run from now on, {WHERE[model.runs_on]}{where}.\n"
        f"Take it back: llm localrun allow --remove {shlex.quote(model.id)}"
    )


def _forbid(name: str) -> None:
    model_id = name if name in read_config().allow else _meant(name).id

    def change(settings: dict[str, Any]) -> None:
        if model_id not in settings.get("allow", []):
            raise ConfigError(
                f"{model_id} is not allowed anyway", "`llm localrun allow` lists what is"
            )
        settings["allow"].remove(model_id)

    update_config(change)
    click.echo(f"{model_id} is refused from now on.")


def _meant(name: str) -> LocalModel:
    return candidates(name, get_catalogue().models, order_of(read_config()))[0]
