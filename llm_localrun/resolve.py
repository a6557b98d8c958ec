"""Finds the model that a name denotes, and chooses the variant and the route to run it.

`names.aliases` makes the aliases and their order; `chat` runs the model. Every first command of llm
imports this module, so it imports `servers` and `files` only where a message needs them.
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_localrun.catalogue import describe_server, get_catalogue, model_at
from llm_localrun.config import Config, read_config
from llm_localrun.errors import ConfigError, UnknownModel
from llm_localrun.memory import machine
from llm_localrun.memory.fit import fit_of_model
from llm_localrun.models import (
    PURPOSES,
    EndpointReport,
    LocalModel,
    OnDisk,
    Purpose,
    Route,
    ServerStatus,
    Snapshot,
)
from llm_localrun.name_cache import CachePolicy, is_path, means_the_best, spelling_of
from llm_localrun.names.aliases import (
    Order,
    aliases_of,
    ids_of,
    name_models,
    nearest,
    ordered,
    siblings,
)
from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import canonical, quality, quantization_in
from llm_localrun.system.json_files import list_at, read_json, text_at
from llm_localrun.system.logins import shown_address
from llm_localrun.system.paths import models_folder
from llm_localrun.system.program import quoted
from llm_localrun.system.progress import tell


def order_of(config: Config, snapshot: Snapshot) -> Order:
    """The order of candidates on this machine, by the user's preferences and what can run now."""
    # Not with the other imports, because only a command that makes names needs it.
    from llm_localrun.files.failed_loads import FailedLoads

    memory = machine.physical_memory()
    status = {report.endpoint: report.status for report in snapshot.endpoints}
    failed_loads = FailedLoads()

    def obstacle(model: LocalModel) -> str:
        problems = [
            failed_loads.problem_of(route)
            if isinstance(route, OnDisk)
            else status.get(route.endpoint, ServerStatus.ANSWERS).obstacle
            for route in model.routes
        ]
        # What is after the colon is for `show` and `doctor`.
        return problems[0].partition(": ")[0] if all(problems) else ""

    return Order(lambda model: fit_of_model(model, memory).fits, config.quantization, obstacle)


def candidates(name: str, models: Sequence[LocalModel], order: Order) -> list[LocalModel]:
    """The models that `name` may denote, best first: by id, alias or path.

    A path becomes part of the catalogue. Raises `UnknownModel` and `BadModelFile`.
    """
    if found := _claimants(name, models, order):
        return found
    raise unknown_model(name, get_catalogue(CachePolicy.CACHED))


def _claimants(name: str, models: Sequence[LocalModel], order: Order) -> list[LocalModel]:
    """As `candidates`, but empty if no model has the name."""
    if is_path(name):
        path = Path(os.path.expanduser(name))  # noqa: PTH111  # the other raises
        # A server may call a model by a path of its own machine.
        served = [model for model in models if model.served and model.name == name]
        is_file = os.path.isfile(path)  # noqa: PTH113  # Path.is_file raises for a long name
        if "://" in name and not served and not is_file:
            raise UnknownModel(
                f"{shown_address(name)} is an address, not a model on this machine",
                "Download the file there with `llm localrun pull ADDRESS`",
            )
        return served if served and not is_file else [model_at(path)]
    named = {
        **name_models(models, order, "embedding"),
        **name_models(models, order, "chat"),
        **{each: [model] for model in models for each in ids_of(model)},
        **{model.id: [model] for model in models},
    }
    found = spelling_of(name, named)
    return named[found] if found else []


def model_with_id(model_id: str) -> LocalModel:
    """The model with this id. Raises `UnknownModel` if it no longer exists."""

    def find_in(snapshot: Snapshot) -> LocalModel | None:
        return next((model for model in snapshot.models if model.id == model_id), None)

    for policy in (CachePolicy.CACHED, CachePolicy.RETRY):
        found = get_catalogue(policy, lambda snapshot: find_in(snapshot) is not None)
        if (model := find_in(found)) is not None:
            return model
    raise unknown_model(model_id, found)


