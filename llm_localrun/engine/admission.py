"""Whether there is memory for an engine, before it is started; and if not, what there would be for.

llama.cpp does not look: it is killed when memory runs out, and other programs before it.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from llm_localrun.catalogue import get_catalogue
from llm_localrun.engine import builds
from llm_localrun.engine.evict import held, setting_of
from llm_localrun.engine.settings import EngineLimits
from llm_localrun.engine.state import EngineSettings, EngineState, list_running
from llm_localrun.errors import NotEnoughMemory
from llm_localrun.memory import machine
from llm_localrun.memory.footprint import (
    MARGIN,
    Footprint,
    Need,
    Setting,
    bound_of,
    footprint_of,
    gigabytes,
)
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import siblings
from llm_localrun.system.paths import engine_folder

_WORTH = 512
"""Tokens: for a smaller context it is not worth starting an engine."""


def admitted(
    model: LocalModel, settings: EngineSettings, bounds: EngineLimits, *, may_shrink: bool
) -> tuple[EngineSettings, EngineLimits]:
    """The settings if there is memory for them, or else, if they may, with a smaller context; and
    the bounds within which that fits: idle engines have to make way then.

    Raises `NotEnoughMemory`.
    """
    assert model.path is not None
    free, engines = machine.free_ram(), list_running(engine_folder())
    if free is None or any(_is_enough(engine, model, settings) for engine in engines):
        return settings, bounds
    setting, files = setting_of(settings), settings.files()
    bound = bound_of(model.path, files)
    if bound is None or bound.need(setting).total <= free - MARGIN:
        return settings, bounds
    footprint = footprint_of(model.path, files) or bound
    free = free_memory(bounds.llama_server) or free
    bounds = bounds.within(free - MARGIN + sum(map(held, engines)))
    free += sum(map(_given_back, engines))
    affordable = footprint.largest_context(free - MARGIN, setting)
    if affordable >= setting.context_size:
        return settings, bounds
    if may_shrink and affordable >= _WORTH:
        return replace(settings, context_size=affordable), bounds
    raise NotEnoughMemory(
        _problem(model, footprint.need(setting), setting, free),
        _remedy([*_ways_out(model, footprint, setting, free - MARGIN)]),
    )


def free_memory(llama_server: str | None) -> int | None:
    """The RAM that is free and the memory of GPUs, in bytes; None if nobody tells.

    `llama_server` is as in config.json. Takes a second if the GPUs have not been asked for lately.
    """
    free = machine.free_ram()
    # A Mac's GPU shares the RAM, which is counted already.
    if free is None or sys.platform == "darwin":
        return free
    build = builds.report(engine_folder(), llama_server).chosen
    return free + sum(device.memory or 0 for device in build.devices) if build else free


def _is_enough(engine: EngineState, model: LocalModel, settings: EngineSettings) -> bool:
    return engine.spec.path == model.path and engine.spec.settings.satisfies(settings)


def _given_back(engine: EngineState) -> int:
    """What others can have when an engine ends; its weights are the system's to drop before."""
    spec = engine.spec
    footprint = bound_of(spec.path, spec.settings.files())
    need = footprint.need(setting_of(spec.settings)) if footprint else None
    return need.context + need.compute if need else 0


def _problem(model: LocalModel, need: Need, setting: Setting, free: float) -> str:
    return (
        f"{model.name} needs {gigabytes(need.total)} of memory with a context of"
        f" {setting.context_size:,} tokens ({gigabytes(need.weights)} for its weights,"
        f" {gigabytes(need.context)} for the context) and {gigabytes(free)} are free"
    )


def _ways_out(
    model: LocalModel, footprint: Footprint, setting: Setting, free: float
) -> Iterator[str]:
    """What would fit: a smaller context, a smaller type of cache, a smaller variant."""
    affordable = footprint.largest_context(free, setting)
    if affordable >= _WORTH:
        yield f"-o context_size {affordable}"
    smaller = replace(setting, cache_type="q8_0")
    if setting.cache_type == "f16" and footprint.need(smaller).total <= free:
        yield "-o kv_cache_type q8_0"
    variants = siblings(model, get_catalogue(CachePolicy.IF_EMPTY).models)
    for variant in sorted(variants, key=lambda each: -(each.size or 0)):
        if variant.size and replace(footprint, weights=variant.size).need(setting).total <= free:
            yield f"-o quantization {variant.quantization}"
            return


def _remedy(ways: list[str]) -> str:
    if not ways:
        return "Choose a smaller model, or load it all the same with -o overcommit true"
    return f"Use {' or '.join(ways)}, or load it all the same with -o overcommit true"
