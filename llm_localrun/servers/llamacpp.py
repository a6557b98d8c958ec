"""llama-server, with one model or as a router over several: /v1/models, and /props for the rest.

Sources: llama.cpp's `tools/server/README.md` (b11434 for what it lists, b11549 for options).
"""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from llm_localrun.errors import BadModelFile
from llm_localrun.gguf.files import opened, parts_of
from llm_localrun.gguf.header import read_summary
from llm_localrun.models import Purpose, Served, surer_purpose
from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import long_quantization
from llm_localrun.names.roles import purpose_of_header
from llm_localrun.privacy import is_loopback
from llm_localrun.servers import msty
from llm_localrun.servers.base import (
    CONTEXT,
    PROMPT,
    CallForcing,
    Facts,
    PreparedRequest,
    ServeRequest,
    Sign,
    WireOption,
    sent_as_named,
)
from llm_localrun.servers.fields import (
    Entries,
    LoadStatus,
    Maybe,
    Senses,
    capabilities_of,
    path_fingerprint,
    sampling_of,
)
from llm_localrun.servers.openai_compatible import (
    TEMPLATE_THINKING,
    ListedModel,
    OpenAICompatible,
    entries_in,
)
from llm_localrun.servers.waiting import (
    POLL_S,
    TIMEOUT_S,
    events_of,
    loading,
    waiting_for,
)
from llm_localrun.system.progress import Progress, is_shown
from llm_localrun.tokens.window import Size
from llm_localrun.wire.request import ChatRequest
from llm_localrun.wire.response import Ask, ProbeReply, parse_reply
from llm_localrun.wire.shapes import Count, Rate, Text, WireModel
from llm_localrun.wire.sse import Payload
from llm_localrun.wire.think_tags import may_think, read_template

_PLUGIN_PORT = 8080
"""The only port that llm-llama-server 0.2 knows."""
_SLOTS_TIMEOUT_S = 30.0
"""It answers between two batches, each of which may take seconds."""


class _ModelMeta(WireModel):
    """Of a model that is loaded."""

    n_ctx: Maybe[Count] = None
    """Tokens of context that are allocated; since 2026."""
    n_ctx_train: Maybe[Count] = None
    n_params: Maybe[Count] = None
    size: Maybe[Count] = None
    ftype: Maybe[Text] = None


class _Architecture(WireModel):
    input_modalities: Maybe[Entries[Text]] = None
    output_modalities: Maybe[Entries[Text]] = None
    """`text` for all models but those for decisions."""


class _LlamaModel(ListedModel):
    meta: Maybe[_ModelMeta] = None
    status: Maybe[LoadStatus] = None
    """Of a router's model."""
    architecture: Maybe[_Architecture] = None
    aliases: Maybe[tuple[Text, ...]] = None

    @property
    def is_loaded(self) -> bool | None:
        """A single model is loaded as soon as it has its `meta`."""
        if self.status is None:
            return True if self.meta else None
        return self.status.is_loaded

    def argument(self, *flags: str) -> str:
        """What follows one of `flags` where a router starts the model; "" if nothing does."""
        arguments = (self.status and self.status.args) or ()
        return next((value for flag, value in pairwise(arguments) if flag in flags), "")

    def facts_when_unloaded(self, file: Facts) -> Facts:
        """What a router starts the model with, and what its `file` says."""
        context = self.argument("-c", "--ctx-size")
        asked = int(context) if re.fullmatch(r"[0-9]{1,9}", context) else None
        # 0 stands for the context that the model was trained for.
        return {**file, "context_default": file.get("context_max") if asked == 0 else asked}

    @property
    def stated_purpose(self) -> Purpose:
        """`chat` if it says nothing: a single model does not tell the flags that it has."""
        outputs = (self.architecture and self.architecture.output_modalities) or ("text",)
        if "decisions" in outputs or "text" not in outputs:
            return "decision" if "decisions" in outputs else "other"
        flags = {*((self.status and self.status.args) or ())}
        if flags & {"--rerank", "--reranking"}:
            return "rerank"
        return "embedding" if flags & {"--embedding", "--embeddings"} else "chat"

    def facts(self) -> Facts:
        facts = super().facts()
        meta = self.meta or _ModelMeta()
        inputs = (self.architecture and self.architecture.input_modalities) or ()
        # Tools count as possible until the template is known.
        capabilities = capabilities_of(
            tools=True, vision="image" in inputs, audio="audio" in inputs
        )
        return {
            **facts,
            "purpose": surer_purpose(facts["purpose"], self.stated_purpose),
            "fingerprints": (
                *facts["fingerprints"],
                *path_fingerprint(self.argument("-m", "--model")),
            ),
            "quantization": facts["quantization"] or long_quantization(meta.ftype or ""),
            "parameters": meta.n_params,
            "size": meta.size,
            "context_max": meta.n_ctx_train,
            "context_loaded": meta.n_ctx,
            "loaded": self.is_loaded,
            "also_named": tuple(alias for alias in self.aliases or () if alias != self.id),
            "capabilities": capabilities if inputs else None,
        }


