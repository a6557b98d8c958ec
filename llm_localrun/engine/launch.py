"""Finds, starts and stops engines.

An engine that is up and fits what is wanted is used; else one is started, under a lock, so that
two commands at once share one process. A file that makes llama.cpp abort or hang takes the engine
down and nothing else: here that is one `EngineFailed`.
"""

import atexit
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from llm_localrun.engine import locks
from llm_localrun.engine.state import (
    EngineSettings,
    EngineSpec,
    EngineState,
    Paths,
    grant,
    running,
)
from llm_localrun.errors import BadModelFile, ConfigError, EngineFailed, LocalRunError
from llm_localrun.framing import excerpt
from llm_localrun.gguf.header import Header, read_header
from llm_localrun.model_file import opened

DEFAULT_CONTEXT_SIZE = 8192
_START_GRACE = 60.0
"""Seconds that a user has between asking for an engine and sending it a request."""
_SLOWEST_DISK = 20e6
"""Bytes per second."""
_DYING = 10.0
"""Seconds that a process may take to end after it has closed its output."""

_BOOTSTRAP = "import sys; sys.path[:0] = [{!r}]; from llm_localrun.engine.host import main; main()"

if sys.platform == "win32":
    _DETACHED = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
else:
    _DETACHED = 0

_children: list[subprocess.Popen[bytes]] = []


@atexit.register
def _disown() -> None:
    """Engines are meant to outlive the program: Python need not warn of that."""
    for child in _children:
        child.returncode = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of an engine."""

    path: str
    name: str
    settings: EngineSettings = field(default_factory=EngineSettings)

    def is_met_by(self, spec: EngineSpec, file: os.stat_result) -> bool:
        """Whether an engine of `spec` is what is wanted, `file` being the model's as it is now."""
        same_file = (spec.path, spec.file_size, spec.file_modified) == (
            self.path,
            file.st_size,
            file.st_mtime,
        )
        return same_file and spec.settings.meets(self.settings)


def ensure(
    wanted: Wanted, folder: Path, keep_alive: float, patience: float
) -> tuple[EngineState, bool]:
    """An engine for `wanted`, with a lease that covers the request to come, and whether it is new.

    `folder` holds the engines' files, `patience` is how many seconds more than its size makes
    likely a load may take. Raises `BadModelFile`, `EngineFailed` and `ConfigError`.
    """
    file = _stat(wanted.path)
    if found := _find(wanted, file, folder):
        return _leased(found, folder, keep_alive), False
    limit = patience + file.st_size / _SLOWEST_DISK
    header = _checked_header(wanted.path)
    for path in wanted.settings.files():
        _checked_header(path)
    spec = _spec(wanted, file, header)
    lock = hashlib.sha256(wanted.path.encode()).hexdigest()[:16]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locks.exclusive(folder / f"{lock}.starting", 2 * limit):
            found = _find(wanted, file, folder)
            engine = found or _start(spec, folder, keep_alive, limit)
    except TimeoutError:
        raise EngineFailed(
            f"Another command has been loading {wanted.path} for too long", "Stop it, and try again"
        ) from None
    except OSError as error:
        raise EngineFailed(
            f"The engine cannot write to {folder}: {error.strerror}",
            "Make room there, or mend its permissions",
        ) from None
    return _leased(engine, folder, keep_alive), found is None


def release(state: EngineState, folder: Path, keep_alive: float) -> None:
    """Lets the engine go `keep_alive` seconds from now, unless somebody else uses it."""
    paths = Paths(folder, state.id)
    if paths.state.exists():
        # On a full disk the lease from before the request still ends.
        with contextlib.suppress(OSError):
            grant(paths, keep_alive)


def explain(error: LocalRunError, state: EngineState, folder: Path) -> LocalRunError:
    """Why an engine broke off with `error`: from its log, if it has died."""
    paths = Paths(folder, state.id)
    if not _ended(paths, seconds=1.0):
        return error
    problem = reason_in(_tail(paths.log)) or "it was killed, perhaps for lack of memory"
    paths.remove()
    return EngineFailed(
        f"the engine died while it ran {state.spec.path}: {problem}",
        "Try again: it is started anew. If it dies again, the file may be damaged",
    )


def stop(state: EngineState, folder: Path) -> None:
    """Ends an engine, in the middle of an answer too."""
    paths = Paths(folder, state.id)
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        try:
            os.kill(state.pid, number)
        except ProcessLookupError:
            break
        if _ended(paths, seconds=5.0):
            break
    paths.remove()


