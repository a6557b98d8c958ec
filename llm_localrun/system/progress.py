"""Shows long work on a terminal: one line on stderr from the second second on, none in a pipe.

Any module says what it does with `working`, and how far it is with `Work.report`. When the line is
drawn, and what stands in it, is decided here. What is printed besides goes through `tell`, so that
it does not stand in the same line.
"""

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

import click

from llm_localrun.system.text import cut, printable, width_of

_DELAY_S = 1.0
"""Shorter work is not shown."""
_REDRAW_S = 0.25
_RATE_WINDOW_S = 10.0
"""The rate is the average over this time, or between the last two reports if they are rarer."""
_MIN_RATE_S = 1.0
"""The rate of a shorter time says little."""
_USUAL_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and how much of it is done. `total` is None if it is not known.

    `unit` is "bytes", "%", or a noun in the plural: "tokens". `is_estimate` says that `done` and
    `total` were not counted.
    """

    what: str
    done: int = 0
    total: int | None = None
    unit: str = "bytes"
    is_estimate: bool = False


class Work:
    """Work that goes on, and how far it is."""

    def __init__(self, progress: Progress) -> None:
        self._begun = time.monotonic()
        self._latest = progress
        self._samples = deque([(self._begun, progress.done)])

    def report(self, progress: Progress) -> None:
        """Says how far the work is, or what it does now. Any thread may call it."""
        now = time.monotonic()
        if progress.what != self._latest.what:
            self._begun = now
        if progress.what != self._latest.what or self._latest.total is None:
            self._samples = deque()
        self._samples.append((now, progress.done))
        while len(self._samples) > 2 and now - self._samples[1][0] > _RATE_WINDOW_S:
            self._samples.popleft()
        self._latest = progress

    def text(self, now: float, width: int) -> str:
        """The line at the time `now` of the monotonic clock, in at most `width` columns."""
        (begun, before), (reported, done) = self._samples[0], self._samples[-1]
        seconds = reported - begun
        rate = (done - before) / seconds if seconds >= _MIN_RATE_S else 0.0
        what = printable(self._latest.what)
        rest = amount_of(self._latest, rate, now - self._begun, now - reported)
        shown = what if width_of(what + rest) <= width else f"{cut(what, width - len(rest) - 1)}…"
        return cut(f"{shown}{rest}", width)


def amount_of(progress: Progress, rate: float, elapsed: float, since_report: float = 0.0) -> str:
    """What follows `progress.what`, for work that began `elapsed` seconds ago, at `rate` units/s.

    For example ": 2,560 of 6,000 tokens, 12 s left". `since_report` is how long ago `progress` was
    true, in seconds.
    """
    parts = [_amount(progress)]
    left = None
    if progress.total is not None and rate > 0:
        left = (progress.total - progress.done) / rate - since_report
        if progress.unit == "bytes":
            parts.append(f"{_count(int(rate), 'bytes')}/s")
    if left is not None and left >= 0:
        parts.append(f"{duration_text(left)} left")
    else:
        parts.append(duration_text(elapsed))
    return ", ".join(parts)


def duration_text(seconds: float) -> str:
    """A duration: 45 s, 5 min, 2 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.0f} h"


def _amount(progress: Progress) -> str:
    done, total, unit = progress.done, progress.total, progress.unit
    about = "about " * progress.is_estimate
    if total is None:
        return f": {about}{_count(done, unit)}" if done else ""
    done = min(done, total)
    if unit == "%":
        return f": {about}{done}%"
    whole = _count(total, unit)
    # "1.2 of 2.5 GB", and "998 MB of 2.5 GB".
    part = _count(done, unit).removesuffix(f" {whole.rpartition(' ')[2]}")
    return f": {about}{part} of {whole}"


def _count(count: int, unit: str) -> str:
    if unit != "bytes":
        return f"{count:,} {unit}"
    if count < 999.5e6:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:.1f} GB"


@contextmanager
def working(progress: Progress) -> Iterator[Work]:
    """Shows the work of a block while the block runs. What began last is shown."""
    work = Work(progress)
    with _screen.showing(work):
        yield work


@contextmanager
def hidden() -> Iterator[None]:
    """Shows no work while a block runs, because it writes to the terminal."""
    with _screen.hidden():
        yield


def tell(text: str = "", *, ends_line: bool = True) -> None:
    """Prints a text from our own messages on stderr, and not in the line that shows work."""
    with _screen.cleared():
        click.echo(printable(text), err=True, nl=ends_line)
        _screen.quiet(0.0, in_line=not ends_line)


def quiet(seconds: float = 0.0, *, in_line: bool = False) -> None:
    """Clears the line, and shows no work for so long, because something else is printed.

    `in_line`: what is printed does not end its line, so that what is shown next begins below it.
    """
    _screen.quiet(seconds, in_line=in_line)


def is_shown() -> bool:
    """Whether work is shown at all: stderr is a terminal, and nothing hides what stands there."""
    return _is_terminal() and not _screen.is_hidden


def _is_terminal() -> bool:
    # It is None in a program without a console.
    return sys.stderr is not None and sys.stderr.isatty()


class _Screen:
    """The line on the terminal, which all threads share."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._works: list[Work] = []
        self._idle = threading.Event()
        """Set if there is nothing to show any more."""
        self._hidden = 0
        self._quiet_until = 0.0
        self._in_line = False
        """Whether the last line of the terminal holds a text that does not end it."""
        self._drawn: TextIO | None = None
        """Where a line stands now."""

    @contextmanager
    def showing(self, work: Work) -> Iterator[None]:
        with self._lock:
            self._works.append(work)
            if len(self._works) == 1 and _is_terminal():
                self._idle = threading.Event()
                threading.Thread(target=self._draw_until, args=[self._idle], daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._works.remove(work)
                if not self._works:
                    self._idle.set()
                    self._clear()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        with self._lock:
            self._hidden += 1
            self._clear()
        try:
            yield
        finally:
            with self._lock:
                self._hidden -= 1

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Holds the line back while a block prints."""
        with self._lock:
            self._clear()
            yield

    @property
    def is_hidden(self) -> bool:
        return self._hidden > 0

    def quiet(self, seconds: float, *, in_line: bool) -> None:
        with self._lock:
            self._clear()
            self._quiet_until, self._in_line = time.monotonic() + seconds, in_line

    def _draw_until(self, idle: threading.Event) -> None:
        wait = _DELAY_S
        while not idle.wait(wait):
            wait = _REDRAW_S
            with self._lock:
                is_due = not self._hidden and time.monotonic() >= self._quiet_until
                if self._works and is_due and not idle.is_set():
                    self._draw(self._works[-1])

    def _draw(self, work: Work) -> None:
        width = _terminal_width() - 1
        shown = work.text(time.monotonic(), width)
        start = "\n" if self._in_line else "\r"
        self._write(sys.stderr, f"{start}{shown}{' ' * (width - width_of(shown))}")
        self._drawn, self._in_line = sys.stderr, False

    def _clear(self) -> None:
        if self._drawn is not None:
            self._write(self._drawn, f"\r{' ' * (_terminal_width() - 1)}\r")
            self._drawn = None

    def _write(self, stream: TextIO, text: str) -> None:
        # The terminal may be closed.
        with contextlib.suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()


_screen = _Screen()


def _terminal_width() -> int:
    """Columns of the terminal that stderr is, or the value of COLUMNS."""
    with contextlib.suppress(OSError, ValueError):
        asked = os.environ.get("COLUMNS", "")
        if asked.isdecimal() and int(asked) > 1:
            return int(asked)
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_WIDTH
    return _USUAL_WIDTH
