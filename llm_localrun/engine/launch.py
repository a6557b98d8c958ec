"""Finds or starts engines, and acquires slots in them for requests.

A running engine that satisfies a request is used. Otherwise one is started, under a lock, so that
commands at the same time share it. A file that makes llama.cpp abort or hang ends the engine and
nothing else: here that becomes an `EngineFailed`. What the engine's process does is left to `host`,
whether its load makes progress to `load_watch`, what a failure means to `launch_errors`, making
memory free to `evict`.
"""

import atexit
import contextlib
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from queue import Empty, SimpleQueue

from llm_localrun import engine_defaults
from llm_localrun.engine import (
    build_logs,
    builds,
    evict,
    fallback,
    saved_prompts,
    slots,
)
from llm_localrun.engine.launch_errors import (
    blaming_build,
    change_of,
    faulty_part,
    lasting_problem,
    limit_reached,
    load_failed,
    title_of,
    unfinished,
)
from llm_localrun.engine.limits import is_reached
from llm_localrun.engine.load_watch import (
    LOADED,
    OVERSIZED,
    PREPARATION,
    STALLED,
    Advance,
    Phase,
    cpu_seconds,
    size_of,
)
from llm_localrun.engine.memory_check import MemoryBound, bound_of, check_others
from llm_localrun.engine.settings import EngineLimits, EngineRequest
from llm_localrun.engine.slots import Slot, SlotContents
from llm_localrun.engine.state import (
    EnginePaths,
    EngineSettings,
    EngineSpec,
    EngineState,
    HostInstructions,
    check_folders,
    find_problem,
    list_engines,
    list_running,
    read_state,
    write_lease,
)
from llm_localrun.engine.stop import has_ended, stop_if_idle
from llm_localrun.errors import (
    BadModelFile,
    ConfigError,
    EngineFailed,
    Fault,
    LocalRunError,
    ServerRefused,
)
from llm_localrun.files.found import file_at, listed
from llm_localrun.gguf.files import checked_header, parts_of
from llm_localrun.gguf.header import Tensor
from llm_localrun.servers.llamacpp_rpc import check_rpc_servers
from llm_localrun.servers.waiting import waiting_for
from llm_localrun.system import locks
from llm_localrun.system.progress import Progress, Work, working
from llm_localrun.tokens.window import context_too_large

LOAD_GRACE_S = 60.0
"""How long a load may make no progress."""
_SLOW_DISK_BYTES_PER_S = 20e6
_MIN_KEEP_ALIVE_S = 60.0
"""A new engine stays at least this long, so that the request it was started for finds it."""
_SLOT_TIMEOUT_S = 3600.0
"""How long a request waits for a slot."""
_EXIT_TIMEOUT_S = 10.0
"""How long a process may take to end after it has closed its output."""
_CRASH_CHECK_S = 1.0
"""How long an engine may take to end after it has closed a connection early."""
_MAX_PREPARATION_S = 20.0
"""CPU seconds that llama.cpp gets to prepare prompts. A million tokens take 2 (b11549)."""
_ABANDONED_PREPARATION_S = 4.0
"""The same for a prompt whose command does not wait any longer."""
_NO_PROGRESS = re.compile(rb"update_slots: all slots are idle|conv_id=")
"""Lines that llama.cpp logs when it has loaded, and before it tokenizes a prompt (b11549)."""
_LOG_TAIL_BYTES = 2**16
"""How much of the end of a log is searched for the reason of a failure."""

_BOOTSTRAP = "import sys; sys.path[:0] = [{!r}]; from llm_localrun.engine.host import main; main()"

_DETACHED = sum(
    getattr(subprocess, flag, 0) for flag in ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
)
"""Flags of Windows, which other systems lack."""

_hosts: list[subprocess.Popen[bytes]] = []


@atexit.register
def _detach_hosts() -> None:
    """Prevents Python's warning about running child processes: engines outlive the program."""
    for host in _hosts:
        host.returncode = 0


@dataclass(frozen=True, slots=True)
class AcquiredSlot:
    """A slot that a request holds, and the engine that it belongs to."""

    engine: EngineState
    slot: Slot
    contents: SlotContents
    """What the slot will hold when the prompt has been evaluated."""
    is_new: bool
    """Whether the engine was started for this request."""
    saved: Path | None
    """The file to restore the conversation from, unless the slot holds it already."""
    before: Advance


