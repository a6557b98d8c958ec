"""Runs a program for as long as it makes progress.

No clock decides, because a busy machine would make it end what works: what counts as progress says
`load_watch`. A program that the kernel does not end, since its driver hangs, is left behind.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from types import TracebackType

from llm_localrun.engine import limits
from llm_localrun.engine.load_watch import ChildProgress, cpu_seconds

_POLL_INTERVAL_S = 0.25
_END_TIMEOUT_S = 2.0
_MAX_OUTPUT_BYTES = 2**16
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program printed, and how it ended."""

    output: str
    status: int
    stalled: str = ""
    """Why it was ended: see `ChildWatch`."""


class ChildWatch:
    """Kills a process that makes no progress for `grace` seconds, or takes too much.

    As a context manager it checks in a thread of its own.
    """

    def __init__(
        self,
        pid: int,
        output_size: Callable[[], int],
        grace: float,
        *,
        memory_limit: int = 0,
        max_cpu: float = inf,
    ) -> None:
        self.stalled = ""
        """Why the process was killed, as a clause about it; "" if it was not."""
        self._pid, self._output_size, self._grace = pid, output_size, grace
        self._memory_limit, self._max_cpu = memory_limit, max_cpu
        self._progress = ChildProgress(pid, grace)
        # Not the time that has passed: this process may have been asleep or starved.
        self._silent = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def check(self, seconds: float) -> bool:
        """Whether the process may go on, `seconds` after the last check. If not, it is killed."""
        is_made = self._progress.is_made(self._output_size())
        self._silent = 0.0 if is_made else self._silent + seconds
        if self._silent >= self._grace or cpu_seconds(self._pid) > self._max_cpu:
            self.stalled = f"made no progress for {self._grace:g} s"
        elif limits.is_over(self._pid, self._memory_limit):
            self.stalled = "took more memory than its model needs"
        if self.stalled:
            with contextlib.suppress(OSError):
                os.kill(self._pid, KILL)
        return not self.stalled

    def _watch(self) -> None:
        while not self._is_over.wait(_POLL_INTERVAL_S) and self.check(_POLL_INTERVAL_S):
            pass

    def __enter__(self) -> "ChildWatch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()


def run(
    *command: str,
    grace: float,
    max_cpu: float = inf,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Runs a command to its end. Raises OSError if it cannot be started."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )

        def output_size() -> int:
            return os.fstat(output.fileno()).st_size

        watch = ChildWatch(process.pid, output_size, grace, max_cpu=max_cpu)
        try:
            while not _has_ended(process, _POLL_INTERVAL_S) and watch.check(_POLL_INTERVAL_S):
                pass
        finally:
            process.kill()
            _has_ended(process, _END_TIMEOUT_S)
        output.seek(0)
        text = output.read(_MAX_OUTPUT_BYTES).decode("utf-8", "replace")
    return Finished(text, process.returncode or 0, watch.stalled)


def signal_of(status: int) -> int:
    """The signal that ended a program, by the status that Python or a shell reports; 0 for none."""
    number = -status if status < 0 else status - 128
    return number if number in set(signal.Signals) else 0


def ending_of(status: int) -> str:
    """How a program has ended, as a clause about it."""
    if number := signal_of(status):
        return f"it was ended by signal {number} ({signal.strsignal(number)})"
    return f"it exited with status {status}"


def _has_ended(process: "subprocess.Popen[bytes]", timeout: float) -> bool:
    """Waits for the end of a process, for `timeout` seconds at most."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout)
    return process.returncode is not None
