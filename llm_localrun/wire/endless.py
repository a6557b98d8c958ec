"""Notices an answer that will not end: it repeats itself, or it counts.

Small models do that within a text or a list if a grammar keeps them from stopping, and without one
they make the same call again and again. What is done about it is left to `chat.attempts`.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from llm_localrun.system.progress import Progress
from llm_localrun.wire.events import Event, ReasoningDelta, TextDelta
from llm_localrun.wire.response import PayloadDecoder
from llm_localrun.wire.sse import Payload

_REPEATED = 200
_TIMES = 24
"""Characters that repeat a shorter piece, and how often they do: tables have rows of dashes."""
_LONGEST_PERIOD = 60
_COUNTED = 128
"""Numbers of which each is as much above the last one."""
_CALLS = 5
"""How often a call, or a row of calls, comes again: an answer needs none of them twice."""
_LOOK_AT = 4000
"""Characters at the end of an answer that are looked at."""
_LOOK_EVERY = 64
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def is_endless(text: str) -> bool:
    """Whether the end of `text` repeats a short piece, or is a list of numbers that counts."""
    tail = "".join(text[-_LOOK_AT:].split())
    if _repeats(tail, _REPEATED):
        return True
    # The last one may be incomplete.
    numbers = _NUMBER.findall(tail)[-_COUNTED - 1 : -1]
    if len(numbers) < _COUNTED or not _repeats(_NUMBER.sub("0", tail), 2 * _COUNTED):
        return False
    return len({round(float(b) - float(a), 6) for a, b in pairwise(numbers)}) == 1


def repeats_call(text: str, names: Collection[str]) -> bool:
    """Whether the end of `text` repeats what calls one of the tools with these `names`."""
    tail = "".join(text[-_LOOK_AT:].split())
    name = "|".join(map(re.escape, names))
    starts = [found.start() for found in re.finditer(name, tail)] if name else []
    for start in reversed(starts[:-1]):
        period = starts[-1] - start
        length = max(_REPEATED, _CALLS * period)
        if length > len(tail):
            return False
        end = tail[-length:]
        if end[period:] == end[:-period]:
            return "{" in end or "(" in end
    return False


def _repeats(text: str, length: int) -> bool:
    for period in range(1, _LONGEST_PERIOD + 1):
        end = text[-max(length, _TIMES * period) :]
        if len(end) >= max(length, _TIMES * period) and end[period:] == end[:-period]:
            return True
    return False


class EndWatch:
    """A decoder of payloads that looks at the text and the thinking which pass."""

    def __init__(self, decoder: PayloadDecoder, names: Collection[str] = ()) -> None:
        self._decoder = decoder
        self._names = names
        """The tools that may be called."""
        self.forget()

    def forget(self) -> None:
        """Begins anew: what has passed does not count, because it has been shown."""
        self.is_endless = False
        self._tail = ""
        self._unseen = 0

    @property
    def model(self) -> str | None:
        """As `PayloadDecoder` has it."""
        return self._decoder.model

    @property
    def progress(self) -> Progress | None:
        """As `PayloadDecoder` has it."""
        return self._decoder.progress

    def feed(self, payload: Payload) -> Sequence[Event]:
        """As `PayloadDecoder` has it."""
        events = self._decoder.feed(payload)
        for event in events:
            if isinstance(event, TextDelta | ReasoningDelta):
                self._look(event.text)
        return events

    def close(self) -> Iterator[Event]:
        """As `PayloadDecoder` has it."""
        return self._decoder.close()

    def _look(self, text: str) -> None:
        self._tail = (self._tail + text)[-_LOOK_AT:]
        self._unseen += len(text)
        if self._unseen >= _LOOK_EVERY:
            self._unseen = 0
            found = is_endless(self._tail) or repeats_call(self._tail, self._names)
            self.is_endless = self.is_endless or found
