"""llama-server, with one model or as a router over several: /v1/models, and /props for the rest.

Pure. Source: llama.cpp's `tools/server/README.md` (b11434).
"""

from itertools import pairwise
from urllib.parse import quote

from llm_localrun.names.quantizations import long_quantization
from llm_localrun.servers.openai_compatible import Entry, entries_in, listed
from llm_localrun.servers.reading import Asked, Facts, Found, Maybe, Reading, able, ask, path_mark
from llm_localrun.wire.response import Answer
from llm_localrun.wire.shapes import Count, Text, WireModel


class _Meta(WireModel):
    """Of a model that is loaded."""

    n_ctx: Maybe[Count] = None
    """What is allocated, since 2026."""
    n_ctx_train: Maybe[Count] = None
    n_params: Maybe[Count] = None
    size: Maybe[Count] = None
    ftype: Maybe[Text] = None


class _Status(WireModel):
    """Of a router's model."""

    value: Text
    args: Maybe[tuple[Text, ...]] = None


class _Architecture(WireModel):
    input_modalities: Maybe[tuple[Text, ...]] = None


class _Entry(Entry):
    meta: Maybe[_Meta] = None
    status: Maybe[_Status] = None
    architecture: Maybe[_Architecture] = None

    @property
    def is_loaded(self) -> bool | None:
        """A single model is as soon as it has its `meta`."""
        if self.status is None:
            return True if self.meta else None
        return self.status.value == "loaded"

    def facts(self) -> Facts:
        facts = super().facts()
        meta = self.meta or _Meta()
        arguments = (self.status and self.status.args) or ()
        files = [value for flag, value in pairwise(arguments) if flag in ("-m", "--model")]
        senses = (self.architecture and self.architecture.input_modalities) or ()
        return {
            **facts,
            "fingerprints": (*facts["fingerprints"], *path_mark(next(iter(files), None))),
            "quantization": facts["quantization"] or long_quantization(meta.ftype or ""),
            "parameters": meta.n_params,
            "size": meta.size,
            "context_max": meta.n_ctx_train,
            "context_loaded": meta.n_ctx,
            "loaded": self.is_loaded,
            # Tools count as possible until its template is known.
            "capabilities": able(tools=True, vision="image" in senses, audio="audio" in senses)
            if senses
            else None,
        }


class _SlotDefaults(WireModel):
    n_ctx: Maybe[Count] = None


class _Modalities(WireModel):
    vision: Maybe[bool] = None
    audio: Maybe[bool] = None


class _TemplateCaps(WireModel):
    supports_tools: Maybe[bool] = None


class _Props(WireModel):
    """/props of a model."""

    default_generation_settings: _SlotDefaults
    model_path: Maybe[Text] = None
    modalities: Maybe[_Modalities] = None
    chat_template: Maybe[Text] = None
    chat_template_caps: Maybe[_TemplateCaps] = None
    build_info: Maybe[Text] = None
    is_sleeping: Maybe[bool] = None


class _Build(WireModel):
    """/props of a router, which has no model."""

    build_info: Maybe[Text] = None


def read_llamacpp(asked: Asked, answer: Answer) -> Reading:
    """The models of the llama-server whose list is `answer`."""
    entries = entries_in(answer, _Entry)
    is_router = not any(entry.status is None for entry in entries)
    more: dict[str, Facts] = {}
    version = asked.version
    for entry in entries:
        if is_router and not entry.is_loaded:
            continue
        # Without autoload, so that a model which has just been unloaded stays so.
        of_child = f"?model={quote(entry.id, safe='')}&autoload=false" if is_router else ""
        props = yield from ask(f"/props{of_child}", _Props)
        if props is not None:
            more[entry.id] = _from_props(entry, props)
            version = props.build_info or version
    if is_router and not version:
        build = yield from ask("/props", _Build)
        version = (build and build.build_info) or ""
    return Found(listed(asked.endpoint, entries, more), version)


def _from_props(entry: _Entry, props: _Props) -> Facts:
    facts = entry.facts()
    senses = props.modalities or _Modalities()
    caps = props.chat_template_caps or _TemplateCaps()
    return {
        "fingerprints": (*facts["fingerprints"], *path_mark(props.model_path)),
        "context_loaded": facts["context_loaded"] or props.default_generation_settings.n_ctx,
        "capabilities": able(
            tools=caps.supports_tools is not False,
            vision=senses.vision,
            audio=senses.audio,
            thinking="think" in (props.chat_template or ""),
        ),
        "loaded": not props.is_sleeping,
    }
