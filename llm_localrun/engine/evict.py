"""Keeps the engines within a memory budget: the least recently used idle engine goes first."""

from pathlib import Path

from llm_localrun.engine import slots
from llm_localrun.engine.state import (
    EnginePaths,
    EngineSettings,
    EngineSpec,
    EngineState,
    list_engines,
)
from llm_localrun.engine.stop import stop_if_idle
from llm_localrun.errors import EngineFailed
from llm_localrun.memory.footprint import Setting, bound_of

_OVERHEAD = 1.1
"""Beyond the weights, where the file does not tell."""


def evict_idle(spec: EngineSpec, folder: Path, budget: int | None) -> None:
    """Stops idle engines until `spec` fits in `budget` bytes together with the other engines.

    A model that does not fit alone is not refused: it may run, but slowly. Raises `EngineFailed` if
    the other engines are in use.
    """
    if budget is None:
        return
    others = sorted(
        list_engines(folder),
        key=lambda engine: slots.last_used(EnginePaths(folder, engine.id)),
    )
    for engine in others[:]:
        if needed(spec) + sum(map(held, others)) <= budget:
            return
        if stop_if_idle(engine, folder):
            others.remove(engine)
    if others and needed(spec) + sum(map(held, others)) > budget:
        names = ", ".join(engine.spec.name for engine in others)
        raise EngineFailed(
            f"{spec.name} does not fit in memory while these models answer: {names}",
            "Try again later, or raise engine_memory in config.json",
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
