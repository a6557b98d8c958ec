"""Runs commands in a home of their own, and measures them and the engines that they start.

Linux only: what processes take is read in /proc. A process belongs to a home if its environment
names it, so engines are found that outlive their command. A command or an engine that takes more
than the guard allows is killed.
"""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.environment import VARIABLES

ROOT = Path(__file__).parents[3]
SETTINGS = {"threads": 1, "default_endpoints": False}

_SAMPLE_S = 0.05
_YOUNG_SAMPLES = 40
"""How often a process is looked at before it counts as another's: it has its parent's environment
until it becomes another program."""
_MAX_SECONDS = 200.0
_SETTLE_S = 5.0
"""How long an engine may go on computing when its command has ended."""
_IDLE_CPU_SHARE = 0.1
"""Of a core, at most, for an engine that is idle."""
_TICKS = os.sysconf("SC_CLK_TCK")


_open: "set[Home]" = set()
_is_over = threading.Event()
"""Set when the trials are given up: no command begins any more."""


class GivenUp(Exception):
    """The trials are over before this command has begun."""


def give_up() -> None:
    """Ends all commands of all homes, and whatever they have started."""
    _is_over.set()
    for home in [*_open]:
        home.end_all()


@dataclass(frozen=True)
class Ran:
    """A command that has ended, and what it took. Sizes are bytes."""

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float
    cpu_seconds: float
    own_peak: int
    """The memory of the command itself."""
    engine_peak: int
    """The memory of what it started, all together."""
    waited_seconds: float = 0.0
    """How long it, or its engine, wanted to compute and the machine computed something else."""
    stopped: str = ""
    """By which guard it was stopped."""

    @property
    def own_seconds(self) -> float:
        """What it would have taken on an idle machine, about."""
        return self.seconds - self.waited_seconds

    @property
    def error(self) -> str:
        return self.stderr.decode("utf-8", "replace").strip()


class Home:
    """A user directory and a home directory for a trial, in a `with` block."""

    def __init__(self, guard_bytes: int, settings: "dict[str, object] | None" = None) -> None:
        self._guard = guard_bytes
        self._settings = settings

    def __enter__(self) -> "Home":
        self.path = Path(tempfile.mkdtemp(prefix="localrun-faults-"))
        _open.add(self)
        self.own = self.path / "localrun"
        self.own.mkdir(mode=0o700)
        self.configure(**(self._settings or {}))
        return self

    def __exit__(
        self,
        _type: "type[BaseException] | None",
        _value: "BaseException | None",
        _traceback: "TracebackType | None",
    ) -> None:
        self.end_all()
        shutil.rmtree(self.path, ignore_errors=True)
        _open.discard(self)

    def configure(self, **settings: object) -> None:
        """Writes config.json."""
        (self.own / "config.json").write_text(json.dumps({**SETTINGS, **settings}))

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        own = {"LLM_USER_PATH": str(self.path), "HOME": str(self.path), "PYTHONPATH": str(ROOT)}
        return {**kept, **own, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}

    def llm(self, *arguments: str | bytes, terminal: bool = False) -> Ran:
        """Runs the real `llm` command."""
        return self.run(["-m", "llm", *arguments], terminal=terminal)

    def run(self, arguments: list[str | bytes], *, terminal: bool = False) -> Ran:
        """Runs Python with arguments; what it writes goes to terminals or to files."""
        if _is_over.is_set():
            raise GivenUp
        kind = _Terminal if terminal else _File
        with kind() as output, kind() as errors:
            begun = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=self.environment(),
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=output.descriptor,
                stderr=errors.descriptor,
                start_new_session=True,
            )
            with _Watch(self, process.pid, self._guard) as watch:
                _, status, usage = os.wait4(process.pid, 0)
                seconds = time.monotonic() - begun
            process.returncode = os.waitstatus_to_exitcode(status)
            return Ran(
                process.returncode,
                output.written(),
                errors.written(),
                seconds,
                usage.ru_utime + usage.ru_stime,
                watch.own_peak,
                watch.peak,
                watch.waited_seconds,
                watch.stopped,
            )

    def processes(self) -> list[int]:
        """The processes that belong to this home."""
        return [pid for pid in _pids() if _belongs(pid, self.path)]

    def unrest(self) -> str:
        """What still computes after the last command; "" if nothing does."""
        until = time.monotonic() + _SETTLE_S
        while pids := self.processes():
            before = _cpu_seconds(pids)
            begun = time.monotonic()
            time.sleep(1)
            used = _cpu_seconds(pids) - before
            if used <= _IDLE_CPU_SHARE * (time.monotonic() - begun):
                return ""
            if time.monotonic() > until:
                memory = _memory(pids) / 1e6
                return f"the engine goes on computing, with {memory:,.0f} MB"
        return ""

    def end_all(self) -> None:
        """Kills what belongs to this home."""
        until = time.monotonic() + 10
        while (pids := self.processes()) and time.monotonic() < until:
            for pid in pids:
                _kill(pid)
            time.sleep(_SAMPLE_S)