def acquire_slot(
    contents: SlotContents, folder: Path, find: Callable[[], tuple[EngineState, bool]]
) -> AcquiredSlot:
    """Acquires a slot in the engine that `find` finds or starts.

    `find` is called again if that engine ends meanwhile. Raises `EngineFailed`, and what `find`
    raises.
    """
    while True:
        engine, is_new = find()
        paths = EnginePaths(folder, engine.id)
        saved = saved_prompts.find_saved(paths, engine, contents.conversation)
        try:
            slot = _wait_for_slot(paths, engine, contents, is_saved=saved is not None)
        except TimeoutError:
            raise EngineFailed(
                f"{engine.spec.name} was answering other prompts for"
                f" {_SLOT_TIMEOUT_S / 60:.0f} minutes",
                f"Try again later, or end them: `llm localrun unload --force {engine.spec.name}`",
            ) from None
        if slot is not None:
            is_held = slot.previous.conversation == contents.conversation
            # Another command may have saved it meanwhile.
            saved = saved_prompts.find_saved(paths, engine, contents.conversation)
            restored = None if is_held else saved
            before = advance_of(engine, folder)
            return AcquiredSlot(engine, slot, contents, is_new, restored, before)


def _wait_for_slot(
    paths: EnginePaths, engine: EngineState, contents: SlotContents, *, is_saved: bool
) -> Slot | None:
    def tell(count: int) -> None:
        # No slot is given while a command waits to unload the engine.
        is_ending = locks.is_locked(paths.ending)
        unloading = Progress(f"waiting for {engine.spec.name} to be unloaded")
        work.report(unloading if is_ending else waiting_for(count))

    with working(Progress("waiting for a free slot")) as work:
        return slots.acquire(paths, contents, is_saved, _SLOT_TIMEOUT_S, tell)


def find_or_start(
    request: EngineRequest, folder: Path, keep_alive: float, load_grace: float = LOAD_GRACE_S
) -> tuple[EngineState, bool]:
    """An engine that satisfies `request`, and whether it is new.

    It may end at any time unless a slot or a lease keeps it. A new one has a lease of `keep_alive`
    seconds, and at least of a minute. `folder` holds the engines' files. A load is ended if it
    makes no progress for `load_grace` seconds.

    Raises `BadModelFile`, `EngineFailed` and `ConfigError`.
    """
    spec = _make_spec(request)
    with _translate_os_errors(folder):
        check_folders(folder)
        if engine := _find(spec, folder):
            return engine, False
        spec, tensors = _with_checked_settings(spec)
        bound = bound_of(spec, tensors)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hashlib.sha256(request.path.encode()).hexdigest()[:16]
        total = _size_of(spec)
        with (
            working(Progress(f"waiting for another command to load {spec.name}")) as work,
            # Whoever holds it loads the file, for as long as that makes progress.
            locks.exclusive(folder / f"{name}.starting", inf),
        ):
            # Another command may have started it meanwhile.
            if engine := _find(spec, folder):
                return engine, False
            work.report(Progress("choosing a build of llama.cpp"))
            instructions = _instructions(spec, folder, keep_alive, load_grace, request.limits)
            instructions = _bounded(instructions, bound, request.limits)
            loading = sum(tensor.size or 0 for tensor in tensors)
            display = _LoadDisplay(work, spec.name, total, loading)
            return _start(instructions, request.limits.memory, display), True


def empty_log(state: EngineState, folder: Path) -> None:
    """Empties an engine's log: llama.cpp logs its errors, and they may quote the prompt."""
    with contextlib.suppress(OSError):
        os.truncate(EnginePaths(folder, state.id).log, 0)


def renew_lease(state: EngineState, folder: Path, keep_alive: float) -> None:
    """Lets the engine end after `keep_alive` seconds without a request."""
    paths = EnginePaths(folder, state.id)
    if paths.state.exists():
        # On a full disk, the lease from before the request stays.
        with contextlib.suppress(OSError):
            write_lease(paths, keep_alive)


def advance_of(state: EngineState, folder: Path) -> Advance:
    """How far an engine has come, to see later whether it came further."""
    return Advance(cpu_seconds(state.server_pid), size_of(EnginePaths(folder, state.id).log))


