"""List every model that can run on this machine.

\b
Example:
  llm localrun models
"""

from collections.abc import Sequence

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.facts import Names, abilities, model_facts, names_of
from llm_localrun.cli.table import count_text, json_option, show, show_notes, size_text, tokens_text
from llm_localrun.config import Config, read_config
from llm_localrun.models import PURPOSES, EndpointReport, LocalModel, Snapshot
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import Order, ordered, parameters_of, short_name
from llm_localrun.privacy import requires_consent
from llm_localrun.recommended.advice import PULL_STARTER
from llm_localrun.resolve import NO_COMMAND, describe_unheard, order_of, unheard_reports
from llm_localrun.system.program import quoted

_OPTIONAL = ("params", "trained", "fits", "id")
"""Columns that a narrow terminal leaves out, the last one first."""


@click.command(help=__doc__)
@json_option
def models(as_json: bool) -> None:
    snapshot = get_catalogue(CachePolicy.FRESH)
    found, config = snapshot.models, read_config()
    order = order_of(config, snapshot)
    names = names_of(found, order)
    best_first = ordered(found, order)
    chat_first = sorted(best_first, key=lambda model: PURPOSES.index(model.purpose))
    show(
        as_json,
        (model_facts(model, names, order) for model in best_first),
        (_row(model, names, order) for model in chat_first),
        optional=_OPTIONAL,
        if_empty=_if_empty(snapshot),
    )
    if not as_json:
        show_notes(_notes(found, config, order, snapshot.slow_reports))


def _row(model: LocalModel, names: Names, order: Order) -> dict[str, str]:
    return {
        "name": short_name(model, names[model.purpose]),
        "params": count_text(parameters_of(model)),
        "size": size_text(model.size),
        "quant": model.quantization,
        "ctx": tokens_text(model.context_loaded or model.context_default or model.context_max),
        "trained": tokens_text(model.context_max),
        "fits": "" if order.fits(model) else "no",
        "can": " ".join(abilities(model)),
        "where": f"{_where(model)}*" if model.loaded else _where(model),
        "id": model.id,
    }


def _where(model: LocalModel) -> str:
    """The server or remote host that runs the model; "file" if the engine runs it, or cannot."""
    if model.served is None:
        return "damaged" if model.problem else "file"
    if requires_consent(model):
        return model.runs_on
    return model.remote_host or model.served.endpoint.name


def _if_empty(snapshot: Snapshot) -> str:
    """What to say instead of a table without rows."""
    if unheard := unheard_reports(snapshot, is_empty=True):
        return f"No model is known yet: {describe_unheard(unheard)}."
    return f"No model was found. Get a small one: {PULL_STARTER}"


def _notes(
    found: Sequence[LocalModel], config: Config, order: Order, slow: Sequence[EndpointReport]
) -> list[str]:
    """Explanations of marks in the table, and of what may be missing from it."""
    notes = ["* loaded now"] if any(model.loaded for model in found) else []
    if any(not model.has_command for model in found):
        notes.append(f"rerank, decide, other: {NO_COMMAND}")
    if any(model.problem for model in found):
        notes.append("damaged: a file that cannot be loaded; see `llm localrun doctor`")
    variants = (model for model in found if model.variant_of)
    notes += (f"{model.id}: another variant of {model.variant_of}" for model in variants)
    obstacles = [(_where(model), order.obstacle(model)) for model in found if model.served]
    if stuck := dict.fromkeys(f"{where} ({why})" for where, why in obstacles if why):
        notes.append(f"cannot run now: {', '.join(stuck)}; see `llm localrun doctor`")
    if slow:
        notes.append(f"no answer yet: {describe_unheard(slow)}")
    refused = [m for m in found if requires_consent(m) and m.id not in config.allow]
    if refused:
        notes.append(
            f"{len(refused)} may leave this machine (cloud, unknown):"
            f" refused until you `{quoted('llm', 'localrun', 'allow', refused[0].id)}`"
        )
    return notes