class _SlotDefaults(WireModel):
    n_ctx: Maybe[Count] = None
    params: Maybe[dict[str, Any]] = None


class _TemplateCaps(WireModel):
    supports_tools: Maybe[bool] = None


class _ModelProps(WireModel):
    """/props of a model."""

    default_generation_settings: _SlotDefaults
    model_path: Maybe[Text] = None
    modalities: Maybe[Senses] = None
    chat_template: Maybe[Text] = None
    chat_template_caps: Maybe[_TemplateCaps] = None
    is_sleeping: Maybe[bool] = None


class _LoadProgress(WireModel):
    """How much of the stage `current` is done; a model with a projector has several `stages`."""

    stages: Maybe[Entries[Text]] = None
    current: Maybe[Text] = None
    value: Maybe[Rate] = None

    @property
    def part(self) -> float | None:
        """How much of all stages is done; None if unknown."""
        stages = self.stages or ()
        if self.value is None or self.value > 1 or self.current not in stages:
            return None
        return (stages.index(self.current) + self.value) / len(stages)


class _ModelEvent(WireModel):
    """An event of /models/sse. `status_change` has the progress, `model_status` none (b10434)."""

    class Data(WireModel):
        status: Text
        progress: Maybe[_LoadProgress] = None

    model: Text
    data: Data

    @property
    def is_end(self) -> bool:
        """Whether the model is loaded, or could not be."""
        return self.data.status in ("loaded", "unloaded", "failed")


class _DecodedTokens(WireModel):
    n_decoded: Maybe[Count] = None


class _Slot(WireModel):
    """An entry of /slots."""

    is_processing: bool
    n_prompt_tokens: Maybe[Count] = None
    n_prompt_tokens_cache: Maybe[Count] = None
    next_token: Maybe[Entries[_DecodedTokens]] = None

    @property
    def generates(self) -> bool:
        return any(each.n_decoded for each in self.next_token or ())

    @property
    def tells_reading(self) -> bool:
        """Whether the build says in a response when it begins to read the prompt (b10434)."""
        return self.n_prompt_tokens_cache is not None


class _Slots(WireModel):
    slots: tuple[_Slot, ...] = ()


class RunsLlamaCpp(OpenAICompatible):
    """A server whose models llama.cpp runs, as a rule."""

    # Its own `tool_choice` is no help: `required` lets prose through, and small models never end.
    call_forcing = CallForcing.SCHEMA
    # Its grammar for calls fails beside one for JSON (calls as <function=…>), and for large tools;
    # its parser, if a call is broken or text follows it (b10434, b11549).
    text_choice: ClassVar[Payload] = {"tool_choice": "none"}
    tool_refusals = ("[Uu]nable to generate parser",)
    # If it is more than a grammar can say: `true`, a reference that leads nowhere.
    schema_refusals = ("failed to parse grammar", "JSON schema (?:error|conversion)")
    # If `max_tokens` ends the call or a stop text is in it. The second is that of b7743.
    unread_calls = ("output that does not match the expected", "Failed to parse input at pos")


