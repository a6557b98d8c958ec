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

import click

from llm_localrun.catalogue import get_catalogue, model_at
from llm_localrun.config import Config, read_config
from llm_localrun.errors import ConfigError, UnknownModel
from llm_localrun.memory import machine
from llm_localrun.memory.fit import fit_of_model
from llm_localrun.models import Endpoint, LocalModel, OnDisk, Route, ServerStatus, Snapshot
from llm_localrun.name_cache import CachePolicy, is_path
from llm_localrun.names.aliases import Order, name_models, nearest, ordered, siblings
from llm_localrun.names.quantizations import canonical, quality, quantization_in
from llm_localrun.system.json_files import list_at, read_json, text_at
from llm_localrun.system.paths import models_folder


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
    if is_path(name):
        return [model_at(Path(os.path.expanduser(name)))]  # noqa: PTH111  # the other raises
    named = {
        **name_models(models, order, "embedding"),
        **name_models(models, order, "chat"),
        **{model.on_disk.id: [model] for model in models if model.on_disk and model.on_disk.id},
        **{model.id: [model] for model in models},
    }
    if name in named:
        return named[name]
    raise unknown_model(name, list(named))


def model_with_id(model_id: str) -> LocalModel:
    """The model with this id. Raises `UnknownModel` if it no longer exists."""
    for policy in (CachePolicy.CACHED, CachePolicy.RETRY):
        by_id = {model.id: model for model in get_catalogue(policy).models}
        if model_id in by_id:
            return by_id[model_id]
    raise unknown_model(model_id, list(by_id))


def choose_route(model: LocalModel, options: Mapping[str, Any]) -> tuple[LocalModel, Route]:
    """The variant of `model` that the options ask for, and the route by which to run it.

    The server is preferred if it accepts connections; otherwise the file is used, if there is one.
    Raises `ConfigError` if there is no such variant.
    """
    variant = resolve_variant(model, options)
    served, on_disk = variant.served, variant.on_disk
    if served is None or on_disk is None:
        return variant, variant.routes[0]
    if _is_reachable(served.endpoint):
        return variant, served
    from llm_localrun.servers.base import server_class

    _warn_once(
        f"{server_class(served.endpoint.kind).title} does not answer at {served.endpoint.url}:"
        f" running {on_disk.path} directly."
    )
    return variant, on_disk


def _is_reachable(endpoint: Endpoint) -> bool:
    """Whether a server accepts connections and did not time out when it was last asked."""
    from llm_localrun.wire import http

    reports = get_catalogue(CachePolicy.CACHED).endpoints
    last = next((report.status for report in reports if report.endpoint == endpoint), None)
    return last != ServerStatus.TIMEOUT and http.is_listening(endpoint.url)


_warnings: set[str] = set()


def _warn_once(message: str) -> None:
    """Writes `message` to standard error, once in a process."""
    if message not in _warnings:
        _warnings.add(message)
        click.echo(message, err=True)


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


def unknown_model(name: str, known: Sequence[str]) -> UnknownModel:
    """The error for a `name` that no model has; it suggests the most similar `known` names."""
    if not known:
        return UnknownModel(
            "No local model was found on this machine",
            "Get a small one with `llm localrun pull starter`, or start LM Studio or Ollama",
        )
    similar = nearest(name, known) or sorted(known, key=len)[:3]
    return UnknownModel(
        f"No local model is called '{name}'",
        f"Nearest: {', '.join(similar)}. `llm localrun models` lists all",
    )


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
    sources = [each for each in (model, *others) if each.on_disk and each.quantization in _SOURCES]
    if sources and wanted not in _SOURCES and quality(wanted) >= 0:
        return f"Make it with `llm localrun quantize {shlex.quote(sources[0].id)} {wanted}`"
    if arguments := _pull_arguments(model, wanted):
        return f"Try `llm localrun pull {arguments}`"
    return "Get another file of this model, and run it by its path"


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
