"""Ctrl-C while an answer comes: what has come is kept.

llm logs what a model's `execute` has yielded if that returns, and nothing if an exception goes
through it. So Ctrl-C has to arrive inside `execute`, also when it is pressed while llm prints.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

_COMMANDS = ("prompt", "chat")


class Interrupts:
    """Catches Ctrl-C for the time of one answer."""

    def __init__(self) -> None:
        self._outside = False
        self._pressed = False

    @contextmanager
    def caught(self, keep: Callable[[], bool]) -> Iterator[None]:
        """Ends the block at Ctrl-C; as if by itself if `keep`, asked then, says so."""
        with self._handled():
            try:
                yield
            except KeyboardInterrupt:
                if not keep():
                    raise

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Around a `yield`: Ctrl-C pressed meanwhile arrives when the block ends."""
        self._outside = True
        try:
            yield
        finally:
            self._outside = False
        if self._pressed:
            raise KeyboardInterrupt

    @contextmanager
    def _handled(self) -> Iterator[None]:
        """Only in llm's own commands: in a program of its own, Ctrl-C is that program's."""
        command = click.get_current_context(silent=True)
        is_ours = (
            command is not None
            and command.info_name in _COMMANDS
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if not is_ours:
            yield
            return
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._outside and not self._pressed:
            self._pressed = True
        else:
            signal.default_int_handler(number, frame)
