"""Who is it? Tells a server's kind and its models from the JSON that it answers.

Pure: a generator yields the `Question` that it has and is sent the `Answer`; when time is up it
is thrown `OutOfTime`. An HTTP status alone proves nothing: LM Studio answers 200 to every path, and
half a dozen servers imitate Ollama.
"""

import math
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from llm_localrun.catalogue import Endpoint, LocalModel, Purpose, Status
from llm_localrun.dialects.wire import Text, WireModel
from llm_localrun.gguf.names import long_quantization, quantization_in
from llm_localrun.kinds import kind_by_owner
from llm_localrun.locality import where_ollama_runs, where_runs
from llm_localrun.reply import Answer, OutOfTime, Question


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server turned out to be."""

    kind: str
    status: Status
    models: tuple[LocalModel, ...] = ()


Questions: TypeAlias = Generator[Question, Answer, Identity]


class _Swapped(WireModel):
    """What llama-swap says of a model: a `peer` runs wherever its own server is."""

    type: str | None = None


class _Meta(WireModel):
    llamaswap: _Swapped | None = None
    n_ctx: int | None = None
    n_ctx_train: int | None = None
    n_params: int | None = None
    size: int | None = None
    ftype: Text | None = None


class _Entry(WireModel):
    """An entry of /v1/models, with what single servers add to it."""

    id: Text
    owned_by: Text | None = None
    meta: _Meta | None = None
    max_model_len: int | None = None
    recipe: Text | None = None
    """Of Lemonade; `cloud` is what it says."""
    status: Any = None
    """Of llama-swap and llama-server's router: an object whose `value` may be `unloaded`."""


class _Listing(WireModel):
    data: tuple[_Entry, ...]


class _Caps(WireModel):
    supports_tools: bool | None = None


class _Modalities(WireModel):
    vision: bool = False
    audio: bool = False


class _SlotDefaults(WireModel):
    n_ctx: int | None = None


class _Props(WireModel):
    """llama-server's /props, as far as it tells of the model."""

    default_generation_settings: _SlotDefaults
    modalities: _Modalities = _Modalities()
    chat_template: Text = ""
    model_path: Text | None = None
    chat_template_caps: _Caps = _Caps()


class _OllamaDetails(WireModel):
    family: Text | None = None
    parameter_size: Text | None = None
    quantization_level: Text | None = None
    context_length: int | None = None


class _OllamaModel(WireModel):
    name: Text
    size: int | None = None
    digest: Text
    details: _OllamaDetails = _OllamaDetails()
    capabilities: tuple[Text, ...] | None = None
    remote_host: Text | None = None


class _OllamaShow(WireModel):
    """What chat goes by; /api/tags overlooks what a Jinja template can do (0.32)."""

    capabilities: tuple[Text, ...] | None = None


class _OllamaTags(WireModel):
    models: tuple[_OllamaModel, ...]


class _Quantization(WireModel):
    name: Text | None = None


class _InstanceConfig(WireModel):
    context_length: int | None = None


class _Instance(WireModel):
    config: _InstanceConfig = _InstanceConfig()


class _Reasoning(WireModel):
    allowed_options: tuple[Text, ...] | None = None


class _LMStudioCapabilities(WireModel):
    vision: bool = False
    reasoning: _Reasoning | None = None


class _LMStudioModel(WireModel):
    """An entry of LM Studio's /api/v1/models (since 0.4.0)."""

    key: Text
    type: Text
    architecture: Text | None = None
    quantization: _Quantization | None = None
    size_bytes: int | None = None
    loaded_instances: tuple[_Instance, ...] = ()
    max_context_length: int | None = None
    capabilities: _LMStudioCapabilities = _LMStudioCapabilities()
    variants: tuple[Text, ...] = ()
    """`KEY@QUANTIZATION` of each that is there, of a model of the catalogue."""
    selected_variant: Text | None = None
    """The one that the bare key means."""


class _LMStudioV1(WireModel):
    models: tuple[_LMStudioModel, ...]


class _LMStudioOldModel(WireModel):
    """An entry of LM Studio's /api/v0/models (since 0.3.6)."""

    id: Text
    type: Text
    arch: Text | None = None
    quantization: Text | None = None
    state: Text
    max_context_length: int | None = None
    loaded_context_length: int | None = None


class _LMStudioV0(WireModel):
    data: tuple[_LMStudioOldModel, ...]


_PURPOSES: dict[str, Purpose] = {
    "llm": "chat",
    "vlm": "chat",
    "embedding": "embedding",
    "embeddings": "embedding",
}


