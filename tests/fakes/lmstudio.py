"""A stand-in for LM Studio's server, after its documentation and what others have seen of it.

`LMStudio` is the `respond` of a `StandIn`; `Says` is what a model of it says when it is asked.
Docstrings name their source: "LM Studio docs", "seen in the wild" (captures and bug reports), or
"assumed" where neither says anything.
"""

import hashlib
import itertools
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from tests.fakes.http_server import Request, chunk, head, json_reply

Json = dict[str, Any]
Pieces = Iterator[bytes | float]
Api = Literal["v1", "v0", "old"]
ReasoningIn = Literal["reasoning_content", "reasoning", "think", "unopened think"]

VERSIONS: dict[Api, str] = {"old": "0.3.5", "v0": "0.3.30", "v1": "0.4.23"}
"""An example of each age: before /api/v0, before /api/v1, and the newest seen."""


# Models


@dataclass(frozen=True)
class Quantization:
    """How a model is quantized; the bits are rounded (LM Studio docs: list models)."""

    name: str | None
    bits_per_weight: int | None


@dataclass(frozen=True)
class Reasoning:
    """A published reasoning setting: what it may be and what it is if nobody says."""

    allowed_options: tuple[str, ...]
    default: str

    @property
    def efforts(self) -> set[str]:
        """The options as OpenAI's endpoints call them."""
        return {_EFFORTS.get(option, option) for option in self.allowed_options}


_EFFORTS = {"off": "none", "on": "medium"}


@dataclass(frozen=True)
class Model:
    """A model on the disk."""

    key: str
    publisher: str
    display_name: str
    architecture: str | None
    quantization: Quantization | None
    size_bytes: int
    params_string: str | None
    max_context_length: int
    format: str | None = "gguf"
    type: str = "llm"
    vision: bool = False
    trained_for_tool_use: bool = False
    reasoning: Reasoning | None = None
    reasoning_in: ReasoningIn = "reasoning_content"
    experts: int | None = None
    variants: tuple[str, ...] = ()
    """What the catalogue's models have: `key@quantization`, the selected one first."""

    @property
    def selected_variant(self) -> str:
        return self.variants[0] if self.variants else self.key

    def variant(self, name: str) -> str:
        """What `name` stands for; the bare key is the selected variant."""
        return self.selected_variant if name == self.key else name


MODELS = (
    Model(
        key="google/gemma-4-26b-a4b",
        publisher="google",
        display_name="Gemma 4 26B A4B",
        architecture="gemma4",
        quantization=Quantization("Q4_K_M", 4),
        size_bytes=17_990_911_801,
        params_string="26B-A4B",
        max_context_length=262_144,
        vision=True,
        trained_for_tool_use=True,
        reasoning=Reasoning(("off", "on"), "on"),
        experts=8,
        variants=("google/gemma-4-26b-a4b@q4_k_m", "google/gemma-4-26b-a4b@q8_0"),
    ),
    Model(
        key="openai/gpt-oss-20b",
        publisher="openai",
        display_name="gpt-oss 20B",
        architecture="gpt-oss",
        quantization=Quantization("MXFP4", 4),
        size_bytes=12_109_566_560,
        params_string="20B",
        max_context_length=131_072,
        trained_for_tool_use=True,
        reasoning=Reasoning(("low", "medium", "high"), "low"),
        reasoning_in="reasoning",
        experts=4,
        variants=("openai/gpt-oss-20b@mxfp4",),
    ),
    Model(
        key="qwen2-vl-7b-instruct",
        publisher="mlx-community",
        display_name="Qwen2 VL 7B Instruct",
        architecture="qwen2_vl",
        quantization=Quantization("4bit", 4),
        size_bytes=4_684_120_064,
        params_string="7B",
        max_context_length=32_768,
        format="mlx",
        vision=True,
    ),
    Model(
        key="granite-3.0-2b-instruct",
        publisher="lmstudio-community",
        display_name="Granite 3.0 2B Instruct",
        architecture="granite",
        quantization=Quantization("Q4_K_M", 4),
        size_bytes=1_602_000_000,
        params_string="2B",
        max_context_length=4096,
    ),
    Model(
        key="llama-3.1-8b@q4_k_m",
        publisher="lmstudio-community",
        display_name="Llama 3.1 8B",
        architecture="llama",
        quantization=Quantization("Q4_K_M", 4),
        size_bytes=4_920_739_232,
        params_string="8B",
        max_context_length=131_072,
        trained_for_tool_use=True,
    ),
    Model(
        key="llama-3.1-8b@q8_0",
        publisher="lmstudio-community",
        display_name="Llama 3.1 8B",
        architecture="llama",
        quantization=Quantization("Q8_0", 8),
        size_bytes=8_540_775_840,
        params_string="8B",
        max_context_length=131_072,
        trained_for_tool_use=True,
    ),
    Model(
        key="text-embedding-nomic-embed-text-v1.5",
        publisher="nomic-ai",
        display_name="Nomic Embed Text v1.5",
        architecture="nomic-bert",
        quantization=Quantization("F16", 16),
        size_bytes=274_290_560,
        params_string=None,
        max_context_length=2048,
        type="embedding",
    ),
)
"""Two of the catalogue, two side-loaded ones (of which the second was not trained for tools), two
quantizations of one repository, and one for embeddings."""


