"""How Ollama runs a file: what the layers of its manifest say besides the weights.

https://docs.ollama.com/modelfile and `server/routes.go` (0.32): TEMPLATE, SYSTEM, PARAMETER,
MESSAGE and ADAPTER. Read when the model is run from its file, not when it is found. Turning the
parameters into options is left to `chat.modelfile`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_localrun.errors import BadModelFile
from llm_localrun.files.ollama_manifest import manifest_or_empty
from llm_localrun.gguf.files import chat_template_in, opened, sampling_in
from llm_localrun.gguf.header import Value, read_summary
from llm_localrun.models import LocalModel, OnDisk, TemplateThinking
from llm_localrun.system.json_files import list_at, text_at
from llm_localrun.wire.think_tags import may_think, read_template


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What Ollama's manifest sets for a model; everything is empty if there is no manifest."""

    system: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """By Ollama's names, not validated: `{"num_ctx": 4096, "stop": ["</s>"]}`."""
    messages: tuple[tuple[str, str], ...] = ()
    """Turns that come before the conversation: role and text."""
    adapter: str = ""
    """The path of a LoRA adapter."""


def read_modelfile(route: OnDisk) -> Modelfile:
    """What Ollama's manifest sets for the file at `route`."""
    manifest = manifest_or_empty(route.manifest)
    parameters = manifest.json("params")
    adapter = manifest.blob("adapter")
    return Modelfile(
        system=manifest.text("system"),
        parameters=parameters if isinstance(parameters, dict) else {},
        messages=tuple(
            (text_at(each, "role"), text_at(each, "content"))
            for each in list_at(manifest.json("messages"))
        ),
        adapter=str(adapter) if adapter else "",
    )


def template_of(route: OnDisk) -> str:
    """The template that belongs to a file: Ollama's (Go), else the file's own (Jinja); "" if none.

    Raises `BadModelFile` if the file cannot be read.
    """
    return manifest_or_empty(route.manifest).text("template") or _own_template(route)


def chat_template_of(model: LocalModel, route: OnDisk) -> str:
    """Ollama's template for a chat model, translated to Jinja; "" if the file's own is used.

    The file's own is used if Ollama has no template, a built-in renderer, or a template that cannot
    be translated. Raises `BadModelFile` if it cannot, and the file has none of its own.
    """
    manifest = manifest_or_empty(route.manifest)
    template = manifest.text("template") if model.purpose == "chat" else ""
    if not template or (manifest.setting("renderer") and _own_template(route)):
        return ""
    from llm_localrun.files.gotemplate import Untranslatable, to_jinja

    try:
        return to_jinja(template)
    except Untranslatable as error:
        if _own_template(route):
            return ""
        raise BadModelFile(
            f"The template that Ollama keeps for {model.name} has {error}, which only Ollama"
            " understands, and the file has none of its own",
            "Run it with Ollama: start it with `ollama serve`",
        ) from None


def sampling_of(route: OnDisk) -> Mapping[str, Value]:
    """What the file says of sampling, by llama.cpp's names; nothing if it cannot be read."""
    try:
        with opened(Path(route.path)) as file:
            return sampling_in(file, read_summary(file))
    except BadModelFile:
        return {}


def has_place_for_thinking(route: OnDisk) -> bool:
    """Whether Ollama's template or the file's own may let the model think; also if it has none."""
    try:
        return may_think(template_of(route) + _own_template(route))
    except BadModelFile:
        return True


def thinking_in(route: OnDisk) -> TemplateThinking | None:
    """What the template that belongs to a file shows of thinking; None if there is none."""
    try:
        template = template_of(route)
    except BadModelFile:
        return None
    return read_template(template) if template else None


def _own_template(route: OnDisk) -> str:
    """The template in the file; "" if there is none. Raises `BadModelFile`."""
    with opened(Path(route.path)) as file:
        return chat_template_in(file, read_summary(file))
