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


class _Deferral:
    """Wraps a `yield`: KeyboardInterrupt is raised at the end of the block, not within it.

    A class, because `contextmanager` takes three times as long, for each piece of an answer.
    """

    is_active = False
    is_pending = False
    """Whether Ctrl-C has been pressed within the block."""

    def __enter__(self) -> None:
        self.is_active = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.is_active = False
        if kind is None and self.is_pending:
            raise KeyboardInterrupt


class Interrupts:
    """Handles Ctrl-C during one answer."""

    def __init__(self) -> None:
        self.deferred = _Deferral()

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
        if self.deferred.is_active and not self.deferred.is_pending:
            self.deferred.is_pending = True
        else:
            signal.default_int_handler(number, frame)