def put_files(home: Path, models: Iterable[Model] = MODELS) -> None:
    """Files of the models' sizes where LM Studio has them, PUBLISHER/REPOSITORY/FILE; with holes,
    so that they take no room. What comes with it lies elsewhere (seen in the wild)."""
    for number, model in enumerate(models):
        place = ".internal/bundled-models" if model.type == "embedding" else "models"
        folder = home / ".lmstudio" / place / model.publisher / f"repository-{number}"
        folder.mkdir(parents=True)
        size = model.size_bytes
        if model.format == "mlx":
            (folder / "config.json").write_text("{}")
            (folder / "tokenizer.json").write_bytes(b" " * 2**20)
            size -= 2 + 2**20
        name = "model.safetensors" if model.format == "mlx" else f"model-{number}.gguf"
        with (folder / name).open("wb") as file:
            file.truncate(size)


@dataclass(frozen=True)
class Instance:
    """A copy of a model in memory."""

    id: str
    model: Model
    variant: str
    config: Json
    jit: bool
    ttl: int | None

    @property
    def context_length(self) -> int:
        return int(self.config["context_length"])

    @property
    def quantization(self) -> str | None:
        """That of the variant: the model's own is that of its selected one."""
        own = self.model.quantization.name if self.model.quantization else None
        if self.variant == self.model.selected_variant:
            return own
        return self.variant.partition("@")[2].upper()


# What models say


