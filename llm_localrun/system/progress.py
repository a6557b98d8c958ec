"""The progress of a long operation: a value, and a line on a terminal while a model loads.

Showing the value is left to `cli`.
"""

import contextlib
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from llm_localrun.system.text import printable

_DELAY_S = 1.0
"""A shorter load is not shown."""
_REDRAW_S = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and how much of it is done. `total` is None if it is not known."""

    what: str
    done: int = 0
    total: int | None = None
    unit: str = "bytes"


class LoadNotice:
    """A line on stderr while a block runs; none if stderr is not a terminal."""

    def __init__(self, path: Path, total: int) -> None:
        self._text = f"loading {printable(path.name)}"
        self.total = total
        self.done = 0
        """Bytes that are loaded; 0 if it is not known."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> "LoadNotice":
        self._stream = sys.stderr
        # It is None in a program without a console.
        if self._stream is not None and self._stream.isatty():
            self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _show(self) -> None:
        if self._over.wait(_DELAY_S):
            return
        with contextlib.suppress(OSError, ValueError):
            while not self._over.is_set():
                self._draw(self._text + self._amount())
                self._over.wait(_REDRAW_S)
            self._draw("", "\r")

    def _draw(self, line: str, end: str = "") -> None:
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r{line[:width]:<{width}}{end}")
        self._stream.flush()

    def _amount(self) -> str:
        if not self.done:
            return ""
        unit, size, digits = ("GB", 1e9, 1) if self.total >= 1e9 else ("MB", 1e6, 0)
        done = min(self.done, self.total) / size
        return f": {done:.{digits}f} of {self.total / size:.{digits}f} {unit}"
