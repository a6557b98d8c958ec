"""LM Studio: /api/v1/models (since 0.4.0), else /api/v0/models (since 0.3.6), else names only.

Pure. Sources: LM Studio's REST API documentation (April 2026). It answers 200 to every path.
"""

import math
import re

from llm_localrun.models import Endpoint, LocalModel, Purpose
from llm_localrun.privacy import where_runs
from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import (
    Asked,
    Facts,
    Found,
    Maybe,
    Reading,
    able,
    served,
    weights_in,
)
from llm_localrun.wire.response import Answer, Question, read
from llm_localrun.wire.shapes import Count, Text, WireModel


class _Quantization(WireModel):
    name: Maybe[Text] = None


class _InstanceConfig(WireModel):
    context_length: Maybe[Count] = None


class _Instance(WireModel):
    id: Maybe[Text] = None
    config: Maybe[_InstanceConfig] = None


class _Reasoning(WireModel):
    allowed_options: Maybe[tuple[Text, ...]] = None


class _Capabilities(WireModel):
    vision: Maybe[bool] = None
    reasoning: Maybe[_Reasoning] = None


class _Model(WireModel):
    key: Text
    type: Text
    architecture: Maybe[Text] = None
    quantization: Maybe[_Quantization] = None
    size_bytes: Maybe[Count] = None
    params_string: Maybe[Text] = None
    loaded_instances: Maybe[tuple[_Instance, ...]] = None
    max_context_length: Maybe[Count] = None
    capabilities: Maybe[_Capabilities] = None
    variants: Maybe[tuple[Text, ...]] = None
    selected_variant: Maybe[Text] = None


class _Listing(WireModel):
    models: tuple[_Model, ...]


class _OldModel(WireModel):
    id: Text
    type: Text
    state: Text
    arch: Maybe[Text] = None
    quantization: Maybe[Text] = None
    max_context_length: Maybe[Count] = None
    loaded_context_length: Maybe[Count] = None


class _OldListing(WireModel):
    data: tuple[_OldModel, ...]


_PURPOSES: dict[str, Purpose] = {
    "llm": "chat",
    "vlm": "chat",
    "embedding": "embedding",
    "embeddings": "embedding",
}


def read_lmstudio(asked: Asked, answer: Answer) -> Reading:
    """The models of an LM Studio, whose list under /v1 is `answer` and has nothing but names."""
    endpoint = asked.endpoint
    if listing := read(_Listing, (yield Question("/api/v1/models"))):
        return Found(_once_each([m for model in listing.models for m in _models(endpoint, model)]))
    if old := read(_OldListing, (yield Question("/api/v0/models"))):
        return Found(_once_each([_old(endpoint, m) for m in old.data if m.type in _PURPOSES]))
    names = entries_in(answer, Entry)
    return Found(listed(endpoint, names)) if names else None


def _once_each(models: list[LocalModel]) -> tuple[LocalModel, ...]:
    """Each name once: linked devices may all have a model. The smallest context is what is sure."""
    by_name: dict[str, LocalModel] = {}
    for model in sorted(models, key=lambda model: model.context_loaded or math.inf):
        by_name.setdefault(model.name, model)
    return tuple(by_name[name] for name in dict.fromkeys(model.name for model in models))


def _models(endpoint: Endpoint, model: _Model) -> list[LocalModel]:
    """The model under its key, which means its selected variant, and its other variants."""
    if model.type not in _PURPOSES:
        return []
    facts = _facts(endpoint, model)
    return [
        served(endpoint, model.key, {**facts, **_selected(model), **_load(model, model.key)}),
        *(
            served(endpoint, name, {**facts, **_load(model, name), "quantization": _variant(name)})
            for name in _others(model)
        ),
    ]


def _others(model: _Model) -> list[str]:
    """The names of the variants that the key does not stand for."""
    variants = model.variants or ()
    selected = model.selected_variant or next(iter(variants), None)
    return [variant for variant in variants if variant != selected]


def _variant(name: str) -> str:
    """The quantization in `KEY@QUANTIZATION`, in capitals as the listing has it."""
    return name.rpartition("@")[2].upper()


def _facts(endpoint: Endpoint, model: _Model) -> Facts:
    capabilities = model.capabilities or _Capabilities()
    reasoning = capabilities.reasoning
    levels = reasoning.allowed_options if reasoning else None
    # Every chat model takes tools, trained for them or not; one without published settings for its
    # reasoning may think all the same.
    chats = _PURPOSES[model.type] == "chat"
    thinks = bool({*(levels or ())} - {"off"})
    return {
        "purpose": _PURPOSES[model.type],
        "architecture": model.architecture or "",
        "parameters": weights_in(model.params_string or ""),
        "context_max": model.max_context_length,
        "capabilities": able(tools=chats, vision=capabilities.vision, thinking=thinks),
        "think_levels": levels,
    }


def _selected(model: _Model) -> Facts:
    """What is told of the selected variant alone; by its size its file is recognised."""
    quantization = (model.quantization and model.quantization.name) or ""
    fingerprints = (
        (f"lmstudio:{model.size_bytes}:{quantization.upper()}",) if model.size_bytes else ()
    )
    return {"quantization": quantization, "size": model.size_bytes, "fingerprints": fingerprints}


def _load(model: _Model, name: str) -> Facts:
    """Whether the variant called `name` is loaded, and with how much context."""
    instances = [each for each in model.loaded_instances or () if _name_of(each, model) == name]
    contexts = [each.config.context_length or 0 for each in instances if each.config]
    return {"loaded": bool(instances), "context_loaded": max(contexts, default=0) or None}


def _name_of(instance: _Instance, model: _Model) -> str:
    """Under which name an instance is listed: `KEY@q8_0:2` is of `KEY@q8_0`; others of the key."""
    name = re.sub(r":\d+$", "", instance.id or "")
    return name if name in _others(model) else model.key


def _old(endpoint: Endpoint, model: _OldModel) -> LocalModel:
    facts: Facts = {
        # Before 0.4 there was no LM Link.
        "runs_on": where_runs(endpoint.url),
        "purpose": _PURPOSES[model.type],
        "architecture": model.arch or "",
        "quantization": model.quantization or "",
        "context_max": model.max_context_length,
        "context_loaded": model.loaded_context_length,
        "loaded": model.state == "loaded",
        "capabilities": able(tools=_PURPOSES[model.type] == "chat", vision=model.type == "vlm"),
    }
    return served(endpoint, model.id, facts)
