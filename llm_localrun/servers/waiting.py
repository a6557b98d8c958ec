"""What a server does while a request waits for its answer, asked on another connection.

Nothing here raises an error: what a server sends wrongly costs only the line on the terminal. Which
questions a kind of server answers is left to its module.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field

from llm_localrun.errors import LocalRunError
from llm_localrun.system.progress import Progress
from llm_localrun.wire import http
from llm_localrun.wire.events import READING, WAITING, share_of
from llm_localrun.wire.http import HttpRequest
from llm_localrun.wire.response import ResponseHead
from llm_localrun.wire.sse import EventStream, Malformed, Payload

THREAD = "questions to a server"
"""The name of the thread that asks."""
POLL_S = 0.5
"""Between two questions, or two estimates."""
TIMEOUT_S = 2.0
"""Silence after which a question is given up."""
_TICK_S = 0.25
"""How late a wait may notice that it is over."""
_MAX_TEXT_BYTES = 4 * 2**20
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE]\+?[0-9]{1,2})?")


def loading(name: str, value: float | None = None) -> Progress:
    """A model is being loaded, of which the part `value` is done; None if unknown."""
    is_known = value is not None and 0 <= value <= 1
    return share_of(f"loading {name}", value if is_known else None)


def waiting_for(others: int) -> Progress:
    """The server answers `others` first."""
    return Progress(
        f"waiting for {f'{others:,} other prompts' if others > 1 else 'another prompt'}"
    )


@dataclass(frozen=True)
class Reading:
    """A prompt that is being read since `begun`, as long as it takes at the rate of others."""

    tokens: int | None
    """An estimate of those that are not cached; None if unknown."""
    rate: float | None
    """Tokens a second; None if unknown."""
    begun: float = field(default_factory=time.monotonic)

    def now(self) -> Progress:
        """How far it is; where that is not known, or later than expected, that it is waited for."""
        done = (time.monotonic() - self.begun) * (self.rate or 0.0)
        if not self.tokens or not self.rate or done >= self.tokens:
            return WAITING
        return Progress(READING, int(done), self.tokens, "tokens", is_estimate=True)


def until_over(work: Iterator[Progress], is_over: threading.Event) -> Iterator[Progress]:
    """What `work` yields last, in a thread of its own, until it ends or `is_over` is set.

    `work` may wait for a server, and then ends later.
    """
    latest = _Latest()
    thread = threading.Thread(target=latest.follow, args=[work, is_over], name=THREAD, daemon=True)
    thread.start()
    while not is_over.is_set() and not latest.has_ended:
        if latest.is_new.wait(_TICK_S) and not is_over.is_set():
            yield from latest.taken()


@dataclass
class _Latest:
    """The last of what a thread yields: a server may send more than can be shown."""

    progress: Progress | None = None
    is_new: threading.Event = field(default_factory=threading.Event)
    has_ended: bool = False

    def follow(self, work: Iterator[Progress], is_over: threading.Event) -> None:
        try:
            for progress in work:
                if is_over.is_set():
                    return
                self.progress = progress
                self.is_new.set()
        finally:
            self.has_ended = True
            self.is_new.set()

    def taken(self) -> Iterator[Progress]:
        self.is_new.clear()
        progress, self.progress = self.progress, None
        if progress is not None:
            yield progress


def events_of(request: HttpRequest) -> Iterator[Payload]:
    """The events of a stream, until it ends or is silent for too long; those that are JSON."""
    stream = EventStream()
    with suppress(LocalRunError, Malformed):
        for data in _bytes_of(request):
            yield from stream.feed(data)


def text_of(request: HttpRequest) -> str:
    """The text that answers `request`; "" if none does, or too much."""
    received = bytearray()
    with suppress(LocalRunError):
        for data in _bytes_of(request):
            received += data
            if len(received) > _MAX_TEXT_BYTES:
                return ""
        return received.decode("utf-8", "replace")
    return ""


def _bytes_of(request: HttpRequest) -> Iterator[bytes]:
    """The body of a reply that succeeds. Raises a `LocalRunError`."""
    with closing(http.stream(request)) as received:
        for piece in received:
            if isinstance(piece, bytes):
                yield piece
            elif isinstance(piece, ResponseHead) and piece.status != 200:
                return


def count_in(number: str) -> int:
    """A number of prompts as a server writes it; 0 for what is none."""
    if not _NUMBER.fullmatch(number):
        return 0
    value = float(number)
    return int(value) if value < 10**6 else 0
