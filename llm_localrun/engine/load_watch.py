"""Whether llama.cpp makes progress while it loads a model and while it prepares a prompt.

The host forks the watcher of a load, because a load in the host itself holds the interpreter's
lock, and because the command that started the host may be gone. The watcher kills a process that
makes no progress. It reports to that command, on the host's output: the bytes that are loaded, and
which phase made no progress. What the command does with that is left to `launch`.

Progress is: llama.cpp writes to its log, or the process reads files, maps their pages, or writes to
a driver's cache of compiled shaders. CPU time is progress while llama.cpp loads tensors and
compiles shaders, and not while it reads a tokenizer or runs a chat template.

A prompt is prepared before llama.cpp gives it a slot: its chat template runs, and its text is split
into tokens. `PreparationWatch` counts the CPU time of that; ending the engine is left to `host`.

Imports only the standard library: the engine's host process uses this module.
"""

import contextlib
import functools
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from llm_localrun.engine import limits

OVERSIZED = "oversized"
"""The process took more memory than it may have. It has been killed then."""
LOADED = "loaded"
"""A line with the bytes of files that the process has read or mapped since the tensors began, and
what it does afterwards."""
STALLED = "stalled"
"""A line with the `Phase` that made no progress. The process has been killed then."""

_POLL_INTERVAL_S = 0.25
_MEMORY_INTERVAL_S = 0.05
"""A hostile file makes llama.cpp take gigabytes in a second."""
_MAX_READ_BYTES = 2**22
"""Of a log at once: a template may log gigabytes."""
_MIN_CPU_SHARE = 1 / 60
"""The share of one core that a process needs at least so that it counts as computing: a thread that
only waits uses less, and on a busy machine a process gets more."""
_MAX_COMPUTE = 60
"""How many times longer a load may only compute than it may make no progress at all."""
PREPARATION = "the chat template or the tokenizer"
_MAX_DESCRIPTOR = 256
"""A host that begins to load has fewer open files."""
_MAX_MARK = 200
"""The length of a line up to the end of its mark."""


class Phase(Enum):
    """What llama.cpp does while it loads a model; the values end "made no progress while it …"."""

    START = "started"
    TOKENIZER = "read the tokenizer"
    TENSORS = "loaded the tensors"
    TEMPLATE = "ran the chat template"


# Lines of llama.cpp b10434 and b11549 with a verbosity of 4. Contexts, shaders and the first
# evaluation come after the tensors. A projector and a draft model come before the template.
_MARKS = {
    b"llama_model_loader: loaded meta data": Phase.TOKENIZER,
    b"load_tensors: loading model tensors": Phase.TENSORS,
    b"load_model: initializing": Phase.TEMPLATE,
}
_STAGES = {
    b"llama_context: constructing": "preparing the context",
    # This reads what has only been mapped, and compiles shaders.
    b"warming up the model": "warming up",
}
_MARK = re.compile(rb"^[\d.]+ I (?:srv +)?(" + b"|".join(_MARKS) + b")", re.MULTILINE)


def phase_in(log: bytes) -> Phase:
    """The phase in which the log of a load ends."""
    found = [_MARKS[text] for text in _MARK.findall(log)]
    # A template is the last that is read, and its output is in the log: it cannot end its phase.
    return Phase.TEMPLATE if Phase.TEMPLATE in found else (found or [Phase.START])[-1]


def send_line(output: int, line: str) -> None:
    """Sends a line to the command that started the host."""
    # The command may have been killed. The next one finds the loaded engine.
    with contextlib.suppress(BrokenPipeError):
        os.write(output, f"{line}\n".encode())