@dataclass(frozen=True)
class Call:
    """A call that a model makes; arguments that are a string are taken as they are."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The arguments, as compact as LM Studio writes them."""
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(self.arguments, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Says:
    """What a model says to one request."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    unparsed: bool = False
    """LM Studio does not understand the calls of the model."""
    fails_after: int | None = None
    """How many chunks are streamed before it fails; unstreamed, it just fails."""
    failure: str = "The model has crashed without additional information. (Exit code: 6)"
    pause: float = 0.0
    """Seconds before each chunk."""


def in_turn(*replies: Says) -> Callable[[Json], Says]:
    """Says each of `replies` once, whatever the requests are."""
    waiting = deque(replies)
    return lambda _body: waiting.popleft()


def _hello(_body: Json) -> Says:
    return Says("Hello.")


# Errors


class Refused(Exception):
    """An error instead of what was asked for (LM Studio docs and seen in the wild: errors)."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        bare: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.details: Json = {"message": message, "type": type, "param": param, "code": code}
        self.bare = bare
        """One of the validators that answer with nothing but a string."""


_UNAUTHORIZED: Json = {
    "error": {
        "type": "invalid_request",
        "code": "invalid_api_key",
        "message": "An LM Studio API token is required to make requests to this server",
    }
}
_NO_MODELS = (
    "No models loaded. Please load a model in the developer page or use the 'lms load' command."
)
_SIGABRT = "The model process exited with SIGABRT"


def _overflow(needed: int, there: int) -> str:
    """Seen in the wild: a prompt that is longer than the loaded context."""
    return (
        f"Trying to keep the first {needed} tokens when context overflows. However, the model is "
        f"loaded with context length of only {there} tokens, which is not enough. Try to load the "
        "model with a larger context length, or provide a shorter input"
    )


# The server


@dataclass(frozen=True)
class LMStudio:
    """The server: what is set in its window, and the models that it has loaded."""

    says: Callable[[Json], Says] = _hello
    """What its models say, by the body of the request."""
    api: Api = "v1"
    """Up to which interface it goes: 0.4 and later, 0.3.6 and later, or older."""
    token: str | None = None
    """The token that it asks for, if it asks for one."""
    models: tuple[Model, ...] = MODELS
    jit: bool = True
    """Whether a request for a model that is not loaded loads it."""
    auto_evict: bool = True
    """Whether a model that is loaded so makes room for the next."""
    default_context: int = 4096
    reasoning_in: ReasoningIn | None = None
    """Where reasoning arrives; otherwise where the version and the model have it."""
    refuses_effort: bool = True
    """Whether an effort outside a model's options is refused, or its default taken (both seen)."""
    unknown_model: Literal["another", "refused"] = "another"
    """Whether an unknown model is answered by one that is loaded (both seen)."""
    overflow: Literal["error", "silence"] = "error"
    """What comes of a prompt that is too long (both seen)."""
    images_unseen: Literal["refused", "ignored"] = "refused"
    """What a model without vision does with an image (both seen)."""
    empty_ids: bool = False
    """Whether the ids of calls are empty (seen in the wild)."""
    unloadable: frozenset[str] = frozenset()
    """The models that there is not enough memory for."""
    load_seconds: float = 0.0
    tells_ttl: bool = False
    """Whether the listing has `remaining_ttl_seconds` (some builds)."""
    package: str = "lmstudio"
    """Which of the products it is: `bionic` speaks the same."""
    catalogue: Mapping[str, Model] = field(default_factory=dict)
    """What can be downloaded: by the catalogue's name or a repository's URL, @ and the
    quantization that was asked for if one was."""
    undownloadable: frozenset[str] = frozenset()
    """Names in the catalogue whose download fails."""
    instances: list[Instance] = field(default_factory=list)
    """What is loaded at the moment."""
    downloads: dict[str, "Download"] = field(default_factory=dict)
    """By the ids of their jobs."""
    downloaded: list[Model] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(814_890_118))

    def __call__(self, request: Request) -> Pieces:
        """The reply to `request`, whatever it is."""
        if self.token is not None and request.headers.get("authorization") != self._bearer:
            yield json_reply(_UNAUTHORIZED, 401)
            return
        try:
            yield from self._route(request)
        except Refused as refused:
            yield json_reply(self._error(refused, request.path), refused.status)

    @property
    def on_disk(self) -> tuple[Model, ...]:
        return (*self.models, *self.downloaded)

    @property
    def _bearer(self) -> str:
        return f"Bearer {self.token}"

    def _route(self, request: Request) -> Pieces:
        for method, pattern, since, answer in _ROUTES:
            match = re.fullmatch(pattern, request.path.partition("?")[0])
            if match and method == request.method and _AGES.index(since) <= _AGES.index(self.api):
                return answer(self, request, *map(unquote, match.groups()))
        return _unexpected(request)

    def _error(self, refused: Refused, path: str) -> Json:
        """Strings on older paths and from some validators, objects elsewhere."""
        as_string = refused.bare or self.api != "v1" or path.startswith("/api/v0/")
        return {"error": refused.message if as_string else refused.details}

    def load(
        self,
        name: str,
        identifier: str | None = None,
        jit: bool = False,
        ttl: int | None = None,
        **asked: Any,
    ) -> Instance:
        """Loads a model, again if it is loaded; for tests, too, which have it loaded before."""
        model = self.known(name)
        assert model is not None, f"{name} is not one of the models"
        variant = model.variant(name)
        with self._lock:
            if jit and self.auto_evict:
                self.instances[:] = [
                    other for other in self.instances if not other.jit or other.variant == variant
                ]
            config = _load_config(model, asked, self.default_context)
            loaded = Instance(
                self._free_id(identifier or name), model, variant, config, jit=jit, ttl=ttl
            )
            self.instances.append(loaded)
        return loaded

    def unload(self, instance_id: str) -> bool:
        """Whether there was such an instance."""
        with self._lock:
            left = [other for other in self.instances if other.id != instance_id]
            found = len(left) < len(self.instances)
            self.instances[:] = left
        return found

    def known(self, name: str) -> Model | None:
        """The model of this key or variant."""
        named = (model for model in self.on_disk if name in (model.key, *model.variants))
        return next(named, None)

    def loaded(self, name: str) -> Instance | None:
        """What is in memory for a key, a variant or the id of an instance."""
        model = self.known(name)
        variant = model and model.variant(name)
        return next((it for it in self.instances if name == it.id or variant == it.variant), None)

    def loaded_of(self, model: Model) -> list[Instance]:
        return [instance for instance in self.instances if instance.model == model]

    def _free_id(self, wanted: str) -> str:
        """`wanted`, or `wanted:2` and so on if it is taken (seen in the wild)."""
        taken = {instance.id for instance in self.instances}
        numbered = (f"{wanted}:{number}" for number in itertools.count(2))
        return next(it for it in itertools.chain([wanted], numbered) if it not in taken)

    def load_on_demand(self, name: str, ttl: int | None) -> Generator[float, None, Instance]:
        """LM Studio docs: TTL and auto-evict. The request hangs until the model is there."""
        if name in self.unloadable:
            raise Refused(f'Failed to load model "{name}". Error: {_SIGABRT}', param="model")
        yield from self.take_time()
        return self.load(name, jit=True, ttl=3600 if ttl is None else ttl)

    def take_time(self) -> Generator[float, None, None]:
        if self.load_seconds:
            yield float(self.load_seconds)

    def instance_for(self, body: Json, wanted: str) -> Generator[float, None, Instance]:
        """What answers the request: which, seen in the wild, need not be what it names."""
        name = body.get("model") or ""
        model = self.known(name)
        if model is not None and model.type != wanted:
            raise Refused(
                f'Failed to load model "{name}". Error: Model is not {wanted}.', param="model"
            )
        loaded = self.loaded(name)
        if loaded is None and model is not None and self.jit:
            loaded = yield from self.load_on_demand(name, body.get("ttl"))
        return loaded or self._another(name, wanted)

    def _another(self, name: str, wanted: str) -> Instance:
        """Whichever is loaded. That embeddings know the trap, too, is assumed."""
        if self.unknown_model == "refused":
            keys = ", ".join(model.key for model in self.on_disk)
            raise Refused(
                f'Model "{name}" not found. Your models: {keys}',
                param="model",
                code="model_not_found",
            )
        for instance in self.instances:
            if instance.model.type == wanted:
                return instance
        raise Refused(_NO_MODELS, param="model")

    def new_id(self) -> str:
        return str(next(self._numbers))


_AGES: tuple[Api, ...] = ("old", "v0", "v1")

_LLAMA_CPP: Json = {
    "eval_batch_size": 512,
    "parallel": 4,
    "flash_attention": True,
    "offload_kv_cache_to_gpu": True,
}