class LlamaCpp(RunsLlamaCpp):
    kind = "llamacpp"
    title = "llama-server"
    checked = "b10434, b11549 (run)"
    start_hint = "Start it with `llama-server -m FILE`"
    list_position = 2
    # 9931 is the default of builds since autumn 2026.
    usual_ports: ClassVar[tuple[int, ...]] = (8080, 9931, msty.LLAMA_SERVER_PORT)
    owned_by = "llamacpp"
    names_models_as_listed = True
    key_variables: ClassVar[tuple[str, ...]] = ("LLAMA_API_KEY",)
    plugin_ids = ("llama-server", "llama-server-tools", "llama-server-vision")
    context_flag = "-c {}"
    template_flag = "--chat-template-file"
    text_flag = "-c {0} -b {0} -ub {0}"  # A text to embed must be one physical batch.
    tokenize_field = "content"
    overflow_texts = (
        rf"request \({PROMPT} tokens\) exceeds the available context size \({CONTEXT}",
        "request exceeds the available context size",
        rf"input \({PROMPT} tokens\) is larger than the max context size \({CONTEXT}",
        # What embeds texts: the context may be large enough, and the physical batch is not.
        "input .{0,40}is too large to process",
    )
    loading_message = "Loading model"
    locked_error = (401, "authentication_error")
    guarded_path = "/props"
    version_path = "/props"
    rereads_version = True
    counts_prompts = True
    measured: ClassVar[Payload] = {"ignore_eos": True, "return_progress": False}
    times_answers = True
    without_cache: ClassVar[Payload] = {"cache_prompt": False}
    reasoning_field = "reasoning_content"
    signs: ClassVar[tuple[Sign, ...]] = (Sign("/props", "default_generation_settings", rank=1),)
    listed_model = _LlamaModel
    options = {
        **OpenAICompatible.options,
        **sent_as_named("top_k", "min_p", "typical_p", "repeat_penalty", "grammar"),
        # Without a schema, b10434 builds no grammar and says nothing.
        "json_object": WireOption(
            "response_format", {True: {"type": "json_object", "schema": {"type": "object"}}}
        ),
        "think": TEMPLATE_THINKING,
    }

    @classmethod
    def ids_in_plugins(cls, url: str, name: str) -> Iterator[str]:
        is_known = urlsplit(url).port == _PLUGIN_PORT
        return super().ids_in_plugins(url, name) if is_known else iter(())

    def details(self, ask: Ask, entries: Sequence[_LlamaModel]) -> Mapping[str, Facts]:
        is_router = any(entry.status is not None for entry in entries)
        is_here = is_loopback(self.endpoint.url)
        facts: dict[str, Facts] = {}
        for entry in entries:
            is_loaded = entry.is_loaded or not is_router
            props = _props_of(ask, entry.id if is_router else "") if is_loaded else None
            if is_loaded and props is None:
                continue
            path = props.model_path if props else entry.argument("-m", "--model")
            file = _facts_in_file(path or "") if is_here else {}
            found = _facts_from_props(entry, props) if props else entry.facts_when_unloaded(file)
            purpose = surer_purpose(entry.facts()["purpose"], file.get("purpose", "chat"))
            facts[entry.id] = {**found, "purpose": purpose}
        return facts

    def prepare(self, request: ServeRequest, route: Served) -> PreparedRequest:
        """A router may have loaded the model since its last look, or does so for this request."""
        if route.loaded is False and route.context_loaded is None:
            with self.probe() as probe:
                props = _props_of(probe.ask, request.model.name)
            context = props and props.default_generation_settings.n_ctx
            route = route.model_copy(update={"context_loaded": context or route.context_default})
        return super().prepare(request, route)

    def encode(self, model: str, chat: ChatRequest, **more: Any) -> Payload:
        body = super().encode(model, chat, **more)
        # A program whose stderr is no terminal sends and gets what it always did.
        is_asked = body["stream"] and is_shown()
        return {"return_progress": True, **body} if is_asked else body

    def watch(
        self, request: ServeRequest, prepared: PreparedRequest, is_over: threading.Event
    ) -> Iterator[Progress]:
        """A router says how far a model is loaded; slots, that they all answer others."""
        if self.is_private:
            # What waits for a slot of the engine is known here.
            yield from self.watch_reading(request, is_over)
            return
        status = self._status_of(prepared.model)
        if status is not None:
            yield from self._watch_loading(prepared.model, status, is_over)
        query = "" if status is None else f"?model={quote(prepared.model, safe='')}&autoload=false"
        is_told = prepared.body.get("return_progress") is True
        yield from self._watch_slots(request, f"/slots{query}", is_over, is_told=is_told)

    def _watch_loading(
        self, name: str, status: LoadStatus, is_over: threading.Event
    ) -> Iterator[Progress]:
        """Until a router has loaded the model. Builds without events say only whether it has."""
        events = self.http_request("GET", "/models/sse", timeout_s=TIMEOUT_S)
        if status.is_loaded:
            return
        yield loading(name)
        while not (status.is_loaded or is_over.is_set()):
            for event in map(_event_in, events_of(events)):
                if is_over.is_set():
                    return
                if event is None or event.model != name:
                    continue
                if event.is_end:
                    return
                yield loading(name, (event.data.progress or _LoadProgress()).part)
            # It was silent for too long: the last event may have been missed.
            is_over.wait(POLL_S)
            status = self._status_of(name) or status

    def _status_of(self, name: str) -> LoadStatus | None:
        """Of a router's model; None if the server is no router, or does not answer."""
        with self.probe(TIMEOUT_S) as probe:
            entries = entries_in(probe.ask("/v1/models"), _LlamaModel)
        return next((e.status for e in entries if name in (e.id, *(e.aliases or ()))), None)

    def _watch_slots(
        self, request: ServeRequest, path: str, is_over: threading.Event, *, is_told: bool
    ) -> Iterator[Progress]:
        """Until a slot is free for the request, then how its prompt is read.

        If all slots are busy, and one may answer the request, nothing is known. If the response
        says at once that its prompt is read, all answer others until then.
        """
        has_waited = False
        while not is_over.is_set():
            with self.probe(_SLOTS_TIMEOUT_S) as probe:
                slots = _slots_in(probe.ask(path))
            if not all(slot.is_processing for slot in slots) or not slots:
                yield from self.watch_reading(request, is_over)
                return
            if all(
                (is_told and slot.tells_reading) or _answers_other(slot, request) for slot in slots
            ):
                has_waited = True
                yield waiting_for(len(slots))
            elif has_waited:
                yield Progress(f"waiting for {self.title}")
            is_over.wait(POLL_S)

    def count_tokens(self, body: Payload) -> Size | None:
        """Builds of 2026 count a chat request at once. Older ones render the template and split
        the text into tokens on separate requests."""
        with self.probe() as probe:
            tokens = _field(probe.ask("/v1/chat/completions/input_tokens", body), "input_tokens")
            if isinstance(tokens, int):
                return Size(tokens, is_exact=True)
            prompt = _field(probe.ask("/apply-template", body), "prompt")
            if not isinstance(prompt, str):
                return None
            split = probe.ask("/tokenize", {"content": prompt, "add_special": True})
            pieces = _field(split, "tokens")
        return Size(len(pieces), is_exact=True) if isinstance(pieces, list) else None