@contextmanager
def watched(
    pid: int, log: Path, grace: float, output: int, memory_limit: int = 0
) -> Iterator[None]:
    """Has the process `pid` killed if it makes no progress for `grace` seconds in this block, or
    if it takes more than `memory_limit` bytes.

    Does nothing on Windows, where a process cannot be forked.
    """
    if not hasattr(os, "fork"):
        yield
        return
    host_lives, held = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        try:
            os.dup2(host_lives, 0)
            os.dup2(output, 1)
            # Among them are the engine's lock and the terminal whose end ends llama-server.
            os.closerange(2, _MAX_DESCRIPTOR)
            _watch(pid, _Log(log), grace, memory_limit)
        finally:
            os._exit(0)
    os.close(host_lives)
    try:
        yield
    finally:
        os.kill(watcher, signal.SIGKILL)
        os.waitpid(watcher, 0)
        os.close(held)


def _watch(pid: int, log: "_Log", grace: float, memory_limit: int) -> None:
    """Watches until the standard input is closed. Reports to the standard output."""
    progress = _Progress(grace)
    interval = min(_POLL_INTERVAL_S, grace / 10)
    before, begun = _measure(pid), False
    # Not the time that has passed: this process may have been asleep or starved.
    silent = 0.0
    while not _is_watch_over(interval, pid, memory_limit):
        now = _measure(pid)
        log.read()
        phase = log.phase
        begun = begun or phase in (Phase.TENSORS, Phase.TEMPLATE)
        before = before if begun else now
        silent = 0.0 if progress.is_made(now, log.size, phase) else silent + interval
        if silent >= grace:
            send_line(1, f"{STALLED} {phase.value}")
            os.kill(pid, signal.SIGKILL)
            return
        send_line(1, f"{LOADED} {max(0, now.loaded - before.loaded)} {log.stage}")


def _is_watch_over(seconds: float, pid: int, memory_limit: int) -> bool:
    """Waits for some seconds, unless the standard input is closed meanwhile, or the process takes
    more than `memory_limit`. Then the watch is over, and such a process is killed and reported."""
    # Elsewhere each measurement starts a program.
    steps = max(1, round(seconds / _MEMORY_INTERVAL_S)) if sys.platform == "linux" else 1
    for _ in range(steps):
        if select.select([0], [], [], seconds / steps)[0]:
            return True
        if limits.is_over(pid, memory_limit):
            os.kill(pid, signal.SIGKILL)
            send_line(1, OVERSIZED)
            return True
    return False


class _Log:
    """The log of a load, of which each part is read once: its length is up to the model's file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line = b""
        """The beginning of the last line."""
        self.size = 0
        self.phase = Phase.START
        self.stage = ""
        """What llama.cpp does after it has loaded the tensors."""

    def read(self) -> None:
        """Reads what has been added."""
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(self.size)
            added = file.read(_MAX_READ_BYTES)
            self.size += len(added)
            text = self._line + added
            self._line = text[text.rfind(b"\n") + 1 :][:_MAX_MARK]
            for mark, stage in _STAGES.items():
                self.stage = stage if mark in text else self.stage
            found = phase_in(text)
            if found is not Phase.START and self.phase is not Phase.TEMPLATE:
                self.phase = found


class _Progress:
    """Whether a process makes progress from one measurement to the next."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._most: tuple[int, ...] = ()
        self._cpu = 0.0
        """Seconds of CPU time when progress was made last, computing included."""
        self._cpu_before = 0.0
        """The same, computing not included."""

    def is_made(self, now: "_Measurement", log_size: int, phase: Phase) -> bool:
        if phase is Phase.TEMPLATE:
            # What it logs, and llama.cpp writes because of it, may have no end.
            return False
        counts = (log_size, *now.counts)
        before = self._most or (-1,) * len(counts)
        if any(count > most for count, most in zip(counts, before, strict=True)):
            # Pages that are dropped and read again are counted once as pages, but as bytes read.
            self._most = tuple(map(max, counts, before))
            self._cpu = self._cpu_before = now.cpu_seconds
            return True
        computed = now.cpu_seconds - self._cpu
        only_computed = now.cpu_seconds - self._cpu_before
        if (
            phase in (Phase.START, Phase.TENSORS)
            and computed >= self._grace * _MIN_CPU_SHARE
            and only_computed < self._grace * _MAX_COMPUTE
        ):
            self._cpu = now.cpu_seconds
            return True
        return False