def _load_config(model: Model, asked: Json, default_context: int) -> Json:
    """LM Studio docs: load a model. All but the context is for llama.cpp and not for embeddings."""
    context = asked.get("context_length", min(default_context, model.max_context_length))
    if model.type == "embedding" or model.format != "gguf":
        return {"context_length": context}
    settings = {**_LLAMA_CPP, **({"num_experts": model.experts} if model.experts else {})}
    return {
        "context_length": context,
        **{name: asked.get(name, value) for name, value in settings.items()},
    }


# Paths that say who it is


def _unexpected(request: Request) -> Pieces:
    """Seen in the wild, in all versions: unknown paths and methods succeed."""
    told = f"Unexpected endpoint or method. ({request.method} {request.path})"
    yield json_reply({"error": told})


def _greeting(_server: LMStudio, _request: Request) -> Pieces:
    """What `lms server status` and the SDK ask every port."""
    yield json_reply({"lmstudio": True})


def _status(server: LMStudio, _request: Request) -> Pieces:
    yield json_reply({"package": server.package, "version": VERSIONS[server.api]})


# Listings


def _list_v1(server: LMStudio, _request: Request) -> Pieces:
    """LM Studio docs: list models. The key is `models`."""
    yield json_reply({"models": [_record_v1(server, model) for model in server.on_disk]})


def _record_v1(server: LMStudio, model: Model) -> Json:
    quantization = model.quantization
    instances = [_loaded_instance(server, instance) for instance in server.loaded_of(model)]
    embeds = model.type == "embedding"
    return {
        "type": model.type,
        "publisher": model.publisher,
        "key": model.key,
        "display_name": model.display_name,
        **({} if embeds else {"architecture": model.architecture}),
        "quantization": quantization and dict(vars(quantization)),
        "size_bytes": model.size_bytes,
        "params_string": model.params_string,
        "loaded_instances": instances,
        "max_context_length": model.max_context_length,
        "format": model.format,
        **({} if embeds else {"capabilities": _capabilities(model), "description": None}),
        **_variants(model),
    }


def _loaded_instance(server: LMStudio, instance: Instance) -> Json:
    shown: Json = {"id": instance.id, "config": instance.config}
    if server.tells_ttl and instance.ttl is not None:
        shown["remaining_ttl_seconds"] = instance.ttl
    return shown


def _capabilities(model: Model) -> Json:
    """`reasoning` is there only if there is a setting for it."""
    known: Json = {"vision": model.vision, "trained_for_tool_use": model.trained_for_tool_use}
    if model.reasoning is not None:
        known["reasoning"] = dict(vars(model.reasoning))
    return known


def _variants(model: Model) -> Json:
    if not model.variants:
        return {}
    return {"variants": list(model.variants), "selected_variant": model.selected_variant}


def _list_v0(server: LMStudio, _request: Request) -> Pieces:
    """LM Studio docs: REST API v0."""
    records = [_record_v0(server, model) for model in server.on_disk]
    yield json_reply({"object": "list", "data": records})


def _show_v0(server: LMStudio, _request: Request, key: str) -> Pieces:
    """LM Studio docs: REST API v0. What an unknown model gets is assumed."""
    for model in server.on_disk:
        if model.key == key:
            yield json_reply(_record_v0(server, model))
            return
    raise _not_found(key)


_TYPES_V0 = {"embedding": "embeddings"}


def _record_v0(server: LMStudio, model: Model) -> Json:
    """`loaded_context_length` and `capabilities` are not in the docs, but seen in the wild."""
    instances = server.loaded_of(model)
    record: Json = {
        "id": model.key,
        "object": "model",
        "type": "vlm" if model.vision else _TYPES_V0.get(model.type, model.type),
        "publisher": model.publisher,
        "arch": model.architecture,
        "compatibility_type": model.format,
        "quantization": model.quantization and model.quantization.name,
        "state": "loaded" if instances else "not-loaded",
        "max_context_length": model.max_context_length,
    }
    if instances:
        record["loaded_context_length"] = instances[0].context_length
    if model.trained_for_tool_use:
        record["capabilities"] = ["tool_use"]
    return record


def _list_openai(server: LMStudio, _request: Request) -> Pieces:
    """LM Studio docs: OpenAI compatibility, list models."""
    records = [_record_openai(name) for name in _names(server)]
    yield json_reply({"data": records, "object": "list"})


def _show_openai(server: LMStudio, _request: Request, name: str) -> Pieces:
    if name not in _names(server):
        raise _not_found(name)
    yield json_reply(_record_openai(name))


def _record_openai(name: str) -> Json:
    return {"id": name, "object": "model", "owned_by": "organization_owner"}


def _names(server: LMStudio) -> list[str]:
    """Everything if models are loaded on demand, otherwise what is loaded."""
    keys = [model.key for model in server.on_disk] if server.jit else []
    return list(dict.fromkeys([*keys, *(instance.id for instance in server.instances)]))


def _not_found(name: str) -> Refused:
    return Refused(f'Model "{name}" not found', status=404, param="model", code="model_not_found")


# Loading and unloading

_MAY_BE_SET = {
    *("context_length", "eval_batch_size", "flash_attention", "num_experts"),
    "offload_kv_cache_to_gpu",
}
_LOAD_KEYS = {"model", "echo_load_config", *_MAY_BE_SET}


