"""What a terminal shows of a request besides its answer: until that begins, and while it is silent.

Only llm's own commands show it. What another program has on its terminal is not known, and a line
there would stand in its texts, or erase them. Drawing the line is left to `system.progress`, what a
server says of its work to `servers`.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

import click

from llm_localrun.chat.interrupts import COMMANDS
from llm_localrun.system.progress import Progress, Work, hidden, is_shown, quiet, working
from llm_localrun.wire.events import (
    GENERATING,
    WAITING,
    WRITING_CALL,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCall,
)
from llm_localrun.wire.response import ResponseDecoder

_THINKING = Progress("thinking")
_DELAY_S = 1.0
"""A shorter silence is not shown, and a server that answers within this time is asked nothing."""

Says = Callable[[threading.Event], Iterator[Progress]]
"""Yields what a server does, until the event is set."""


class Shown:
    """A request of a command at a terminal. llm prints the pieces of its answer as they come."""

    def __init__(self, work: Work, command: click.Context, *, is_streamed: bool) -> None:
        self._work = work
        self._is_streamed = is_streamed
        self._prints_reasoning = is_streamed and not command.params.get("hide_reasoning")
        options = ("tools_debug", "tools_approve")
        self._prints_calls = any(map(command.params.get, options))
        """Whether llm prints a line for each call that it runs."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        """Set when what the server says besides the response counts no more."""
        self._said: Progress | None = None
        """What the response has said last."""
        self._latest = WAITING
        self._in_line = False
        """Whether what llm has printed does not end its line."""
        self._is_ours = True
        """Whether that stands on the terminal, where a line end can be added."""
        self._has_called = False

    @contextmanager
    def watching(self, says: Says) -> Iterator[None]:
        """Around an exchange: shows what its server says besides the response."""
        over = self._over = threading.Event()
        self._said = None
        self._report(WAITING)
        threading.Thread(target=self._watch, args=[says, over], daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def look(self, decoder: ResponseDecoder) -> None:
        """After each piece of the response: shows what that says, in place of anything else."""
        said = decoder.progress
        if said is self._said or said is None:
            return
        self._said = said
        with self._lock:
            self._over.set()
        if self._latest is not _THINKING:
            self._report(said)
        if said is WRITING_CALL and self._in_line and self._is_ours:
            # No text of this answer follows, as a rule.
            quiet(_DELAY_S, in_line=True)

    def before(self, event: Event) -> None:
        """Before llm gets an event: clears the terminal for what llm prints."""
        self._over.set()
        if isinstance(event, TextDelta):
            is_printed, self._is_ours = self._is_streamed, sys.stdout.isatty()
            if self._latest is _THINKING:
                self._report(GENERATING)
        elif isinstance(event, ReasoningDelta):
            is_printed, self._is_ours = self._prints_reasoning, True
            if not is_printed and self._latest is not _THINKING:
                self._report(_THINKING)
        else:
            self._has_called = self._has_called or isinstance(event, ToolCall)
            return
        if is_printed:
            self._in_line = not event.text.endswith("\n")
            quiet(inf if self._in_line else _DELAY_S, in_line=self._in_line)

    def end(self) -> None:
        """After the last event. If the answer has calls, the next turn goes on in the last line."""
        self._over.set()
        goes_on = self._in_line and self._has_called and not self._prints_calls
        # Below what it says of a call that is written, the line is a new one.
        in_line = None if goes_on and self._latest is WRITING_CALL else goes_on
        quiet(inf if goes_on and not self._is_ours else 0.0, in_line=in_line)

    def _watch(self, says: Says, over: threading.Event) -> None:
        if over.wait(_DELAY_S):
            return
        for progress in says(over):
            with self._lock:
                if over.is_set():
                    return
                self._report(progress)

    def _report(self, progress: Progress) -> None:
        self._latest = progress
        self._work.report(progress)


@contextmanager
def shown(*, is_streamed: bool) -> Iterator[Shown | None]:
    """Around a request, from its very beginning; None where nothing is shown of it."""
    command = click.get_current_context(silent=True)
    if command is None or command.info_name not in COMMANDS:
        with hidden():
            yield None
    elif not is_shown():
        yield None
    else:
        if command.info_name == "chat" and not sys.stdin.isatty() and sys.stdout.isatty():
            # The "> " stands in the last line: no line end was typed after it.
            quiet(in_line=True)
        with working(WAITING) as work:
            request = Shown(work, command, is_streamed=is_streamed)
            try:
                yield request
            finally:
                request.end()


@contextmanager
def shown_texts() -> Iterator[None]:
    """The same, around texts that are embedded. `llm embed-multi` shows a bar of its own."""
    command = click.get_current_context(silent=True)
    name = command.info_name if command else ""
    has_bar = name == "embed-multi" and sys.stdout.isatty()
    if name in ("embed", "embed-multi", "similar") and not has_bar:
        with working(Progress("embedding")):
            yield
    else:
        with hidden():
            yield
