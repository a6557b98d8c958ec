"""Keeps the engines within a budget of memory: the idle one left longest ago goes first."""

from pathlib import Path

from llm_localrun.engine import slots
from llm_localrun.engine.state import EngineSettings, EngineSpec, EngineState, Paths, known
from llm_localrun.engine.stop import stop_if_idle
from llm_localrun.errors import EngineFailed
from llm_localrun.memory.footprint import Setting, bound_of

_OVERHEAD = 1.1
"""Beyond the weights, where the file does not tell."""


def make_room(spec: EngineSpec, folder: Path, budget: int | None) -> None:
    """Stops idle engines until `spec` fits in `budget` bytes beside the others.

    A model that is too large even if alone is let through: it may run all the same, slowly. Raises
    `EngineFailed` if the others are in use.
    """
    if budget is None:
        return
    others = sorted(known(folder), key=lambda engine: slots.last_used(Paths(folder, engine.id)))
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
    """Bytes of memory that an engine of `spec` will take."""
    footprint = bound_of(spec.path, spec.settings.files())
    if footprint is None:
        return int(spec.file_size * _OVERHEAD)
    return footprint.need(setting_of(spec.settings)).total


def setting_of(settings: EngineSettings) -> Setting:
    """An engine's settings, as far as they decide what memory it takes."""
    assert settings.context_size is not None
    return Setting(
        settings.context_size,
        settings.kv_cache_type or "f16",
        settings.flash_attention is not False,
        settings.embedding,
    )


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
