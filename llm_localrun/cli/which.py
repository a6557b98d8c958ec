"""`which`: what a name means, and why."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import click
import llm

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.table import count_text, show_json, show_table, size_text
from llm_localrun.config import read_config
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import is_ours, is_path
from llm_localrun.names.aliases import Order, parameters_of, reason_before
from llm_localrun.registration import user_aliases
from llm_localrun.resolve import candidates, order_of

_EXTRA = ("params", "quant", "size", "loaded", "fits")


@click.command()
@click.argument("name")
@click.option("json_", "--json", is_flag=True, help="Output JSON")
def which(name: str, json_: bool) -> None:
    "Show which model NAME means, and why"
    order = order_of(read_config())
    target = user_aliases().get(name, name)
    claimants = candidates(target if is_ours(target) else name, get_catalogue().models, order)
    taken_by = _taken_by(name, claimants[0])
    reasons = _reasons(name, claimants, order)
    pairs = list(zip(claimants, reasons, strict=True))
    if json_:
        show_json([_facts(model, reason, taken_by, order) for model, reason in pairs])
        return
    if target != name:
        click.echo(f"{name} is your alias for {target}; `llm aliases` lists them.", err=True)
    elif taken_by is not None:
        click.echo(f"{name} is {taken_by}: another plugin gave that name out.", err=True)
    if taken_by is not None:
        click.echo(
            f"`llm -m {name}` runs that. Otherwise it would be the first of these:", err=True
        )
    show_table([_row(model, reason, order) for model, reason in pairs], _EXTRA)


def _taken_by(name: str, first: LocalModel) -> str | None:
    """The id of the model that llm runs under `name`, if that is not `first`."""
    models = (
        llm.get_embedding_model_aliases if first.purpose == "embedding" else llm.get_model_aliases
    )
    try:
        model_id: str | None = getattr(models().get(name), "model_id", None)
    except (ValueError, AttributeError):
        # How llm 0.36 fails on an aliases.json that is damaged, or no object.
        return None
    return None if model_id == first.id else model_id


def _reasons(name: str, claimants: Sequence[LocalModel], order: Order) -> list[str]:
    """Why each stands where it does: what it has before the next one."""
    if len(claimants) == 1:
        return ["the file at this path" if is_path(name) else "no other model has this name"]
    reasons = [reason_before(first, second, order) for first, second in pairwise(claimants)]
    return [*reasons, "last"]


def _facts(model: LocalModel, reason: str, taken_by: str | None, order: Order) -> dict[str, Any]:
    return {
        "id": model.id,
        "reason": reason,
        "runs_on": model.runs_on,
        "loaded": model.loaded,
        "fits": order.fits(model),
        "parameters": parameters_of(model),
        "quantization": model.quantization,
        "size": model.size,
        "taken_by": taken_by,
    }


def _row(model: LocalModel, reason: str, order: Order) -> dict[str, str]:
    return {
        "model": model.id,
        "before the next because": reason,
        "params": count_text(parameters_of(model)),
        "quant": model.quantization,
        "size": size_text(model.size),
        "loaded": "yes" if model.loaded else "",
        "fits": "" if order.fits(model) else "no",
    }