def _load(server: LMStudio, request: Request) -> Pieces:
    """LM Studio docs: load a model. Seen in the wild: it never takes what is there already."""
    body = request.body
    model = _loadable(server, body)
    yield from server.take_time()
    asked = {name: value for name, value in body.items() if name in _MAY_BE_SET}
    instance = server.load(body["model"], **asked)
    answer: Json = {
        "type": model.type,
        "instance_id": instance.id,
        "load_time_seconds": server.load_seconds,
        "status": "loaded",
    }
    if body.get("echo_load_config"):
        answer["load_config"] = {
            name: value for name, value in instance.config.items() if name != "parallel"
        }
    yield json_reply(answer)


def _loadable(server: LMStudio, body: Json) -> Model:
    """The model to load. The types are documented; statuses and words are assumed."""
    if unknown := sorted(body.keys() - _LOAD_KEYS):
        names = ", ".join(f"'{name}'" for name in unknown)
        raise Refused(
            f"Unrecognized key(s) in object: {names}",
            type="invalid_request",
            code="unrecognized_keys",
        )
    name = body.get("model")
    if not isinstance(name, str):
        raise Refused("Required", type="invalid_request", param="model", code="invalid_type")
    model = server.known(name)
    if model is None:
        raise Refused(f'Model "{name}" not found', 404, type="model_not_found", param="model")
    if name in server.unloadable:
        raise Refused(_SIGABRT, 500, type="model_load_failed")
    return model


def _unload(server: LMStudio, request: Request) -> Pieces:
    """LM Studio docs: unload a model. It is the id of an instance, not a key."""
    wanted = request.body.get("instance_id")
    if not server.unload(wanted):
        raise Refused(
            f'Model instance "{wanted}" not found',
            404,
            type="model_not_found",
            param="instance_id",
        )
    yield json_reply({"instance_id": wanted})


# Downloading


@dataclass
class Download:
    """A job: with every question about it a third of the model has come."""

    name: str
    model: Model
    asked: int = 0


_STARTED = "2025-10-03T15:33:23.496Z"
_THIRDS = 3
_REPOSITORY = "https://huggingface.co/"


def _download(server: LMStudio, request: Request) -> Pieces:
    """LM Studio docs: download a model. Statuses and words of refusals are assumed."""
    name, quantization = request.body["model"], request.body.get("quantization")
    if quantization and not name.startswith(_REPOSITORY):
        raise Refused(
            "Quantization can only be specified for Hugging Face links",
            type="invalid_request",
            param="quantization",
        )
    name += f"@{quantization}" if quantization else ""
    model = server.catalogue.get(name)
    if model is None:
        raise Refused(f'Model "{name}" not found', 404, type="model_not_found", param="model")
    if model in server.on_disk:
        yield json_reply({"status": "already_downloaded", "total_size_bytes": model.size_bytes})
        return
    job_id = f"job_{hashlib.sha256(name.encode()).hexdigest()[:10]}"
    server.downloads[job_id] = Download(name, model)
    yield json_reply(_told(job_id, "downloading", model))


def _told(job_id: str, status: str, model: Model, **more: Any) -> Json:
    return {
        "job_id": job_id,
        "status": status,
        "total_size_bytes": model.size_bytes,
        "started_at": _STARTED,
        **more,
    }


def _download_status(server: LMStudio, _request: Request, job_id: str) -> Pieces:
    """LM Studio docs: get the status of a download. In the middle somebody pauses it."""
    if job_id not in server.downloads:
        raise Refused(f'Job "{job_id}" not found', 404, type="job_not_found", param="job_id")
    job = server.downloads[job_id]
    job.asked += 1
    come = job.model.size_bytes * min(job.asked, _THIRDS) // _THIRDS
    if job.name in server.undownloadable and job.asked > 1:
        yield json_reply(_told(job_id, "failed", job.model, downloaded_bytes=come))
    elif job.asked < _THIRDS:
        pace = {"bytes_per_second": 7834.04, "estimated_completion": "2025-10-03T15:43:12.102Z"}
        status = ("downloading", "paused")[job.asked - 1]
        yield json_reply(_told(job_id, status, job.model, downloaded_bytes=come, **pace))
    else:
        server.downloaded.append(job.model)
        ended = {"completed_at": "2025-10-03T15:43:12.102Z"}
        yield json_reply(_told(job_id, "completed", job.model, downloaded_bytes=come, **ended))


# Embeddings


def _embed(server: LMStudio, request: Request) -> Pieces:
    """LM Studio docs: embeddings. The usage is nought there, and the quantization in the name."""
    given = request.body["input"]
    texts = [given] if isinstance(given, str) else given
    instance = yield from server.instance_for(request.body, "embedding")
    quantization = (instance.quantization or "").lower()
    yield json_reply(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "embedding": _vector(text), "index": index}
                for index, text in enumerate(texts)
            ],
            "model": f"{instance.model.key.partition('@')[0]}@{quantization}",
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }
    )


def _vector(text: str) -> list[float]:
    """Made up, but the same for the same text."""
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:8]]


# Chat: what is refused before a model is asked

_DATA_URI = re.compile(r"data:image/[^;,]+;base64,[A-Za-z0-9+/]+=*")


