"""`models` and `refresh`: what there is."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.table import (
    count_text,
    show_json,
    show_notes,
    show_table,
    size_text,
    tokens_text,
)
from llm_localrun.config import Config, read_config
from llm_localrun.models import LocalModel, Purpose, RunsOn, ServerStatus
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import Order, name_models, ordered, parameters_of, short_name
from llm_localrun.privacy import requires_consent
from llm_localrun.resolve import order_of

_PURPOSES: tuple[Purpose, ...] = ("chat", "embedding")
_EXTRA = ("params", "trained", "fits", "id")
"""Columns that are shown where there is room, the most wanted first."""
_WORDS = {"tools": "tools", "vision": "vision", "audio": "audio", "thinking": "think"}

Names: TypeAlias = Mapping[Purpose, Mapping[str, list[LocalModel]]]
"""By purpose, every alias with those that can claim it."""


@click.command()
@click.option("json_", "--json", is_flag=True, help="Output JSON, complete")
def models(json_: bool) -> None:
    "List every model that can run on this machine"
    found = get_catalogue().models
    config = read_config()
    order = order_of(config)
    names = names_of(found, order)
    if json_:
        show_json([facts(model, names, order) for model in ordered(found, order)])
    elif found:
        chat_first = sorted(ordered(found, order), key=lambda model: model.purpose != "chat")
        show_table([_row(model, names, order) for model in chat_first], _EXTRA)
        show_notes(_notes(found, config))
    else:
        click.echo("No model was found. Get a small one with: llm localrun pull starter", err=True)


@click.command()
def refresh() -> None:
    "Ask every server and look through every folder again"
    snapshot = get_catalogue(CachePolicy.REFRESH)
    answering = [r.endpoint.name for r in snapshot.endpoints if r.status == ServerStatus.ANSWERS]
    files = sum(entry.model is not None for entry in snapshot.files)
    click.echo(
        f"{len(snapshot.models)} models: {files} in GGUF files,"
        f" {len(snapshot.models) - files} at servers"
        f" ({', '.join(answering) or 'none answers'})"
    )


def names_of(found: Sequence[LocalModel], order: Order) -> Names:
    return {purpose: name_models(found, order, purpose) for purpose in _PURPOSES}


def facts(model: LocalModel, names: Names, order: Order) -> dict[str, Any]:
    """All that is known of a model, for programs."""
    named = names[model.purpose]
    return {
        **model.model_dump(exclude={"routes"}),
        **_route_facts(model),
        "parameters": parameters_of(model),
        "fits": order.fits(model),
        "short_name": short_name(model, named),
        "aliases": [alias for alias, claimants in named.items() if claimants[0].id == model.id],
    }


def _route_facts(model: LocalModel) -> dict[str, Any]:
    """The routes of a model as flat facts."""
    served, on_disk = model.served, model.on_disk
    return {
        "endpoint": served and served.endpoint.model_dump(),
        "runs_on": model.runs_on,
        "remote_host": model.remote_host,
        "loaded": model.loaded,
        "context_loaded": model.context_loaded,
        "digest": served.digest if served else "",
        "path": on_disk and on_disk.path,
        "store": on_disk.store if on_disk else "",
        "projector": on_disk.projector if on_disk else "",
        "manifest": on_disk.manifest if on_disk else "",
        "file_id": on_disk.id if on_disk and served else "",
    }


def _row(model: LocalModel, names: Names, order: Order) -> dict[str, str]:
    return {
        "name": short_name(model, names[model.purpose]),
        "params": count_text(parameters_of(model)),
        "size": size_text(model.size),
        "quant": model.quantization,
        "ctx": tokens_text(model.context_loaded or model.context_max),
        "trained": tokens_text(model.context_max),
        "fits": "" if order.fits(model) else "no",
        "can": " ".join(abilities(model)),
        "where": f"{_where(model)}*" if model.loaded else _where(model),
        "id": model.id,
    }


def abilities(model: LocalModel) -> list[str]:
    """What it can do beside answering, in words of one or two syllables."""
    if model.purpose == "embedding":
        return ["embed"]
    return [word for ability, word in _WORDS.items() if model.can(ability, if_unknown=False)]


def _where(model: LocalModel) -> str:
    """Who runs it on this machine, or what does elsewhere."""
    if model.endpoint is None:
        return "file"
    if requires_consent(model):
        return model.runs_on
    if model.runs_on == RunsOn.THIS_MACHINE:
        return model.endpoint.name
    return model.remote_host or model.endpoint.name


def _notes(found: Sequence[LocalModel], config: Config) -> list[str]:
    """What the table does not say by itself."""
    notes = ["* loaded now"] if any(model.loaded for model in found) else []
    refused = [m for m in found if requires_consent(m) and m.id not in config.allow]
    if refused:
        notes.append(
            f"{len(refused)} may leave this machine (cloud, unknown):"
            " refused until you `llm localrun allow NAME`"
        )
    return notes