def diagnose(
    error: LocalRunError, state: EngineState, folder: Path, before: Advance
) -> LocalRunError:
    """The error to show when a request to an engine failed with `error`.

    If the engine has ended, it says why, from the engine's log. If it prepares the prompt without
    an end, it is ended; `before` is how far it had come before the request. Otherwise the error is
    `error`.
    """
    paths, path = EnginePaths(folder, state.id), state.spec.path
    if not has_ended(paths, _CRASH_CHECK_S):
        return end_if_stuck(state, folder, before) or error
    if not paths.state.exists():
        # Another command may have taken its log to explain its end.
        return EngineFailed(
            f"The engine ended or was unloaded while it ran {path}", "Try again: it will restart"
        )
    reason = build_logs.reason_in(log := _read_log(paths))
    faulty = faulty_part(state, log)
    _remove_all_but_log(paths)
    if state.memory_limit and is_reached(log, has_gpu=state.has_gpu):
        return limit_reached(state.spec, state.memory_limit)
    problem = f"The engine ended while it ran {path}"
    if reason.startswith(PREPARATION):
        return unfinished(state.spec, f"{problem}: {reason}")
    if faulty is not None and faulty[0] is not Fault.CPU:
        # What ended the process then is only what followed.
        reason = f"the GPU failed ({faulty[1]})"
    changes = change_of(state.spec)
    reasons = [*changes, reason or "it was killed; its log gives no reason"]
    error = EngineFailed(
        f"{problem}: {'; '.join(reasons)}",
        f"Try again: it will restart. The log is {builds.failed_log(folder)}",
    )
    return error if changes else blaming_build(error, state, faulty)


def end_if_stuck(state: EngineState, folder: Path, before: Advance) -> EngineFailed | None:
    """Ends an engine whose request was still being prepared after much CPU time, unless it is in
    use: then its host ends it. None if it is not stuck."""
    computed = cpu_seconds(state.server_pid) - before.cpu
    if computed < _ABANDONED_PREPARATION_S or slots.is_evaluating(state):
        return None
    # It logs an evaluation, also one that has ended because no command waits for it.
    if _has_logged(EnginePaths(folder, state.id).log, before.log_size):
        return None
    stop_if_idle(state, folder)
    return unfinished(
        state.spec,
        f"llama.cpp did not begin to answer with {state.spec.path}: {PREPARATION} ran for"
        f" {computed:.0f} s of CPU time without an end",
    )


def _has_logged(log: Path, size: int) -> bool:
    """Whether llama.cpp has logged progress since its log had `size` bytes."""
    try:
        written = log.read_bytes()
    except OSError:
        return False
    return len(written) < size or not all(map(_NO_PROGRESS.search, written[size:].splitlines()))


def explain_refusal(error: ServerRefused, state: EngineState) -> LocalRunError:
    """The error to show when an engine refuses a request with `error` and goes on running."""
    is_short = state.memory_limit and is_reached(error.problem, has_gpu=state.has_gpu)
    return limit_reached(state.spec, state.memory_limit) if is_short else error


@contextmanager
def _translate_os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineFailed.from_os_error("written to", folder, error) from None


def _make_spec(request: EngineRequest) -> EngineSpec:
    """The request together with the current state of its file. Raises `BadModelFile`."""
    try:
        file = Path(request.path).stat()
    except OSError as error:
        advice = "`llm localrun models` lists the files that were found"
        raise BadModelFile.from_os_error("read", request.path, error, advice) from None
    stamp = _stamp_of(request.path, request.settings)
    sizes = file.st_size, file.st_mtime
    return EngineSpec(request.path, request.name, *sizes, request.settings, stamp)


def _stamp_of(path: str, settings: EngineSettings) -> str:
    """What the system says of all files that an engine loads; "" for what is missing."""
    files = (file_at(path), *map(listed, settings.files()))
    return " ".join(f"{file.size}.{file.modified}.{file.stamp}" if file else "" for file in files)


def is_current(spec: EngineSpec) -> bool:
    """Whether the files of an engine have not changed since it loaded them."""
    return spec.file_stamp == _stamp_of(spec.path, spec.settings)


def _size_of(spec: EngineSpec) -> int:
    """Bytes of all parts of the model."""
    return sum(part.stat().st_size for part in parts_of(Path(spec.path)) if part.exists())


@dataclass(frozen=True, slots=True)
class _LoadDisplay:
    """Shows how far the load of a model is. `tensors` is how many of its `total` bytes they are."""

    work: Work
    name: str
    total: int
    tensors: int

    def show(self, loaded: str = "0") -> None:
        """`loaded` is what the watcher reports: see `load_watch.LOADED`."""
        size, _, stage = loaded.partition(" ")
        progress = Progress(f"loading {self.name}")
        if int(size):
            # The headers are read before.
            done = self.total - self.tensors + int(size)
            progress = replace(progress, done=done, total=self.total)
            if stage and done > 0.99 * self.total:
                progress = Progress(f"loading {self.name}: {stage}")
        self.work.report(progress)


