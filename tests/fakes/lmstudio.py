"""A fake of LM Studio's server, after its documentation and after captures by others.

`LMStudio` is the function that a `StandIn` calls; tests/support/trees.py writes its models' files.
Docstrings name their source: "docs" is LM Studio's documentation, "seen" are captures and bug
reports, and "assumed" is a guess.
"""

import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.fakes.http_server import DATA, Request, chunk, head, json_reply
from tests.fakes.says import Completion, Json, Pieces, ReasoningIn, Says, count_tokens

Api = Literal["v1", "v0", "old"]


# Models


@dataclass(frozen=True)
class Model:
    """A model on the disk, by its record in /api/v1/models (docs)."""

    record: Json

    @property
    def key(self) -> str:
        return str(self.record["key"])

    @property
    def size_bytes(self) -> int:
        return int(self.record["size_bytes"])

    @property
    def variants(self) -> list[str]:
        """Models of LM Studio's catalogue have some: `key@quantization`, the selected one first."""
        return list(self.record.get("variants", ()))

    def variant(self, name: str) -> str:
        """The variant that `name` means; the bare key means the selected one."""
        return self.variants[0] if self.variants and name == self.key else name

    @property
    def reasoning_in(self) -> ReasoningIn:
        """OpenAI's models have another field than all others (seen)."""
        return "reasoning" if self.record["publisher"] == "openai" else "reasoning_content"


_LISTED = json.loads((DATA / "lmstudio_models.json").read_text("utf-8"))["models"]
MODELS = tuple(Model(record) for record in _LISTED)
"""Two of the catalogue, two others (the second is not trained for tools), two quantizations of one
repository, and one for embeddings."""


@dataclass(frozen=True)
class Instance:
    """A copy of a model in memory."""

    id: str
    model: Model
    variant: str
    config: Json
    jit: bool

    @property
    def context_length(self) -> int:
        return int(self.config["context_length"])

    @property
    def listed(self) -> Json:
        """Its record in the list."""
        return {"id": self.id, "config": self.config}