def _ended(paths: Paths, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not locks.is_locked(paths.state):
            return True
        time.sleep(0.02)
    return False


def _stat(path: str) -> os.stat_result:
    try:
        return Path(path).stat()
    except OSError as error:
        raise BadModelFile(
            f"{path} cannot be read: {error.strerror}", "`llm localrun models` lists what there is"
        ) from None


def _find(wanted: Wanted, file: os.stat_result, folder: Path) -> EngineState | None:
    return next((e for e in running(folder) if wanted.is_met_by(e.spec, file)), None)


def _leased(state: EngineState, folder: Path, keep_alive: float) -> EngineState:
    grant(Paths(folder, state.id), keep_alive, at_least=_START_GRACE)
    return state


def _checked_header(path: str) -> Header:
    with opened(Path(path)) as file:
        return read_header(file, os.fstat(file.fileno()).st_size)


def _spec(wanted: Wanted, file: os.stat_result, header: Header) -> EngineSpec:
    trained = header.of_architecture("context_length") or DEFAULT_CONTEXT_SIZE
    context_size = wanted.settings.context_size or min(trained, DEFAULT_CONTEXT_SIZE)
    if context_size > trained:
        raise ConfigError(
            f"{wanted.name} was trained for a context of {trained:,} tokens, not {context_size:,}",
            f"Use -o context_size {trained} or less",
        )
    return EngineSpec(
        path=wanted.path,
        name=wanted.name,
        file_size=file.st_size,
        file_modified=file.st_mtime,
        settings=replace(wanted.settings, context_size=context_size),
    )


def _engine_path() -> tuple[str, str]:
    """Where xllamacpp lies, and its version."""
    found = importlib.util.find_spec("xllamacpp")
    if found is None or found.origin is None:
        raise EngineFailed(
            "GGUF files need the engine, which is not installed",
            "Install it with `llm install 'llm-localrun[gguf]'`",
        )
    return str(Path(found.origin).parents[1]), importlib.metadata.version("xllamacpp")


def _start(spec: EngineSpec, folder: Path, keep_alive: float, limit: float) -> EngineState:
    engine_path, version = _engine_path()
    paths = Paths(folder, secrets.token_hex(8))
    grant(paths, keep_alive, at_least=limit + _START_GRACE)
    order = {
        "id": paths.id,
        "folder": str(folder),
        "engine_path": engine_path,
        "build": f"xllamacpp {version}",
        "key": secrets.token_urlsafe(32),
        "spec": asdict(spec),
    }
    process = _spawn()
    try:
        answer = _answer(process, json.dumps(order), limit)
        state = next((e for e in running(folder) if e.id == paths.id), None)
        if answer == "ready" and state is not None:
            return state
        if answer is None:
            raise _failure(spec, f"it did not finish within {limit:.0f} seconds")
        raise _failure(spec, _reason_of_death(process, paths.log))
    except BaseException:
        process.kill()
        process.wait()
        paths.remove()
        raise


def _spawn() -> subprocess.Popen[bytes]:
    """A process of its own session: Ctrl-C and a closed terminal are not for it."""
    _children[:] = [child for child in _children if child.poll() is None]
    package_path = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOOTSTRAP.format(package_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(sys.executable).parent,
        start_new_session=True,
        creationflags=_DETACHED,
    )
    _children.append(process)
    return process


def _answer(process: subprocess.Popen[bytes], order: str, limit: float) -> str | None:
    """What the host says when it is up; "" if it dies before, None if it takes too long."""
    said: list[str] = []

    def converse() -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            try:
                process.stdin.write(order.encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                pass
            said.append(process.stdout.readline().decode().strip())

    thread = threading.Thread(target=converse, daemon=True)
    thread.start()
    thread.join(limit)
    return said[0] if said else None


def _reason_of_death(process: subprocess.Popen[bytes], log: Path) -> str:
    # Its output ends before it does, and the log may come last.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_DYING)
    return reason_in(_tail(log)) or f"it ended with status {process.returncode}"


def _failure(spec: EngineSpec, problem: str) -> EngineFailed:
    return EngineFailed(
        f"the engine cannot run {spec.path}: {problem}",
        "The file may be damaged or of a kind that this build does not know: fetch it again, or"
        " choose another",
    )


def _tail(log: Path) -> str:
    try:
        return log.read_bytes()[-(2**16) :].decode("utf-8", "replace")
    except OSError:
        return ""


_ASSERTION = re.compile(r"(GGML_ASSERT\(.*|GGML_ABORT.*)")
_LOGGED_ERROR = re.compile(r"^[\d.]+ E (?:\S+\s+)?(?:[\w\s]+?: )?(?P<text>.*)$", re.MULTILINE)
_IMPORT_ERROR = re.compile(r"^ImportError: (?P<text>.*)$", re.MULTILINE)


def reason_in(log: str) -> str:
    """Why llama.cpp gave up, from what it logged: the first error is the true one."""
    if missing := _IMPORT_ERROR.search(log):
        return _missing_library(missing["text"])
    if assertion := _ASSERTION.search(log):
        return excerpt(assertion[1].encode(), 200)
    if error := _LOGGED_ERROR.search(log):
        return excerpt(error["text"].encode(), 200)
    last_line = log.strip().rpartition("\n")[2]
    return excerpt(last_line.encode(), 200)


def _missing_library(text: str) -> str:
    if "libgomp" in text:
        return "libgomp.so.1 is missing (Debian, Ubuntu: `apt install libgomp1`; Fedora: libgomp)"
    return excerpt(text.encode(), 200)