def _find(spec: EngineSpec, folder: Path) -> EngineState | None:
    return next((each for each in list_running(folder) if each.spec.satisfies(spec)), None)


def _with_checked_settings(spec: EngineSpec) -> tuple[EngineSpec, list[Tensor]]:
    """`spec` with a context size, and the tensors of its model.

    Raises `BadModelFile` or `ConfigError` for files and settings that make llama.cpp abort.
    """
    header = checked_header(spec.path)
    tensors = [*header.tensors]
    for part in parts_of(Path(spec.path))[1:]:
        tensors += checked_header(str(part)).tensors
    check_others(spec.settings)
    trained = header.of_architecture("context_length") or engine_defaults.CONTEXT_SIZE
    context_size = spec.settings.context_size or min(trained, engine_defaults.CONTEXT_SIZE)
    if context_size > trained:
        raise context_too_large(spec.name, trained, context_size)
    settings = replace(spec.settings, context_size=context_size)
    if trained < engine_defaults.MIN_CONTEXT_SIZE:
        problem = f"its header says that it was trained for a context of {trained} tokens"
        raise BadModelFile(
            f"{spec.path} cannot be run: {problem}", "Download it again, or choose another file"
        ).with_load_problem(problem)
    if problem := find_problem(settings):
        raise ConfigError(
            f"llama.cpp cannot run {spec.name} with these settings: {problem}",
            "Give another value with -o",
        )
    return replace(spec, settings=settings), tensors


def _bounded(
    instructions: HostInstructions, bound: MemoryBound, limits: EngineLimits
) -> HostInstructions:
    return replace(
        instructions,
        checkpoints=bound.checkpoints,
        memory_limit=0 if limits.overcommit else bound.limit,
        mapped_bytes=bound.mapped,
    )


def _instructions(
    spec: EngineSpec, folder: Path, keep_alive: float, load_grace: float, limits: EngineLimits
) -> HostInstructions:
    build = fallback.chosen(EngineRequest(spec.path, spec.name, spec.settings, limits), folder)
    return HostInstructions(
        folder=str(folder),
        spec=spec,
        key=secrets.token_urlsafe(32),
        build=build.title,
        llama_server=build.path if build.kind == "llama-server" else "",
        xllamacpp=build.path if build.kind == "xllamacpp" else "",
        has_gpu=build.uses_gpu,
        load_grace=load_grace,
        keep_alive=keep_alive if keep_alive < 0 else max(keep_alive, _MIN_KEEP_ALIVE_S),
        prompt_bytes=limits.prompt_bytes,
        max_preparation=_MAX_PREPARATION_S,
        build_key=build.key,
        ignores_gpu=bool(build.gpu_problem),
    )


def _start(
    instructions: HostInstructions, memory: int | None, display: _LoadDisplay
) -> EngineState:
    """Starts an engine. All engines together get `memory` bytes. Raises `EngineFailed`."""
    spec, folder = instructions.spec, Path(instructions.folder)
    rpc_servers = [*filter(None, spec.settings.rpc.split(","))]
    # Other commands cannot count the memory of this engine before its state is written.
    display.work.report(Progress("waiting for another model to start"))
    with locks.exclusive(folder / "memory.starting", inf):
        display.show()
        for engine in list_engines(folder):
            # An RPC server serves one engine at a time.
            shares_rpc = set(rpc_servers).intersection(engine.spec.settings.rpc.split(","))
            if engine.spec.path == spec.path or shares_rpc:
                stop_if_idle(engine, folder)
        evict.evict_idle(spec, folder, memory)
        check_rpc_servers(rpc_servers)
        host = _Host(instructions, display)
    return host.wait_until_loaded()


