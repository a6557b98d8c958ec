"""Allow a model to run outside this machine.

Prompts to the model NAME are then sent to the host that runs it. Without NAME, list the models
that you have allowed.

\b
Example:
  llm localrun allow local/ollama/gpt-oss:120b-cloud
"""

import shlex
from collections.abc import Sequence
from typing import Any

import click

from llm_localrun.cli.facts import find_model
from llm_localrun.cli.table import json_option, say, show_json
from llm_localrun.config import read_config, update_config
from llm_localrun.errors import ConfigError
from llm_localrun.privacy import WHERE, requires_consent


@click.command(help=__doc__)
@click.argument("name", required=False)
@click.option("--remove", is_flag=True, help="Refuse the model again")
@json_option
def allow(name: str | None, remove: bool, as_json: bool) -> None:
    if name is None:
        if remove:
            raise click.UsageError("Give the name of the model to refuse.")
        _list(read_config().allow, as_json)
    elif remove:
        _refuse(name)
    else:
        _allow(name)


def _list(allowed: Sequence[str], as_json: bool) -> None:
    if as_json:
        show_json(allowed)
    elif allowed:
        say(*allowed)
    else:
        say("You have not allowed any model to run outside this machine.", err=True)


def _allow(name: str) -> None:
    model = find_model(name)
    if not requires_consent(model):
        say(f"{model.id} runs {WHERE[model.runs_on]}: no permission is needed.", err=True)
        return

    def change(settings: dict[str, Any]) -> None:
        allowed = settings.setdefault("allow", [])
        if model.id not in allowed:
            allowed.append(model.id)

    update_config(change)
    host = f" ({model.remote_host})" if model.remote_host else ""
    say(
        f"{model.id} is now allowed. It runs {WHERE[model.runs_on]}{host}.",
        f"To refuse it again: llm localrun allow --remove {shlex.quote(model.id)}",
    )


def _refuse(name: str) -> None:
    model_id = name if name in read_config().allow else find_model(name).id

    def change(settings: dict[str, Any]) -> None:
        if model_id not in settings.get("allow", []):
            raise ConfigError(
                f"{model_id} is not allowed", "`llm localrun allow` lists the allowed models"
            )
        settings["allow"].remove(model_id)

    update_config(change)
    say(f"{model_id} is now refused.")