def _check_request(server: LMStudio, body: Json) -> None:
    """What does not depend on the model."""
    _check_format(server, body)
    for image in _images(body):
        if not _DATA_URI.fullmatch(image):
            raise Refused("'url' field must be a base64 encoded image.", bare=True)
    for number, tool in enumerate(body.get("tools") or ()):
        if tool["function"].get("parameters", {}).get("type") != "object":
            where = f"tools[{number}].function.parameters.type"
            raise Refused(f"'{where}' must be 'object'", bare=True)


def _check_format(server: LMStudio, body: Json) -> None:
    """Seen in the wild: the error is a string; `text` is taken since 0.3.18 only."""
    kind = (body.get("response_format") or {"type": "json_schema"})["type"]
    allowed = ("json_schema",) if server.api == "old" else ("json_schema", "text")
    if kind not in allowed:
        named = " or ".join(f"'{name}'" for name in allowed)
        raise Refused(f"'response_format.type' must be {named}", bare=True)


def _check_against_model(server: LMStudio, body: Json, model: Model) -> None:
    """What depends on the model."""
    if not model.vision and any(_images(body)) and server.images_unseen == "refused":
        raise Refused("Model does not support images. Please use a model that does.", bare=True)
    effort = body.get("reasoning_effort")
    if effort and model.reasoning and server.refuses_effort:
        _check_effort(effort, model, model.reasoning)


def _check_effort(effort: str, model: Model, reasoning: Reasoning) -> None:
    """Seen in the wild: the words, of `reasoning` on the native path."""
    if effort not in reasoning.efforts:
        supported = ", ".join(f"'{option}'" for option in reasoning.allowed_options)
        raise Refused(
            f"Reasoning setting '{effort}' is not supported by model '{model.key}'. "
            f"Supported settings: {supported}.",
            type="invalid_request",
            param="reasoning_effort",
            code="invalid_value",
        )


def _images(body: Json) -> Iterator[str]:
    for part in _parts(body):
        if part["type"] == "image_url":
            yield part["image_url"]["url"]


def _parts(body: Json) -> Iterator[Json]:
    """The parts of all messages; a content that is a string is one part."""
    for message in body["messages"]:
        content = message.get("content") or ()
        yield from [{"type": "text", "text": content}] if isinstance(content, str) else content


def _prompt_tokens(body: Json) -> int:
    """A token for every four characters of messages and tools: both are in the prompt."""
    texts = [part["text"] for part in _parts(body) if part["type"] == "text"]
    calls = [call for message in body["messages"] for call in message.get("tool_calls") or ()]
    given = [json.dumps(it) for it in (*calls, *(body.get("tools") or ()))]
    return _tokens("".join([*texts, *given]))


def _tokens(text: str) -> int:
    return -(-len(text) // _TOKEN)


_TOKEN = 4


# Chat: from what a model says to a reply

_FINISH_REASONS = {
    "eosFound": "stop",
    "stopStringFound": "stop",
    "maxPredictedTokensReached": "length",
    "contextLengthReached": "length",
    "toolCalls": "tool_calls",
}


@dataclass(frozen=True)
class Reply:
    """What is left of what a model says, after LM Studio has looked at it."""

    reasoning: str
    text: str
    calls: tuple[Call, ...] = ()
    stop_reason: str = "eosFound"

    @property
    def finish_reason(self) -> str:
        return _FINISH_REASONS[self.stop_reason]

    @property
    def tokens(self) -> int:
        of_calls = sum(_tokens(call.name) + _tokens(call.text) for call in self.calls)
        return _tokens(self.reasoning) + _tokens(self.text) + of_calls

    def fields(self, place: ReasoningIn) -> dict[str, str]:
        """LM Studio docs and seen in the wild: reasoning arrives in one of three places."""
        if not self.reasoning:
            return {"content": self.text}
        if place in ("reasoning_content", "reasoning"):
            return {place: self.reasoning, "content": self.text}
        opening = "<think>" if place == "think" else ""
        thought_to_the_end = self.text or self.finish_reason != "length"
        closing = "</think>" if thought_to_the_end else ""
        return {"content": f"{opening}{self.reasoning}{closing}{self.text}"}


def _reply(says: Says, body: Json, instance: Instance) -> Reply:
    text, calls = _parsed(says, body)
    if text and (schema := _schema(body)) is not None:
        text = _as_json(text, schema)
    reasoning = says.reasoning if _thinks(body, instance.model) else ""
    reply = Reply(reasoning, text, calls, "toolCalls" if calls else "eosFound")
    reply = _stopped(reply, body.get("stop") or [])
    if (most := body.get("max_tokens")) is not None and most >= 0:
        reply = _cut(reply, most, "maxPredictedTokensReached")
    room = max(0, instance.context_length - _prompt_tokens(body))
    return _cut(reply, room, "contextLengthReached")


def _parsed(says: Says, body: Json) -> tuple[str, tuple[Call, ...]]:
    """LM Studio docs: tool use. Calls that are not understood, or not looked for, are text."""
    looked_for = body.get("tools") and body.get("tool_choice") != "none"
    if looked_for and not says.unparsed:
        return says.text, says.calls
    return says.text + "".join(map(_as_text, says.calls)), ()


def _as_text(call: Call) -> str:
    return f'[TOOL_REQUEST]{{"name":"{call.name}","arguments":{call.text}}}[END_TOOL_REQUEST]'


def _thinks(body: Json, model: Model) -> bool:
    """A schema turns thinking off; so does an effort, if the model has a setting for it."""
    if _schema(body) is not None:
        return False
    if model.reasoning is None:
        return True
    effort = body.get("reasoning_effort")
    setting = effort if effort in model.reasoning.efforts else model.reasoning.default
    return setting not in ("none", "off")


def _stopped(reply: Reply, stop: str | list[str]) -> Reply:
    """Cut before the first of the stop strings."""
    strings = [stop] if isinstance(stop, str) else stop
    places = [at for string in strings if (at := reply.text.find(string)) >= 0]
    if not places:
        return reply
    return Reply(reply.reasoning, reply.text[: min(places)], (), "stopStringFound")


def _cut(reply: Reply, most: int, stop_reason: str) -> Reply:
    """At most so many tokens; reasoning counts, so that there may be no text at all."""
    if reply.tokens <= most:
        return reply
    reasoning = reply.reasoning[: _TOKEN * most]
    left = max(0, most - _tokens(reasoning))
    return Reply(reasoning, reply.text[: _TOKEN * left], (), stop_reason)


# Chat: schemas

_SIMPLEST: Json = {"string": "", "integer": 0, "number": 0.0, "boolean": False, "null": None}


def _schema(body: Json) -> Json | None:
    asked = body.get("response_format") or {}
    return asked["json_schema"]["schema"] if asked.get("type") == "json_schema" else None


def _as_json(text: str, schema: Json) -> str:
    """A grammar lets only JSON through: `text` if it is JSON, else the simplest that fits."""
    try:
        json.loads(text)
    except ValueError:
        return json.dumps(_fitting(schema, schema))
    return text


def _fitting(schema: Json, root: Json) -> Any:
    """The simplest value that fits `schema`."""
    if choices := _choices(schema):
        return choices[0]
    if inner := _inner(schema, root):
        return _fitting(inner, root)
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: _fitting(properties[name], root) for name in schema.get("required", ())}
    if schema.get("type") == "array":
        return [_fitting(schema.get("items", {}), root)] * schema.get("minItems", 0)
    return _SIMPLEST.get(schema.get("type", ""), "")