class _File:
    """What a command writes, in a file, which an engine that outlives it cannot hold open."""

    def __enter__(self) -> "_File":
        self._file = tempfile.TemporaryFile()
        self.descriptor = self._file.fileno()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def written(self) -> bytes:
        self._file.seek(0)
        return self._file.read()


class _Terminal:
    """What a command writes to a terminal: click leaves out escape sequences otherwise."""

    def __enter__(self) -> "_Terminal":
        self._master, self.descriptor = pty.openpty()
        tty.setraw(self.descriptor)
        self._pieces: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._master)

    def _read(self) -> None:
        # It ends with OSError when nobody has the terminal open.
        with contextlib.suppress(OSError):
            while piece := os.read(self._master, 2**16):
                self._pieces.append(piece)

    def written(self) -> bytes:
        os.close(self.descriptor)
        self._thread.join(5)
        return b"".join(self._pieces)


class _Watch:
    """Watches a command and the engines of its home while it runs."""

    def __init__(self, home: Home, command: int, guard_bytes: int) -> None:
        self.peak = self.own_peak = 0
        self.stopped = ""
        self._home, self._command, self._guard = home, command, guard_bytes
        self._ended = threading.Event()
        self._waited: dict[int, float] = {}
        self._seen: dict[int, int] = {}
        self._mine: set[int] = set()
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def waited_seconds(self) -> float:
        """Of the command, and of the thread of an engine that waited longest."""
        waited = dict(self._waited)
        return waited.pop(self._command, 0.0) + max(waited.values(), default=0.0)

    def _watch(self) -> None:
        while True:
            self._look()
            if self._ended.wait(_SAMPLE_S):
                return

    def _look(self) -> None:
        engines = [pid for pid in self._found() if pid != self._command]
        self.peak = max(self.peak, _memory(engines), *map(_highest, engines), 0)
        self._waited |= {
            pid: max(waited_seconds_of(pid), self._waited.get(pid, 0.0))
            for pid in (self._command, *engines)
        }
        # Not the maximum: until it becomes another program, it has the memory of this process.
        self.own_peak = _highest(self._command) or self.own_peak
        if max(self.peak, self.own_peak) > self._guard:
            self._stop("it took too much memory", engines)
        elif time.monotonic() - self._begun - self.waited_seconds > _MAX_SECONDS:
            self._stop(f"it took more than {_MAX_SECONDS:.0f} s", engines)

    def _stop(self, why: str, engines: list[int]) -> None:
        self.stopped = self.stopped or why
        for pid in (*engines, self._command):
            if not self._ended.is_set() or pid != self._command:
                _kill(pid)

    def _found(self) -> Iterator[int]:
        """The processes of the home; those of others are looked at some times only."""
        pids = set(_pids())
        self._seen = {pid: count for pid, count in self._seen.items() if pid in pids}
        self._mine &= pids
        for pid in pids - self._mine:
            count = self._seen.get(pid, 0)
            if count < _YOUNG_SAMPLES:
                self._seen[pid] = count + 1
                if _belongs(pid, self._home.path):
                    self._mine.add(pid)
        yield from self._mine


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208


def _belongs(pid: int, home: Path) -> bool:
    return f"LLM_USER_PATH={home}\0".encode() in _read(pid, "environ") + b"\0"


def _read(pid: int, name: str) -> bytes:
    try:
        return Path("/proc", str(pid), name).read_bytes()
    except OSError:
        return b""


def _status(pid: int) -> dict[str, int]:
    """Sizes in bytes, by the names in /proc/PID/status."""
    lines = (line.split() for line in _read(pid, "status").decode("utf-8", "replace").splitlines())
    return {line[0][:-1]: int(line[1]) * 1024 for line in lines if line[2:] == ["kB"]}


def _memory(pids: list[int]) -> int:
    """What processes take together; files that they map are counted once."""
    all_sizes = [_status(pid) for pid in pids]
    own = sum(each.get("RssAnon", 0) + each.get("RssShmem", 0) for each in all_sizes)
    return own + max((each.get("RssFile", 0) for each in all_sizes), default=0)


def _highest(pid: int) -> int:
    return _status(pid).get("VmHWM", 0)


def _cpu_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        ticks += sum(map(int, fields[11:13]))
    return ticks / _TICKS


def waited_seconds_of(pid: int) -> float:
    """How long the thread of a process that waited longest for a core has waited."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except OSError:
        return 0.0
    fields = [_read(pid, f"task/{thread}/schedstat").split() for thread in threads]
    return max((int(each[1]) / 1e9 for each in fields if len(each) > 1), default=0.0)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
