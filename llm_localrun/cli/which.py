"""Show which model a name means, and why.

\b
Example:
  llm localrun which local-qwen
"""

import shlex
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import click
import llm

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.table import count_text, json_option, say, show, size_text
from llm_localrun.config import read_config
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy, is_ours, is_path
from llm_localrun.names.aliases import Order, parameters_of, reason_before
from llm_localrun.registration import user_aliases
from llm_localrun.resolve import NO_COMMAND, WHAT_IT_IS, candidates, order_of

_OPTIONAL = ("params", "quant", "size", "loaded", "fits")


@click.command(help=__doc__)
@click.argument("name")
@json_option
def which(name: str, as_json: bool) -> None:
    snapshot = get_catalogue(CachePolicy.FRESH)
    order = order_of(read_config(), snapshot)
    target = user_aliases().get(name, name)
    claimants = candidates(target if is_ours(target) else name, snapshot.models, order)
    taken_by = _taken_by(name, claimants[0])
    ranked = list(zip(claimants, _reasons(name, claimants, order), strict=True))
    if not as_json:
        _explain(name, target, taken_by)
        _explain_problems(claimants)
    show(
        as_json,
        (_facts(model, reason, taken_by, order) for model, reason in ranked),
        (_row(model, reason, order) for model, reason in ranked),
        optional=_OPTIONAL,
    )


def _explain(name: str, target: str, taken_by: str | None) -> None:
    """Says if the name is an alias of the user's, or the name of another plugin's model."""
    if target != name:
        say(f"{name} is your alias for {target}; `llm aliases` lists them.", err=True)
    elif taken_by is not None:
        say(f"{name} is the name of {taken_by}, a model of another plugin.", err=True)
    if taken_by is not None:
        say(
            f"`llm -m {shlex.quote(name)}` runs that model. Without it, the name would mean the"
            " first of these:",
            err=True,
        )


def _explain_problems(claimants: Sequence[LocalModel]) -> None:
    """Says which of the models llm cannot run, or have a file that cannot be loaded, and why."""
    failed_loads = FailedLoads()
    for model in claimants:
        if not model.has_command:
            say(f"{model.id} is {WHAT_IT_IS[model.purpose]}: {NO_COMMAND}", err=True)
        if model.on_disk and (problem := failed_loads.problem_of(model.on_disk)):
            say(f"{model.on_disk.path}: {problem}", err=True)


def _taken_by(name: str, first: LocalModel) -> str | None:
    """The id of the model that llm runs as `name`; None if that is `first`."""
    models = (
        llm.get_embedding_model_aliases if first.purpose == "embedding" else llm.get_model_aliases
    )
    try:
        model_id: str | None = getattr(models().get(name), "model_id", None)
    except (ValueError, AttributeError):
        # llm 0.36 raises these for an aliases.json that is not a JSON object.
        return None
    return None if model_id == first.id else model_id


def _reasons(name: str, claimants: Sequence[LocalModel], order: Order) -> list[str]:
    """Why each model ranks before the next one."""
    reasons = [reason_before(first, second, order) for first, second in pairwise(claimants)]
    only = "the file at this path" if is_path(name) else "no other model has this name"
    reasons.append("last" if reasons else only)
    obstacles = map(order.obstacle, claimants)
    return [", but ".join(filter(None, pair)) for pair in zip(reasons, obstacles, strict=True)]


def _facts(model: LocalModel, reason: str, taken_by: str | None, order: Order) -> dict[str, Any]:
    return {
        "id": model.id,
        "purpose": model.purpose,
        "reason": reason,
        "runs_on": model.runs_on,
        "loaded": model.loaded,
        "fits": order.fits(model),
        "obstacle": order.obstacle(model),
        "parameters": parameters_of(model),
        "quantization": model.quantization,
        "size": model.size,
        "taken_by": taken_by,
    }


def _row(model: LocalModel, reason: str, order: Order) -> dict[str, str]:
    return {
        "model": model.id,
        "reason for its rank": reason,
        "params": count_text(parameters_of(model)),
        "quant": model.quantization,
        "size": size_text(model.size),
        "loaded": "yes" if model.loaded else "",
        "fits": "" if order.fits(model) else "no",
    }