def identify(endpoint: Endpoint, known: Iterable[LocalModel] = ()) -> Questions:
    """Finds out what serves `endpoint`, whose name and kind are provisional.

    Of models that are `known` already it does not ask anew what they can do.
    """
    answer = yield Question("/v1/models")
    if answer.status in (401, 403):
        is_lmstudio = "invalid_api_key" in answer.text
        return Identity("lmstudio" if is_lmstudio else "openai", "needs a key")
    listing = _read(_Listing, answer)
    entries = listing.data if listing else ()
    kind = kind_by_owner(entries[0].owned_by or "") if entries else None
    if kind is not None and kind.name not in ("ollama", "lmstudio"):
        models = yield from _ask_by_kind(kind.name, endpoint, entries)
        return Identity(kind.name, "answers", models)
    may_be_lmstudio = kind is None or kind.name == "lmstudio"
    if may_be_lmstudio and (lmstudio := (yield from _ask_lmstudio(endpoint))):
        return lmstudio
    is_lmstudio = kind is not None and kind.name == "lmstudio"
    if not is_lmstudio and (yield Question("/")).text.strip() == "Ollama is running":
        return (yield from _ask_ollama(endpoint, known))
    if listing is None:
        return Identity("openai", "not understood")
    # Whoever signs like Ollama and is not is spoken to as what it can be.
    return Identity("lmstudio" if is_lmstudio else "openai", "answers", _listed(endpoint, entries))


def _ask_by_kind(
    kind: str, endpoint: Endpoint, entries: tuple[_Entry, ...]
) -> Generator[Question, Answer, tuple[LocalModel, ...]]:
    """The models of a server whose listing has told its kind."""
    if kind == "llamacpp" and len(entries) == 1:
        props = _read(_Props, (yield Question("/props")))
        return (_llama_server(endpoint, entries[0], props),)
    return _listed(endpoint, entries)


def _ask_lmstudio(endpoint: Endpoint) -> Generator[Question, Answer, Identity | None]:
    if v1 := _read(_LMStudioV1, (yield Question("/api/v1/models"))):
        known = (model for model in v1.models if model.type in _PURPOSES)
        models = [each for model in known for each in _lmstudio_variants(endpoint, model)]
        return Identity("lmstudio", "answers", _merged(models))
    if v0 := _read(_LMStudioV0, (yield Question("/api/v0/models"))):
        old = [_lmstudio_v0(endpoint, model) for model in v0.data if model.type in _PURPOSES]
        return Identity("lmstudio", "answers", _merged(old))
    return None


def _merged(models: list[LocalModel]) -> tuple[LocalModel, ...]:
    """Each name once: linked devices may all have a model. The smallest context is what is sure."""
    by_name: dict[str, LocalModel] = {}
    for model in sorted(models, key=lambda model: model.context_loaded or math.inf):
        by_name.setdefault(model.name, model)
    return tuple(by_name[name] for name in dict.fromkeys(model.name for model in models))


def _ask_ollama(endpoint: Endpoint, known: Iterable[LocalModel]) -> Questions:
    tags = _read(_OllamaTags, (yield Question("/api/tags")))
    if tags is None:
        return Identity("ollama", "not understood")
    shown: dict[str, tuple[str, ...] | None] = {
        model.digest: model.capabilities for model in known if model.digest
    }
    try:
        for model in tags.models:
            if model.digest not in shown and not model.remote_host:
                show = _read(_OllamaShow, (yield Question("/api/show", {"model": model.name})))
                shown[model.digest] = show.capabilities if show else model.capabilities
    except OutOfTime:
        # What a model can do that was not asked about is found out the next time.
        pass
    models = (_ollama(endpoint, model, shown.get(model.digest)) for model in tags.models)
    return Identity("ollama", "answers", tuple(models))


_Shape = TypeVar("_Shape", bound=WireModel)


def _read(model: type[_Shape], answer: Answer) -> _Shape | None:
    """The answer as a `model`; None if it is not one, whatever its status."""
    if answer.payload is None or answer.status != 200:
        return None
    try:
        return model.model_validate(answer.payload)
    except ValidationError:
        return None


def _model(endpoint: Endpoint, native_name: str, **known: Any) -> LocalModel:
    """A model that `endpoint` serves; its id is set when the endpoint has got its name."""
    return LocalModel(
        id=native_name,
        name=native_name,
        endpoint=endpoint,
        **{"runs_on": where_runs(endpoint.url), **known},
    )