def choose_route(model: LocalModel, options: Mapping[str, Any]) -> tuple[LocalModel, Route]:
    """The variant of `model` that the options ask for, and the route by which to run it.

    The server is preferred if it accepts connections, however slow it is; otherwise the file is
    used, if there is one. Raises `ConfigError` if there is no such variant, and `BadModelFile` if
    its file cannot be loaded.
    """
    from llm_localrun.wire.http import is_listening

    variant = resolve_variant(model, options)
    served, on_disk = variant.served, variant.on_disk
    if variant.problem and on_disk is not None:
        from llm_localrun.files import open_file

        # Raises what is wrong with the file, unless it has been replaced since.
        open_file(Path(on_disk.path))
    if served is None or on_disk is None or is_listening(served.endpoint.url):
        return variant, variant.routes[0]
    from llm_localrun.servers.base import server_class

    _warn_once(
        f"{server_class(served.endpoint.kind).title} does not answer at {served.endpoint.address}:"
        f" running {on_disk.path} directly."
    )
    return variant, on_disk


_warnings: set[str] = set()


def _warn_once(message: str) -> None:
    """Writes `message` to standard error, once in a process."""
    if message not in _warnings:
        _warnings.add(message)
        tell(message)


def resolve_variant(model: LocalModel, options: Mapping[str, Any]) -> LocalModel:
    """`model`, or its variant in the quantization that the options ask for.

    Raises `ConfigError` if there is no such variant.
    """
    wanted = canonical(options.get("quantization") or model.quantization)
    if model.quantization.upper() == wanted:
        return model
    snapshot = get_catalogue(CachePolicy.IF_EMPTY)
    others = siblings(model, snapshot.models)
    matching = [other for other in others if other.quantization.upper() == wanted]
    if matching:
        return ordered(matching, order_of(read_config(), snapshot))[0]
    present = sorted({other.quantization for other in (model, *others) if other.quantization})
    there = f"There is {', '.join(present)}. " if present else ""
    raise ConfigError(
        f"There is no {wanted} of {model.name} here",
        f"{there}{advice_for_variant(model, others, wanted)}",
    )


def unknown_model(name: str, snapshot: Snapshot, purpose: Purpose | None = None) -> UnknownModel:
    """The error for a `name` that no model has, or none for `purpose`, if that is given."""
    order = order_of(read_config(), snapshot)
    names = {each: _names_for(each, snapshot.models, order) for each in PURPOSES}
    known = [each for kind, found in names.items() if purpose in (None, kind) for each in found]
    alike = [model for model in snapshot.models if _would_be_called(model, name)]
    if purpose is not None and (meant := [*_claimants(name, snapshot.models, order), *alike]):
        return UnknownModel(*_wrong_purpose(name, meant[0].purpose, purpose, known))
    damaged = [model for model in snapshot.models if model.problem and _was_called(model, name)]
    if nameless := [*alike, *damaged]:
        return UnknownModel(*_why_without_alias(name, nameless[0]))
    if unheard := unheard_reports(snapshot, is_empty=not known):
        return UnknownModel(
            f"No local model that is known by now is called '{name}': {describe_unheard(unheard)}",
            "Try again, or see what is known with `llm localrun models`",
        )
    if known:
        return UnknownModel(f"No local model is called '{name}'", _nearest(name, known, snapshot))
    if snapshot.models:
        what = "can chat" if purpose == "chat" else "embeds texts"
        there = ", ".join(model.id for model in snapshot.models[:3])
        return UnknownModel(
            f"No model on this machine {what}: there is only {there}", _how_to_get(purpose)
        )
    remedy = _how_to_get(purpose) if means_the_best(name) else _how_to_find(name)
    return UnknownModel("No local model was found on this machine", remedy)


def _would_be_called(model: LocalModel, name: str) -> bool:
    """Whether `name` would be an alias of `model`, if llm had a command for it."""
    parsed = parse_name(model.name)
    names = (parsed.names[0], parsed.base, f"{parsed.base}-{parsed.size}")
    return not model.has_command and name.lower() in (f"local-{each}" for each in names)


def _was_called(model: LocalModel, name: str) -> bool:
    """Whether `name` would be an alias of `model`, if its file could be loaded."""
    return name.lower() in aliases_of(model.model_copy(update={"routes": ()}))


