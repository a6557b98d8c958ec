"""Ollama's own /api/chat and /api/embed, which alone take a context size and a keep-alive.

Framing is left to `sse`, sending to `http`, and what the server can do to `servers.ollama`.
"""

from collections.abc import Iterator
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator

from llm_localrun.system.progress import Progress
from llm_localrun.wire.events import CUT_OFF, Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.request import ChatMessage, ChatRequest
from llm_localrun.wire.shapes import (
    Calls,
    Content,
    Count,
    CutOff,
    Maybe,
    OrNothing,
    Text,
    Vector,
    WireModel,
    call_arguments,
    call_id,
    function_tool,
    parse_payload,
)
from llm_localrun.wire.sse import Payload

_NANOSECONDS = 1e9


def _host(value: object) -> str:
    """A value that is not understood counts as a host: prompts must not leave unasked."""
    return value if isinstance(value, str) else "an unknown host" if value else ""


RemoteHost: TypeAlias = Annotated[Text, BeforeValidator(_host)]
"""Where a model runs if Ollama passes prompts on; "" if it does not."""


class _ChatTurn(WireModel):
    content: Content = ""
    thinking: Maybe[Content] = None
    tool_calls: Calls = ()
    """Always whole; their ids are there since 0.12.10."""


class _ChatLine(WireModel):
    """Durations are nanoseconds; a count or duration of zero is left out by the server."""

    model: Maybe[Text] = None
    remote_host: RemoteHost = ""
    """Where the model ran, if the server passed the prompt on (0.12)."""
    message: OrNothing[_ChatTurn] = None
    done: Maybe[bool] = None
    done_reason: Maybe[Text] = None
    load_duration: Maybe[Count] = None
    prompt_eval_count: Maybe[Count] = None
    prompt_eval_cached_count: Maybe[Count] = None
    """Tokens of the prompt that were not computed again; since 0.33.3, where 0 is sent too."""
    prompt_eval_duration: Maybe[Count] = None
    eval_count: Maybe[Count] = None
    eval_duration: Maybe[Count] = None

    @property
    def is_answer(self) -> bool:
        """Whether it is of a chat: the last line of one may have null for the message."""
        return self.message is not None or bool(self.done and "message" in self.model_fields_set)


class _Embedded(WireModel):
    embeddings: tuple[Vector, ...]


class _Passed(WireModel):
    remote_host: RemoteHost = ""


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
        self._call_ids: set[str] = set()
        self.progress: Progress | None = None

    @property
    def model(self) -> str | None:
        """The model that answers, according to what has been decoded so far."""
        return self._last.model

    def feed(self, payload: Payload) -> list[Event]:
        events: list[Event] = []
        self._last = line = parse_payload(_ChatLine, payload)
        self._answered = self._answered or line.is_answer
        message = line.message or _ChatTurn()
        if message.thinking:
            events.append(ReasoningDelta(message.thinking))
        if message.content:
            events.append(TextDelta(message.content))
        for call in message.tool_calls:
            if not call.says_nothing:
                id = call_id(call.id, self._call_ids)
                self._call_ids.add(id)
                events.append(ToolCall(id, call.name or "", call_arguments(call.arguments)))
        return events

    def close(self) -> Iterator[Event]:
        if not self._answered:
            raise CutOff
        last = self._last
        prompt, cached = last.prompt_eval_count, last.prompt_eval_cached_count
        if cached is not None and cached > (prompt or 0):
            # They contradict each other, so neither a rate nor the cached tokens are known.
            prompt_computed, cached = None, None
        else:
            prompt_computed = (prompt or 0) - (cached or 0)
        yield Finished(
            # Ollama stops a model that repeats itself without an error: the stream then lacks
            # `done`, and a response that is not streamed says `"done": false` (0.32).
            finish_reason=(last.done_reason or "stop") if last.done else CUT_OFF,
            model=last.model,
            remote_host=last.remote_host or None,
            prompt_tokens=prompt,
            completion_tokens=last.eval_count,
            cached_tokens=cached,
            load_seconds=_seconds(last.load_duration),
            prompt_tokens_per_second=_rate(prompt_computed, last.prompt_eval_duration),
            generation_tokens_per_second=_rate(last.eval_count, last.eval_duration),
        )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / _NANOSECONDS


def _rate(count: int | None, nanoseconds: int | None) -> float | None:
    return count * _NANOSECONDS / nanoseconds if count and nanoseconds else None


def decode_vectors(payload: Payload) -> list[tuple[float, ...]]:
    """The vectors in a response, in the order of the texts. Raises like `parse_payload`."""
    return list(parse_payload(_Embedded, payload).embeddings)


def remote_host_in(payload: Payload) -> str:
    """Where a reply says that it was made; "" if it does not."""
    return parse_payload(_Passed, payload).remote_host
