"""Ollama, by its own API: a list, what is loaded of it, and what each model can do.

Pure. Source: `api/types.go` and `server/routes.go` (0.32).
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llm_localrun.models import Endpoint, LocalModel, RunsOn
from llm_localrun.privacy import host_of, where_ollama_runs
from llm_localrun.servers.reading import (
    Asked,
    Facts,
    Found,
    Maybe,
    Reading,
    ask,
    served,
    version_at,
    weights_in,
)
from llm_localrun.wire.response import Answer, OutOfTime, Question, read
from llm_localrun.wire.shapes import Count, Text, WireModel


class _Details(WireModel):
    family: Maybe[Text] = None
    parameter_size: Maybe[Text] = None
    quantization_level: Maybe[Text] = None
    context_length: Maybe[Count] = None
    """Since 0.30."""


class _Tag(WireModel):
    name: Text
    digest: Text
    size: Maybe[Count] = None
    modified_at: Maybe[datetime] = None
    details: Maybe[_Details] = None
    capabilities: Maybe[tuple[Text, ...]] = None
    remote_host: Maybe[Text] = None


class _Tags(WireModel):
    models: tuple[_Tag, ...]


class _Running(WireModel):
    name: Text
    context_length: Maybe[Count] = None
    """What is allocated, since 0.10."""


class _Processes(WireModel):
    models: tuple[_Running, ...]


class _Show(WireModel):
    capabilities: Maybe[tuple[Text, ...]] = None
    """Since 0.6.4. What chat goes by: /api/tags overlooks what a Jinja template can do (0.32)."""
    model_info: Maybe[dict[str, Any]] = None


@dataclass(frozen=True, slots=True)
class _Shown:
    """What /api/show has said of a version of a model, which does not change."""

    capabilities: tuple[str, ...] | None
    context_max: int | None


def read_ollama(asked: Asked, _: Answer) -> Reading:
    """The models of an Ollama. What is known already is not asked anew."""
    tags = read(_Tags, (yield Question("/api/tags")))
    if tags is None:
        return None
    processes = yield from ask("/api/ps", _Processes)
    running = {each.name: each for each in processes.models} if processes else None
    version = yield from version_at("/api/version", asked)
    shown = {
        model.digest: _Shown(model.capabilities, model.context_max)
        for model in asked.known
        if model.digest
    }
    try:
        for tag in tags.models:
            if tag.digest not in shown and not tag.remote_host:
                shown[tag.digest] = yield from _show(tag)
    except OutOfTime:
        # What has not been asked about is found out the next time.
        pass
    models = (_model(asked.endpoint, tag, shown.get(tag.digest), running) for tag in tags.models)
    return Found(tuple(models), version)


def _show(tag: _Tag) -> Generator[Question, Answer, _Shown]:
    show = read(_Show, (yield Question("/api/show", {"model": tag.name})))
    if show is None:
        return _Shown(tag.capabilities, None)
    return _Shown(show.capabilities, _trained_context(show.model_info or {}))


def _trained_context(info: Mapping[str, Any]) -> int | None:
    size = info.get(f"{info.get('general.architecture')}.context_length")
    return size if isinstance(size, int) and 0 < size < 2**63 else None


def _model(
    endpoint: Endpoint, tag: _Tag, shown: _Shown | None, running: Mapping[str, _Running] | None
) -> LocalModel:
    details = tag.details or _Details()
    capabilities = tag.capabilities if shown is None else shown.capabilities
    thinks = capabilities is None or "thinking" in capabilities
    quantization = details.quantization_level or ""
    facts: Facts = {
        **_place(endpoint, tag),
        **_load(tag, running),
        "purpose": "embedding" if "embedding" in (capabilities or ()) else "chat",
        "architecture": details.family or "",
        "quantization": "" if quantization == RunsOn.UNKNOWN else quantization,
        "parameters": weights_in(details.parameter_size or ""),
        "size": tag.size,
        "context_max": details.context_length or (shown and shown.context_max),
        "modified": tag.modified_at.timestamp() if tag.modified_at else 0.0,
        "capabilities": capabilities,
        "think_levels": None if thinks else ("off",),
        "digest": tag.digest if shown is not None else "",
        "fingerprints": (f"ollama:{tag.digest}",),
    }
    return served(endpoint, tag.name, facts)


def _place(endpoint: Endpoint, tag: _Tag) -> Facts:
    runs_on = where_ollama_runs(endpoint.url, tag.name, tag.remote_host or "")
    if runs_on != RunsOn.CLOUD:
        return {}
    return {"runs_on": runs_on, "remote_host": host_of(tag.remote_host or "") or "ollama.com"}


def _load(tag: _Tag, running: Mapping[str, _Running] | None) -> Facts:
    """Whether it is loaded, unless /api/ps did not say; a stub never is."""
    if running is None:
        return {}
    process = running.get(tag.name)
    return {"loaded": process is not None, "context_loaded": process and process.context_length}
