"""`models`, `which` and `refresh`: what there is, and what a name means."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import click

from llm_localrun.catalogue import LocalModel, Purpose
from llm_localrun.commands.tables import show_json, show_table, size_text, tokens_text
from llm_localrun.config import read_config
from llm_localrun.discovery import catalogue
from llm_localrun.naming import (
    Order,
    name_models,
    ordered,
    parameters_of,
    reason_before,
    short_name,
)
from llm_localrun.registry import is_path
from llm_localrun.resolve import candidates, order_of


@click.command()
@click.option("json_", "--json", is_flag=True, help="Output JSON, complete")
def models(json_: bool) -> None:
    "List every model that can run on this machine"
    found = catalogue().models
    order = order_of(read_config())
    if json_:
        show_json(_as_json(found, order))
    elif found:
        show_table(_rows(found, order))
    else:
        click.echo("No model was found. Get a small one with: llm localrun pull starter", err=True)


@click.command()
@click.argument("name")
@click.option("json_", "--json", is_flag=True, help="Output JSON")
def which(name: str, json_: bool) -> None:
    "Show which model NAME means, and why"
    order = order_of(read_config())
    claimants = candidates(name, catalogue().models, order)
    reasons = _reasons(name, claimants, order)
    if json_:
        pairs = zip(claimants, reasons, strict=True)
        show_json([{"id": model.id, "reason": reason} for model, reason in pairs])
        return
    show_table(
        [
            {"": f"{place}.", "model": model.id, "size": size_text(model.size), "reason": reason}
            for place, (model, reason) in enumerate(zip(claimants, reasons, strict=True), 1)
        ]
    )


@click.command()
def refresh() -> None:
    "Ask every server and look through every folder again"
    snapshot = catalogue("now")
    answering = [r.endpoint.name for r in snapshot.endpoints if r.status == "answers"]
    files = sum(entry.model is not None for entry in snapshot.files)
    click.echo(
        f"{len(snapshot.models)} models: {files} in GGUF files,"
        f" {len(snapshot.models) - files} at servers"
        f" ({', '.join(answering) or 'none answers'})"
    )


def _reasons(name: str, claimants: Sequence[LocalModel], order: Order) -> list[str]:
    """Why each stands where it does: what it has before the next one."""
    if len(claimants) == 1:
        return ["the file at this path" if is_path(name) else "no other model has this name"]
    reasons = [reason_before(first, second, order) for first, second in pairwise(claimants)]
    return [*reasons, "last"]


def _rows(found: Sequence[LocalModel], order: Order) -> list[dict[str, str]]:
    rows = []
    for purpose in ("chat", "embedding"):
        named = name_models(found, order, purpose)
        for model in ordered((m for m in found if m.purpose == purpose), order):
            rows.append(_row(model, short_name(model, named)))
    return rows


def _row(model: LocalModel, name: str) -> dict[str, str]:
    return {
        "name": name,
        "size": size_text(model.size),
        "quantization": model.quantization,
        "context": tokens_text(model.context_loaded or model.context_max),
        "for": "embedding" if model.purpose == "embedding" else "",
        "runs on": "" if model.runs_on == "this machine" else model.runs_on,
        "loaded": "yes" if model.loaded else "",
        "id": model.id,
    }


def _as_json(found: Sequence[LocalModel], order: Order) -> list[dict[str, Any]]:
    purposes: tuple[Purpose, ...] = ("chat", "embedding")
    named = {purpose: name_models(found, order, purpose) for purpose in purposes}
    return [
        {
            **model.model_dump(exclude={"endpoint"}),
            "endpoint": model.endpoint and model.endpoint.model_dump(),
            "parameters": parameters_of(model),
            "aliases": [
                alias
                for alias, claimants in named[model.purpose].items()
                if claimants[0].id == model.id
            ],
        }
        for model in ordered(found, order)
    ]