def _choices(schema: Json) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _inner(schema: Json, root: Json) -> Json | None:
    """The schema that `schema` refers to, or the first it has to choose from."""
    if "$ref" in schema:
        found: Json = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return found
    return next((schema[word][0] for word in ("anyOf", "oneOf", "allOf") if word in schema), None)


# Chat: from a reply to bytes


def _chat(server: LMStudio, request: Request) -> Pieces:
    """LM Studio docs: OpenAI compatibility, chat completions."""
    body = request.body
    _check_request(server, body)
    instance = yield from server.instance_for(body, "llm")
    _check_against_model(server, body, instance.model)
    says = _heard(server, body, instance)
    completion = Completion(
        id=f"chatcmpl-{server.new_id()}",
        instance=instance,
        reply=_reply(says, body, instance),
        place=_place(server, instance.model),
        call_ids=["" if server.empty_ids else server.new_id() for _ in says.calls],
        prompt_tokens=_prompt_tokens(body),
        told=request.path.startswith("/api/v0/"),
    )
    if body.get("stream"):
        asked = (body.get("stream_options") or {}).get("include_usage")
        yield from _streamed(completion, says, bool(asked) and server.api != "old")
    elif says.fails_after is not None:
        raise Refused(says.failure, type="internal_error")
    else:
        yield json_reply(completion.whole())


def _heard(server: LMStudio, body: Json, instance: Instance) -> Says:
    """What the model says, unless the prompt is too long for it."""
    needed = _prompt_tokens(body)
    if needed <= instance.context_length:
        return server.says(body)
    if server.overflow == "silence":
        return Says()
    return Says(fails_after=0, failure=_overflow(needed, instance.context_length))


def _place(server: LMStudio, model: Model) -> ReasoningIn:
    """Before 0.3.9 there was nothing but tags."""
    return server.reasoning_in or ("think" if server.api == "old" else model.reasoning_in)


