"""Shows progress on stderr: as a bar on a terminal, as lines in a pipe, or not at all.

The work yields `Progress` values; printing its result is left to `table`.
"""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

import click

from llm_localrun.cli.table import say, seconds_text, size_text
from llm_localrun.system.progress import Progress
from llm_localrun.system.text import printable

_Result = TypeVar("_Result")

_BAR_WIDTH = 24
_REDRAW_S = 0.1
"""Minimum time between two redraws of the bar."""
_RATE_WINDOW_S = 10.0
"""The rate is the average over this time."""
_USUAL = "Downloading"
"""What a bar does not say that it shows."""
_STEP_PERCENT = 10
"""Between two lines in a pipe."""


def show_progress(
    steps: Generator[Progress, None, _Result], title: str, *, quiet: bool = False
) -> _Result:
    """Runs `steps`, shows its progress under `title`, and returns its result."""
    display_type = _ProgressBar if sys.stderr.isatty() else _ProgressLines
    display = None if quiet else display_type(title)
    try:
        while True:
            progress = next(steps)
            if display is not None:
                display.show(progress)
    except StopIteration as stop:
        result: _Result = stop.value
        return result
    finally:
        steps.close()
        if isinstance(display, _ProgressBar):
            display.end()


class _ProgressLines:
    """A line for each step and for each tenth of it."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._last: tuple[str, int] | None = None

    def show(self, progress: Progress) -> None:
        tenth = _percent(progress) // _STEP_PERCENT
        if self._last != (progress.what, tenth):
            self._last = progress.what, tenth
            say(f"{self._title}: {progress.what.lower()}{_amount(progress)}", err=True)


class _ProgressBar:
    """One line that is redrawn: the bar, the amount, the rate and the remaining time."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()
        self._drawn = 0.0
        self._latest: Progress | None = None

    def show(self, progress: Progress) -> None:
        now = self._clock()
        is_new = self._latest is None or progress.what != self._latest.what
        if is_new:
            self._samples.clear()
        self._samples.append((now, progress.done))
        while now - self._samples[0][0] > _RATE_WINDOW_S:
            self._samples.popleft()
        self._latest = progress
        # The next one may be minutes away.
        if is_new or now - self._drawn >= _REDRAW_S:
            self._draw(progress)

    def end(self) -> None:
        if self._latest is not None:
            self._draw(self._latest)
            click.echo(err=True)

    def _draw(self, progress: Progress) -> None:
        self._drawn = self._clock()
        line = printable(f"{self._title}  {bar_text(progress, self._rate())}")
        width = shutil.get_terminal_size().columns - 1
        click.echo(f"\r{line[:width]:<{width}}", nl=False, err=True)

    def _rate(self) -> float:
        """Units per second, recently."""
        (begun, before), (now, done) = self._samples[0], self._samples[-1]
        return (done - before) / (now - begun) if now > begun else 0.0


def bar_text(progress: Progress, rate: float) -> str:
    """The text of the bar at `rate` units per second."""
    if progress.total is None:
        return f"{progress.what}{_amount(progress)}"
    filled = _BAR_WIDTH * _percent(progress) // 100
    parts = [
        *([] if progress.what == _USUAL else [progress.what]),
        f"[{'#' * filled}{'-' * (_BAR_WIDTH - filled)}] {_percent(progress):3}%",
        _part(progress, progress.total),
    ]
    if rate > 0:
        left = (progress.total - progress.done) / rate
        parts += [f"{_count(int(rate), progress)}/s", f"{seconds_text(left)} left"]
    return "  ".join(parts)


def _percent(progress: Progress) -> int:
    return min(100, 100 * progress.done // progress.total) if progress.total else 0


def _amount(progress: Progress) -> str:
    if progress.total:
        return f", {_part(progress, progress.total)} ({_percent(progress)}%)"
    return f", {_count(progress.done, progress)}" if progress.done else ""


def _part(progress: Progress, total: int) -> str:
    done = size_text(progress.done) if progress.unit == "bytes" else f"{progress.done}"
    return f"{done} of {_count(total, progress)}"


def _count(count: int, progress: Progress) -> str:
    return size_text(count) if progress.unit == "bytes" else f"{count} {progress.unit}"
