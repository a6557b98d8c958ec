"""Ends engines, whatever state they are in.

Which engine should end, and when, is left to the callers: `evict` for idle engines, and what
unloads, checks or deletes a model.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from llm_localrun.engine import slots
from llm_localrun.engine.state import EnginePaths, EngineState, list_hosts, pid_of, read_state
from llm_localrun.system import locks

_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_END_TIMEOUT_S = 5.0
"""How long an engine may take to save its conversations before it is killed."""
_POLL_INTERVAL_S = 0.02


def stop(state: EngineState, folder: Path) -> None:
    """Ends an engine, even if it is answering."""
    end(EnginePaths(folder, state.id))


def stop_all(folder: Path) -> list[str]:
    """Ends every engine, also one that is loading or whose state is damaged. Returns the names."""
    names = []
    for paths in list_hosts(folder):
        state = read_state(paths.state)
        end(paths)
        names.append(state.spec.name if state else f"process {pid_of(paths.id)}")
    return names


def stop_if_idle(state: EngineState, folder: Path) -> bool:
    """Ends an engine unless it is in use. Returns whether it did."""
    paths = EnginePaths(folder, state.id)
    # An engine without a URL is loading a model for another command.
    acquired = slots.acquire_all(paths) if state.url else None
    if acquired is None:
        return False
    # Without its state, no command acquires a slot. The host needs the slots to save them.
    paths.state.unlink(missing_ok=True)
    for slot in acquired:
        slot.release()
    end(paths)
    return True


def end(paths: EnginePaths) -> None:
    """Ends an engine's host. The process id is the host's as long as its lock is held."""
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