class ChildProgress:
    """Whether a child of this process makes progress. Computing counts, whatever it is for."""

    def __init__(self, pid: int, grace: float) -> None:
        self._pid = pid
        self._progress = _Progress(grace)

    def is_made(self, output_size: int) -> bool:
        """Since the last call. `output_size` is how much the child has written."""
        return self._progress.is_made(_measure(self._pid), output_size, Phase.TENSORS)


class _Measurement(NamedTuple):
    """What the system tells about a process."""

    loaded: int = 0
    """Bytes of files that it has read, and that it has mapped."""
    counts: tuple[int, int, int] = (0, 0, 0)
    """Bytes mapped, bytes read and written, pages that were read from a disk."""
    cpu_seconds: float = 0.0


def _measure(pid: int) -> _Measurement:
    folder = Path("/proc", str(pid))
    try:
        # Linux. The name of the program, in parentheses, may contain spaces.
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        mapped = int((folder / "statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return _measure_by_ps(pid)
    amounts = re.findall(rb"^(\w+): (\d+)$", _read(folder / "io"), re.MULTILINE)
    io = {name: int(amount) for name, amount in amounts if not name.startswith(b"sysc")}
    cpu_seconds = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    counts = (mapped, sum(io.values()), int(stat[9]))
    return _Measurement(mapped + io.get(b"rchar", 0), counts, cpu_seconds)


def _measure_by_ps(pid: int) -> _Measurement:
    """What macOS and the BSDs tell: the resident memory counts as mapped."""
    import subprocess

    command = ["ps", "-o", "rss=,time=", "-p", str(pid)]
    try:
        output = subprocess.run(command, capture_output=True, check=False).stdout.decode()
        memory, time = output.split()
        mapped, parts = int(memory) * 1024, map(float, re.split(r"[-:]", time))
        cpu_seconds = functools.reduce(lambda total, part: total * 60 + part, parts)
    except (OSError, ValueError):
        return _Measurement()
    return _Measurement(mapped, (mapped, 0, 0), cpu_seconds)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


class PreparationWatch:
    """Counts the CPU time that llama.cpp spends on preparing prompts without an end.

    It does not count while the log grows, or while llama.cpp evaluates a prompt or generates an
    answer, which `is_evaluating` tells. On a busy machine a clock would count too much.
    """

    def __init__(self, limit: float, is_evaluating: Callable[[], bool]) -> None:
        self.limit = limit
        """CPU seconds."""
        self._is_evaluating = is_evaluating
        self._log_size = -1
        self._cpu = 0.0
        """Seconds of CPU time at the last call."""
        self._begun = 0.0
        """The same, when this began to count."""

    def is_exceeded(self, cpu: float, log_size: int) -> bool:
        """Whether it exceeds the limit. Called about twice a second."""
        is_idle = cpu - self._cpu < _MIN_CPU_SHARE / 2
        has_logged = log_size != self._log_size
        self._cpu, self._log_size = cpu, log_size
        if not is_idle and not has_logged:
            if cpu - self._begun < self.limit:
                return False
            if not self._is_evaluating():
                return True
        self._begun = cpu
        return False


class Advance(NamedTuple):
    """How far an engine has come."""

    cpu: float
    """Seconds of CPU time."""
    log_size: int


def size_of(log: Path) -> int:
    """0 if there is none."""
    try:
        return log.stat().st_size
    except OSError:
        return 0


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used; 0 if the system does not tell.

    Without that of this thread, which in a host is not llama.cpp's.
    """
    if pid == os.getpid():
        return time.process_time() - time.thread_time()
    return _measure(pid).cpu_seconds
