"""The host process of an engine: runs llama.cpp's server for one GGUF file, and ends it.

`launch` starts it without llm and without `site`, for a fast start, and writes `HostInstructions`
to its stdin. It answers on stdout: its id when it begins to load, a line when it has loaded, or the
`errno` of a failed write. It ends when its lease has expired and all slots are free, when its files
are gone, or on SIGTERM; before that it saves the conversations in its slots (`saved_prompts`). How
each build of llama.cpp runs is left to `llama_server` and `xllamacpp`, and ending a load that makes
no progress to `load_watch`.
"""

import contextlib
import faulthandler
import itertools
import os
import re
import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

from llm_localrun.engine import limits, llama_server, saved_prompts, slots, xllamacpp
from llm_localrun.engine.load_watch import (
    PREPARATION,
    PreparationWatch,
    cpu_seconds,
    send_line,
    size_of,
    watched,
)
from llm_localrun.engine.slots import Slot
from llm_localrun.engine.state import (
    BUILD_LINE,
    EnginePaths,
    EngineState,
    HostInstructions,
    ending,
    new_id,
    parse_instructions,
    read_lease,
    read_state,
    write_lease,
    write_state,
)
from llm_localrun.engine_defaults import CALM_LOAD
from llm_localrun.system import locks
from llm_localrun.system.atomic import open_private

_POLL_INTERVAL_S = 0.1 if sys.platform == "linux" else 0.5
"""A hostile file makes llama.cpp take gigabytes in a second. Elsewhere `ps` is run each time."""
_POLLS_PER_CHECK = 5 if sys.platform == "linux" else 1
"""How often the memory is measured between two looks at the engine's files."""
CALM_SPINS, _BUSY_SPINS = 100_000, 1_000
_MAX_LOG_BYTES = 2**20
"""A log that is larger is emptied while the engine runs."""
_OFFLOADED = re.compile(rb"offloaded (\d{1,9})/(\d{1,9}) layers to GPU")


