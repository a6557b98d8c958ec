"""Makes replies as servers frame them, and decodes them in pieces of any size."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from llm_localrun.errors import LocalRunError
from llm_localrun.servers.base import Server, find_overflow
from llm_localrun.tokens.window import Limits, explain_overflow
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.response import ResponseContext, ResponseDecoder, ResponseHead
from llm_localrun.wire.shapes import Overflow
from llm_localrun.wire.sse import Payload
from tests.fakes.http_server import Exchange, transcript
from tests.support.servers import OLLAMA, OPENAI

JSON = "application/json"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Outcome:
    """What a reply comes to: its events, and the error that ended it."""

    events: list[Event]
    error: type[LocalRunError] | None = None
    message: str = ""

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def reasoning(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, ReasoningDelta))

    @property
    def calls(self) -> list[ToolCall]:
        return [event for event in self.events if isinstance(event, ToolCall)]

    @property
    def finished(self) -> list[Finished]:
        return [event for event in self.events if isinstance(event, Finished)]


def limited(limits: Limits) -> ResponseContext:
    """A response whose context could be made as large as `limits` say."""

    def explain(overflow: Overflow, said: str) -> LocalRunError:
        return explain_overflow(overflow, said, "Box", None, limits)

    return ResponseContext(find_overflow=find_overflow, on_overflow=explain)


ANYTHING = limited(Limits())


def decode(
    dialect: Server,
    head: ResponseHead,
    pieces: Iterable[bytes],
    expected: ResponseContext = ANYTHING,
    tools: Collection[str] = (),
) -> Outcome:
    """What a reply in `pieces` comes to; `tools` are those that the model was offered."""
    reply = ResponseDecoder("Box", dialect.decoder(tools), expected)
    events: list[Event] = []
    try:
        events.extend(reply.feed(head))
        for piece in pieces:
            events.extend(reply.feed(piece))
        events.extend(reply.close())
    except LocalRunError as error:
        return Outcome(events, type(error), str(error))
    return Outcome(events)


def cut_anywhere(
    dialect: Server,
    head: ResponseHead,
    body: bytes,
    expected: ResponseContext = ANYTHING,
    tools: Collection[str] = (),
) -> Iterator[Outcome]:
    """The outcome of a reply in two pieces, for each position of the cut, and in single bytes.

    A long one is cut at some positions only; they drift through its lines.
    """
    for at in range(1, len(body), 1 + len(body) // 400):
        yield decode(dialect, head, [body[:at], body[at:]], expected, tools)
    yield decode(dialect, head, single_bytes(body), expected, tools)


def single_bytes(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


def sse(*payloads: Payload) -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(payload).encode() for payload in payloads)


def nd(*payloads: Payload) -> bytes:
    return b"".join(b"%s\n" % json.dumps(payload).encode() for payload in payloads)


def streamed(dialect: Server, *payloads: Payload) -> tuple[ResponseHead, bytes]:
    """A reply that comes in pieces, to its regular end."""
    if dialect is OLLAMA:
        return ResponseHead(200, LINES), nd(*payloads)
    return ResponseHead(200, EVENTS), sse(*payloads) + b"data: [DONE]\n\n"


def at_once(payload: Payload) -> tuple[ResponseHead, bytes]:
    """A reply that is not streamed."""
    return ResponseHead(200, JSON), json.dumps(payload).encode()


def chunk(finish_reason: str | None = None, /, **delta: Any) -> Payload:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def whole(finish_reason: str, /, **message: Any) -> Payload:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}


def dialect_of(exchange: Exchange) -> Server:
    return next(dialect for dialect in (OLLAMA, OPENAI) if dialect.chat_path == exchange.path)


def head_of(exchange: Exchange) -> ResponseHead:
    return ResponseHead(exchange.status, exchange.content_type)


def recorded(name: str, index: int) -> Outcome:
    exchange = transcript(name)[index]
    return decode(dialect_of(exchange), head_of(exchange), [exchange.body])


MODEL = {"model": "qwen3-8b"}


def ollama(done: bool, /, thinking: str = "", content: str = "", **facts: Any) -> Payload:
    return {"message": {"content": content, "thinking": thinking}, "done": done, **MODEL, **facts}
