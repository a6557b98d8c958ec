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
from llm_localrun.files.ollama_manifest import Manifest, read_manifest
from llm_localrun.gguf.files import chat_template_in, opened
from llm_localrun.gguf.header import read_summary
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.system.json_files import text_at


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
    manifest = _manifest_of(route)
    if manifest is None:
        return Modelfile()
    parameters = manifest.json("params")
    messages = manifest.json("messages")
    adapter = manifest.blob("adapter")
    return Modelfile(
        system=manifest.text("system"),
        parameters=parameters if isinstance(parameters, dict) else {},
        messages=tuple(
            (text_at(each, "role"), text_at(each, "content"))
            for each in (messages if isinstance(messages, list) else ())
        ),
        adapter=str(adapter) if adapter else "",
    )


def template_of(route: OnDisk) -> str:
    """The template that belongs to a file: Ollama's (Go), else the file's own (Jinja); "" if none.

    Raises `BadModelFile` if the file cannot be read.
    """
    manifest = _manifest_of(route)
    return (manifest.text("template") if manifest else "") or _own_template(route)


def chat_template_of(model: LocalModel, route: OnDisk) -> str:
    """The template by which Ollama writes prompts for a model, in Jinja; "" for the file's own.

    The file's own is used where Ollama has no template for it, or one that cannot be translated.
    Raises `BadModelFile` if the file has none then.
    """
    manifest = _manifest_of(route) if model.purpose == "chat" else None
    template = manifest.text("template") if manifest else ""
    if manifest is None or not template:
        return ""
    if manifest.setting("renderer") and _own_template(route):
        return ""
    from llm_localrun.files.gotemplate import NotUnderstood, to_jinja

    try:
        return to_jinja(template)
    except NotUnderstood as error:
        if _own_template(route):
            return ""
        raise BadModelFile(
            f"The template that Ollama keeps for {model.name} has {error}, which only Ollama"
            " understands, and the file has none of its own",
            "Run it with Ollama: start it with `ollama serve`",
        ) from None


def _manifest_of(route: OnDisk) -> Manifest | None:
    return read_manifest(Path(route.manifest)) if route.manifest else None


def _own_template(route: OnDisk) -> str:
    """The template in the file; "" if there is none. Raises `BadModelFile`."""
    with opened(Path(route.path)) as file:
        return chat_template_in(file, read_summary(file))
