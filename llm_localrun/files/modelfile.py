"""How Ollama runs a file: what the layers of its manifest say beside the weights.

https://docs.ollama.com/modelfile and `server/routes.go` (0.32): TEMPLATE, SYSTEM, PARAMETER,
MESSAGE and ADAPTER. Read when the model is run out of its file, not when it is found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llm_localrun.chat.options import Options
from llm_localrun.errors import BadModelFile
from llm_localrun.files.gotemplate import NotUnderstood, to_jinja
from llm_localrun.files.ollama_store import Manifest, read_manifest
from llm_localrun.gguf.files import chat_template_in, opened
from llm_localrun.gguf.header import read_summary
from llm_localrun.models import LocalModel
from llm_localrun.system.json_files import text_at
from llm_localrun.wire.request import ChatMessage, ChatRequest

# The parameters that are options here, by Ollama's names.
_OPTIONS = {
    "num_ctx": "context_size",
    "num_predict": "max_tokens",
    "num_gpu": "gpu_layers",
    "num_thread": "threads",
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "typical_p", "seed")},
    **{name: name for name in ("repeat_penalty", "presence_penalty", "frequency_penalty", "stop")},
}


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What is settled for a model; nothing of it stands against what the user says."""

    system: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """By llm-localrun's names."""
    messages: tuple[ChatMessage, ...] = ()
    """Turns that come before the conversation."""
    adapter: str = ""
    """The path of a LoRA adapter."""

    def applied_to(self, request: ChatRequest) -> ChatRequest:
        """The request with what it leaves open filled in."""
        messages = request.messages
        has_system = bool(messages) and messages[0].role == "system"
        if self.system and not has_system:
            messages = (ChatMessage("system", self.system), *messages)
            has_system = True
        start = 1 if has_system else 0
        return replace(
            request,
            messages=(*messages[:start], *self.messages, *messages[start:]),
            options={**self.options, **request.options},
        )


def modelfile_of(model: LocalModel) -> Modelfile:
    """What Ollama has settled for a model that is run out of its file."""
    manifest = _manifest_of(model)
    if manifest is None:
        return Modelfile()
    adapter = manifest.blob("adapter")
    return Modelfile(
        system=manifest.text("system"),
        options=_options(manifest.json("params"), model.context_max),
        messages=_messages(manifest.json("messages")),
        adapter=str(adapter) if adapter else "",
    )


def chat_template_of(model: LocalModel) -> str:
    """The template by which Ollama writes prompts for a model, in Jinja; "" for the file's own.

    That is used where Ollama does without a template of its own, and where it has one that is not
    understood. Raises `BadModelFile` if there is none then.
    """
    manifest = _manifest_of(model)
    template = manifest.text("template") if manifest and model.purpose == "chat" else ""
    if manifest is None or not template:
        return ""
    if manifest.setting("renderer") and _has_template(model):
        return ""
    try:
        return to_jinja(template)
    except NotUnderstood as error:
        if _has_template(model):
            return ""
        raise BadModelFile(
            f"The template that Ollama keeps for {model.name} has {error}, which only Ollama"
            " understands, and the file has none of its own",
            "Run it with Ollama: start it with `ollama serve`",
        ) from None


def _manifest_of(model: LocalModel) -> Manifest | None:
    """The manifest by which a model is run; None if a server runs it, or it has none."""
    is_run_here = model.manifest and model.endpoint is None
    return read_manifest(Path(model.manifest)) if is_run_here else None


def _has_template(model: LocalModel) -> bool:
    with opened(Path(str(model.path))) as file:
        return chat_template_in(file, read_summary(file)) != ""


def _options(parameters: Any, context_max: int | None) -> dict[str, Any]:
    """The parameters that are options here, as far as they are valid ones."""
    options: dict[str, Any] = {}
    for name, value in parameters.items() if isinstance(parameters, dict) else ():
        if name in _OPTIONS:
            options |= _valid(_OPTIONS[name], value)
    if context_max is not None and "context_size" in options:
        # As Ollama does with a context that is larger than what the model was trained for.
        options["context_size"] = min(options["context_size"], context_max)
    return options


def _valid(option: str, value: Any) -> dict[str, Any]:
    try:
        return Options.model_validate({option: value}).model_dump(exclude_none=True)
    except ValidationError:
        # Ollama has values that mean "as you like": 0 threads, -1 tokens.
        return {}


def _messages(messages: Any) -> tuple[ChatMessage, ...]:
    given = messages if isinstance(messages, list) else []
    turns = [(text_at(each, "role"), text_at(each, "content")) for each in given]
    roles = ("system", "user", "assistant")
    return tuple(ChatMessage(role, text) for role, text in turns if role in roles)
