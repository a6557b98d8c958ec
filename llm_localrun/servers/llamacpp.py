"""llama-server, with one model or as a router over several: /v1/models, and /props for the rest.

Sources: llama.cpp's `tools/server/README.md` (b11434 for what it lists, b11549 for options).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar
from urllib.parse import quote

from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import long_quantization
from llm_localrun.servers import msty
from llm_localrun.servers.base import Facts, Sign, WireOption, sent_as_named
from llm_localrun.servers.fields import Maybe, capabilities_of, path_fingerprint
from llm_localrun.servers.openai_compatible import (
    TEMPLATE_THINKING,
    ListedModel,
    OpenAICompatible,
)
from llm_localrun.tokens.window import Size
from llm_localrun.wire.response import Ask, ProbeReply, parse_reply
from llm_localrun.wire.shapes import Count, Text, WireModel
from llm_localrun.wire.sse import Payload
from llm_localrun.wire.think_tags import may_think


class _ModelMeta(WireModel):
    """Of a model that is loaded."""

    n_ctx: Maybe[Count] = None
    """Tokens of context that are allocated; since 2026."""
    n_ctx_train: Maybe[Count] = None
    n_params: Maybe[Count] = None
    size: Maybe[Count] = None
    ftype: Maybe[Text] = None


class _RouterStatus(WireModel):
    """Of a router's model."""

    value: Text
    args: Maybe[tuple[Text, ...]] = None


class _Architecture(WireModel):
    input_modalities: Maybe[tuple[Text, ...]] = None


class _LlamaModel(ListedModel):
    meta: Maybe[_ModelMeta] = None
    status: Maybe[_RouterStatus] = None
    architecture: Maybe[_Architecture] = None

    @property
    def is_loaded(self) -> bool | None:
        """A single model is loaded as soon as it has its `meta`."""
        if self.status is None:
            return True if self.meta else None
        return self.status.value == "loaded"

    def facts(self) -> Facts:
        facts = super().facts()
        meta = self.meta or _ModelMeta()
        arguments = (self.status and self.status.args) or ()
        files = [value for flag, value in pairwise(arguments) if flag in ("-m", "--model")]
        inputs = (self.architecture and self.architecture.input_modalities) or ()
        # Tools count as possible until the template is known.
        capabilities = capabilities_of(
            tools=True, vision="image" in inputs, audio="audio" in inputs
        )
        return {
            **facts,
            "fingerprints": (*facts["fingerprints"], *path_fingerprint(next(iter(files), None))),
            "quantization": facts["quantization"] or long_quantization(meta.ftype or ""),
            "parameters": meta.n_params,
            "size": meta.size,
            "context_max": meta.n_ctx_train,
            "context_loaded": meta.n_ctx,
            "loaded": self.is_loaded,
            "capabilities": capabilities if inputs else None,
        }


class _SlotDefaults(WireModel):
    n_ctx: Maybe[Count] = None


class _Modalities(WireModel):
    vision: Maybe[bool] = None
    audio: Maybe[bool] = None


class _TemplateCaps(WireModel):
    supports_tools: Maybe[bool] = None


class _ModelProps(WireModel):
    """/props of a model."""

    default_generation_settings: _SlotDefaults
    model_path: Maybe[Text] = None
    modalities: Maybe[_Modalities] = None
    chat_template: Maybe[Text] = None
    chat_template_caps: Maybe[_TemplateCaps] = None
    is_sleeping: Maybe[bool] = None


class LlamaCpp(OpenAICompatible):
    kind = "llamacpp"
    title = "llama-server"
    start_hint = "Start it with `llama-server -m FILE`"
    list_position = 2
    # 9931 is the default of builds since autumn 2026.
    usual_ports: ClassVar[tuple[int, ...]] = (8080, 9931, msty.LLAMA_SERVER_PORT)
    owned_by = "llamacpp"
    key_variables: ClassVar[tuple[str, ...]] = ("LLAMA_API_KEY",)
    context_flag = "-c {}"
    text_flag = "-c {0} -b {0} -ub {0}"  # A text to embed must be one physical batch.
    tokenize_field = "content"
    loading_message = "Loading model"
    locked_error = (401, "authentication_error")
    version_path = "/props"
    rereads_version = True
    counts_prompts = True
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

    def details(self, ask: Ask, entries: Sequence[_LlamaModel]) -> Mapping[str, Facts]:
        is_router = not any(entry.status is None for entry in entries)
        facts: dict[str, Facts] = {}
        for entry in entries:
            if is_router and not entry.is_loaded:
                continue
            # Without autoload, so that a model which has just been unloaded stays unloaded.
            query = f"?model={quote(entry.id, safe='')}&autoload=false" if is_router else ""
            props = parse_reply(_ModelProps, ask(f"/props{query}"))
            if props is not None:
                facts[entry.id] = _facts_from_props(entry, props)
        return facts

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


def _field(reply: ProbeReply | None, name: str) -> object:
    if reply is None or reply.status != 200 or not isinstance(reply.payload, dict):
        return None
    return reply.payload.get(name)


def _facts_from_props(entry: _LlamaModel, props: _ModelProps) -> Facts:
    facts = entry.facts()
    modalities = props.modalities or _Modalities()
    caps = props.chat_template_caps or _TemplateCaps()
    thinks = may_think(props.chat_template or "") or parse_name(entry.id).thinks
    return {
        "fingerprints": (*facts["fingerprints"], *path_fingerprint(props.model_path)),
        "context_loaded": facts["context_loaded"] or props.default_generation_settings.n_ctx,
        "capabilities": capabilities_of(
            tools=caps.supports_tools is not False,
            vision=modalities.vision,
            audio=modalities.audio,
            thinking="think" in (props.chat_template or ""),
        ),
        "think_levels": None if thinks else ("off",),
        "loaded": not props.is_sleeping,
    }
