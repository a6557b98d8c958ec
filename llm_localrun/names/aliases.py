"""The aliases of models, and the order of the models that can claim the same alias.

An alias belongs to the first model in the order of `CRITERIA`. Finding the model that a name
denotes is left to `resolve`, registering the names to `registration`.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from llm_localrun.models import NAMED_BY_PATH, PURPOSES, LocalModel, Purpose, RunsOn
from llm_localrun.name_cache import GENERAL_ALIASES, CachedName
from llm_localrun.names.parse import MadeFor, parse_name, path_parts
from llm_localrun.names.quantizations import quality_distance
from llm_localrun.system.text import MAX_ID, printable


def aliases_of(model: LocalModel) -> list[str]:
    """Every alias that `model` can claim, from specific to general.

    `["local-qwen3-8b-q4-k-m-ollama", "local-qwen3-8b-q4-k-m", "local-qwen3-8b", "local-qwen3",
    "local-qwen", "local"]` for `qwen3:8b` at Ollama. A file that was only named by its path can
    claim the first two, and only the first if its quantization is unknown. A model that llm has no
    command for has none, and neither has one that its server calls by a digest, or whose file
    cannot be loaded.
    """
    if not model.has_command or model.variant_of or model.problem:
        return []
    specific = reversed(_specific_aliases(model))
    if is_named_by_path(model):
        complete = _specific_aliases(model)[0]
        return [alias for alias in specific if alias != complete]
    names = (f"local-{name}" for name in parse_name(model.name).names)
    aliases = dict.fromkeys([*specific, *names, GENERAL_ALIASES[model.purpose]])
    return [alias for alias in aliases if len(alias) <= MAX_ID]


def _specific_aliases(model: LocalModel) -> tuple[str, str, str]:
    """The complete name; with the quantization; with the source (server or "gguf") as well."""
    name = f"local-{parse_name(model.name).names[0]}"
    quantized = f"{name}{_suffix(model.quantization)}"
    source = model.id.partition("/")[2].partition("/")[0]
    return name, quantized, f"{quantized}{_suffix(source)}"


def is_named_by_path(model: LocalModel) -> bool:
    """Whether it is a file in no store, which is known because a user has run it by its path."""
    file = model.on_disk
    return model.served is None and file is not None and file.store == NAMED_BY_PATH


def _suffix(text: str) -> str:
    """`-q4-k-m` for `Q4_K_M`."""
    return "".join(f"-{part}" for part in re.findall(r"[a-z0-9]+", text.lower()))


def ids_of(model: LocalModel) -> list[str]:
    """What else than its id denotes just `model`: the id of its file, and ids without a tag.

    `latest` is the tag that Ollama and Docker add to a name that has none. A model that its server
    calls by a path has that name too, unless it is that of a file, which can run without a server.
    """
    ids = [model.id, *([model.on_disk.id] if model.on_disk and model.on_disk.id else [])]
    untagged = (each.removesuffix(":latest") for each in ids if each.endswith(":latest"))
    paths: list[str] = []
    if model.served is not None and path_parts(model.name) and printable(model.name) == model.name:
        is_file = model.name.lower().endswith(".gguf")
        full = f"local/{model.served.endpoint.name}/{model.name}"
        paths = [full, *([] if is_file else [model.name])]
    return [*ids[1:], *untagged, *(path for path in paths if path != model.id)]


def parameters_of(model: LocalModel) -> int | None:
    """The number of weights of `model`: from its server or header, otherwise from its name."""
    return model.parameters or parse_name(model.name).parameters


@dataclass(frozen=True, slots=True)
class Order:
    """What the order of candidates depends on besides the models themselves."""

    fits: Callable[[LocalModel], bool]
    """Whether a model fits into the memory of this machine."""
    quantization: str
    """The one that the user prefers."""
    obstacle: Callable[[LocalModel], str] = lambda _: ""
    """Why a model cannot run now: "its server is off"; "" if it can."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One step of the order. The model with the smaller `rank` comes first."""

    reason: str
    """Why it comes first: "more parameters"."""
    rank: Callable[[LocalModel, Order], float | str]
    detail: Callable[[LocalModel, Order], str] = lambda _, __: ""
    """The value of a model, for people: "8B"; "" if `reason` says enough."""


_UNSUITABLE: frozenset[MadeFor] = frozenset({"completion", "moderation"})
"""Models that can chat technically, but were made for something else."""
_SPECIALTIES: frozenset[MadeFor] = frozenset({"code", "pictures", "mathematics"})


def _other_use(model: LocalModel, _: Order) -> str:
    """`for completion` if that makes `model` unsuitable for its purpose; otherwise ""."""
    made_for = parse_name(model.name).made_for
    return f"for {made_for}" if model.purpose == "chat" and made_for in _UNSUITABLE else ""


