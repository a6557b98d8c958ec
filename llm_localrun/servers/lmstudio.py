"""LM Studio: its own list of models, the context of a loaded instance, and downloads.

Models are listed at /api/v1/models since 0.4.0, at /api/v0/models since 0.3.6, else by name only. A
request for a model that is not loaded loads it with the context that is set in the app, 4,096
tokens at first. Where that is too small, this module loads an instance with more in the place of
those that are there, because loading a model that is loaded makes a second copy. It answers 200 to
every path. Where a model runs is left to `lmstudio_devices`.

Source: LM Studio's REST API documentation (April 2026).
"""

import math
import re
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import Field

from llm_localrun.errors import (
    BadReply,
    LocalRunError,
    PromptTooLong,
    PullFailed,
    ServerRefused,
    ServerUnreachable,
)
from llm_localrun.models import Endpoint, EndpointReport, LocalModel, Served
from llm_localrun.privacy import where_runs
from llm_localrun.servers import lmstudio_devices
from llm_localrun.servers.base import (
    CONTEXT,
    PROMPT,
    Facts,
    ModelListing,
    PreparedRequest,
    ServeRequest,
    Sign,
    WireOption,
    local_url,
    sent_as_named,
)
from llm_localrun.servers.fields import (
    Entries,
    Maybe,
    capabilities_of,
    served_model,
    stated_purpose,
    weights_in,
)
from llm_localrun.servers.lmstudio_home import server_port
from llm_localrun.servers.openai_compatible import (
    ListedModel,
    OpenAICompatible,
    entries_in,
    listed_models,
)
from llm_localrun.servers.waiting import POLL_S, TIMEOUT_S, loading
from llm_localrun.system.paths import user_home
from llm_localrun.system.progress import Progress, is_shown, working
from llm_localrun.tokens.window import (
    MIN_CONTEXT_TOKENS,
    STOP_DISTANCE_TOKENS,
    Limits,
    Size,
    round_up_context,
    too_long,
)
from llm_localrun.wire import http, lmstudio
from llm_localrun.wire.request import ChatRequest
from llm_localrun.wire.response import Ask, ProbeReply, decode_whole, parse_reply
from llm_localrun.wire.shapes import Count, Name, Text, WireModel, error_in, parse_payload
from llm_localrun.wire.sse import Payload

_INTERNAL_PORTS = frozenset({41343, 52993, 16141, 39414, 22931})
"""Ports at which its own processes talk to each other."""
_POLL_S = 0.5
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_OWNER_AND_NAME = f"{_PART}/{_PART}"
_DOWNLOAD_PATH = "/api/v1/models/download"

_LONG_PROMPT_TOKENS = 1000
"""A longer prompt takes so long to read that it is worth showing how far it is."""
_NOT_TAKEN = (400, 404, 405, 415, 422, 501)
"""The status with which a version may refuse a request that /v1/chat/completions takes."""
_SHARED_OPTIONS = {
    *("temperature", "top_p", "top_k", "repeat_penalty"),
    *("quantization", "context_size", "timeout", "tool_repair"),
}
"""Those that /api/v1/chat takes under the same names, and those that are not sent."""

# What /api/v1/models/load takes besides the model and the context. The settings of an instance are
# carried over to the one that takes its place.
_CARRIED = ("eval_batch_size", "flash_attention", "num_experts", "offload_kv_cache_to_gpu")


class _NamedQuantization(WireModel):
    name: Maybe[Text] = None


class _Instance(WireModel):
    """A copy of a model in memory."""

    id: Maybe[Text] = None
    config: Maybe[dict[str, Any]] = None

    @property
    def context_size(self) -> int:
        """In tokens; 0 if it does not say."""
        size = (self.config or {}).get("context_length")
        return size if isinstance(size, int) else 0


class _ReasoningSettings(WireModel):
    allowed_options: Maybe[Entries[Text]] = None


class _StudioCapabilities(WireModel):
    vision: Maybe[bool] = None
    reasoning: Maybe[_ReasoningSettings] = None


class _StudioModel(WireModel):
    key: Name
    type: Text
    architecture: Maybe[Text] = None
    quantization: Maybe[_NamedQuantization] = None
    size_bytes: Maybe[Count] = None
    params_string: Maybe[Text] = None
    loaded_instances: Maybe[Entries[_Instance]] = None
    max_context_length: Maybe[Count] = None
    capabilities: Maybe[_StudioCapabilities] = None
    variants: Maybe[Entries[Name]] = None
    selected_variant: Maybe[Text] = None

    @property
    def other_variants(self) -> list[str]:
        """The names of the variants that the key does not stand for: `KEY@q8_0`."""
        variants = self.variants or ()
        selected = self.selected_variant or next(iter(variants), None)
        return [variant for variant in variants if variant != selected]