def _why_without_alias(name: str, model: LocalModel) -> tuple[str, str]:
    """Why `name` does not mean `model`, and what to do."""
    if model.problem:
        check = f"check it with `llm localrun verify {shlex.quote(model.id)}`, or delete it"
        what = f"{name} would be {model.id}, whose file cannot be loaded: {model.problem}"
        return what, f"Download it again, {check}"
    what = f"{name} is {WHAT_IT_IS[model.purpose]}: {NO_COMMAND}, and no alias"
    return what, f"Use its id: {model.id}"


def _names_for(purpose: Purpose, models: Sequence[LocalModel], order: Order) -> list[str]:
    """Every name of the models for `purpose`, the most usual ones first."""
    ids = [model.id for model in models if model.purpose == purpose and not model.problem]
    return [*name_models(models, order, purpose), *ids]


WHAT_IT_IS: Mapping[Purpose, str] = {
    "chat": "a chat model",
    "embedding": "an embedding model",
    "rerank": "a reranking model",
    "decision": "a decision model",
    "other": "neither a chat model nor an embedding model",
}
NO_COMMAND = "llm has no command for such models"
_TO_CHAT, _TO_EMBED = "To chat: `llm -m local 'prompt'`", "Embed with `llm embed -m local-embed`"
_USES = {
    "chat": "To chat with it: `llm -m {} 'prompt'`",
    "embedding": "Embed with it: `llm embed -m {} -c 'text'`",
}


def _wrong_purpose(
    name: str, is_for: Purpose, purpose: Purpose, known: Sequence[str]
) -> tuple[str, str]:
    """What is wrong if `name` is a model for another purpose than `known` are, and what to do."""
    use = _USES.get(is_for, NO_COMMAND).format(shlex.quote(name))
    if purpose == "chat":
        cannot = "it cannot answer prompts"
        remedy = f"{use}. {_TO_CHAT if known else _how_to_get('chat')}"
    else:
        cannot = "it does not embed texts"
        remedy = f"{_TO_EMBED if known else _how_to_get('embedding')}. {use}"
    return f"{name} is {WHAT_IT_IS[is_for]}: {cannot}", remedy


def _how_to_get(purpose: Purpose | None) -> str:
    from llm_localrun.recommended.advice import how_to_get

    return how_to_get(purpose)


def how_to_use(ability: str, *arguments: str, without: str = "") -> str:
    """How to get an answer that needs an `ability`, with these `arguments` of `llm`.

    `without` is the id of a model that has been found to lack it.
    """
    from llm_localrun.recommended.advice import with_ability

    snapshot = get_catalogue(CachePolicy.CACHED)
    others = [model for model in snapshot.models if model.id != without]
    return with_ability(ability, others, order_of(read_config(), snapshot), arguments)


def unheard_reports(snapshot: Snapshot, *, is_empty: bool) -> list[EndpointReport]:
    """The servers that may have models that are not known.

    One that wants a key counts only if no model is known: then the user has to give it.
    """
    may_have_models = [ServerStatus.BUSY, ServerStatus.LOADING]
    if is_empty:
        may_have_models.append(ServerStatus.NEEDS_KEY)
    return [report for report in snapshot.endpoints if report.status in may_have_models]


def describe_unheard(reports: Sequence[EndpointReport]) -> str:
    """Why models of servers are not known: "Ollama at … accepts connections but did not …"."""
    return "; ".join(f"{describe_server(each)} {_state_of(each)}" for each in reports)


def _state_of(report: EndpointReport) -> str:
    if report.status is ServerStatus.LOADING:
        return "is loading its model"
    if report.status is ServerStatus.NEEDS_KEY:
        from llm_localrun.servers.base import refused_login

        if source := refused_login(report):
            return f"refuses the user and password in {source}"
        return f"needs a key (`llm keys set {report.endpoint.key_name}`)"
    within = f"within {report.waited_s:g} s" if report.waited_s else "yet"
    return f"accepts connections but did not answer {within}"


