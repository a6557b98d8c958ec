"""`show`: the whole card of one model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.endpoints import STATUS
from llm_localrun.cli.models import Names, abilities, facts, names_of
from llm_localrun.cli.table import count_text, show_card, show_json, size_text, tokens_text
from llm_localrun.config import Config, read_config
from llm_localrun.errors import BadModelFile
from llm_localrun.gguf.header import Header, NotGGUF, read_header
from llm_localrun.memory import machine
from llm_localrun.memory.fit import default_setting, fit_of_model, footprint_of
from llm_localrun.models import LocalModel, RunsOn, Snapshot
from llm_localrun.names.aliases import Order, parameters_of, siblings
from llm_localrun.privacy import WHERE, requires_consent
from llm_localrun.resolve import candidates, order_of
from llm_localrun.servers.kinds import kind_of

_CONTEXTS = (4096, 32768)
"""Tokens: the card says how much memory the model needs with these and with its largest context."""


@dataclass(frozen=True, slots=True)
class _Card:
    """A model, and what else its card is made of."""

    model: LocalModel
    header: Header | None
    names: Names
    others: list[LocalModel]
    """The same model in another quantization, or at another place."""
    order: Order


@click.command()
@click.argument("name")
@click.option("--template", is_flag=True, help="Output the chat template that is in its file")
@click.option("json_", "--json", is_flag=True, help="Output JSON")
def show(name: str, template: bool, json_: bool) -> None:
    "Show all that is known of the model NAME"
    config = read_config()
    snapshot = get_catalogue()
    card = _card(name, snapshot, order_of(config))
    if template:
        click.echo(_template(card))
    elif json_:
        show_json(_as_json(card))
    else:
        show_card(_lines(card, snapshot, config))


def _card(name: str, snapshot: Snapshot, order: Order) -> _Card:
    model = candidates(name, snapshot.models, order)[0]
    return _Card(
        model,
        _header(model),
        names_of(snapshot.models, order),
        siblings(model, snapshot.models),
        order,
    )


def _header(model: LocalModel) -> Header | None:
    """The header of its file; None if it has none, or none that can be read."""
    if model.path is None:
        return None
    try:
        with Path(model.path).open("rb") as file:
            return read_header(file, os.fstat(file.fileno()).st_size)
    except (OSError, NotGGUF):
        return None


def _template(card: _Card) -> str:
    text = card.header.text("tokenizer.chat_template") if card.header else ""
    if not text:
        raise BadModelFile(
            f"There is no chat template of {card.model.id} to be read",
            "Its file holds none" if card.model.path else "Its server keeps that to itself",
        )
    return text


def _needs(model: LocalModel) -> dict[int, int]:
    """Bytes of memory by tokens of context; empty if the geometry of the model is unknown."""
    footprint = footprint_of(model)
    if footprint is None or footprint.geometry is None:
        return {}
    setting = default_setting(model.context_max, model.purpose)
    largest = setting.context_size
    sizes = sorted({min(size, largest) for size in (*_CONTEXTS, largest)})
    return {size: footprint.need(replace(setting, context_size=size)).total for size in sizes}


def _as_json(card: _Card) -> dict[str, Any]:
    memory = machine.physical_memory()
    return {
        **facts(card.model, card.names, card.order),
        "template": card.header and card.header.text("tokenizer.chat_template"),
        "memory_by_context": _needs(card.model),
        "memory": memory,
        "largest_context": fit_of_model(card.model, memory).context_size,
        "others": [facts(other, card.names, card.order) for other in card.others],
    }


def _lines(card: _Card, snapshot: Snapshot, config: Config) -> list[tuple[str, list[str]]]:
    """Labels, and the lines that stand beside each."""
    model = card.model
    known = facts(model, card.names, card.order)
    return [
        ("name", [known["short_name"]]),
        ("id", [model.id]),
        ("also called", [alias for alias in known["aliases"] if alias != known["short_name"]]),
        ("model", _one_line(_makeup(card))),
        ("size", _one_line([size_text(model.size), model.quantization])),
        ("can", _one_line(abilities(model))),
        ("-o think", _one_line(model.think_levels or ())),
        ("context", _one_line(_context(model))),
        ("runs", _ways(model, snapshot, config)),
        ("file", [model.path] if model.path else []),
        ("projector", [model.projector] if model.projector else []),
        ("template", _about_template(card)),
        ("memory", _memory(model)),
        ("also here", [_other(each) for each in card.others]),
    ]


def _one_line(parts: Sequence[str]) -> list[str]:
    return [", ".join(part for part in parts if part)]


def _makeup(card: _Card) -> list[str]:
    weights = count_text(parameters_of(card.model))
    parts = [card.model.architecture, weights and f"{weights} parameters"]
    if card.header is not None:
        for key, what in (("block_count", "layers"), ("expert_count", "experts")):
            number = card.header.of_architecture(key)
            parts += [f"{number} {what}"] if number else []
    return parts


def _context(model: LocalModel) -> list[str]:
    loaded, trained = model.context_loaded, model.context_max
    return [
        f"{loaded:,} tokens loaded" if loaded else "",
        f"{trained:,} trained" if trained else "",
    ]


def _ways(model: LocalModel, snapshot: Snapshot, config: Config) -> list[str]:
    """How it is run, the preferred way first."""
    lines = []
    if model.endpoint is not None:
        report = next(r for r in snapshot.endpoints if r.endpoint == model.endpoint)
        title = f"{kind_of(model.endpoint.kind).title} {report.version}".strip()
        loaded = ", loaded" if model.loaded else ""
        lines.append(f"by {title} at {model.endpoint.url} ({STATUS[report.status]}{loaded})")
        lines += _away(model, config)
    if model.path is not None:
        lines.append("out of its file" + (", if its server is off" if model.endpoint else ""))
    return lines


def _away(model: LocalModel, config: Config) -> list[str]:
    """Where its server runs it, if that is not here."""
    if model.runs_on == RunsOn.THIS_MACHINE:
        return []
    where = WHERE[model.runs_on]
    line = f"{where}: {model.remote_host}" if model.remote_host else where
    if not requires_consent(model):
        return [line]
    is_allowed = model.id in config.allow
    return [line, "you allow that" if is_allowed else "refused until you `llm localrun allow` it"]


def _about_template(card: _Card) -> list[str]:
    text = card.header.text("tokenizer.chat_template") if card.header else ""
    return [f"{len(text):,} characters, shown by --template"] if text else []


def _memory(model: LocalModel) -> list[str]:
    """What the model needs with some contexts, and whether and how it fits this machine."""
    memory = machine.physical_memory()
    if memory is None or footprint_of(model) is None:
        return []
    fit = fit_of_model(model, memory)
    lines = [
        f"{size_text(need)} with {tokens_text(size)} of context"
        + ("" if fit.fits_with(size) else ": does not fit")
        for size, need in _needs(model).items()
    ]
    verdict = f"{'fits into' if fit.fits else 'is too large for'} the {size_text(memory)} of"
    limit = f" with up to {fit.context_size:,} tokens of context" if fit.context_size else ""
    return [*lines, f"{verdict} this machine{limit}"]


def _other(model: LocalModel) -> str:
    return "  ".join([model.id, *_one_line([model.quantization, size_text(model.size)])])
