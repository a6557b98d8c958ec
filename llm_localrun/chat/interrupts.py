"""Ctrl-C during an answer: what has arrived is kept and logged.

llm logs what a model's `execute` has yielded if `execute` returns, and nothing if it raises an
exception. So KeyboardInterrupt must be raised and caught inside `execute`, even if Ctrl-C is
pressed while llm prints. Recording what has arrived is left to `response`.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

COMMANDS = ("prompt", "chat")
"""llm's commands that print an answer."""


class Interrupts:
    """Handles Ctrl-C during one answer."""

    def __init__(self) -> None:
        self._is_deferred = False
        self._is_pending = False

    @contextmanager
    def caught(self, keep: Callable[[], bool]) -> Iterator[None]:
        """If Ctrl-C interrupts the block: ends it normally if `keep()` is True."""
        with self._handled():
            try:
                yield
            except KeyboardInterrupt:
                if not keep():
                    raise

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Wraps a `yield`: KeyboardInterrupt is raised at the end of the block, not within it."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._is_pending:
            raise KeyboardInterrupt

    @contextmanager
    def _handled(self) -> Iterator[None]:
        """Installs the signal handler, in llm's commands only: other programs have their own."""
        command = click.get_current_context(silent=True)
        is_llm_command = (
            command is not None
            and command.info_name in COMMANDS
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if not is_llm_command:
            yield
            return
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_deferred and not self._is_pending:
            self._is_pending = True
        else:
            signal.default_int_handler(number, frame)