def _nearest(name: str, known: Sequence[str], snapshot: Snapshot) -> str:
    """The most similar names, and how to get what was asked for."""
    similar = nearest(name, known) or sorted(known, key=len)[:3]
    line = f"Nearest: {', '.join(similar)}"
    if ref := _ref_for(name, snapshot):
        return f"{line}. To get it, try `llm localrun pull {ref}`"
    return f"{line}. {_how_to_find(name)}"


def _how_to_find(name: str) -> str:
    from llm_localrun.recommended.advice import how_to_find

    return how_to_find("" if means_the_best(name) else _bare(name))


def _bare(name: str) -> str:
    """`name` without what only we put before it."""
    return name.rpartition("/")[2].lower().removeprefix("local-")


def _ref_for(name: str, snapshot: Snapshot) -> str:
    """What to pull for a name that nothing has: "ollama:qwen3:14b"; "" if that is unknown.

    A name without a source is looked for where a server that pulls models answers.
    """
    from llm_localrun.servers.base import server_kinds

    _, _, rest = name.partition("/")
    kind, _, model = rest.partition("/")
    parsed = parse_name(_bare(name))
    guess = ":".join(filter(None, (parsed.base, parsed.size)))
    if means_the_best(name):
        return ""
    answering = {report.endpoint.kind for report in snapshot.endpoints if report.is_kind_known}
    for each, cls in server_kinds().items():
        wanted = model if kind == each else guess * (not rest and each in answering)
        if wanted and cls.pull_names and cls.pull_names.fullmatch(wanted):
            return f"{each}:{wanted}"
    return ""


_SOURCES = ("F32", "BF16", "F16")
"""Quantizations of which all others can be made without an additional loss."""
_HUB_REF = re.compile(r"hf:([^/:@]+/[^/:@]+)")
_OWNER_AND_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def advice_for_variant(model: LocalModel, others: Sequence[LocalModel], wanted: str) -> str:
    """How to get `model` in the quantization `wanted`. `others` are its variants on this machine.

    Suggests a command only if the model's origin, or a file to quantize, is known.
    """
    if not quantization_in(wanted):
        return "Q4_K_M, Q8_0 and F16 are examples of quantizations"
    whole = [each for each in (model, *others) if each.on_disk and not each.on_disk.problem]
    sources = [each for each in whole if each.quantization in _SOURCES]
    if sources and wanted not in _SOURCES and quality(wanted) >= 0:
        return f"Make it with `llm localrun quantize {shlex.quote(sources[0].id)} {wanted}`"
    if arguments := _pull_arguments(model, wanted):
        return f"Try `llm localrun pull {arguments}`"
    words = filter(None, (parse_name(model.name).base, parse_name(model.name).size))
    return f"To look for another file of it: `{quoted('llm', 'localrun', 'search', *words)}`"


def _pull_arguments(model: LocalModel, wanted: str) -> str:
    """The arguments of `pull` for a variant; "" if the model's origin is not known."""
    from llm_localrun.servers.base import server_class

    kind = _kind_that_pulls(model.routes[0])
    if kind and (name := server_class(kind).pull_name(model.name, wanted)):
        return f"{kind}:{name}"
    repository = _repository_of(model.on_disk) if model.on_disk else ""
    return f"{repository} -q {wanted}" if _OWNER_AND_NAME.fullmatch(repository) else ""


def _kind_that_pulls(route: Route) -> str:
    """The kind of server that may pull models to where `route` has them; "" if none."""
    from llm_localrun.files import store_named

    return store_named(route.store).pulled_by if isinstance(route, OnDisk) else route.endpoint.kind


def _repository_of(on_disk: OnDisk) -> str:
    """The Hugging Face repository that a file is from, as OWNER/REPO; "" if it is not known."""
    from llm_localrun.files import store_named

    if repository := store_named(on_disk.store).repository_of(on_disk.path):
        return repository
    for record in list_at(read_json(models_folder() / "pulled.json"), "pulled"):
        paths = (models_folder() / text_at(file, "path") for file in list_at(record, "files"))
        if on_disk.path in map(str, paths):
            match = _HUB_REF.match(text_at(record, "ref"))
            return match[1] if match else ""
    return ""
