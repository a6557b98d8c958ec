"""OpenAI's chat completions, as llama-server, LM Studio, vLLM and their kin speak it."""

from collections.abc import Iterator
from typing import Any

from llm_localrun.dialects.wire import Count, CutOff, Rate, Text, WireModel, error_in
from llm_localrun.events import Event, Finished, ReasoningDelta, TextDelta
from llm_localrun.framing import Payload
from llm_localrun.request import ChatRequest


class _Message(WireModel):
    content: Text | None = None
    # llama.cpp, SGLang and LM Studio say reasoning_content; vLLM, mlx_lm and, for some models,
    # LM Studio say reasoning.
    reasoning_content: Text | None = None
    reasoning: Text | None = None


class _Choice(WireModel):
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _PromptDetails(WireModel):
    cached_tokens: Count | None = None


class _CompletionDetails(WireModel):
    reasoning_tokens: Count | None = None


class _Usage(WireModel):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Timings(WireModel):
    """llama-server's own: rates are tokens per second."""

    cache_n: Count | None = None
    prompt_per_second: Rate | None = None
    predicted_per_second: Rate | None = None


class _Chunk(WireModel):
    model: str | None = None
    choices: tuple[_Choice, ...] | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None


def encode(model: str, request: ChatRequest, options: dict[str, Any]) -> Payload:
    """The body of POST /v1/chat/completions."""
    body: Payload = {
        "model": model,
        "messages": [{"role": m.role, "content": m.text} for m in request.messages],
        "stream": request.stream,
        **options,
    }
    if request.stream:
        body["stream_options"] = {"include_usage": True}
    return body


class Decoder:
    """Decodes chunks and whole completions alike."""

    def __init__(self) -> None:
        self._finish_reason: str | None = None
        self._model: str | None = None
        self._usage = _Usage()
        self._timings = _Timings()

    def feed(self, payload: Payload) -> Iterator[Event]:
        if error := error_in(payload):
            raise error
        chunk = _Chunk.model_validate(payload)
        self._model = chunk.model or self._model
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings
        for choice in chunk.choices or ():
            self._finish_reason = choice.finish_reason or self._finish_reason
            yield from _deltas(choice.delta or choice.message or _Message())

    def close(self) -> Iterator[Event]:
        if self._finish_reason is None:
            raise CutOff
        usage, timings = self._usage, self._timings
        prompt_details = usage.prompt_tokens_details or _PromptDetails()
        completion_details = usage.completion_tokens_details or _CompletionDetails()
        cached = prompt_details.cached_tokens
        yield Finished(
            finish_reason=self._finish_reason,
            model=self._model,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=timings.cache_n if cached is None else cached,
            reasoning_tokens=completion_details.reasoning_tokens,
            prompt_tokens_per_second=timings.prompt_per_second,
            generation_tokens_per_second=timings.predicted_per_second,
        )


def _deltas(message: _Message) -> Iterator[Event]:
    if reasoning := message.reasoning_content or message.reasoning:
        yield ReasoningDelta(reasoning)
    if message.content:
        yield TextDelta(message.content)
