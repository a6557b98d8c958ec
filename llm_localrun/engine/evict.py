"""Keeps the engines within a memory budget: the least recently used idle engine goes first.

Which idle engines end is decided here; ending one is left to `stop`. How much memory a model needs
is computed in `memory.footprint`.
"""

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
from llm_localrun.memory.footprint import Footprint, Need, Setting, footprint_of_files


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
    left_over = budget - need_of(spec).total
    for engine in others[:]:
        if sum(map(size_in_memory, others)) <= left_over:
            return
        if stop_if_idle(engine, folder):
            others.remove(engine)
    if others and sum(map(size_in_memory, others)) > left_over:
        names = ", ".join(engine.spec.name for engine in others)
        raise EngineFailed(
            f"{spec.name} does not fit in memory while these models answer: {names}",
            "Try again later, or raise engine_memory in config.json",
        )


def need_of(spec: EngineSpec) -> Need:
    """The memory that an engine needs, by the size that its file had when it started."""
    found = footprint_of_files(spec.path, spec.settings.files(), spec.file_size)
    return (found or Footprint(None, spec.file_size)).need(setting_of(spec.settings))


def setting_of(settings: EngineSettings) -> Setting:
    """An engine's settings, as far as they decide how much memory it needs."""
    assert settings.context_size is not None
    return Setting(
        settings.context_size,
        settings.kv_cache_type or "f16",
        settings.flash_attention is not False,
        settings.embedding,
    )


def size_in_memory(engine: EngineState) -> int:
    """Bytes of memory that an engine takes: more than it has now if it is still loading."""
    return max(need_of(engine.spec).total, resident(engine.server_pid) or 0)


def resident(pid: int) -> int | None:
    """Bytes of memory that a process holds; None without psutil, or if it has ended."""
    try:
        import psutil
    except ImportError:
        return None
    try:
        memory: int = psutil.Process(pid).memory_info().rss
    except (psutil.Error, ValueError):
        return None
    return memory
