"""A server that answers each question about itself with what is true at the next moment."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_server import Request, chunk, head, json_reply, not_found, text, whole

Json = dict[str, Any]


@dataclass
class Moments:
    """The replies to each path, in turn: JSON values, texts, or whole replies. The last one stays.

    What is answered from the moment `last` of a path on comes after the answer has begun.
    """

    replies: Mapping[str, Sequence[Any]]
    last: tuple[str, int] = ("", 0)
    is_over: threading.Event = field(default_factory=threading.Event)
    asked: dict[str, int] = field(default_factory=dict)

    def __call__(self, request: Request) -> Iterator[bytes | float]:
        path = request.path
        count = self.asked[path] = self.asked.get(path, 0) + 1
        if (path, count) == self.last:
            self.is_over.set()
        moments = self.replies.get(path)
        if moments is None:
            yield not_found(path)
            return
        reply = moments[min(count, len(moments)) - 1]
        if isinstance(reply, bytes):
            yield reply
        elif isinstance(reply, Events):
            yield from reply.pieces()
        else:
            yield text(reply) if isinstance(reply, str) else json_reply(reply)


@dataclass(frozen=True)
class Events:
    """Server-sent events: JSON values or bytes, and then silence, unless the stream `ends`."""

    events: Sequence[Json | bytes]
    ends: bool = False

    def pieces(self) -> Iterator[bytes | float]:
        yield head("text/event-stream")
        for event in self.events:
            data = event if isinstance(event, bytes) else json.dumps(event).encode()
            yield chunk(b"data: " + data + b"\n\n")
        yield b"0\r\n\r\n" if self.ends else 60.0


def metrics(**gauges: object) -> bytes:
    """A page of /metrics, which begins with thousands of characters about others."""
    others = "".join(f'python_info{{number="{number}"}} 1.0\n' for number in range(500))
    values = "".join(f"{name.replace('__', ':')} {value}\n" for name, value in gauges.items())
    return whole((others + values).encode(), "text/plain; version=0.0.4")