class Refused(Exception):
    """An error instead of what was asked for (docs, seen).

    `bare` is an error of one of the checks that answer with only a string.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        type: str = "invalid_request_error",
        bare: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.bare = status, bare
        self.details: Json = {"message": message, "type": type, "param": None, "code": None}


_KEY_NEEDED: Json = {
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


# The server


@dataclass(frozen=True)
class LMStudio:
    """The server: the settings in its window, and the models that it has loaded."""

    says: Callable[[Json], Says] = lambda _body: Says("Hello.")
    """What its models say, by the body of the request."""
    api: Api = "v1"
    """Its newest interface: that of 0.4 and later, of 0.3.6 and later, or an older one."""
    token: str | None = None
    """The token that it requires, if it requires one."""
    models: tuple[Model, ...] = MODELS
    jit: bool = True
    """Whether a request for a model that is not loaded loads it."""
    reasoning_in: ReasoningIn | None = None
    """Where reasoning arrives, if not where the version and the model have it."""
    unloadable: frozenset[str] = frozenset()
    """The models for which there is not enough memory."""
    load_seconds: float = 0.0
    catalogue: Mapping[str, Model] = field(default_factory=dict)
    """What can be downloaded: by a name of the catalogue or a repository's URL, with @ and the
    quantization that was asked for, if one was."""
    undownloadable: frozenset[str] = frozenset()
    """Names in the catalogue whose download fails."""
    instances: list[Instance] = field(default_factory=list)
    """The models that are loaded at the moment."""
    jobs: dict[str, list[str]] = field(default_factory=dict)
    """Downloads: by id, the name of the model, once for each time that the status was asked."""
    downloaded: list[Model] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(814_890_118))
    """Ids of replies and calls; it counts them."""

    def __call__(self, request: Request) -> Pieces:
        """The reply to `request`, whatever it is."""
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            yield json_reply(_KEY_NEEDED, 401)
            return
        try:
            yield from self._route(request)
        except Refused as error:
            # Older paths, and some checks, answer with a string.
            as_string = error.bare or self.api != "v1"
            yield json_reply({"error": str(error) if as_string else error.details}, error.status)

    def _route(self, request: Request) -> Pieces:
        for method, pattern, since, answer in _ROUTES:
            match = re.fullmatch(pattern, request.path.partition("?")[0])
            if match and method == request.method and _AGES.index(since) <= _AGES.index(self.api):
                return answer(self, request, *match.groups())
        return _unexpected(request)

    @property
    def on_disk(self) -> tuple[Model, ...]:
        return (*self.models, *self.downloaded)

    def load(
        self, name: str, identifier: str | None = None, jit: bool = False, **asked: Any
    ) -> Instance:
        """Loads a model, a second time if it is loaded already; tests call it, too."""
        model = self.known(name)
        assert model is not None, f"{name} is not one of the models"
        variant = model.variant(name)
        with self._lock:
            if jit:
                # What was loaded on demand is unloaded for the next (docs: auto-evict).
                self.instances[:] = [
                    each for each in self.instances if not each.jit or each.variant == variant
                ]
            id_ = self._free_id(identifier or name)
            loaded = Instance(id_, model, variant, _load_config(model, asked), jit)
            self.instances.append(loaded)
        return loaded

    def unload(self, instance_id: str) -> bool:
        """Whether there was such an instance."""
        with self._lock:
            left = [each for each in self.instances if each.id != instance_id]
            found = len(left) < len(self.instances)
            self.instances[:] = left
        return found

    def known(self, name: str) -> Model | None:
        """The model of this key or variant."""
        return next((it for it in self.on_disk if name in (it.key, *it.variants)), None)

    def loaded_of(self, model: Model) -> list[Instance]:
        return [instance for instance in self.instances if instance.model == model]

    def _free_id(self, wanted: str) -> str:
        """`wanted`, or `wanted:2` and so on if it is taken (seen)."""
        taken = {instance.id for instance in self.instances}
        numbered = (f"{wanted}:{number}" for number in itertools.count(2))
        return next(it for it in itertools.chain([wanted], numbered) if it not in taken)

    def instance_for(self, body: Json, wanted: str) -> Generator[float, None, Instance]:
        """The instance that answers, which need not be the one that the request names (seen)."""
        name = body.get("model") or ""
        model = self.known(name)
        if model is not None and (model.record["type"] != wanted or name in self.unloadable):
            why = _SIGABRT if model.record["type"] == wanted else f"Model is not {wanted}."
            raise Refused(f'Failed to load model "{name}". Error: {why}')
        variant = model and model.variant(name)
        for instance in self.instances:
            if name == instance.id or variant == instance.variant:
                return instance
        if model is not None and self.jit:
            yield from self.take_time()
            return self.load(name, jit=True)
        for instance in self.instances:
            if instance.model.record["type"] == wanted:
                return instance
        raise Refused(_NO_MODELS)

    def take_time(self) -> Generator[float, None, None]:
        if self.load_seconds:
            yield float(self.load_seconds)


_AGES: tuple[Api, ...] = ("old", "v0", "v1")
_LLAMA_CPP: Json = {
    "eval_batch_size": 512,
    "parallel": 4,
    "flash_attention": True,
    "offload_kv_cache_to_gpu": True,
}


def _load_config(model: Model, asked: Json) -> Json:
    """The settings of an instance (docs: load a model); only llama.cpp's has more than one."""
    usual = {"context_length": min(4096, model.record["max_context_length"])}
    is_llama_cpp = model.record["format"] == "gguf" and model.record["type"] == "llm"
    return {**usual, **(_LLAMA_CPP if is_llama_cpp else {}), **asked}


def _unexpected(request: Request) -> Pieces:
    """Unknown paths and methods succeed, in all versions (seen)."""
    said = f"Unexpected endpoint or method. ({request.method} {request.path})"
    yield json_reply({"error": said})


def _greeting(_server: LMStudio, _request: Request) -> Pieces:
    """The path that `lms server status` and the SDK ask at every port."""
    yield json_reply({"lmstudio": True})


# Lists


def _list_v1(server: LMStudio, _request: Request) -> Pieces:
    """Docs: list models. The key is `models`."""
    records = [
        {**model.record, "loaded_instances": [each.listed for each in server.loaded_of(model)]}
        for model in server.on_disk
    ]
    yield json_reply({"models": records})


