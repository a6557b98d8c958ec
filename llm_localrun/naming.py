"""The names under which llm knows a model: its aliases, and the order of those who share one.

Pure. An alias goes to the first model in the order of `CRITERIA`.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from llm_localrun.catalogue import LocalModel, Purpose
from llm_localrun.gguf.names import quality_distance
from llm_localrun.memory import fits
from llm_localrun.model_names import parse_name


def aliases_of(model: LocalModel) -> list[str]:
    """Every alias that `model` can claim, from specific to general."""
    parsed = parse_name(model.name)
    full = "-".join(parsed.words)
    base = "-".join(parsed.base)
    quantization = re.sub(r"[^a-z0-9]+", "-", model.quantization.lower()).strip("-")
    names = [
        *(
            [f"{full}-{quantization}"]
            if quantization and not full.endswith(f"-{quantization}")
            else []
        ),
        full,
        *([f"{base}-{parsed.size}"] if parsed.size else []),
        base,
        parsed.family,
        *(["embed"] if model.purpose == "embedding" else []),
    ]
    aliases = [f"local-{name}" for name in dict.fromkeys(names)]
    return aliases if model.purpose == "embedding" else [*aliases, "local"]


def parameters_of(model: LocalModel) -> int | None:
    """How many weights `model` has, by its server or header, else by its name."""
    return model.parameters or parse_name(model.name).parameters


@dataclass(frozen=True, slots=True)
class Order:
    """What the order of candidates depends on beside the models: bytes of memory, a taste."""

    memory: int | None
    quantization: str


@dataclass(frozen=True, slots=True)
class Criterion:
    """One step of the order: the smaller `rank` comes first, and `reason` says why it did."""

    reason: str
    rank: Callable[[LocalModel, Order], float | str]


CRITERIA = (
    Criterion("runs on this machine", lambda m, _: m.runs_on != "this machine"),
    Criterion("loaded now", lambda m, _: not m.loaded),
    Criterion("fits in memory", lambda m, order: not fits(m.size, order.memory)),
    Criterion("more parameters", lambda m, _: -(parameters_of(m) or 0)),
    Criterion(
        "quantization nearest the preferred one",
        lambda m, order: quality_distance(m.quantization, order.quantization),
    ),
    Criterion("newer", lambda m, _: -m.modified),
    Criterion("first by name", lambda m, _: m.id),
)


def ordered(models: Iterable[LocalModel], order: Order) -> list[LocalModel]:
    """`models`, the best first."""
    return sorted(models, key=lambda model: [c.rank(model, order) for c in CRITERIA])


def reason_before(first: LocalModel, second: LocalModel, order: Order) -> str:
    """Why `first` comes before `second`."""
    for criterion in CRITERIA:
        if criterion.rank(first, order) != criterion.rank(second, order):
            return criterion.reason
    return ""


def name_models(
    models: Collection[LocalModel], order: Order, purpose: Purpose
) -> dict[str, list[LocalModel]]:
    """Every alias, with the models of `purpose` that can claim it, the best first."""
    named: dict[str, list[LocalModel]] = {}
    for model in ordered((m for m in models if m.purpose == purpose), order):
        for alias in aliases_of(model):
            named.setdefault(alias, []).append(model)
    return named


def short_name(model: LocalModel, named: Mapping[str, list[LocalModel]]) -> str:
    """The name to type for `model`: as short as still says which model it is.

    Base and size do, where no other model has them; else all words do, then the quantization.
    """
    parsed = parse_name(model.name)
    plain = "-".join(("local", *parsed.base, *filter(None, [parsed.size])))
    first, *others = named[plain]
    if first == model and len(siblings(model, others)) == len(others):
        return plain
    own = [alias for alias in aliases_of(model) if named[alias][0] == model]
    telling = [alias for alias in own if alias not in ("local", "local-embed")]
    unquantized = [
        a for a in telling if not a.endswith(model.quantization.lower().replace("_", "-"))
    ]
    return (unquantized or telling or [model.id])[0]


def siblings(model: LocalModel, models: Iterable[LocalModel]) -> list[LocalModel]:
    """The same model in another quantization, or at another place."""
    words = parse_name(model.name).words
    return [
        other
        for other in models
        if other.id != model.id
        and other.purpose == model.purpose
        and parse_name(other.name).words == words
    ]


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names in `known` that `name` may have been meant to be."""
    return difflib.get_close_matches(name, list(known), count, cutoff=0.5)
