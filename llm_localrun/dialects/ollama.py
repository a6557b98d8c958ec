"""Ollama's own /api/chat: the only way to set its context size and keep-alive."""

from collections.abc import Iterator
from typing import Any

from llm_localrun.dialects.wire import Count, CutOff, Text, WireModel, error_in
from llm_localrun.events import Event, Finished, ReasoningDelta, TextDelta
from llm_localrun.framing import Payload
from llm_localrun.request import ChatRequest

_NANOSECONDS = 1e9


class _Message(WireModel):
    content: Text = ""
    thinking: Text = ""


class _Chunk(WireModel):
    """Durations are nanoseconds; a count or duration of zero is left out by the server."""

    model: str | None = None
    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    load_duration: Count | None = None
    prompt_eval_count: Count | None = None
    prompt_eval_duration: Count | None = None
    eval_count: Count | None = None
    eval_duration: Count | None = None


def encode(model: str, request: ChatRequest, options: dict[str, Any]) -> Payload:
    """The body of POST /api/chat.

    `truncate` and `shift` are on by default and cut the prompt's middle in silence when it does
    not fit; off (since 0.12.6), the server says that it does not.
    """
    return {
        "model": model,
        "messages": [{"role": m.role, "content": m.text} for m in request.messages],
        "stream": request.stream,
        "truncate": False,
        "shift": False,
        **options,
    }


class Decoder:
    """Decodes stream lines and whole replies alike."""

    def __init__(self) -> None:
        self._last = _Chunk()
        self._answered = False

    def feed(self, payload: Payload) -> Iterator[Event]:
        if error := error_in(payload):
            raise error
        self._last = _Chunk.model_validate(payload)
        if (message := self._last.message) is None:
            return
        self._answered = True
        if message.thinking:
            yield ReasoningDelta(message.thinking)
        if message.content:
            yield TextDelta(message.content)

    def close(self) -> Iterator[Event]:
        if not self._answered:
            raise CutOff
        last = self._last
        yield Finished(
            # Ollama stops a model that repeats itself without a word: the stream, in good order
            # otherwise, lacks `done`, and an unstreamed reply says `"done": false` (0.32).
            finish_reason=(last.done_reason or "stop") if last.done else "cut off",
            model=last.model,
            prompt_tokens=last.prompt_eval_count,
            completion_tokens=last.eval_count,
            load_seconds=_seconds(last.load_duration),
            prompt_tokens_per_second=_rate(last.prompt_eval_count, last.prompt_eval_duration),
            generation_tokens_per_second=_rate(last.eval_count, last.eval_duration),
        )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / _NANOSECONDS


def _rate(count: int | None, nanoseconds: int | None) -> float | None:
    return count * _NANOSECONDS / nanoseconds if count and nanoseconds else None
