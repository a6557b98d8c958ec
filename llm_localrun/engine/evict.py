"""Keeps the engines within a budget of memory: the idle one used least recently ends first."""

from pathlib import Path

from llm_localrun.engine import slots
from llm_localrun.engine.state import EngineSettings, EngineSpec, EngineState, Paths, known
from llm_localrun.engine.stop import stop_if_idle
from llm_localrun.errors import EngineFailed
from llm_localrun.memory.footprint import Footprint, Setting, footprint_of_files


def evict_idle(spec: EngineSpec, folder: Path, budget: int | None) -> None:
    """Stops idle engines until `spec` fits in `budget` bytes together with the others.

    A model that is too large even alone is let through: it may run all the same, slowly. Raises
    `EngineFailed` if the others are in use.
    """
    if budget is None:
        return
    others = sorted(known(folder), key=lambda engine: slots.last_used(Paths(folder, engine.id)))
    for engine in others[:]:
        if _need(spec) + sum(map(size_in_memory, others)) <= budget:
            return
        if stop_if_idle(engine, folder):
            others.remove(engine)
    if others and _need(spec) + sum(map(size_in_memory, others)) > budget:
        names = ", ".join(engine.spec.name for engine in others)
        raise EngineFailed(
            f"{spec.name} does not fit in memory together with the models that are answering now:"
            f" {names}",
            "Try again when they are done, or raise engine_memory in config.json",
        )


def _need(spec: EngineSpec) -> int:
    """Bytes of memory that an engine of `spec` needs."""
    return footprint_of(spec).need(setting_of(spec.settings)).total


def footprint_of(spec: EngineSpec) -> Footprint:
    """The footprint of an engine's files as they are now; by its own file's size if they went."""
    found = footprint_of_files(spec.path, spec.settings.files())
    return found or Footprint(None, spec.file_size)


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
    return max(_need(engine.spec), resident(engine.server_pid) or 0)


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
