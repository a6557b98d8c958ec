"""Takes thinking apart from the answer where a server leaves both in the text.

Servers that do not know a model's template hand its `<think>…</think>` on as text, and where the
template itself opens the thinking, without the opening tag.
"""

from collections.abc import Iterator

from llm_localrun.wire.events import Event, ReasoningDelta, TextDelta

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkTags:
    """Splits the text of one reply, however it is cut into pieces.

    `may_lack_opening`: the model is known to think and its opening tag may be missing. Its text is
    then held back until the closing tag or the end tells what it was.
    """

    def __init__(self, *, may_lack_opening: bool) -> None:
        self._may_lack_opening = may_lack_opening
        self._held = ""
        self._state = "begin"

    def feed(self, event: Event) -> Iterator[Event]:
        """The events that `event` becomes; all but text go through as they are."""
        if isinstance(event, TextDelta):
            self._held += event.text
            yield from self._split()
            return
        if isinstance(event, ReasoningDelta):
            # The server takes thinking apart itself, so what is text is text.
            self._may_lack_opening = False
        yield from self.flush()
        yield event

    def flush(self) -> Iterator[Event]:
        """What was held back, now that nothing more belongs to it."""
        text, self._held = self._held, ""
        if text and self._state == "thinking":
            yield ReasoningDelta(text)
        elif text and (self._state != "begin" or text.strip()):
            yield TextDelta(text)

    def _split(self) -> Iterator[Event]:
        if self._state == "begin":
            self._begin()
        if self._state == "either":
            self._either()
        if self._state == "opened":
            self._opened()
        if self._state == "thinking":
            yield from self._thinking()
        if self._state == "gap":
            self._gap()
        if self._state == "answer":
            yield from self.flush()

    def _begin(self) -> None:
        start = self._held.lstrip()
        if start.startswith(_OPEN):
            self._held, self._state = start[len(_OPEN) :], "opened"
        elif not _OPEN.startswith(start):
            self._state = "either" if self._may_lack_opening else "answer"

    def _either(self) -> None:
        if not self._may_lack_opening:
            self._state = "answer"
        elif _CLOSE in self._held:
            self._held, self._state = self._held.lstrip(), "thinking"

    def _opened(self) -> None:
        """Templates put line ends behind the opening tag."""
        self._held = self._held.lstrip("\n")
        if self._held:
            self._state = "thinking"

    def _thinking(self) -> Iterator[Event]:
        thought, close, rest = self._held.partition(_CLOSE)
        if close:
            self._held, self._state = rest, "gap"
        else:
            kept = _tag_begun_at_end(thought)
            thought, self._held = thought[: len(thought) - kept], thought[len(thought) - kept :]
        if thought:
            yield ReasoningDelta(thought)

    def _gap(self) -> None:
        """Models put blank lines between their thinking and their answer."""
        self._held = self._held.lstrip()
        if self._held:
            self._state = "answer"


def _tag_begun_at_end(text: str) -> int:
    """How many characters at the end of `text` may be the beginning of the closing tag."""
    return next((n for n in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:n])), 0)
