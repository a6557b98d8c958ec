"""The engine's process: runs llama.cpp's server over one GGUF file and decides when that ends.

Started by `launch` without llm and without `site`, so that a cold start costs little; told what to
do in one line of JSON on stdin. Answers on stdout with its id when it begins to load, with a line
when it is up, or with the number of the system's error if it cannot write. It ends by itself when
its lease has run out and nobody has a seat, when its files are gone, or on SIGTERM, and leaves the
conversations that it holds to the next engine (`prompts`).
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol
from urllib.parse import urlsplit

from llm_localrun.engine import llama_server, saved_prompts, slots, xllamacpp
from llm_localrun.engine.state import (
    EngineState,
    Order,
    Paths,
    grant,
    lease_end,
    new_id,
    open_private,
    read_order,
    write_state,
)
from llm_localrun.system import locks

POLL_SECONDS = 0.5
_MAX_LOG_BYTES = 2**20
_SAVE_SECONDS = 60.0
_WORTH_KEEPING = 100
"""Tokens. Fewer are evaluated anew as fast."""


class Server(Protocol):
    """llama.cpp's server, wherever it runs."""

    @property
    def url(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def has_ended(self) -> bool: ...

    def end(self) -> None: ...


def main() -> None:
    order = read_order(sys.stdin.readline())
    os.umask(0o077)
    _meet_signals(stop := threading.Event())
    paths = Paths(Path(order.folder), new_id(os.getpid()))
    answer = os.dup(1)
    with contextlib.ExitStack() as life:
        try:
            life.enter_context(locks.held_anew(paths.lock))
            server, state = _come_up(order, paths, answer)
        except OSError as error:
            _tell(answer, str(error.errno))
            raise
        taken = _serve(server, paths, stop)
        _end(server, state, paths, taken, order.prompt_bytes)


def _come_up(order: Order, paths: Paths, answer: int) -> tuple[Server, EngineState]:
    """Loads the model, and says when it begins and when it is done. Raises OSError."""
    _redirect_output(paths.log)
    state = _set_up(order, paths)
    _tell(answer, paths.id)
    server, state = _loaded(order, paths, state)
    _tell(answer, "ready")
    os.close(answer)
    return server, state


def _meet_signals(stop: threading.Event) -> None:
    def handler(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _redirect_output(log: Path) -> None:
    """Sends what llama.cpp prints to `log`."""
    descriptor = open_private(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _set_up(order: Order, paths: Paths) -> EngineState:
    paths.prompts.mkdir(mode=0o700, exist_ok=True)
    slots.set_up(paths)
    state = EngineState(paths.id, order.spec, order.key, order.build, started_at=time.time())
    write_state(paths.folder, state)
    return state


def _tell(answer: int, line: str) -> None:
    # Who started us may be gone; the next command will find us loaded.
    with contextlib.suppress(BrokenPipeError):
        os.write(answer, f"{line}\n".encode())


def _loaded(order: Order, paths: Paths, state: EngineState) -> tuple[Server, EngineState]:
    begun = time.monotonic()
    _alarm(order.load_seconds)
    server = _start(order, paths)
    _alarm(0)
    state = replace(
        state, url=server.url, server_pid=server.pid, load_seconds=time.monotonic() - begun
    )
    grant(paths, order.keep_alive)
    write_state(paths.folder, state)
    return server, state


def _alarm(seconds: float) -> None:
    """Has the system end this process then: loading may hang, and holds the interpreter."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _start(order: Order, paths: Paths) -> Server:
    # Without it a failed assertion spends ten seconds in gdb (b11549).
    os.environ["GGML_NO_BACKTRACE"] = "1"
    if "OMP_WAIT_POLICY" not in os.environ:
        # OpenMP's threads wait for each other by spinning, some 4 ms by default (CONTRIBUTING.md).
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    return llama_server.start(order, paths) if order.llama_server else xllamacpp.start(order, paths)


def _serve(server: Server, paths: Paths, stop: threading.Event) -> list[slots.Seat]:
    """Returns when the engine should end, with the seats that nobody has."""
    while not stop.wait(POLL_SECONDS):
        if server.has_ended():
            # The files stay: who waits for an answer finds the reason there.
            os._exit(1)
        until = lease_end(paths)
        if until is None or not (paths.state.exists() and paths.lock.exists()):
            break
        if time.time() > until and (taken := slots.take_all(paths)):
            return taken
        _bound(paths.log)
    return slots.take_free(paths)


def _bound(log: Path) -> None:
    with contextlib.suppress(OSError):
        if log.stat().st_size > _MAX_LOG_BYTES:
            os.truncate(log, 0)


def _end(
    server: Server, state: EngineState, paths: Paths, taken: Iterable[slots.Seat], most_bytes: int
) -> None:
    paths.state.unlink(missing_ok=True)
    for seat in taken:
        if seat.before.conversation and most_bytes:
            # What cannot be kept is evaluated anew.
            with contextlib.suppress(OSError):
                _keep(state, paths, seat, most_bytes)
    server.end()
    paths.remove()
    # Not sys.exit: a thread of llama.cpp may be in the middle of an answer.
    os._exit(0)


def _keep(state: EngineState, paths: Paths, seat: slots.Seat, most_bytes: int) -> None:
    """Leaves the conversation in a slot to the next engine. Raises OSError."""
    part = saved_prompts.part(paths, seat.number)
    if _saved_tokens(state, seat.number, part.name) >= _WORTH_KEEPING:
        saved_prompts.keep(part, state, seat.before.conversation, most_bytes)


def _saved_tokens(state: EngineState, slot: int, name: str) -> int:
    """How many tokens llama.cpp has written of what `slot` holds. Raises OSError."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(urlsplit(state.url).netloc, timeout=_SAVE_SECONDS)
    headers = {"Authorization": f"Bearer {state.key}", "Content-Type": "application/json"}
    try:
        connection.request(
            "POST", f"/slots/{slot}?action=save", json.dumps({"filename": name}), headers
        )
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    except (HTTPException, ValueError):
        return 0
    finally:
        connection.close()
    # An error has no such field.
    return int(answer.get("n_saved", 0))
