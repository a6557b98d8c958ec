"""Ollama's own /api/chat and /api/embed, which alone take a context size and a keep-alive.

Framing is left to `sse`, sending to `http`, and what the server can do to `servers.ollama`.
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.request import ChatMessage, ChatRequest
from llm_localrun.wire.shapes import (
    Count,
    CutOff,
    Fragment,
    Text,
    Vector,
    WireModel,
    call_id,
    function_tool,
    parse_payload,
)
from llm_localrun.wire.sse import Payload

_NANOSECONDS = 1e9


class _CalledFunction(WireModel):
    name: Text
    arguments: dict[str, Any] = Field(default_factory=dict)


class _WholeCall(WireModel):
    """Always whole; its id is there since 0.12.10."""

    id: Text | None = None
    function: _CalledFunction


class _ChatTurn(WireModel):
    content: Fragment = ""
    thinking: Fragment = ""
    tool_calls: tuple[_WholeCall, ...] | None = None


class _ChatLine(WireModel):
    """Durations are nanoseconds; a count or duration of zero is left out by the server."""

    model: Text | None = None
    message: _ChatTurn | None = None
    done: bool = False
    done_reason: Text | None = None
    load_duration: Count | None = None
    prompt_eval_count: Count | None = None
    prompt_eval_duration: Count | None = None
    eval_count: Count | None = None
    eval_duration: Count | None = None


class _Embedded(WireModel):
    embeddings: tuple[Vector, ...]


def encode(model: str, request: ChatRequest, options: Payload) -> Payload:
    """The body of POST /api/chat.

    `truncate` and `shift` are on by default: the server then cuts the middle out of a prompt that
    does not fit, without an error. When they are off (since 0.12.6), it reports an error.
    """
    body: Payload = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "stream": request.stream,
        "truncate": False,
        "shift": False,
    }
    if request.tools:
        body["tools"] = [function_tool(tool) for tool in request.tools]
    if request.schema is not None:
        body["format"] = dict(request.schema)
    return {**body, **options}


def _message(message: ChatMessage) -> Payload:
    """Arguments are an object here, not JSON text; images and sounds are bare base64."""
    wire: Payload = {"role": message.role, "content": message.text}
    if message.media:
        wire["images"] = [media.base64 for media in message.media]
    if message.calls:
        wire["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.calls
        ]
    if message.reasoning:
        wire["thinking"] = message.reasoning
    if message.role == "tool":
        wire |= {"tool_name": message.tool_name, "tool_call_id": message.call_id}
    return wire


class OllamaDecoder:
    """Decodes stream lines and whole responses alike."""

    def __init__(self) -> None:
        self._last = _ChatLine()
        self._answered = False
        self._call_ids: list[str] = []

    @property
    def model(self) -> str | None:
        """The model that answers, according to what has been decoded so far."""
        return self._last.model

    def feed(self, payload: Payload) -> Iterator[Event]:
        self._last = parse_payload(_ChatLine, payload)
        if (message := self._last.message) is None:
            return
        self._answered = True
        if message.thinking:
            yield ReasoningDelta(message.thinking)
        if message.content:
            yield TextDelta(message.content)
        for call in message.tool_calls or ():
            arguments = json.dumps(call.function.arguments)
            self._call_ids.append(call_id(call.id, self._call_ids))
            yield ToolCall(self._call_ids[-1], call.function.name, arguments)

    def close(self) -> Iterator[Event]:
        if not self._answered:
            raise CutOff
        last = self._last
        yield Finished(
            # Ollama stops a model that repeats itself without an error: the stream then lacks
            # `done`, and a response that is not streamed says `"done": false` (0.32).
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


def decode_vectors(payload: Payload) -> list[tuple[float, ...]]:
    """The vectors in a response, in the order of the texts. Raises like `parse_payload`."""
    return list(parse_payload(_Embedded, payload).embeddings)