@dataclass(frozen=True)
class Completion:
    """A reply and all that is told along with it."""

    id: str
    instance: Instance
    reply: Reply
    place: ReasoningIn
    call_ids: list[str]
    prompt_tokens: int
    told: bool
    """Whether /api/v0 was asked, which tells how it went."""

    def whole(self) -> Json:
        choice = {
            "index": 0,
            "message": self._message(),
            "logprobs": None,
            "finish_reason": self.reply.finish_reason,
        }
        return {**self._head("chat.completion"), "choices": [choice], **self.counts()}

    def chunk(self, delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def last_chunk(self) -> Json:
        """What `include_usage` asks for. That /api/v0 has its objects here is assumed."""
        return {**self._head("chat.completion.chunk"), "choices": [], **self.counts()}

    def deltas(self) -> Iterator[Json]:
        """Seen in the wild: each has the role."""
        for name, text in self.reply.fields(self.place).items():
            for start in range(0, len(text), _TOKEN):
                yield {"role": "assistant", name: text[start : start + _TOKEN]}
        for index, (call, id_) in enumerate(zip(self.reply.calls, self.call_ids, strict=False)):
            for fragment in _fragments(call, id_):
                yield {"tool_calls": [{"index": index, **fragment}]}

    def counts(self) -> Json:
        """The usage, and on /api/v0 the rest."""
        tokens = self.reply.tokens
        usage = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
            "completion_tokens_details": {"reasoning_tokens": _tokens(self.reply.reasoning)},
        }
        return {"usage": usage, **(self._how_it_went() if self.told else {})}

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": int(time.time()),
            "model": self.instance.id,
            "system_fingerprint": self.instance.id,
        }

    def _message(self) -> Json:
        """LM Studio docs: tool use. Where there are calls only, there is no content."""
        fields = self.reply.fields(self.place)
        if not self.reply.calls:
            return {"role": "assistant", **fields}
        calls = [
            {"id": id_, "type": "function", "function": {"name": it.name, "arguments": it.text}}
            for it, id_ in zip(self.reply.calls, self.call_ids, strict=False)
        ]
        said = {name: text for name, text in fields.items() if text}
        return {"role": "assistant", **said, "tool_calls": calls}

    def _how_it_went(self) -> Json:
        """LM Studio docs: REST API v0."""
        model = self.instance.model
        return {
            "stats": {
                "tokens_per_second": 50.0,
                "time_to_first_token": 0.111,
                "generation_time": self.reply.tokens / 50,
                "stop_reason": self.reply.stop_reason,
            },
            "model_info": {
                "arch": model.architecture,
                "quant": self.instance.quantization,
                "format": model.format,
                "context_length": self.instance.context_length,
            },
            "runtime": _RUNTIMES[model.format or "gguf"],
        }


_RUNTIMES: dict[str, Json] = {
    "gguf": {
        "name": "llama.cpp-mac-arm64-apple-metal-advsimd",
        "version": "1.3.0",
        "supported_formats": ["gguf"],
    },
    "mlx": {
        "name": "mlx-llm-mac-arm64-apple-metal-advsimd",
        "version": "1.3.0",
        "supported_formats": ["mlx"],
    },
}


def _fragments(call: Call, id_: str) -> Iterator[Json]:
    """LM Studio docs: tool use, streaming. The first alone has id, type and name."""
    yield {"id": id_, "type": "function", "function": {"name": call.name, "arguments": ""}}
    for piece in re.findall(r"\w[\w ]*|\W+", call.text):
        yield {"function": {"arguments": piece}}


def _streamed(completion: Completion, says: Says, with_usage: bool) -> Pieces:
    """Server-sent events; seen in the wild: a failure is one, too, in a reply that succeeds."""
    yield head("text/event-stream")
    for delta in itertools.islice(completion.deltas(), says.fails_after):
        if says.pause:
            yield float(says.pause)
        yield _event(completion.chunk(delta))
    if says.fails_after is None:
        yield _event(completion.chunk({}, completion.reply.finish_reason))
        if with_usage:
            yield _event(completion.last_chunk())
        yield chunk(b"data: [DONE]\n\n")
    else:
        failure = Refused(says.failure, type="internal_error")
        yield chunk(b"event: error\n" + _data({"error": failure.details}))
    yield _END


_END = b"0\r\n\r\n"


def _event(payload: Json) -> bytes:
    return chunk(_data(payload))


def _data(payload: Json) -> bytes:
    return f"data: {json.dumps(payload)}\n\n".encode()


# Which path is what


def _left_out(_server: LMStudio, request: Request, *_: str) -> Pieces:
    """A path that LM Studio has and this stand-in has not: not to be taken for an unknown one."""
    raise Refused(f"The stand-in does not do {request.path}", status=501, bare=True)


_ROUTES: tuple[tuple[str, str, Api, Callable[..., Pieces]], ...] = (
    ("GET", "/lmstudio-greeting", "old", _greeting),
    ("GET", "/lms-status", "old", _status),
    ("GET", "/v1/models", "old", _list_openai),
    ("GET", "/v1/models/(.+)", "old", _show_openai),
    ("POST", "/v1/chat/completions", "old", _chat),
    ("POST", "/v1/embeddings", "old", _embed),
    ("POST", "/v1/completions", "old", _left_out),
    ("GET", "/api/v0/models", "v0", _list_v0),
    ("GET", "/api/v0/models/(.+)", "v0", _show_v0),
    ("POST", "/api/v0/chat/completions", "v0", _chat),
    ("POST", "/api/v0/embeddings", "v0", _embed),
    ("POST", "/api/v0/completions", "v0", _left_out),
    ("POST", "/v1/responses", "v0", _left_out),
    ("GET", "/api/v1/models", "v1", _list_v1),
    ("POST", "/api/v1/models/load", "v1", _load),
    ("POST", "/api/v1/models/unload", "v1", _unload),
    ("POST", "/api/v1/models/download", "v1", _download),
    ("GET", "/api/v1/models/download/status/(.+)", "v1", _download_status),
    ("POST", "/api/v1/chat", "v1", _left_out),
    ("POST", "/v1/messages", "v1", _left_out),
)
"""Method, path, the age that has it first, and what answers."""
