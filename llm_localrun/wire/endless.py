"""Notices an answer that will not end: it repeats itself, or it counts.

Small models that a grammar keeps from stopping do that within a text or a list. What is done about
it is left to `chat.attempts`.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from llm_localrun.wire.events import Event, ReasoningDelta, TextDelta
from llm_localrun.wire.response import PayloadDecoder
from llm_localrun.wire.sse import Payload

_REPEATED = 200
_TIMES = 24
"""Characters that repeat a shorter piece, and how often they do: tables have rows of dashes."""
_LONGEST_PERIOD = 60
_COUNTED = 128
"""Numbers of which each is as much above the last one."""
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


def _repeats(text: str, length: int) -> bool:
    for period in range(1, _LONGEST_PERIOD + 1):
        end = text[-max(length, _TIMES * period) :]
        if len(end) >= max(length, _TIMES * period) and end[period:] == end[:-period]:
            return True
    return False


class EndWatch:
    """A decoder of payloads that looks at the text and the thinking which pass."""

    def __init__(self, decoder: PayloadDecoder) -> None:
        self.is_endless = False
        self._decoder = decoder
        self._tail = ""
        self._unseen = 0

    @property
    def model(self) -> str | None:
        """As `PayloadDecoder` has it."""
        return self._decoder.model

    def feed(self, payload: Payload) -> Iterator[Event]:
        """As `PayloadDecoder` has it."""
        for event in self._decoder.feed(payload):
            if isinstance(event, TextDelta | ReasoningDelta):
                self._look(event.text)
            yield event

    def close(self) -> Iterator[Event]:
        """As `PayloadDecoder` has it."""
        return self._decoder.close()

    def _look(self, text: str) -> None:
        self._tail = (self._tail + text)[-_LOOK_AT:]
        self._unseen += len(text)
        if self._unseen >= _LOOK_EVERY:
            self._unseen = 0
            self.is_endless = self.is_endless or is_endless(self._tail)