class _StudioModels(WireModel):
    """/api/v1/models."""

    models: Entries[_StudioModel]


class _OldModel(WireModel):
    id: Name
    type: Text
    state: Maybe[Text] = None
    arch: Maybe[Text] = None
    quantization: Maybe[Text] = None
    max_context_length: Maybe[Count] = None
    loaded_context_length: Maybe[Count] = None


class _OldModels(WireModel):
    """/api/v0/models."""

    data: Entries[_OldModel]


class _LoadReply(WireModel):
    instance_id: Text
    load_time_seconds: float | None = None


class _DownloadJob(WireModel):
    status: Literal["downloading", "paused", "completed", "failed", "already_downloaded"]
    job_id: str = Field(default="", pattern=r"^[\w-]*$")
    """Absent if there is nothing to do."""
    total_size_bytes: int = 0
    downloaded_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class _StudioRequest(PreparedRequest):
    """A request whose prompt is `too_long`, if it is estimated to be."""

    too_long: PromptTooLong | None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Some builds send an empty answer instead of an error about such a prompt."""
        try:
            yield
        except BadReply as error:
            raise self.too_long or error from None


@dataclass(frozen=True, kw_only=True)
class _ShownRequest(PreparedRequest):
    """A request to /api/v1/chat; `usual` is the one that says the same without progress."""

    usual: PreparedRequest

    def after_refusal(self, error: LocalRunError) -> PreparedRequest | None:
        is_refusal = isinstance(error, ServerRefused) and error.status in (None, *_NOT_TAKEN)
        return self.usual if is_refusal or isinstance(error, BadReply) else None


class LMStudio(OpenAICompatible):
    kind = "lmstudio"
    title = "LM Studio"
    checked = "0.4 (read)"
    start_hint = "Start its server with `lms server start`, or in the app under Developer"
    list_position = 1
    usual_ports = (1234,)
    url_variables = ("LMSTUDIO_API_BASE",)
    key_variables = ("LM_API_TOKEN", "LMSTUDIO_API_KEY")
    found_by = ("its settings",)
    owned_by = "organization_owner"
    locked_error = ("invalid_api_key", "invalid_request")
    signs = (
        Sign("/lmstudio-greeting", "lmstudio", True),
        Sign("/api/v1/models", "models"),
    )
    relays = True  # LM Link, since 0.4.5
    # In llm-lmstudio 0.3: of one server, of several servers, and of a model that embeds texts.
    plugin_ids = ("lmstudio/{name}", "lmstudio@{host}/{name}", "{name}")
    names_models_as_listed = True
    overflow_texts = (
        # What it keeps are the system prompt and the first message.
        f"keep the first (?P<least>){PROMPT} tokens.*?overflows.*?only {CONTEXT} tokens",
        rf"from the initial prompt.*?n_keep: (?P<least>){PROMPT}\s*>=\s*n_ctx: {CONTEXT}",
        "tokens to keep from the initial prompt is greater than the context length",
        rf"truncate prompt with n_keep \((?P<least>){PROMPT}\) >= n_ctx \({CONTEXT}\)",
        f"input length {PROMPT} exceeds context length {CONTEXT}",
    )
    pull_names = re.compile(rf"{_OWNER_AND_NAME}(?:@[\w.-]+)?")
    pulls_repositories = True
    interrupted_pull = "LM Studio continues the download."
    reasoning_field = "reasoning_content"
    options = {
        **OpenAICompatible.options,
        **sent_as_named("top_k", "repeat_penalty"),
        "keep_alive": WireOption("ttl", minimum=1),
    }

    # Finding it and its models

    @classmethod
    def addresses_in_settings(cls) -> Iterator[str]:
        port = server_port(user_home())
        if port not in _INTERNAL_PORTS:
            yield from local_url(port)

    @classmethod
    def locate(cls, report: EndpointReport, *, thorough: bool) -> EndpointReport:
        return lmstudio_devices.locate(report, thorough=thorough)

    def is_same_name(self, listed: str, answers: str) -> bool:
        """`KEY@VARIANT` and `KEY:2` are instances of KEY."""
        return super().is_same_name(*(re.split(r"[@:]", name)[0] for name in (listed, answers)))

    def list_models(
        self, ask: Ask, v1_models: ProbeReply, known: ModelListing
    ) -> ModelListing | None:
        reply = ask("/api/v1/models")
        if reply is None:
            return None
        if listing := parse_reply(_StudioModels, reply):
            models = [each for model in listing.models for each in _variants(self.endpoint, model)]
            return ModelListing(_without_duplicates(models))
        old_reply = ask("/api/v0/models")
        if old_reply is None:
            return None
        if old := parse_reply(_OldModels, old_reply):
            models = [_old_model(self.endpoint, model) for model in old.data]
            return ModelListing(_without_duplicates(models))
        names = entries_in(v1_models, ListedModel)
        return ModelListing(listed_models(self.endpoint, names, {})) if names else None

    # Running a model

    def prepare(self, request: ServeRequest, route: Served) -> PreparedRequest:
        """May load another instance. Raises `PromptTooLong` and `ServerRefused`."""
        asked, trained = request.context_size, request.model.context_max or math.inf
        limits = Limits(trained=trained)
        self.check_answer(request, asked or request.model.context_max, limits)
        size = request.size_unless_below(MIN_CONTEXT_TOKENS - request.answer_tokens)
        needed = asked or size.tokens + request.answer_tokens
        if asked is None and needed <= min(
            route.context_loaded or MIN_CONTEXT_TOKENS, MIN_CONTEXT_TOKENS
        ):
            return self._prepared(request, request.model.name, route.context_loaded, size)
        with self.probe() as probe:
            instances = _instances_of(probe.ask, request.model.name)
        if instances is None:
            # Before 0.4.0 no model could be loaded through the API.
            return super().prepare(request, route)
        context_size = asked or round_up_context(needed, trained)
        self.check_fits(request, size, context_size, limits)
        enough = [each for each in instances if each.context_size >= min(needed, context_size)]
        if enough:
            instance = min(enough, key=lambda each: each.context_size)
            name = instance.id or request.model.name
            return self._prepared(request, name, instance.context_size, size)
        loaded = self._replace_instances(request, instances, context_size)
        seconds = loaded.load_time_seconds
        return self._prepared(request, loaded.instance_id, context_size, size, seconds)

    def cuts_silently(self, chat: ChatRequest) -> bool:
        """By default it keeps the system prompt and the first message, and cuts what follows.

        If these do not fit, it says so. https://github.com/lmstudio-ai/lmstudio-js/pull/47
        """
        return sum(message.role != "system" for message in chat.messages) > 1

    def _prepared(
        self,
        request: ServeRequest,
        name: str,
        context_size: int | None,
        size: Size,
        load_seconds: float | None = None,
    ) -> PreparedRequest:
        limits = Limits(request.model.context_max or math.inf)
        is_doubtful = context_size is not None and not size.fits(context_size)
        usual = _StudioRequest(
            self,
            self.chat_path,
            self.encode(name, request.chat),
            name,
            context_size,
            limits,
            load_seconds,
            too_long=too_long(size, self.label, context_size or 0, limits) if is_doubtful else None,
        )
        return self._with_events(request, usual)

    def _with_events(self, request: ServeRequest, usual: PreparedRequest) -> PreparedRequest:
        """The request at the path that says how far it is, where that says the same."""
        name, context_size = usual.model, usual.context_size
        # Whether the path takes the id of an instance is not documented.
        if name != request.model.name or not _is_worth_showing(request, context_size):
            return usual
        return _ShownRequest(
            _WithEvents(self.endpoint, self.key, partial(self._largest, name, context_size)),
            _WithEvents.chat_path,
            lmstudio.encode(name, request.chat, self.encode_options(request.chat.options)),
            name,
            context_size,
            usual.limits,
            usual.load_seconds,
            usual=usual,
        )

    def _largest(self, name: str, context_size: int | None) -> int | None:
        """The tokens with which the context is full; asked for if the request loaded the model."""
        if context_size is None:
            with self.probe(TIMEOUT_S) as probe:
                instances = _instances_of(probe.ask, name) or ()
            context_size = min((each.context_size for each in instances), default=None)
        return context_size and context_size - STOP_DISTANCE_TOKENS

    def watch(
        self, request: ServeRequest, prepared: PreparedRequest, is_over: threading.Event
    ) -> Iterator[Progress]:
        """Its list says that a model is not loaded yet."""
        while not is_over.is_set():
            with self.probe(TIMEOUT_S) as probe:
                if _is_loaded(probe.ask, request.model.name) is not False:
                    break
            yield loading(request.model.name)
            is_over.wait(POLL_S)
        yield from self.watch_reading(request, is_over)

    def _replace_instances(
        self, request: ServeRequest, instances: Sequence[_Instance], context_size: int
    ) -> _LoadReply:
        """Loads the model with this context, after unloading all `instances` of it.

        Raises `ServerRefused`, and `ServerUnreachable` if it takes too long.
        """
        name = request.model.name
        with self.probe(request.timeout_s) as probe, working(loading(name)):
            for instance in instances:
                self._admin(probe.ask, request, "unload", {"instance_id": instance.id})
            config = (instances[0].config if instances else None) or {}
            carried = {setting: config[setting] for setting in _CARRIED if setting in config}
            body = {"model": name, "context_length": context_size, **carried}
            reply = self._admin(probe.ask, request, "load", body)
        return parse_reply(_LoadReply, reply) or _LoadReply(instance_id=name)

    def _admin(self, ask: Ask, request: ServeRequest, action: str, body: Payload) -> ProbeReply:
        """The reply to POST /api/v1/models/ACTION. Raises like `_replace_instances`."""
        reply = ask(f"/api/v1/models/{action}", body)
        if reply is None:
            raise ServerUnreachable(
                f"{self.label} did not load {request.model.name} within"
                f" {request.timeout_s:g} seconds",
                "Check whether it is busy, or wait longer with -o timeout SECONDS",
            )
        error = error_in(reply.payload) if isinstance(reply.payload, dict) else None
        if error is None and reply.status < 300:
            return reply
        said = error.message if error else reply.text.strip() or f"HTTP {reply.status}"
        raise ServerRefused(
            f"{self.label} says: {' '.join(said.split()).rstrip('.')}",
            "Use a smaller -o context_size, or unload other models there",
        )

    # What it does with its own models

    def pull(
        self, name: str, *, is_repository: bool = False, quantization: str = ""
    ) -> Generator[Progress, None, None]:
        """Has LM Studio download a model of its catalog, or of a repository on the hub.

        https://lmstudio.ai/docs/developer/rest/download: a job is started and polled. There is no
        request that ends one, or that deletes a model. Raises a `LocalRunError`.
        """
        body = {"model": f"https://huggingface.co/{name}" if is_repository else name}
        if quantization:
            body["quantization"] = quantization
        job = self._ask_job("POST", _DOWNLOAD_PATH, body)
        path = f"{_DOWNLOAD_PATH}/status/{job.job_id}"
        while job.status in ("downloading", "paused"):
            action = "Paused in LM Studio" if job.status == "paused" else "Downloading"
            yield Progress(action, job.downloaded_bytes, job.total_size_bytes or None)
            time.sleep(_POLL_S)
            job = self._ask_job("GET", path)
        if job.status == "failed":
            raise PullFailed(
                f"{self.label} could not download {name}", "LM Studio's window says why"
            )

    @classmethod
    def pull_name(cls, name: str, quantization: str) -> str:
        key = name.partition("@")[0]
        return f"{key}@{quantization.lower()}" if re.fullmatch(_OWNER_AND_NAME, key) else ""

    def _ask_job(self, method: str, path: str, body: Payload | None = None) -> _DownloadJob:
        received = http.stream(self.http_request(method, path, body))
        return decode_whole(
            self.label, received, partial(parse_payload, _DownloadJob), self.response_context
        )


class _WithEvents(LMStudio):
    """The same server, asked at the path whose responses say how far it is."""

    chat_path = "/api/v1/chat"

    def __init__(
        self, endpoint: Endpoint, key: str | None, largest: Callable[[], int | None]
    ) -> None:
        super().__init__(endpoint, key)
        self._largest_answer = largest

    def decoder(self, tools: Collection[str] = ()) -> lmstudio.LMStudioDecoder:
        return lmstudio.LMStudioDecoder(self._largest_answer)


def _is_worth_showing(request: ServeRequest, context_size: int | None) -> bool:
    """Whether the wait is long enough, and /api/v1/chat says the same as /v1/chat/completions.

    Its responses have no reason for the end, so a limit of the answer must not be set: whether the
    answer has reached it could not be told (0.4.22 counts one token less). The context is None if
    the model is not loaded.
    """
    if not is_shown() or not lmstudio.can_carry(request.chat):
        return False
    if request.options.keys() - _SHARED_OPTIONS:
        return False
    is_long = request.prompt.bound > _LONG_PROMPT_TOKENS < (request.new_tokens or 0)
    return context_size is None or is_long


def _without_duplicates(models: list[LocalModel]) -> tuple[LocalModel, ...]:
    """Each name once: linked devices may all have a model. The smallest context is certain."""
    by_name: dict[str, LocalModel] = {}
    for model in sorted(models, key=lambda model: model.context_loaded or math.inf):
        by_name.setdefault(model.name, model)
    return tuple(by_name[name] for name in dict.fromkeys(model.name for model in models))


def _variants(endpoint: Endpoint, model: _StudioModel) -> list[LocalModel]:
    """The model under its key, which means its selected variant, and its other variants."""
    facts = _facts(model)
    selected = {**facts, **_selected_facts(model), **_load_facts(model, model.key)}
    variants = [served_model(endpoint, model.key, selected)]
    for name in model.other_variants:
        # As in the list, in capitals: `KEY@q8_0`.
        quantization = name.rpartition("@")[2].upper()
        known = {**facts, **_load_facts(model, name), "quantization": quantization}
        variants.append(served_model(endpoint, name, known))
    return variants


def _facts(model: _StudioModel) -> Facts:
    capabilities = model.capabilities or _StudioCapabilities()
    reasoning = capabilities.reasoning
    levels = reasoning.allowed_options if reasoning else None
    # Every chat model accepts tools, trained for them or not. One without published settings for
    # its reasoning may think all the same.
    purpose = stated_purpose(model.type)
    thinks = bool({*(levels or ())} - {"off"})
    return {
        "purpose": purpose,
        "architecture": model.architecture or "",
        "parameters": weights_in(model.params_string or ""),
        "context_max": model.max_context_length,
        "capabilities": capabilities_of(
            tools=purpose == "chat", vision=capabilities.vision, thinking=thinks
        ),
        "think_levels": levels,
    }


def _selected_facts(model: _StudioModel) -> Facts:
    """What is known of the selected variant only; its size matches it with its file."""
    quantization = (model.quantization and model.quantization.name) or ""
    size = model.size_bytes
    fingerprints = (f"size:{size}:{quantization.upper()}",) if size else ()
    return {"quantization": quantization, "size": size, "fingerprints": fingerprints}


def _load_facts(model: _StudioModel, name: str) -> Facts:
    """Whether the variant called `name` is loaded, and with how much context."""
    loaded = [e for e in model.loaded_instances or () if _variant_of(e.id or "", model) == name]
    context_size = max((each.context_size for each in loaded), default=0)
    return {"loaded": bool(loaded), "context_loaded": context_size or None}


def _variant_of(instance_id: str, model: _StudioModel) -> str:
    """The listed name of an instance: `KEY@q8_0:2` belongs to `KEY@q8_0`, others to the key."""
    name = re.sub(r":\d+$", "", instance_id)
    return name if name in model.other_variants else model.key


def _instances_of(ask: Ask, name: str) -> list[_Instance] | None:
    """The loaded instances of a model, except those that do not say how large their context is.

    None if this version of LM Studio can neither list nor load any.
    """
    listing = parse_reply(_StudioModels, ask("/api/v1/models"))
    if listing is None:
        return None
    key = name.partition("@")[0]
    return [
        instance
        for model in listing.models
        if model.key in (name, key)
        for instance in model.loaded_instances or ()
        if instance.context_size and _is_instance_of(instance.id or "", name, model)
    ]


def _is_loaded(ask: Ask, name: str) -> bool | None:
    """Whether a copy of a model is in memory; None if this version does not say."""
    listing = parse_reply(_StudioModels, ask("/api/v1/models"))
    keys = (name, name.partition("@")[0])
    if listing is None:
        return None
    return any(model.loaded_instances for model in listing.models if model.key in keys)


def _is_instance_of(instance_id: str, name: str, model: _StudioModel) -> bool:
    """Whether an instance is of the variant that `name` means, according to its id.

    An id that a user has chosen says nothing: it counts as one of the selected variant.
    """
    variant = instance_id.partition(":")[0]
    if model.key == name:
        return bool(instance_id) and not variant.startswith(f"{name}@")
    return variant == name


def _old_model(endpoint: Endpoint, model: _OldModel) -> LocalModel:
    purpose = stated_purpose(model.type)
    facts: Facts = {
        # There was no LM Link before 0.4.
        "runs_on": where_runs(endpoint.url),
        "purpose": purpose,
        "architecture": model.arch or "",
        "quantization": model.quantization or "",
        "context_max": model.max_context_length,
        "context_loaded": model.loaded_context_length,
        "loaded": model.state == "loaded",
        "capabilities": capabilities_of(tools=purpose == "chat", vision=model.type == "vlm"),
    }
    return served_model(endpoint, model.id, facts)