class _Host:
    """A host process that loads its model. It is killed if anything goes wrong meanwhile, or if
    this program ends, of which a thread waits for it."""

    def __init__(self, instructions: HostInstructions, display: _LoadDisplay) -> None:
        """Returns when the engine's state is written.

        Raises `EngineFailed`, and OSError if the host cannot write its files.
        """
        self._spec, self._path = instructions.spec, instructions.spec.path
        self._folder = Path(instructions.folder)
        self._grace = instructions.load_grace
        self._limit = instructions.memory_limit
        self._display = display
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._process = _spawn()
        line = json.dumps(asdict(instructions)).encode() + b"\n"
        threading.Thread(target=self._communicate, args=[line], daemon=True).start()
        self._is_given_up = False
        self._id = ""  # until the host has sent it
        with self._kill_on_error():
            self._id = self._read_line()

    def wait_until_loaded(self) -> EngineState:
        """The engine, when it has loaded. Raises `EngineFailed`."""
        with self._kill_on_error():
            self._read_line()
            if state := read_state(self._paths.state):
                return state
            raise self._unloaded()

    @property
    def _paths(self) -> EnginePaths:
        return EnginePaths(self._folder, self._id)

    @contextmanager
    def _kill_on_error(self) -> Iterator[None]:
        atexit.register(self._give_up)
        try:
            yield
        except BaseException:
            self._end()
            raise
        finally:
            atexit.unregister(self._give_up)

    def _give_up(self) -> None:
        self._is_given_up = True
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._id:
            _remove_all_but_log(self._paths)

    def _communicate(self, line: bytes) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process.stdin as stdin, self._process.stdout as stdout:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(line)
                stdin.flush()
            for received in stdout:
                self._lines.put(received.decode().strip())
            self._lines.put("")

    def _read_line(self) -> str:
        """The next line from the host that is no report of its watcher.

        Raises `EngineFailed`, and OSError as the host reports.
        """
        # While it loads, the watcher writes several lines a second; on Windows there is none.
        silence = max(self._grace, LOAD_GRACE_S) + self._display.total / _SLOW_DISK_BYTES_PER_S
        while True:
            try:
                line = self._lines.get(timeout=silence)
            except Empty:
                raise self._stalled(
                    f"{title_of(self._spec)} was still loading after {silence:.0f} s"
                ) from None
            if self._is_given_up:
                # Its end is no failure.
                raise KeyboardInterrupt
            word, _, value = line.partition(" ")
            if word == STALLED:
                error = self._stalled(
                    f"llama.cpp made no progress with {title_of(self._spec)} for {self._grace:g} s"
                    f" while it {value}"
                )
                is_lasting = value in (Phase.TOKENIZER.value, Phase.TEMPLATE.value)
                lasting = f"llama.cpp did not finish: it {value}" if is_lasting else ""
                raise self._blaming_gpu(error, value).with_load_problem(
                    lasting_problem(self._spec, lasting)
                )
            if word == OVERSIZED:
                raise limit_reached(self._spec, self._limit)
            if not line:
                raise self._exited()
            if line.isdecimal():
                raise OSError(int(line), os.strerror(int(line)))
            if word != LOADED:
                return line
            self._display.show(value)

    def _blaming_gpu(self, error: EngineFailed, phase: str) -> EngineFailed:
        """`error` as that of a GPU, if one may hang in a load that made no progress."""
        state = read_state(self._paths.state)
        if state is None or not state.has_gpu or phase != Phase.TENSORS.value:
            return error
        hangs = f"it made no progress for {self._grace:g} s"
        return blaming_build(error, state, (Fault.GPU, hangs))

    def _stalled(self, problem: str) -> EngineFailed:
        return EngineFailed(
            f"{problem}. The log is {builds.failed_log(self._folder)}",
            "Wait longer with -o timeout SECONDS, or choose another model",
        )

    def _exited(self) -> EngineFailed:
        """The error for a host that has ended, with the reason from its log."""
        # It closes its output before it ends, and may write to its log in between.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_TIMEOUT_S)
        state = read_state(self._paths.state)
        if self._id and state is None:
            return self._unloaded()
        log, status = _read_log(self._paths), self._process.returncode or 0
        return load_failed(self._spec, state, log, status, builds.failed_log(self._folder))

    def _unloaded(self) -> EngineFailed:
        return EngineFailed(f"{self._path} was unloaded while it was loading", "Try again")


def _spawn() -> subprocess.Popen[bytes]:
    """Starts a host in a session of its own: Ctrl-C and a closed terminal do not reach it."""
    _hosts[:] = [host for host in _hosts if host.poll() is None]
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
    _hosts.append(process)
    return process


def _remove_all_but_log(paths: EnginePaths) -> None:
    """Removes the files of a failed engine, and keeps its log as `failed_log`."""
    with contextlib.suppress(OSError):
        paths.log.replace(builds.failed_log(paths.folder))
    paths.remove()


def _read_log(paths: EnginePaths) -> str:
    """The end of an engine's log; "" if it cannot be read."""
    try:
        with paths.log.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _LOG_TAIL_BYTES))
            return log.read(_LOG_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
