"""Separates thinking from the answer where a server leaves both in the text.

Servers that do not know a model's template pass its `<think>…</think>` on as text. Where the
template itself opens the thinking, the opening tag is missing. Whether a model thinks is decided in
`chat.run`, for which the template of a model may be searched for traces of thinking here.
"""

import re
from collections.abc import Iterator
from enum import Enum, auto

from llm_localrun.wire.events import Event, ReasoningDelta, TextDelta

_OPEN, _CLOSE = "<think>", "</think>"

# Any word of the kind counts: enable_thinking, [THINK], <thought>, reasoning_effort, gpt-oss's
# channels. A model must not be refused because it calls its thinking something else.
_TRACE = re.compile(r"think|thought|reason|<\|channel", re.IGNORECASE)


def may_think(template: str) -> bool:
    """Whether a chat template shows a trace of thinking; also if the template is unknown, ""."""
    return not template or _TRACE.search(template) is not None


class _State(Enum):
    BEGIN = auto()
    EITHER = auto()
    """No tag yet: the text may be thinking or the answer."""
    OPENED = auto()
    THINKING = auto()
    GAP = auto()
    """Between thinking and the answer."""
    ANSWER = auto()


class ThinkTags:
    """Splits the text of one response, whatever pieces it comes in.

    With `may_lack_opening` the model is known to think and its opening tag may be missing. Its text
    is then kept until the closing tag or the end shows what it was.
    """

    def __init__(self, *, may_lack_opening: bool) -> None:
        self._may_lack_opening = may_lack_opening
        self._held = ""
        self._state = _State.BEGIN

    def feed(self, event: Event) -> Iterator[Event]:
        """The events that `event` becomes; all but text go through as they are."""
        if isinstance(event, TextDelta):
            self._held += event.text
            yield from self._split()
            return
        if isinstance(event, ReasoningDelta):
            # The server separates thinking itself, so its text is the answer.
            self._may_lack_opening = False
        yield from self.flush()
        yield event

    def flush(self) -> Iterator[Event]:
        """The events of the text that `feed` kept, now that nothing more belongs to it."""
        text, self._held = self._held, ""
        if text and self._state is _State.THINKING:
            yield ReasoningDelta(text)
        elif text and (self._state is not _State.BEGIN or text.strip()):
            yield TextDelta(text)

    def _split(self) -> Iterator[Event]:
        if self._state is _State.BEGIN:
            self._begin()
        if self._state is _State.EITHER:
            self._either()
        if self._state is _State.OPENED:
            self._opened()
        if self._state is _State.THINKING:
            yield from self._thinking()
        if self._state is _State.GAP:
            self._gap()
        if self._state is _State.ANSWER:
            yield from self.flush()

    def _begin(self) -> None:
        start = self._held.lstrip()
        if start.startswith(_OPEN):
            self._held, self._state = start[len(_OPEN) :], _State.OPENED
        elif not _OPEN.startswith(start):
            self._state = _State.EITHER if self._may_lack_opening else _State.ANSWER

    def _either(self) -> None:
        if not self._may_lack_opening:
            self._state = _State.ANSWER
        elif _CLOSE in self._held:
            self._held, self._state = self._held.lstrip(), _State.THINKING

    def _opened(self) -> None:
        """Templates put line ends after the opening tag."""
        self._held = self._held.lstrip("\n")
        if self._held:
            self._state = _State.THINKING

    def _thinking(self) -> Iterator[Event]:
        thought, close, rest = self._held.partition(_CLOSE)
        if close:
            self._held, self._state = rest, _State.GAP
        else:
            kept = _tag_begun_at_end(thought)
            thought, self._held = thought[: len(thought) - kept], thought[len(thought) - kept :]
        if thought:
            yield ReasoningDelta(thought)

    def _gap(self) -> None:
        """Models put blank lines between their thinking and their answer."""
        self._held = self._held.lstrip()
        if self._held:
            self._state = _State.ANSWER


def _tag_begun_at_end(text: str) -> int:
    """How many characters at the end of `text` may be the beginning of the closing tag."""
    return next((n for n in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:n])), 0)
