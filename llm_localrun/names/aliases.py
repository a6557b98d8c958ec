"""The names under which llm knows a model: its aliases, and the order of those who share one.

Pure. An alias goes to the first model in the order of `CRITERIA`.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from llm_localrun.models import LocalModel, Purpose, RunsOn
from llm_localrun.name_cache import Offer
from llm_localrun.names.parse import MadeFor, parse_name
from llm_localrun.names.quantizations import quality_distance

_PURPOSES: tuple[Purpose, ...] = ("chat", "embedding")
_GENERAL = {"chat": "local", "embedding": "local-embed"}


def aliases_of(model: LocalModel) -> list[str]:
    """Every alias that `model` can claim, from specific to general."""
    specific = reversed(_specific(model))
    names = (f"local-{name}" for name in parse_name(model.name).names)
    return list(dict.fromkeys([*specific, *names, _GENERAL[model.purpose]]))


def _specific(model: LocalModel) -> tuple[str, str, str]:
    """The whole name of `model`; with its quantization; with its source as well."""
    name = f"local-{parse_name(model.name).names[0]}"
    quantized = f"{name}{_ending(model.quantization)}"
    source = model.id.partition("/")[2].partition("/")[0]
    return name, quantized, f"{quantized}{_ending(source)}"


def _ending(text: str) -> str:
    return "".join(f"-{part}" for part in re.findall(r"[a-z0-9]+", text.lower()))


def parameters_of(model: LocalModel) -> int | None:
    """How many weights `model` has, by its server or header, else by its name."""
    return model.parameters or parse_name(model.name).parameters


@dataclass(frozen=True, slots=True)
class Order:
    """What the order of candidates depends on besides the models themselves."""

    fits: Callable[[LocalModel], bool]
    """Whether a model fits into the memory of this machine."""
    quantization: str
    """The one that the user prefers."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One step of the order: the smaller `rank` comes first, and `reason` says why it did.

    `shows` is what there is to say of one model in this respect, if anything.
    """

    reason: str
    rank: Callable[[LocalModel, Order], float | str]
    shows: Callable[[LocalModel], str] = lambda _: ""


# What a model for each purpose may be made for and still be none that serves the purpose.
_UNFIT: dict[Purpose, frozenset[MadeFor]] = {
    "chat": frozenset({"completion", "ranking", "moderation"}),
    "embedding": frozenset({"ranking"}),
}
_SPECIALTIES: frozenset[MadeFor] = frozenset({"code", "pictures", "mathematics"})


def _unfit(model: LocalModel) -> str:
    made_for = parse_name(model.name).made_for
    return f"for {made_for}" if made_for in _UNFIT[model.purpose] else ""


def _counted_parameters(model: LocalModel) -> float:
    """Half the parameters, where they were trained for one task.

    Of a family's coder and its model for everything, nearly as large, the latter is what most
    people mean; but a large coder is still better at everything than a tiny model.
    """
    is_special = parse_name(model.name).made_for in _SPECIALTIES
    return (parameters_of(model) or 0) / (2 if is_special else 1)


def _shown_parameters(model: LocalModel) -> str:
    count, made_for = parameters_of(model), parse_name(model.name).made_for
    if count is None:
        return RunsOn.UNKNOWN
    size = f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"
    return f"{size} for {made_for}, half of which count" if made_for in _SPECIALTIES else size


CRITERIA = (
    Criterion("runs on this machine", lambda m, _: m.runs_on != RunsOn.THIS_MACHINE),
    Criterion("meant for this use", lambda m, _: bool(_unfit(m)), _unfit),
    Criterion("loaded now", lambda m, _: not m.loaded),
    Criterion("fits in memory", lambda m, order: not order.fits(m)),
    Criterion("more parameters", lambda m, _: -_counted_parameters(m), _shown_parameters),
    Criterion(
        "quantization nearest the preferred one",
        lambda m, order: quality_distance(m.quantization, order.quantization),
        lambda m: m.quantization or RunsOn.UNKNOWN,
    ),
    Criterion("newer", lambda m, _: -m.modified),
    Criterion("first by name", lambda m, _: m.id),
)


def ordered(models: Iterable[LocalModel], order: Order) -> list[LocalModel]:
    """`models`, the best first."""
    return sorted(models, key=lambda model: [c.rank(model, order) for c in CRITERIA])


def reason_before(first: LocalModel, second: LocalModel, order: Order) -> str:
    """Why `first` comes before `second`: "more parameters (8B; the next: 4B)"."""
    for criterion in CRITERIA:
        if criterion.rank(first, order) != criterion.rank(second, order):
            shown = criterion.shows(first), criterion.shows(second)
            told = "; the next: ".join(shown).removeprefix("; ")
            return f"{criterion.reason} ({told})" if any(shown) else criterion.reason
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

    Base and size do, where no other model has them; else all words do, then the quantization and
    the source.
    """
    parsed = parse_name(model.name)
    plain = "-".join(filter(None, ("local", parsed.base, parsed.size)))
    first, *others = named.get(plain, [model])
    if first.id == model.id and len(siblings(model, others)) == len(others):
        return plain
    own = (alias for alias in _specific(model) if named[alias][0].id == model.id)
    return next(own, model.id)


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


def make_offers(models: Collection[LocalModel], order: Order) -> list[Offer]:
    """Every one of `models` with the names that it is the first to claim."""
    aliases: dict[str, list[str]] = {model.id: [] for model in models}
    for purpose in _PURPOSES:
        for alias, claimants in name_models(models, order, purpose).items():
            aliases[claimants[0].id].append(alias)
    return [
        Offer(
            id=model.id,
            purpose=model.purpose,
            aliases=[*aliases[model.id], *filter(None, [model.file_id])],
            capabilities=None if model.capabilities is None else [*model.capabilities],
        )
        for model in models
    ]