def _list_v0(server: LMStudio, _request: Request) -> Pieces:
    """Docs: REST API v0."""
    records = [_record_v0(server, model) for model in server.on_disk]
    yield json_reply({"object": "list", "data": records})


def _record_v0(server: LMStudio, model: Model) -> Json:
    """`loaded_context_length` and `capabilities` are not in the docs (seen)."""
    record, instances = model.record, server.loaded_of(model)
    able = record.get("capabilities", {})
    kind = {"embedding": "embeddings"}.get(record["type"], record["type"])
    return {
        "id": model.key,
        "object": "model",
        "type": "vlm" if able.get("vision") else kind,
        "publisher": record["publisher"],
        "arch": record.get("architecture"),
        "compatibility_type": record["format"],
        "quantization": record["quantization"]["name"],
        "state": "loaded" if instances else "not-loaded",
        "max_context_length": record["max_context_length"],
        **({"loaded_context_length": instances[0].context_length} if instances else {}),
        **({"capabilities": ["tool_use"]} if able.get("trained_for_tool_use") else {}),
    }


def _list_openai(server: LMStudio, _request: Request) -> Pieces:
    """Docs: OpenAI compatibility. It lists what would be loaded on demand, or what is loaded."""
    keys = [model.key for model in server.on_disk] if server.jit else []
    names = dict.fromkeys([*keys, *(instance.id for instance in server.instances)])
    owner = {"object": "model", "owned_by": "organization_owner"}
    yield json_reply({"data": [{"id": name, **owner} for name in names], "object": "list"})


# Loading, unloading, downloading

_LOAD_KEYS = {"model", "context_length", "num_experts", *_LLAMA_CPP} - {"parallel"}


def _load(server: LMStudio, request: Request) -> Pieces:
    """Docs: load a model. It never takes what is loaded already (seen)."""
    body = dict(request.body)
    if unknown := sorted(body.keys() - _LOAD_KEYS):
        names = ", ".join(f"'{name}'" for name in unknown)
        raise Refused(f"Unrecognized key(s) in object: {names}", type="invalid_request")
    name = body.pop("model")
    model = _known(server, name)
    if name in server.unloadable:
        raise Refused(_SIGABRT, 500, type="model_load_failed")
    yield from server.take_time()
    instance = server.load(name, **body)
    yield json_reply(
        {
            "type": model.record["type"],
            "instance_id": instance.id,
            "load_time_seconds": server.load_seconds,
            "status": "loaded",
        }
    )


def _known(server: LMStudio, name: str) -> Model:
    model = server.known(name)
    if model is None:
        raise Refused(f'Model "{name}" not found', 404, type="model_not_found")
    return model


def _unload(server: LMStudio, request: Request) -> Pieces:
    """Docs: unload a model. It takes the id of an instance, not a key."""
    wanted = request.body.get("instance_id")
    if not server.unload(wanted):
        said = f'Model instance "{wanted}" not found'
        raise Refused(said, 404, type="model_not_found")
    yield json_reply({"instance_id": wanted})


_REPOSITORY = "https://huggingface.co/"


def _download(server: LMStudio, request: Request) -> Pieces:
    """Docs: download a model. Statuses and words of refusals are assumed."""
    name, quantization = request.body["model"], request.body.get("quantization")
    if quantization and not name.startswith(_REPOSITORY):
        said = "Quantization can only be specified for Hugging Face links"
        raise Refused(said, type="invalid_request")
    name += f"@{quantization}" if quantization else ""
    if name not in server.catalogue:
        raise Refused(f'Model "{name}" not found', 404, type="model_not_found")
    model = server.catalogue[name]
    if model in server.on_disk:
        yield json_reply({"status": "already_downloaded", "total_size_bytes": model.size_bytes})
        return
    id_ = f"job_{hashlib.sha256(name.encode()).hexdigest()[:10]}"
    server.jobs[id_] = [name]
    yield json_reply(_job(id_, "downloading", model))


