"""llama-server, with one model or as a router over several: /v1/models, and /props for the rest.

Pure. Source: llama.cpp's `tools/server/README.md` (b11434).
"""

from collections.abc import Generator
from itertools import pairwise
from urllib.parse import quote

from llm_localrun.dialects.wire import Count, Text, WireModel
from llm_localrun.discovery.servers.listing import Entry, entries_in, listed
from llm_localrun.discovery.servers.reading import (
    Asked,
    Facts,
    Found,
    Maybe,
    Reading,
    ask,
    path_mark,
)
from llm_localrun.gguf.names import long_quantization
from llm_localrun.reply import Answer, Question


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
            "marks": (*facts["marks"], *path_mark(next(iter(files), None))),
            "quantization": facts["quantization"] or long_quantization(meta.ftype or ""),
            "parameters": meta.n_params,
            "size": meta.size,
            "context_max": meta.n_ctx_train,
            "context_loaded": meta.n_ctx,
            "loaded": self.is_loaded,
            "capabilities": _capabilities("image" in senses, "audio" in senses) if senses else None,
        }


class _SlotDefaults(WireModel):
    n_ctx: Maybe[Count] = None


class _Modalities(WireModel):
    vision: Maybe[bool] = None
    audio: Maybe[bool] = None


class _TemplateCaps(WireModel):
    supports_tools: Maybe[bool] = None


class Props(WireModel):
    """/props of a model."""

    default_generation_settings: _SlotDefaults
    model_path: Maybe[Text] = None
    modalities: Maybe[_Modalities] = None
    chat_template: Maybe[Text] = None
    chat_template_caps: Maybe[_TemplateCaps] = None
    build_info: Maybe[Text] = None


class _Build(WireModel):
    """/props of a router, which has no model."""

    build_info: Maybe[Text] = None


def read_llamacpp(asked: Asked, answer: Answer) -> Reading:
    """The models of the llama-server whose list is `answer`."""
    entries = entries_in(answer, _Entry)
    if len(entries) == 1 and entries[0].status is None:
        return (yield from _single(asked, entries[0]))
    more: dict[str, Facts] = {}
    version = asked.version
    for entry in entries:
        if entry.is_loaded:
            # Without autoload, so that a model which has just been unloaded stays so.
            path = f"/props?model={quote(entry.id, safe='')}&autoload=false"
            props = yield from ask(path, Props)
            more[entry.id] = _from_props(entry, props)
            version = (props and props.build_info) or version
    if not version:
        build = yield from ask("/props", _Build)
        version = (build and build.build_info) or ""
    return Found(listed(asked.endpoint, entries, more), version)


def _single(asked: Asked, entry: _Entry) -> Generator[Question, Answer, Found]:
    props = yield from ask("/props", Props)
    more = {entry.id: {**_from_props(entry, props), **({"loaded": True} if props else {})}}
    version = (props and props.build_info) or asked.version
    return Found(listed(asked.endpoint, [entry], more), version)


def _from_props(entry: _Entry, props: Props | None) -> Facts:
    if props is None:
        return {}
    facts = entry.facts()
    senses = props.modalities or _Modalities()
    caps = props.chat_template_caps or _TemplateCaps()
    return {
        "marks": (*facts["marks"], *path_mark(props.model_path)),
        "context_loaded": facts["context_loaded"] or props.default_generation_settings.n_ctx,
        "capabilities": _capabilities(
            bool(senses.vision),
            bool(senses.audio),
            tools=caps.supports_tools is not False,
            thinking="think" in (props.chat_template or ""),
        ),
    }


def _capabilities(
    vision: bool, audio: bool, *, tools: bool = True, thinking: bool = False
) -> tuple[str, ...]:
    """What a model can do; tools count as possible until its template is known."""
    can = {"tools": tools, "vision": vision, "audio": audio, "thinking": thinking}
    return tuple(name for name, has in can.items() if has)