def _effective_parameters(model: LocalModel) -> float:
    """The number of weights; half of it for a model made for one task.

    Of a coder and a general model of similar size, most people mean the general one. But a large
    coder is better at everything than a tiny general model.
    """
    is_special = parse_name(model.name).made_for in _SPECIALTIES
    return (parameters_of(model) or 0) / (2 if is_special else 1)


def _parameters_detail(model: LocalModel, _: Order) -> str:
    count, made_for = parameters_of(model), parse_name(model.name).made_for
    if count is None:
        return "unknown"
    size = f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"
    return f"{size} for {made_for}, half of which count" if made_for in _SPECIALTIES else size


CRITERIA = (
    Criterion(
        "can run now", lambda m, order: bool(order.obstacle(m)), lambda m, order: order.obstacle(m)
    ),
    Criterion(
        "found by searching",
        lambda m, _: is_named_by_path(m),
        lambda m, _: "only run by its path" if is_named_by_path(m) else "",
    ),
    Criterion("runs on this machine", lambda m, _: m.runs_on != RunsOn.THIS_MACHINE),
    Criterion("meant for this use", lambda m, order: bool(_other_use(m, order)), _other_use),
    Criterion("loaded now", lambda m, _: not m.loaded),
    Criterion("fits in memory", lambda m, order: not order.fits(m)),
    Criterion("more parameters", lambda m, _: -_effective_parameters(m), _parameters_detail),
    Criterion(
        "quantization nearest the preferred one",
        lambda m, order: quality_distance(m.quantization, order.quantization),
        lambda m, _: m.quantization or "unknown",
    ),
    Criterion("newer", lambda m, _: -m.modified),
    Criterion("first by name", lambda m, _: m.id),
)


def ordered(models: Iterable[LocalModel], order: Order) -> list[LocalModel]:
    """`models`, best first."""
    return sorted(models, key=lambda model: [c.rank(model, order) for c in CRITERIA])


def reason_before(first: LocalModel, second: LocalModel, order: Order) -> str:
    """Why `first` comes before `second`: "more parameters (8B; the next: 4B)"."""
    for criterion in CRITERIA:
        if criterion.rank(first, order) != criterion.rank(second, order):
            details = criterion.detail(first, order), criterion.detail(second, order)
            comparison = "; the next: ".join(details).removeprefix("; ")
            return f"{criterion.reason} ({comparison})" if any(details) else criterion.reason
    return ""


def name_models(
    models: Collection[LocalModel], order: Order, purpose: Purpose
) -> dict[str, list[LocalModel]]:
    """Every alias with the models of `purpose` that can claim it, best first."""
    named: dict[str, list[LocalModel]] = {}
    for model in ordered((m for m in models if m.purpose == purpose), order):
        for alias in aliases_of(model):
            named.setdefault(alias, []).append(model)
    return named


def short_name(model: LocalModel, named: Mapping[str, list[LocalModel]]) -> str:
    """The shortest name that still says which model it is, in `named` as `name_models` returns it.

    That is base and size (`local-qwen3-8b`) if all models that can claim it are variants of this
    one; otherwise the complete name, then with its quantization, then with its source.
    """
    parsed = parse_name(model.name)
    plain = "-".join(filter(None, ("local", parsed.base, parsed.size)))
    first, *others = named.get(plain, [model])
    is_plain = plain in aliases_of(model) and first.id == model.id
    if is_plain and len(siblings(model, others)) == len(others):
        return plain
    for alias in _specific_aliases(model):
        if alias in named and named[alias][0].id == model.id:
            return alias
    return model.id


def siblings(model: LocalModel, models: Iterable[LocalModel]) -> list[LocalModel]:
    """The variants of `model` that can be loaded: other quantizations, and other sources."""

    def words(model: LocalModel) -> object:
        return parse_name(model.variant_of or model.name).words

    return [
        other
        for other in models
        if other.id != model.id
        and other.purpose == model.purpose
        and not other.problem
        and words(other) == words(model)
    ]


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The `known` names most similar to `name`, at most `count`."""
    return difflib.get_close_matches(name, list(known), count, cutoff=0.5)


def make_names(models: Collection[LocalModel], order: Order) -> list[CachedName]:
    """All of `models`, each with the aliases for which it is the best candidate."""
    aliases: dict[str, list[str]] = {model.id: [] for model in models}
    for purpose in PURPOSES:
        for alias, claimants in name_models(models, order, purpose).items():
            aliases[claimants[0].id].append(alias)
    for model in models:
        aliases[model.id] += (name for name in ids_of(model) if name not in aliases)
    return [
        CachedName(
            id=model.id,
            purpose=model.purpose,
            aliases=aliases[model.id],
            capabilities=None if model.capabilities is None else [*model.capabilities],
        )
        for model in models
    ]
