"""Finds and starts engines, and gets requests a seat in one.

An engine that is up and fits what is wanted is used; else one is started, under a lock, so that
two commands at once share one process. A file that makes llama.cpp abort or hang takes the engine
down and nothing else: here that is one `EngineFailed`.
"""

import atexit
import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from llm_localrun import engine_defaults
from llm_localrun.config import Config
from llm_localrun.engine import builds, evict, saved_prompts, slots
from llm_localrun.engine.failure import reason_in
from llm_localrun.engine.slots import Seat, Visit
from llm_localrun.engine.state import (
    EngineSettings,
    EngineSpec,
    EngineState,
    Order,
    Paths,
    grant,
    known,
    problem_with,
    read_state,
    running,
)
from llm_localrun.engine.stop import has_ended, stop_if_idle
from llm_localrun.errors import BadModelFile, ConfigError, EngineFailed, LocalRunError
from llm_localrun.gguf.files import opened
from llm_localrun.gguf.header import Header, read_header
from llm_localrun.memory import machine
from llm_localrun.system import locks

_SHARE_OF_MEMORY = 0.75
_START_GRACE = 60.0
"""Seconds that a user has between asking for an engine and sending it a request."""
_SLOWEST_DISK = 20e6
"""Bytes per second."""
_LONGEST_WAIT = 3600.0
"""Seconds for which a request waits until others have been answered."""
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


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the user has settled about all engines; None leaves it to us."""

    llama_server: str | None = None
    """The program to run models with; "": only xllamacpp."""
    memory: int | None = None
    """Bytes that all engines may take together."""
    prompt_bytes: int = 2 * 2**30
    """Bytes on disk for the evaluated prompts of conversations."""

    def within(self, memory: int) -> "Bounds":
        """These bounds with at most so many bytes for all engines together."""
        return replace(self, memory=memory if self.memory is None else min(memory, self.memory))


_DEFAULT_BOUNDS = Bounds()


def bounds_of(config: Config) -> Bounds:
    """What `config` settles; by default, engines may take three quarters of the memory."""
    physical = machine.physical_memory()
    share = None if physical is None else int(physical * _SHARE_OF_MEMORY)
    memory = share if config.engine_memory is None else config.engine_memory
    return Bounds(config.llama_server, memory, config.prompt_cache)


@dataclass(frozen=True, slots=True)
class Seated:
    """An engine, and the seat in it that a request has."""

    engine: EngineState
    seat: Seat
    visit: Visit
    is_new: bool
    left: Path | None
    """The conversation as an earlier engine has left it, if the slot does not hold it."""


def seat(visit: Visit, folder: Path, find: Callable[[], tuple[EngineState, bool]]) -> Seated:
    """A seat for `visit` in the engine that `find` finds or starts; else like `ensure`."""
    while True:
        engine, is_new = find()
        paths = Paths(folder, engine.id)
        left = saved_prompts.find(paths, engine, visit.conversation)
        try:
            taken = slots.take(paths, visit, left is not None, _LONGEST_WAIT)
        except TimeoutError:
            raise EngineFailed(
                f"{engine.spec.name} has been answering other prompts for too long",
                "Try again when they are done, or stop them with `llm localrun unload`",
            ) from None
        if taken is not None:
            is_there = taken.before.conversation == visit.conversation
            return Seated(engine, taken, visit, is_new, None if is_there else left)


def ensure(
    wanted: Wanted,
    folder: Path,
    keep_alive: float,
    patience: float,
    bounds: Bounds = _DEFAULT_BOUNDS,
) -> tuple[EngineState, bool]:
    """An engine for `wanted`, and whether it is new; only a `seat` or a lease keeps it from ending.

    A new one stays for `keep_alive` seconds, and for a minute in any case. `folder` holds the
    engines' files, `patience` is how many seconds more than its size makes likely a load may take.
    Raises `BadModelFile`, `EngineFailed` and `ConfigError`.
    """
    file = _stat(wanted.path)
    limit = patience + file.st_size / _SLOWEST_DISK
    with _translated(wanted, folder):
        if found := _find(wanted, file, folder):
            return found, False
        spec = _spec(wanted, file)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hashlib.sha256(wanted.path.encode()).hexdigest()[:16]
        with locks.exclusive(folder / f"{name}.starting", 2 * limit):
            found = _find(wanted, file, folder)
            engine = found or _start(spec, folder, keep_alive, limit, bounds)
        return engine, found is None


def release(state: EngineState, folder: Path, keep_alive: float) -> None:
    """Lets the engine go `keep_alive` seconds from now, unless somebody has a seat in it."""
    paths = Paths(folder, state.id)
    if paths.state.exists():
        # On a full disk the lease from before the request still ends.
        with contextlib.suppress(OSError):
            grant(paths, keep_alive)


def explain(error: LocalRunError, state: EngineState, folder: Path) -> LocalRunError:
    """Why an engine broke off with `error`: from its log, if it has died."""
    paths = Paths(folder, state.id)
    if not has_ended(paths, seconds=1.0):
        return error
    if not paths.state.exists():
        return EngineFailed(
            f"The engine was unloaded while it ran {state.spec.path}",
            "Try again: it is started anew",
        )
    problem = reason_in(_tail(paths.log)) or "it was killed, perhaps for lack of memory"
    _bury(paths)
    return EngineFailed(
        f"The engine died while it ran {state.spec.path}: {problem}",
        "Try again: it is started anew. If it dies again, the file may be damaged",
    )


@contextmanager
def _translated(wanted: Wanted, folder: Path) -> Iterator[None]:
    """Turns what the file system may say into our errors."""
    try:
        yield
    except TimeoutError:
        raise EngineFailed(
            f"Another command has been loading {wanted.path} for too long", "Stop it, and try again"
        ) from None
    except OSError as error:
        raise EngineFailed(
            f"The engine cannot write to {folder}: {error.strerror}",
            "Make room there, or mend its permissions",
        ) from None


def _stat(path: str) -> os.stat_result:
    try:
        return Path(path).stat()
    except OSError as error:
        raise BadModelFile(
            f"{path} cannot be read: {error.strerror}", "`llm localrun models` lists what there is"
        ) from None


def _find(wanted: Wanted, file: os.stat_result, folder: Path) -> EngineState | None:
    return next((e for e in running(folder) if wanted.is_met_by(e.spec, file)), None)


def _with_grace(keep_alive: float) -> float:
    return keep_alive if keep_alive < 0 else max(keep_alive, _START_GRACE)


def _checked_header(path: str) -> Header:
    with opened(Path(path)) as file:
        return read_header(file, os.fstat(file.fileno()).st_size)


def _spec(wanted: Wanted, file: os.stat_result) -> EngineSpec:
    """What is to be started; nothing in it makes llama.cpp abort. Raises a `LocalRunError`."""
    header = _checked_header(wanted.path)
    for path in wanted.settings.files():
        _checked_header(path)
    trained = header.of_architecture("context_length") or engine_defaults.CONTEXT_SIZE
    context_size = wanted.settings.context_size or min(trained, engine_defaults.CONTEXT_SIZE)
    if context_size > trained:
        raise ConfigError(
            f"{wanted.name} was trained for a context of {trained:,} tokens, not {context_size:,}",
            f"Use -o context_size {trained} or less",
        )
    settings = replace(wanted.settings, context_size=context_size)
    if problem := problem_with(settings):
        raise ConfigError(f"llama.cpp cannot run {wanted.name} so: {problem}", "Change that")
    return EngineSpec(
        path=wanted.path,
        name=wanted.name,
        file_size=file.st_size,
        file_modified=file.st_mtime,
        settings=settings,
    )


def _start(
    spec: EngineSpec, folder: Path, keep_alive: float, limit: float, bounds: Bounds
) -> EngineState:
    build = builds.choose(folder, bounds.llama_server, spec.settings.rpc)
    order = Order(
        folder=str(folder),
        spec=spec,
        key=secrets.token_urlsafe(32),
        build=build.title,
        llama_server=build.path if build.kind == "llama-server" else "",
        xllamacpp=build.path if build.kind == "xllamacpp" else "",
        has_gpu=bool(build.devices),
        load_seconds=limit + _DYING,
        keep_alive=_with_grace(keep_alive),
        prompt_bytes=bounds.prompt_bytes,
    )
    # Until its state is there, nobody else can reckon with this one.
    with locks.exclusive(folder / "room.starting", limit):
        _make_room(spec, folder, bounds.memory)
        starting = _Starting(order, limit)
    return starting.finish()


def _make_room(spec: EngineSpec, folder: Path, budget: int | None) -> None:
    """Stops what is in the way: idle engines of the same file, and others if memory is short."""
    for engine in known(folder):
        if engine.spec.path == spec.path:
            stop_if_idle(engine, folder)
    evict.evict_idle(spec, folder, budget)


class _Starting:
    """A host that is about to load its model. It does not outlive a failure of ours."""

    def __init__(self, order: Order, limit: float) -> None:
        """Returns when the host is known to others. `limit` is how long each step may take."""
        self._spec = order.spec
        self._folder = Path(order.folder)
        self._limit = limit
        self._answers: SimpleQueue[str] = SimpleQueue()
        self._process = _spawn()
        order_line = json.dumps(asdict(order)).encode() + b"\n"
        threading.Thread(target=self._converse, args=[order_line], daemon=True).start()
        self._id = ""  # until the host says who it is
        self._id = self._answer()

    def finish(self) -> EngineState:
        """The engine, when it is up. Raises `EngineFailed`."""
        self._answer()
        state = read_state(Paths(self._folder, self._id).state)
        if state is None:
            raise self._given_up("it was unloaded")
        return state

    def _converse(self, order_line: bytes) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process.stdin as stdin, self._process.stdout as stdout:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(order_line)
                stdin.flush()
            for line in stdout:
                self._answers.put(line.decode().strip())
            self._answers.put("")

    def _answer(self) -> str:
        """What the host says next. Raises `EngineFailed` if it ends, or says nothing, instead.

        Raises OSError if the host cannot write.
        """
        try:
            answer = self._answers.get(timeout=self._limit)
        except Empty:
            raise self._given_up(f"it did not finish within {self._limit:.0f} seconds") from None
        except BaseException:
            self._given_up("")
            raise
        if not answer:
            raise self._given_up(self._reason_of_death())
        if answer.isdecimal():
            self._given_up("")
            raise OSError(int(answer), os.strerror(int(answer)))
        return answer

    def _reason_of_death(self) -> str:
        # Its output ends before it does, and the log may come last.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING)
        paths = Paths(self._folder, self._id)
        if self._id and not paths.state.exists():
            return "it was unloaded"
        return reason_in(_tail(paths.log)) or f"it ended with status {self._process.returncode}"

    def _given_up(self, problem: str) -> EngineFailed:
        self._process.kill()
        self._process.wait()
        if self._id:
            _bury(Paths(self._folder, self._id))
        return EngineFailed(
            f"The engine cannot run {self._spec.path}: {problem}",
            "The file may be damaged or of a kind that this build does not know: fetch it again,"
            " or choose another",
        )


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


def _bury(paths: Paths) -> None:
    """Keeps the log of an engine that has failed, and nothing else of it."""
    with contextlib.suppress(OSError):
        paths.log.replace(builds.failed_log(paths.folder))
    paths.remove()


def _tail(log: Path) -> str:
    try:
        return log.read_bytes()[-(2**16) :].decode("utf-8", "replace")
    except OSError:
        return ""