def _listed(endpoint: Endpoint, entries: tuple[_Entry, ...]) -> tuple[LocalModel, ...]:
    return tuple(_from_listing(endpoint, entry) for entry in entries)


def _from_listing(endpoint: Endpoint, entry: _Entry) -> LocalModel:
    meta = entry.meta or _Meta()
    size = meta.n_ctx or entry.max_model_len
    status = entry.status.get("value") if isinstance(entry.status, dict) else None
    model = _model(
        endpoint,
        entry.id,
        quantization=quantization_in(entry.id) or long_quantization(meta.ftype or ""),
        parameters=meta.n_params,
        size=meta.size,
        context_max=meta.n_ctx_train or entry.max_model_len,
        context_loaded=size,
        loaded=status == "loaded" if status else True if size else None,
    )
    if entry.recipe == "cloud":
        return model.model_copy(update={"runs_on": "cloud"})
    if meta.llamaswap is not None and meta.llamaswap.type == "peer":
        return model.model_copy(update={"runs_on": "unknown"})
    return model


def _llama_server(endpoint: Endpoint, entry: _Entry, props: _Props | None) -> LocalModel:
    model = _from_listing(endpoint, entry)
    if props is None:
        return model
    can = {
        "vision": props.modalities.vision,
        "audio": props.modalities.audio,
        "tools": props.chat_template_caps.supports_tools is not False,
        "thinking": "think" in props.chat_template,
    }
    context = props.default_generation_settings.n_ctx
    return model.model_copy(
        update={
            "capabilities": tuple(name for name, has in can.items() if has),
            "context_loaded": model.context_loaded or context,
            "loaded": True,
            "marks": (f"path:{props.model_path}",) if props.model_path else (),
        }
    )


def _ollama(endpoint: Endpoint, model: _OllamaModel, shown: tuple[str, ...] | None) -> LocalModel:
    details = model.details
    capabilities = model.capabilities if shown is None else shown
    chats = capabilities is None or "embedding" not in capabilities
    thinks = capabilities is None or "thinking" in capabilities
    return _model(
        endpoint,
        model.name,
        runs_on=where_ollama_runs(endpoint.url, model.name, model.remote_host or ""),
        purpose="chat" if chats else "embedding",
        architecture=details.family or "",
        quantization=details.quantization_level or "",
        parameters=_count(details.parameter_size or ""),
        size=model.size,
        context_max=details.context_length,
        capabilities=capabilities,
        think_levels=None if thinks else ("off",),
        digest=model.digest if shown is not None else "",
    )


def _lmstudio_variants(endpoint: Endpoint, model: _LMStudioModel) -> Iterator[LocalModel]:
    """A model, and its other variants, of which their quantization is all that is told."""
    selected = _lmstudio_v1(endpoint, model)
    yield selected
    unknown = {"size": None, "loaded": None, "context_loaded": None}
    for variant in model.variants:
        quantization = variant.partition("@")[2].upper()
        if variant != model.selected_variant and quantization != selected.quantization.upper():
            named = {"id": variant, "name": variant, "quantization": quantization}
            yield selected.model_copy(update={**named, **unknown})


def _lmstudio_v1(endpoint: Endpoint, model: _LMStudioModel) -> LocalModel:
    reasoning = model.capabilities.reasoning
    contexts = [instance.config.context_length for instance in model.loaded_instances]
    return _model(
        endpoint,
        model.key,
        purpose=_PURPOSES[model.type],
        architecture=model.architecture or "",
        quantization=(model.quantization and model.quantization.name) or "",
        size=model.size_bytes,
        context_max=model.max_context_length,
        context_loaded=max((size for size in contexts if size), default=None),
        loaded=bool(model.loaded_instances),
        # Every model takes tools, trained for them or not; one without published settings for
        # its reasoning may think all the same.
        capabilities=("tools", *(("vision",) if model.capabilities.vision else ())),
        think_levels=reasoning.allowed_options if reasoning else None,
    )


def _lmstudio_v0(endpoint: Endpoint, model: _LMStudioOldModel) -> LocalModel:
    return _model(
        endpoint,
        model.id,
        purpose=_PURPOSES[model.type],
        architecture=model.arch or "",
        quantization=model.quantization or "",
        context_max=model.max_context_length,
        context_loaded=model.loaded_context_length,
        loaded=model.state == "loaded",
        capabilities=("tools", *(("vision",) if model.type == "vlm" else ())),
    )


def _count(text: str) -> int | None:
    """`134.52M` or `8.2B` to a number of weights."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([KMBT])", text.strip().upper())
    return match and round(float(match[1]) * {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[match[2]])
