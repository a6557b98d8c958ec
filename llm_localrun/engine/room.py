"""Keeps the engines within a budget of memory: the idle one left longest ago goes first."""

from pathlib import Path

from llm_localrun.engine import seats
from llm_localrun.engine.state import EngineSpec, EngineState, Paths, known
from llm_localrun.engine.stop import stop_if_idle
from llm_localrun.errors import EngineFailed

_OVERHEAD = 1.1
"""Beyond the weights: the KV cache of a small context, and what is computed with."""


def make_room(spec: EngineSpec, folder: Path, budget: int | None) -> None:
    """Stops idle engines until `spec` fits in `budget` bytes beside the others.

    A model that is too large even if alone is let through: it may run all the same, slowly. Raises
    `EngineFailed` if the others are in use.
    """
    if budget is None:
        return
    others = sorted(known(folder), key=lambda engine: seats.last_used(Paths(folder, engine.id)))
    for engine in others[:]:
        if needed(spec) + sum(map(held, others)) <= budget:
            return
        if stop_if_idle(engine, folder):
            others.remove(engine)
    if others and needed(spec) + sum(map(held, others)) > budget:
        names = ", ".join(engine.spec.name for engine in others)
        raise EngineFailed(
            f"{spec.name} does not fit in memory beside what is answering now: {names}",
            "Try again when that is done, or raise engine_memory in config.json",
        )


def needed(spec: EngineSpec) -> int:
    """Bytes of memory that an engine of `spec` will take, roughly."""
    beside = sum(Path(path).stat().st_size for path in spec.settings.files())
    return int((spec.file_size + beside) * _OVERHEAD)


def held(engine: EngineState) -> int:
    """Bytes of memory that an engine takes: more than it holds now, if it is about to."""
    return max(needed(engine.spec), resident(engine.server_pid) or 0)


def resident(pid: int) -> int | None:
    """Bytes of memory that a process holds; None without psutil, or if it is gone."""
    try:
        import psutil
    except ImportError:
        return None
    try:
        memory: int = psutil.Process(pid).memory_info().rss
    except (psutil.Error, ValueError):
        return None
    return memory
