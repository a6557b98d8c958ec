"""Ends engines, whatever state they are in."""

import contextlib
import os
import signal
import time
from pathlib import Path

from llm_localrun.engine import slots
from llm_localrun.engine.state import EngineState, Paths, alive, pid_of, read_state
from llm_localrun.system import locks

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_PATIENCE = 5.0
"""Seconds that an engine has to leave its conversations to the next one."""


def stop(state: EngineState, folder: Path) -> None:
    """Ends an engine, in the middle of an answer too."""
    end(Paths(folder, state.id))


def stop_all(folder: Path) -> list[str]:
    """Ends every engine, those that are loading or whose state is damaged too; their names."""
    names = []
    for paths in alive(folder):
        state = read_state(paths.state)
        end(paths)
        names.append(state.spec.name if state else f"process {pid_of(paths.id)}")
    return names


def stop_if_idle(state: EngineState, folder: Path) -> bool:
    """Ends an engine that nobody uses; whether it has."""
    paths = Paths(folder, state.id)
    # Where there are none yet, the model is being loaded for somebody.
    taken = slots.take_all(paths) if state.url else None
    if taken is None:
        return False
    # Nobody can come any more; the seats are left for the host to see what they hold.
    paths.state.unlink(missing_ok=True)
    for seat in taken:
        seat.leave()
    end(paths)
    return True


def end(paths: Paths) -> None:
    """Ends the process that holds an engine's lock; its id cannot be another's meanwhile."""
    state = read_state(paths.state)
    # A host that is loading is deaf, and has nothing to leave to the next one.
    is_loading = state is not None and not state.url
    # So nobody comes any more, and who waits knows that this was meant.
    paths.state.unlink(missing_ok=True)
    for number in (_KILL,) if is_loading else (signal.SIGTERM, _KILL):
        if not locks.is_locked(paths.lock):
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid_of(paths.id), number)
        if has_ended(paths, _PATIENCE):
            break
    paths.remove()


def has_ended(paths: Paths, seconds: float) -> bool:
    """Whether an engine has ended, or does within `seconds`."""
    deadline = time.monotonic() + seconds
    while locks.is_locked(paths.lock):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