def _job(id_: str, status: str, model: Model, **more: Any) -> Json:
    started = {"total_size_bytes": model.size_bytes, "started_at": "2025-10-03T15:33:23.496Z"}
    return {"job_id": id_, "status": status, **started, **more}


def _download_status(server: LMStudio, _request: Request, id_: str) -> Pieces:
    """Docs: get download status. Each time a third more has come, and once it is paused."""
    name = server.jobs[id_][0]
    server.jobs[id_].append(name)
    asked, model = len(server.jobs[id_]) - 1, server.catalogue[name]
    come = {"downloaded_bytes": model.size_bytes * min(asked, 3) // 3}
    if name in server.undownloadable and asked > 1:
        yield json_reply(_job(id_, "failed", model, **come))
    elif asked < 3:
        pace = {"bytes_per_second": 7834.04, "estimated_completion": "2025-10-03T15:43:12.102Z"}
        yield json_reply(_job(id_, ("downloading", "paused")[asked - 1], model, **come, **pace))
    else:
        server.downloaded.append(model)
        ended = {"completed_at": "2025-10-03T15:43:12.102Z"}
        yield json_reply(_job(id_, "completed", model, **come, **ended))


# Embeddings


def _embed(server: LMStudio, request: Request) -> Pieces:
    """Docs: embeddings. The usage is zero there, and the quantization is in the name."""
    given = request.body["input"]
    texts = [given] if isinstance(given, str) else given
    instance = yield from server.instance_for(request.body, "embedding")
    # Made up, but the same for the same text.
    vectors = [[b / 255 for b in hashlib.sha256(it.encode()).digest()[:8]] for it in texts]
    data = [{"object": "embedding", "embedding": v, "index": i} for i, v in enumerate(vectors)]
    name = f"{instance.model.key}@{instance.model.record['quantization']['name'].lower()}"
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    yield json_reply({"object": "list", "data": data, "model": name, "usage": usage})


# Chat

_DATA_URI = re.compile(r"data:image/[^;,]+;base64,[A-Za-z0-9+/]+=*")


def _chat(server: LMStudio, request: Request) -> Pieces:
    """Docs: OpenAI compatibility, chat completions."""
    body = request.body
    _check_request(server, body)
    instance = yield from server.instance_for(body, "llm")
    _check_against_model(body, instance.model)
    says = _heard(server, body, instance)
    # Before 0.3.9 there were only tags.
    usual = "think" if server.api == "old" else instance.model.reasoning_in
    reasoning_in = server.reasoning_in or usual
    completion = Completion(instance.id, says, reasoning_in, server.numbers, _prompt_tokens(body))
    if body.get("stream"):
        asked = (body.get("stream_options") or {}).get("include_usage")
        yield from completion.streamed(bool(asked) and server.api != "old")
    elif says.fails_after is not None:
        raise Refused(says.failure, type="internal_error")
    else:
        yield json_reply(completion.whole())


_CHAT_KEYS = {
    *("model", "input", "system_prompt", "integrations", "stream", "temperature", "top_p"),
    *("top_k", "min_p", "repeat_penalty", "max_output_tokens", "reasoning", "context_length"),
    *("store", "previous_response_id"),
}


def _chat_v1(server: LMStudio, request: Request) -> Pieces:
    """Docs: chat, streaming events. That it refuses unknown keys is assumed."""
    body = request.body
    if unknown := sorted(body.keys() - _CHAT_KEYS):
        raise Refused(
            f"Unrecognized key(s) in object: {', '.join(unknown)}", type="invalid_request"
        )
    messages = [{"content": body.get("system_prompt", "")}, {"content": body["input"]}]
    says = server.says({**body, "messages": messages})
    is_loaded = any(body["model"] == each.id for each in server.instances)
    instance = yield from server.instance_for({"model": body["model"]}, "llm")
    yield head("text/event-stream")
    prompt_tokens = _prompt_tokens({"messages": messages})
    for event in _events_v1(server, instance, says, prompt_tokens, is_loaded=is_loaded):
        if says.pause:
            yield float(says.pause)
        lines = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
        yield chunk(lines.encode())
    yield b"0\r\n\r\n"


def _events_v1(
    server: LMStudio, instance: Instance, says: Says, prompt_tokens: int, *, is_loaded: bool
) -> Iterator[Json]:
    named = {"model_instance_id": instance.id}
    yield {"type": "chat.start", **named}
    load = {} if is_loaded else {"model_load_time_seconds": 2.656}
    if not is_loaded:
        yield {"type": "model_load.start", **named}
        yield {"type": "model_load.progress", **named, "progress": 0.65}
        yield {"type": "model_load.end", **named, "load_time_seconds": 2.656}
    yield {"type": "prompt_processing.start"}
    yield {"type": "prompt_processing.progress", "progress": 0.5}
    yield {"type": "prompt_processing.end"}
    if says.fails_after is not None:
        yield {"type": "error", "error": {"type": "internal_error", "message": says.failure}}
    for kind, text in (("reasoning", says.reasoning), ("message", says.text)):
        if text:
            yield {"type": f"{kind}.start"}
            for start in range(0, len(text), 4):
                yield {"type": f"{kind}.delta", "content": text[start : start + 4]}
            yield {"type": f"{kind}.end"}
    stats = {
        "input_tokens": prompt_tokens,
        "total_output_tokens": says.tokens,
        "reasoning_output_tokens": count_tokens(says.reasoning),
        "tokens_per_second": 43.73,
        "time_to_first_token_seconds": 0.781,
        **load,
    }
    yield {"type": "chat.end", "result": {**named, "output": [], "stats": stats}}


def _check_request(server: LMStudio, body: Json) -> None:
    """Refuses what no model takes; `text` is taken since 0.3.18 (seen)."""
    kind = (body.get("response_format") or {"type": "json_schema"})["type"]
    allowed = ("json_schema",) if server.api == "old" else ("json_schema", "text")
    if kind not in allowed:
        named = " or ".join(f"'{name}'" for name in allowed)
        raise Refused(f"'response_format.type' must be {named}", bare=True)
    if not all(map(_DATA_URI.fullmatch, _images(body))):
        raise Refused("'url' field must be a base64 encoded image.", bare=True)
    for number, tool in enumerate(body.get("tools") or ()):
        if tool["function"].get("parameters", {}).get("type") != "object":
            where = f"tools[{number}].function.parameters.type"
            raise Refused(f"'{where}' must be 'object'", bare=True)


def _check_against_model(body: Json, model: Model) -> None:
    """Refuses images for a model without vision (seen)."""
    if _images(body) and not model.record["capabilities"]["vision"]:
        raise Refused("Model does not support images. Please use a model that does.", bare=True)


def _heard(server: LMStudio, body: Json, instance: Instance) -> Says:
    """What the model says, unless the prompt is too long for the loaded context (seen)."""
    needed, there = _prompt_tokens(body), instance.context_length
    if needed <= there:
        return server.says(body)
    failure = (
        f"Trying to keep the first {needed} tokens when context overflows. However, the model is "
        f"loaded with context length of only {there} tokens, which is not enough. Try to load the "
        "model with a larger context length, or provide a shorter input"
    )
    return Says(fails_after=0, failure=failure)


def _images(body: Json) -> list[str]:
    return [part["image_url"]["url"] for part in _parts(body) if part["type"] == "image_url"]


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
    return count_tokens("".join([*texts, *given]))


_ROUTES: tuple[tuple[str, str, Api, Callable[..., Pieces]], ...] = (
    ("GET", "/lmstudio-greeting", "old", _greeting),
    ("GET", "/v1/models", "old", _list_openai),
    ("POST", "/v1/chat/completions", "old", _chat),
    ("POST", "/v1/embeddings", "old", _embed),
    ("POST", "/api/v1/chat", "v1", _chat_v1),
    ("GET", "/api/v0/models", "v0", _list_v0),
    ("GET", "/api/v1/models", "v1", _list_v1),
    ("POST", "/api/v1/models/load", "v1", _load),
    ("POST", "/api/v1/models/unload", "v1", _unload),
    ("POST", "/api/v1/models/download", "v1", _download),
    ("GET", "/api/v1/models/download/status/(.+)", "v1", _download_status),
)
"""Method, path, the age that has it first, and what answers."""
