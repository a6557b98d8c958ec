"""Shows long work on a terminal: one line on stderr from the second second on, none in a pipe.

Any module says what it does with `working`, and how far it is with `Work.report`. When the line is
drawn, and what stands in it, is decided here. What is printed besides goes through `tell` or
`cleared`, so that it does not stand in the same line.
"""

import atexit
import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
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
_MIN_SAMPLE_S = 0.1
"""Between two reports that are kept."""
_SETTLE_S = 5.0
"""In this time, the time left that is shown becomes the one that the last reports mean."""
_USUAL_WIDTH = 80
_FREE_COLUMNS = 3
"""At the end of the line: the terminal shows `^C` there, which must not begin another line."""
_MIN_NAME_WIDTH = 20
"""On a narrow terminal, numbers are left out to show this much of what is being done."""


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

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.begun = self._step_begun = clock()
        self._first = self._latest = progress
        self._samples = deque([(self.begun, progress.done)])
        self._left: tuple[float, float] | None = None
        """The seconds that were left, and when that was shown."""

    def report(self, progress: Progress) -> None:
        """Says how far the work is, or what it does now. Any thread may call it."""
        now, last, samples = self._clock(), self._latest, self._samples
        with self._lock:
            # "waiting for 2 other prompts" and then for 1 is the same waiting.
            if _activity(progress) != _activity(last):
                goes_on = _activity(progress) == _activity(self._first)
                self._step_begun = self.begun if goes_on else now
            is_other = (progress.what, progress.unit) != (last.what, last.unit)
            # What is done already when the total becomes known says nothing about the speed.
            is_first = last.total is None and progress.total is not None
            if is_other or is_first or progress.done < last.done:
                samples.clear()
                self._left = None
            if len(samples) > 1 and now - samples[-2][0] < _MIN_SAMPLE_S:
                samples.pop()
            samples.append((now, progress.done))
            while len(samples) > 2 and now - samples[1][0] > _RATE_WINDOW_S:
                samples.popleft()
            self._latest = progress

    def text(self, now: float, width: int) -> str:
        """The line at the time `now` of the clock, in at most `width` columns."""
        with self._lock:
            progress, elapsed = self._latest, now - self._step_begun
            rate, since_report = self._rate(now)
            left = self._smooth_left(now, rate, since_report)
        times = (
            f"{duration_text(max(1.0, left))} left"
            if left > 0
            else duration_text(max(1.0, elapsed))
        )
        is_over = progress.total is not None and progress.done >= progress.total
        has_speed = progress.unit == "bytes" and rate > 0 and not is_over
        speed = f"{_bytes(rate)}/s" if has_speed else ""
        return _line(progress, speed, times, width)

    def _rate(self, now: float) -> tuple[float, float]:
        """Units per second, and how long ago `done` was true at this rate."""
        (begun, before), (reported, done) = self._samples[0], self._samples[-1]
        interval = reported - self._samples[-2][0] if len(self._samples) > 1 else 0.0
        # After a longer silence than usual, the work is slower than it was.
        is_silent = now - reported > max(2 * interval, _MIN_RATE_S)
        seconds = (now if is_silent else reported) - begun
        rate = (done - before) / seconds if seconds >= _MIN_RATE_S else 0.0
        return rate, 0.0 if is_silent else now - reported

    def _smooth_left(self, now: float, rate: float, since_report: float) -> float:
        """The seconds that are left, without small jumps; 0 if that is not known."""
        progress = self._latest
        if progress.total is None or rate <= 0 or progress.done >= progress.total:
            return 0.0
        left = (progress.total - progress.done) / rate - since_report
        if self._left is not None:
            shown, at = self._left
            expected = shown - (now - at)
            if abs(left - expected) < max(left, expected) / 2:
                left = expected + (left - expected) * min(1.0, (now - at) / _SETTLE_S)
        self._left = left, now
        return left


