"""What a file and Ollama's manifest set for a request: system prompt, options, turns before it.

Reading the manifest is left to `files.modelfile`, how the model samples to `chat.sampling`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llm_localrun.chat.sampling import LAST_N, FileSampling, file_sampling, sound_options
from llm_localrun.files.modelfile import read_modelfile
from llm_localrun.models import LocalModel, Route, Served
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
_SIZES = ("context_size", "max_tokens")
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """What is set for requests of a model that is run from its file, unless the user says it."""

    system: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """By llm-localrun's names, validated."""
    messages: tuple[ChatMessage, ...] = ()
    """Turns that come before the conversation."""
    sampling: FileSampling = field(default_factory=FileSampling)

    def applied_to(self, request: ChatRequest) -> ChatRequest:
        """The request with defaults for what it leaves open."""
        messages = request.messages
        has_system = bool(messages) and messages[0].role == "system"
        if self.system and not has_system:
            messages = (ChatMessage("system", self.system), *messages)
            has_system = True
        start = 1 if has_system else 0
        options = {**self.sampling.sent(request.options), **self.options, **request.options}
        size = options.get("context_size")
        if isinstance(size, int) and "max_tokens" in self.options.keys() - request.options.keys():
            options["max_tokens"] = min(options["max_tokens"], size)
        if extra := self.sampling.extra_body(request.options):
            options["extra_body"] = {**extra, **options.get("extra_body", {})}
        messages = (*messages[:start], *self.messages, *messages[start:])
        return replace(request, messages=messages, options=options)


def request_defaults(model: LocalModel, route: Route) -> RequestDefaults:
    """What is set for a model that is run from its file; a server has defaults of its own."""
    if isinstance(route, Served):
        return RequestDefaults()
    modelfile = read_modelfile(route)
    options = _options(modelfile.parameters, model.context_max)
    last_n = {name: modelfile.parameters.get(name) for name in (LAST_N,)}
    sampling = file_sampling(model, route, options | last_n)
    return RequestDefaults(
        system=modelfile.system,
        options=options,
        messages=tuple(
            ChatMessage(role, text) for role, text in modelfile.messages if role in _ROLES
        ),
        sampling=sampling,
    )


def _options(parameters: Mapping[str, Any], context_max: int | None) -> dict[str, Any]:
    """The parameters that are options here and have valid values."""
    # Ollama has values that mean "automatic", and are not valid: 0 threads, -1 tokens.
    named = {_OPTIONS[name]: value for name, value in parameters.items() if name in _OPTIONS}
    options = sound_options(named)
    if context_max is not None:
        # As in Ollama, where the model was trained for less.
        most = {name: min(value, context_max) for name, value in options.items() if name in _SIZES}
        options |= most
    return options
