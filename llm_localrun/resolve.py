"""A name to a `LocalModel`: ids, aliases and paths, or the nearest names if there is none."""

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
from llm_localrun.models import Endpoint, LocalModel, OnDisk, ServerStatus
from llm_localrun.name_cache import CachePolicy, is_path
from llm_localrun.names.aliases import Order, name_models, nearest, ordered, siblings
from llm_localrun.names.quantizations import canonical, quality, quantization_in
from llm_localrun.servers.kinds import kind_of
from llm_localrun.system.json_files import list_at, read_json, text_at
from llm_localrun.system.paths import models_folder


def order_of(config: Config) -> Order:
    """The order of candidates on this machine, by the user's preferences."""
    memory = machine.physical_memory()
    return Order(lambda model: fit_of_model(model, memory).fits, config.quantization)


def candidates(name: str, models: Sequence[LocalModel], order: Order) -> list[LocalModel]:
    """The models that `name` may mean, the one that it does mean first.

    A path is remembered. Raises `UnknownModel` and `BadModelFile`.
    """
    if is_path(name):
        return [model_at(Path(os.path.expanduser(name)))]  # noqa: PTH111  # the other raises
    named = {
        **name_models(models, order, "embedding"),
        **name_models(models, order, "chat"),
        **{model.file_id: [model] for model in models if model.file_id},
        **{model.id: [model] for model in models},
    }
    if name in named:
        return named[name]
    raise unknown_model(name, list(named))


def by_id(model_id: str) -> LocalModel:
    """The model that llm's registry knows by this id. Raises `UnknownModel` if it has gone."""
    for refresh in (CachePolicy.CACHED, CachePolicy.RETRY):
        models = get_catalogue(refresh).models
        if found := next((model for model in models if model.id == model_id), None):
            return found
    raise unknown_model(model_id, [model.id for model in models])


def to_run(model: LocalModel, options: Mapping[str, Any]) -> LocalModel:
    """The variant of `model` that the options ask for, with the one way in which it is run.

    Its server is preferred while that answers; its file, if it has one, stands in. Raises
    `ConfigError` if there is no such variant.
    """
    chosen = variant(model, options)
    if chosen.endpoint is None or chosen.path is None:
        return chosen
    if _answers(chosen.endpoint):
        return chosen.model_copy(update={"routes": (chosen.served,)})
    _say_once(
        f"{kind_of(chosen.endpoint.kind).title} does not answer at {chosen.endpoint.url}:"
        f" running {chosen.path} directly."
    )
    return chosen.model_copy(update={"routes": (chosen.on_disk,)})


def _answers(endpoint: Endpoint) -> bool:
    """Whether a server is there, and did not hang when it was last asked."""
    from llm_localrun.wire import http

    reports = get_catalogue(CachePolicy.CACHED).endpoints
    last = next((report.status for report in reports if report.endpoint == endpoint), None)
    return last != ServerStatus.TIMEOUT and http.is_listening(endpoint.url)


_said: set[str] = set()


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        click.echo(message, err=True)


def variant(model: LocalModel, options: Mapping[str, Any]) -> LocalModel:
    """The variant of `model` in the quantization that the options ask for, if they do.

    Raises `ConfigError` if there is none.
    """
    wanted = canonical(options.get("quantization") or model.quantization)
    if model.quantization.upper() == wanted:
        return model
    others = siblings(model, get_catalogue(CachePolicy.IF_EMPTY).models)
    fitting = [other for other in others if other.quantization.upper() == wanted]
    if fitting:
        return ordered(fitting, order_of(read_config()))[0]
    present = sorted({other.quantization for other in (model, *others) if other.quantization})
    there = f"There is {', '.join(present)}. " if present else ""
    raise ConfigError(
        f"There is no {wanted} of {model.name} here",
        f"{there}{advice_for_variant(model, others, wanted)}",
    )


def unknown_model(name: str, known: Sequence[str]) -> UnknownModel:
    """What to say when nothing is called `name` but these names are `known`."""
    if not known:
        return UnknownModel(
            "No local model was found on this machine",
            "Get a small one with `llm localrun pull starter`, or start LM Studio or Ollama",
        )
    close = nearest(name, known) or sorted(known, key=len)[:3]
    return UnknownModel(
        f"No local model is called '{name}'",
        f"Nearest: {', '.join(close)}. `llm localrun models` lists all",
    )


_SOURCES = ("F32", "BF16", "F16")
"""Quantizations of which all others can be made without an additional loss."""
_HUB_CACHE_FOLDER = re.compile(r"models--(?P<owner>[^/\\]+?)--(?P<name>[^/\\]+)")
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
    from llm_localrun.servers.ollama_admin import tag_for

    kind = model.served.endpoint.kind if model.served else ""
    if kind == "ollama":
        return f"ollama:{tag_for(model.name, wanted)}"
    name = model.name.partition("@")[0]
    if kind == "lmstudio" and _OWNER_AND_NAME.fullmatch(name):
        return f"lmstudio:{name}@{wanted.lower()}"
    repository = _repository_of(model.on_disk) if model.on_disk else ""
    return f"{repository} -q {wanted}" if _OWNER_AND_NAME.fullmatch(repository) else ""


def _repository_of(on_disk: OnDisk) -> str:
    """The Hugging Face repository that a file is from, as OWNER/REPO; "" if it is not known."""
    if match := _HUB_CACHE_FOLDER.search(on_disk.path):
        return f"{match['owner']}/{match['name']}"
    if on_disk.store == "lmstudio":
        return "/".join(Path(on_disk.path).parts[-3:-1])
    for record in list_at(read_json(models_folder() / "pulled.json"), "pulled"):
        paths = (models_folder() / text_at(file, "path") for file in list_at(record, "files"))
        if on_disk.path in map(str, paths):
            match = _HUB_REF.match(text_at(record, "ref"))
            return match[1] if match else ""
    return ""