def _line(progress: Progress, speed: str, times: str, width: int) -> str:
    """ "loading X: 1.2 of 2.5 GB, 430 MB/s, 3 s left"; if that is too wide, with less of it."""
    what, amount = printable(progress.what), _amount(progress)
    share = f"{_percent(progress)}%" if progress.total else amount
    choices = ((amount, speed, times), (amount, "", times), (share, "", times), (share, "", ""))
    name_width = min(width_of(what), _MIN_NAME_WIDTH, 2 * width // 5)
    for amount, *others in choices:
        rest = (f": {amount}" if amount else "") + "".join(f", {each}" for each in others if each)
        if name_width + len(rest) <= width:
            break
    room = width - len(rest)
    if width_of(what) > room:
        first, shortened = _activity(progress), cut(what, room - 3).rstrip(" :")
        # "reading" says more than "readin...".
        is_cut = first.startswith(shortened) and len(first) <= room
        what = first.rstrip(":") if is_cut else f"{shortened}..."
    return cut(what + rest, width)


def _activity(progress: Progress) -> str:
    return progress.what.partition(" ")[0]


def duration_text(seconds: float) -> str:
    """A duration: 45 s, 5 min, 2 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.0f} h"


def _percent(progress: Progress) -> int:
    return min(100, 100 * progress.done // progress.total) if progress.total else 0


def _amount(progress: Progress) -> str:
    done, total, unit = progress.done, progress.total, progress.unit
    about = "about " * progress.is_estimate
    if not total:
        return f"{about}{_count(done, unit)}" if done else ""
    if unit == "%":
        return f"{about}{_percent(progress)}%"
    whole = _count(total, unit)
    part = _count(min(done, total), unit) if done else "0"
    # "1.2 of 2.5 GB", and "998 MB of 2.5 GB".
    of_unit = f" {whole.rpartition(' ')[2]}"
    return f"{about}{part.removesuffix(of_unit)} of {whole}"


def _count(count: int, unit: str) -> str:
    if unit == "%":
        return f"{count}%"
    return _bytes(count) if unit == "bytes" else f"{count:,} {unit}"


def _bytes(count: float) -> str:
    if count < 0.95e6:
        return f"{count / 1e3:.0f} kB"
    if count < 999.5e6:
        return f"{count / 1e6:.{count < 9.95e6:d}f} MB"
    return f"{count / 1e9:.1f} GB"


@contextmanager
def working(progress: Progress) -> Iterator[Work]:
    """Shows the work of a block while the block runs. What began last is shown."""
    work = Work(progress)
    try:
        _screen.add(work)
        yield work
    finally:
        _for_certain(lambda: _screen.remove(work))


@contextmanager
def hidden() -> Iterator[None]:
    """Shows no work while a block runs, because it writes to the terminal."""
    marker = object()
    try:
        _screen.hide(marker)
        yield
    finally:
        _for_certain(lambda: _screen.unhide(marker))


@contextmanager
def cleared() -> Iterator[None]:
    """Shows no work while a block prints whole lines."""
    with _screen.lock:
        _screen.clear()
        yield


def tell(text: str = "", *, ends_line: bool = True) -> None:
    """Prints a text from our own messages on stderr, and not in the line that shows work."""
    with cleared():
        click.echo(printable(text), err=True, nl=ends_line)
        _screen.is_in_line = not ends_line
        _screen.quiet_until, _screen.begins_below = 0.0, False


def quiet(seconds: float = 0.0, *, in_line: bool | None = False) -> None:
    """Clears the line, and shows no work for so long, because something else is printed.

    `in_line`: what is printed does not end its line, so that what is shown next begins below it;
    None: nothing more is printed.
    """
    with _screen.lock:
        _screen.clear()
        _screen.quiet_until = time.monotonic() + seconds
        if in_line is not None:
            _screen.begins_below = in_line


def is_shown() -> bool:
    """Whether work is shown at all: stderr is a terminal, and nothing hides what stands there."""
    return _is_terminal(sys.stderr) and not _screen.is_hidden


def _is_terminal(stream: TextIO) -> bool:
    # It may be None, closed, or an object of a program that replaces it.
    with contextlib.suppress(AttributeError, ValueError):
        return bool(stream.isatty())
    return False


def _for_certain(action: Callable[[], None]) -> None:
    """Does what can be done twice, even if Ctrl-C comes in the middle of it."""
    try:
        action()
    except KeyboardInterrupt:
        action()
        raise


class _Screen:
    """The line on the terminal, which all threads share."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begins without work. A forked process lacks the thread, which may have had the lock."""
        self.lock = threading.RLock()
        self.is_in_line = False
        """Whether a text without a line end was printed last."""
        self.quiet_until = 0.0
        self.begins_below = False
        """Whether a text stands in the last line, under which the next line is drawn."""
        self._works: list[Work] = []
        self._hiding: list[object] = []
        self._is_drawing = False
        """Whether the thread runs that draws."""
        self._busy_since = self._idle_since = 0.0
        self._drawn: tuple[TextIO, str] | None = None
        """Where a line stands now, and which one."""

    def add(self, work: Work) -> None:
        with self.lock:
            # Work that follows work is part of the same waiting.
            if not self._works and work.begun - self._idle_since > _REDRAW_S:
                self._busy_since = work.begun
            self._works.append(work)
            if self._is_drawing or not _is_terminal(sys.stderr):
                return
            # Python starts no threads while it ends.
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self._draw_while_busy, daemon=True).start()
                self._is_drawing = True

    def remove(self, work: Work) -> None:
        with self.lock:
            if work in self._works:
                self._works.remove(work)
            if not self._works:
                self._idle_since = time.monotonic()
                self.clear()

    def hide(self, marker: object) -> None:
        with self.lock:
            self._hiding.append(marker)
            self.clear()

    def unhide(self, marker: object) -> None:
        with self.lock:
            if marker in self._hiding:
                self._hiding.remove(marker)

    @property
    def is_hidden(self) -> bool:
        return bool(self._hiding)

    def clear(self) -> None:
        """Removes the line."""
        if self._drawn is not None:
            stream, _ = self._drawn
            self._write(stream, f"\r{' ' * (_width_of_terminal(stream) - 1)}\r")
            self._drawn = None

    def _draw_while_busy(self) -> None:
        # It looks four times a second, so that work costs no more than being listed.
        while True:
            time.sleep(_REDRAW_S)
            with self.lock:
                if not self._works:
                    self._is_drawing = False
                    return
                now = time.monotonic()
                if not (self._hiding or self.is_in_line) and now >= self.quiet_until:
                    self._draw(sys.stderr, now)

    def _draw(self, stream: TextIO, now: float) -> None:
        if now - self._busy_since < _DELAY_S or not _is_terminal(stream):
            return
        newest = reversed(self._works)
        # Work that ends at once would only flicker.
        work = next((each for each in newest if now - each.begun >= _REDRAW_S), None)
        if work is None:
            return
        # What the encoding lacks becomes an escape here, because that is wider.
        encoding = stream.encoding or "ascii"
        width = max(1, _width_of_terminal(stream) - _FREE_COLUMNS)
        text = work.text(now, width)
        text = cut(text.encode(encoding, "backslashreplace").decode(encoding), width)
        last, shown = self._drawn or (stream, "")
        if last is not stream:
            self.clear()
            shown = ""
        if text != shown:
            is_sure = (text + shown).isascii()
            # How wide other characters are is up to the terminal: then spaces come first.
            spaces = "" if is_sure else " " * min(width_of(shown), width) + "\r"
            start = "\n" if self.begins_below else "\r"
            self.begins_below = False
            self._write(stream, f"{start}{spaces}{text.ljust(min(len(shown), width) * is_sure)}")
            self._drawn = stream, text

    def _write(self, stream: TextIO, text: str) -> None:
        # The terminal may be closed, or have another program in front.
        with contextlib.suppress(OSError, ValueError):
            if _is_in_front(stream):
                stream.write(text)
                stream.flush()


_screen = _Screen()
# A thread that writes while Python ends would make it abort.
atexit.register(_screen.hide, _screen)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_screen.reset)


def _is_in_front(stream: TextIO) -> bool:
    """Whether this program runs in the foreground of its terminal: not after Ctrl-Z and `bg`."""
    if not hasattr(os, "tcgetpgrp"):
        return True
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:
        # It is the terminal of another session, as for what `script` or a test runs.
        return True


def _width_of_terminal(stream: TextIO) -> int:
    """Columns of the terminal, or the value of COLUMNS if that is less."""
    asked = os.environ.get("COLUMNS", "")
    widths = [int(asked)] if asked.isdecimal() and len(asked) < 5 else []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        widths.append(os.get_terminal_size(stream.fileno()).columns)
    return min((each for each in widths if each > 1), default=_USUAL_WIDTH)