class RunningServer(Protocol):
    """llama.cpp's server, in this process or in a child process."""

    @property
    def url(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def has_ended(self) -> bool: ...

    def end(self) -> None: ...


def main() -> None:
    """Runs one engine from its start to its end, as `HostInstructions` on stdin say."""
    instructions = parse_instructions(sys.stdin.readline())
    limits.expose_to_oom_killer()
    os.umask(0o077)
    _handle_signals(stop := threading.Event())
    paths = EnginePaths(Path(instructions.folder), new_id(os.getpid()))
    output = os.dup(1)
    with contextlib.ExitStack() as until_end:
        try:
            until_end.enter_context(locks.create_locked(paths.lock))
            server, state = _start_up(instructions, paths, output)
        except OSError as error:
            send_line(output, str(error.errno))
            raise
        # A crash of llama.cpp in this process is named in the log.
        faulthandler.enable(2, all_threads=False)
        try:
            free = _serve(server, state, instructions, stop)
        except MemoryError:
            # Python got none because llama.cpp took it all.
            _end_at_once(server, limits.OUT_OF_MEMORY)
        _shut_down(server, state, paths, free, instructions.prompt_bytes)


def _start_up(
    instructions: HostInstructions, paths: EnginePaths, output: int
) -> tuple[RunningServer, EngineState]:
    """Loads the model, and reports before and after it to `output`. Raises OSError."""
    _redirect_output(paths.log)
    os.write(2, f"{BUILD_LINE}{instructions.build}: {instructions.build_path}\n".encode())
    state = _create_files(instructions, paths)
    send_line(output, paths.id)
    begun = time.monotonic()
    server = _start_server(instructions, paths, output)
    seconds = time.monotonic() - begun
    # xllamacpp has found out whether it has a GPU.
    state = read_state(paths.state) or state
    state = replace(state, url=server.url, server_pid=server.pid, load_seconds=seconds)
    if state.has_gpu:
        state = _with_layers(state, paths.log)
    write_lease(paths, instructions.keep_alive)
    write_state(paths.folder, state)
    send_line(output, "ready")
    os.close(output)
    return server, state


def _with_layers(state: EngineState, log: Path) -> EngineState:
    """`state` with how llama.cpp has split the model, from the log of its load."""
    # Without a fixed number of layers, it tries several, and the last one holds.
    found = _OFFLOADED.findall(log.read_bytes())
    if not found:
        return state
    return replace(state, offloaded=int(found[-1][0]), layers=int(found[-1][1]))


def _handle_signals(stop: threading.Event) -> None:
    def handler(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _redirect_output(log: Path) -> None:
    """Sends the output of llama.cpp to `log`."""
    descriptor = open_private(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _create_files(instructions: HostInstructions, paths: EnginePaths) -> EngineState:
    paths.prompts.mkdir(mode=0o700, exist_ok=True)
    slots.create_slots(paths)
    state = EngineState(
        paths.id,
        instructions.spec,
        instructions.key,
        instructions.build,
        started_at=time.time(),
        memory_limit=instructions.memory_limit,
        build_path=instructions.build_path,
        build_key=instructions.build_key,
        has_gpu=instructions.has_gpu,
    )
    write_state(paths.folder, state)
    return state


def spin_count() -> int:
    """How often a thread of OpenMP looks for work before it sleeps, by the load of the machine."""
    try:
        is_calm = os.getloadavg()[0] <= CALM_LOAD * (os.cpu_count() or 1)
    except (AttributeError, OSError):
        is_calm = False
    return CALM_SPINS if is_calm else _BUSY_SPINS


def _start_server(instructions: HostInstructions, paths: EnginePaths, output: int) -> RunningServer:
    # Otherwise a failed assertion spends ten seconds in gdb (b11549).
    os.environ["GGML_NO_BACKTRACE"] = "1"
    # Stacks of gigabytes, which some programs need, would count as memory that the engine takes.
    for name in ("OMP_STACKSIZE", "GOMP_STACKSIZE"):
        os.environ.pop(name, None)
    if "OMP_WAIT_POLICY" not in os.environ:
        # OpenMP's threads spin while they wait, 4 ms by default (docs/design/engine.md).
        os.environ.setdefault("GOMP_SPINCOUNT", str(spin_count()))
    watch = partial(
        watched,
        log=paths.log,
        grace=instructions.load_grace,
        output=output,
        memory_limit=instructions.memory_limit,
    )
    if instructions.llama_server:
        return llama_server.start(instructions, paths, watch)
    with watch(os.getpid()):
        return xllamacpp.start(instructions, paths)


def _serve(
    server: RunningServer, state: EngineState, instructions: HostInstructions, stop: threading.Event
) -> list[Slot]:
    """Waits until the engine has to end. Returns the slots that were free, now acquired."""
    paths = EnginePaths(Path(instructions.folder), state.id)
    watch = PreparationWatch(instructions.max_preparation, partial(slots.is_evaluating, state))
    for poll in itertools.count(1):
        if stop.wait(_POLL_INTERVAL_S):
            break
        if limits.is_over(server.pid, instructions.memory_limit):
            _end_at_once(server, limits.OUT_OF_MEMORY)
        if poll % _POLLS_PER_CHECK:
            continue
        if watch.is_exceeded(cpu_seconds(server.pid), size_of(paths.log)):
            reason = f"{PREPARATION} ran for {watch.limit:g} s of CPU time without an end"
            _end_at_once(server, ending(reason))
        if server.has_ended():
            # The files stay: a command that waits for an answer finds the reason in the log.
            os._exit(1)
        until = read_lease(paths)
        if until is None or not (paths.state.exists() and paths.lock.exists()):
            break
        if time.time() > until and (acquired := slots.acquire_all(paths)):
            return acquired
        _empty_large_log(paths.log)
    return slots.acquire_free(paths)


def _end_at_once(server: RunningServer, reason: bytes) -> NoReturn:
    """Ends the engine. Its files stay for the command that waits for an answer."""
    server.end()
    os.write(2, reason)
    os._exit(1)


def _empty_large_log(log: Path) -> None:
    with contextlib.suppress(OSError):
        if size_of(log) > _MAX_LOG_BYTES:
            os.truncate(log, 0)


def _shut_down(
    server: RunningServer, state: EngineState, paths: EnginePaths, free: list[Slot], max_bytes: int
) -> None:
    """Saves the conversations in `free` slots, removes the files and ends this process.

    All saved prompts together get `max_bytes`; 0 saves none.
    """
    paths.state.unlink(missing_ok=True)
    for slot in free:
        # A conversation that cannot be saved is evaluated again.
        with contextlib.suppress(OSError):
            saved_prompts.save(paths, state, slot, max_bytes)
    saved_prompts.seal(paths, state)
    server.end()
    paths.remove()
    # Not sys.exit: a thread of llama.cpp may be generating an answer.
    os._exit(0)
