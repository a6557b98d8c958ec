"""Ends engines, whatever state they are in.

Which engine should end, and when, is left to the callers: `evict` for idle engines, and what
unloads, checks or deletes a model.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import TypeAlias

from llm_localrun.engine import slots
from llm_localrun.engine.state import EnginePaths, EngineState, list_hosts, pid_of, read_state
from llm_localrun.system import locks
from llm_localrun.system.progress import Progress, working

Announce: TypeAlias = Callable[[str, str], None]
"""Is called before waiting for an engine, with the name of its model and what it does."""

_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_END_TIMEOUT_S = 5.0
"""How long an engine may take to save its conversations before it is killed."""
_FIRST_REQUEST_S = 5.0
"""How long after loading the request may come that an engine was started for."""
_POLL_INTERVAL_S = 0.02


def stop(state: EngineState, folder: Path) -> None:
    """Ends an engine, even if it is answering."""
    end(EnginePaths(folder, state.id))


def stop_all(folder: Path) -> list[str]:
    """Ends every engine, also one that is loading or whose state is damaged. Returns the names."""
    names = []
    for paths in list_hosts(folder):
        names.append(name_of(paths))
        end(paths)
    return names


def name_of(paths: EnginePaths) -> str:
    """The name of the model that an engine runs, or its process if its state is damaged."""
    state = read_state(paths.state)
    return state.spec.name if state else f"process {pid_of(paths.id)}"


def stop_when_idle(paths: EnginePaths, announce: Announce) -> None:
    """Ends an engine as soon as no request uses it.

    New requests wait until it has ended, and start another one. If this process ends earlier, the
    engine stays, and they use it.
    """
    if doing := occupation(paths):
        announce(name_of(paths), doing)
    with working(Progress(f"waiting for {name_of(paths)}")):
        while _is_starting(paths):
            time.sleep(_POLL_INTERVAL_S)
        with locks.exclusive(paths.ending, inf):
            while not _end_if_free(paths):
                time.sleep(_POLL_INTERVAL_S)


def occupation(paths: EnginePaths) -> str:
    """What an engine does for other commands; "" if it is idle."""
    if _is_starting(paths):
        return "is starting for another command"
    return "is answering" if slots.are_in_use(paths) else ""


def _is_starting(paths: EnginePaths) -> bool:
    """Whether an engine loads its model, or has just loaded it for a request that is to come."""
    state = read_state(paths.state)
    if state is None or not locks.is_locked(paths.lock):
        return False
    if not state.url:
        return True
    is_used = slots.last_used(paths) > state.started_at
    loaded_at = state.started_at + state.load_seconds
    return not is_used and abs(time.time() - loaded_at) < _FIRST_REQUEST_S


def stop_if_idle(state: EngineState, folder: Path) -> bool:
    """Ends an engine unless it is in use. Returns whether it did."""
    # An engine without a URL is loading a model for another command.
    return bool(state.url) and _end_if_free(EnginePaths(folder, state.id))


def _end_if_free(paths: EnginePaths) -> bool:
    """Ends an engine unless a request uses it. Returns whether it has ended."""
    acquired = slots.acquire_all(paths)
    # An engine of an old version has no slots, and one that has ended has none anymore.
    if acquired is None and paths.slot(0).exists():
        return False
    name = name_of(paths)
    # Without its state, no command acquires a slot. The host needs the slots to save them.
    paths.state.unlink(missing_ok=True)
    for slot in acquired or ():
        slot.release()
    end(paths, name)
    return True


def end(paths: EnginePaths, name: str = "") -> None:
    """Ends an engine's host. The process id is the host's as long as its lock is held.

    `name` is that of its model, where its state is gone.
    """
    with working(Progress(f"unloading {name or name_of(paths)}")):
        _end(paths)


def _end(paths: EnginePaths) -> None:
    state = read_state(paths.state)
    # While it loads, a host handles no signals, and it has no conversations to save.
    is_loading = state is not None and not state.url
    # From now on no command finds the engine, and those that wait for it know that it was unloaded.
    paths.state.unlink(missing_ok=True)
    for number in (_SIGKILL,) if is_loading else (signal.SIGTERM, _SIGKILL):
        if not locks.is_locked(paths.lock):
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid_of(paths.id), number)
        if has_ended(paths, _END_TIMEOUT_S):
            break
    paths.remove()


def has_ended(paths: EnginePaths, timeout: float) -> bool:
    """Whether an engine has ended, or ends within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while locks.is_locked(paths.lock):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_INTERVAL_S)
    return True