def _event_in(payload: Payload) -> _ModelEvent | None:
    return parse_reply(_ModelEvent, ProbeReply(200, payload, ""))


def _slots_in(reply: ProbeReply | None) -> tuple[_Slot, ...]:
    """What /slots lists; nothing if it is disabled."""
    listed = reply and replace(reply, payload={"slots": reply.payload})
    return (parse_reply(_Slots, listed) or _Slots()).slots


def _answers_other(slot: _Slot, request: ServeRequest) -> bool:
    """Whether a slot that is busy answers another prompt for sure.

    It does if it generates, since nothing has come of our answer, unless that is held back. Or it
    has read more than our prompt (b10434 counts what it has read).
    """
    chat = request.chat
    is_held = chat.tools or chat.schema is not None or "json_object" in chat.options
    if slot.generates and chat.stream and not is_held:
        return True
    return not slot.generates and (slot.n_prompt_tokens or 0) > request.prompt.bound


def _props_of(ask: Ask, model: str) -> _ModelProps | None:
    """/props of a router's model, or of the only one if `model` is "".

    Without autoload, so that a model which has just been unloaded stays unloaded.
    """
    query = f"?model={quote(model, safe='')}&autoload=false" if model else ""
    return parse_reply(_ModelProps, ask(f"/props{query}"))


def _facts_in_file(name: str) -> Facts:
    """What the header of a GGUF file says; nothing if it cannot be read."""
    path = Path(name)
    if not path.is_absolute():
        return {}
    try:
        with opened(path) as file:
            header = read_summary(file)
        size = sum(part.stat().st_size for part in parts_of(path))
    except (BadModelFile, OSError, ValueError):
        return {}
    trained = header.of_architecture("context_length")
    return {
        "purpose": purpose_of_header(header, path.stem),
        "architecture": header.architecture,
        "size": size or None,
        "context_max": trained,
    }


def _field(reply: ProbeReply | None, name: str) -> object:
    if reply is None or reply.status != 200 or not isinstance(reply.payload, dict):
        return None
    return reply.payload.get(name)


def _facts_from_props(entry: _LlamaModel, props: _ModelProps) -> Facts:
    facts = entry.facts()
    modalities = props.modalities or Senses()
    caps = props.chat_template_caps or _TemplateCaps()
    template = props.chat_template or ""
    thinks = may_think(template) or parse_name(entry.id).thinks
    thinking = read_template(template)
    return {
        "fingerprints": (*facts["fingerprints"], *path_fingerprint(props.model_path)),
        "context_loaded": facts["context_loaded"] or props.default_generation_settings.n_ctx,
        "capabilities": capabilities_of(
            tools=caps.supports_tools is not False,
            vision=modalities.vision,
            audio=modalities.audio,
            thinking="think" in template or bool(thinking.tags),
        ),
        "think_levels": None if thinks else ("off",),
        "template_thinking": thinking if template else None,
        "sampling": sampling_of(props.default_generation_settings.params or {}),
        "loaded": not props.is_sleeping,
    }
