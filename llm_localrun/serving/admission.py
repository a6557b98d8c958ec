"""Whether there is memory for an engine, before it is started; and if not, what there would be for.

llama.cpp does not look: it is killed when memory runs out, and other programs before it.
"""

from collections.abc import Iterator
from dataclasses import replace

from llm_localrun import machine
from llm_localrun.catalogue import LocalModel
from llm_localrun.config import engine_folder
from llm_localrun.discovery import catalogue
from llm_localrun.engine.state import EngineSettings, EngineState, running
from llm_localrun.errors import NotEnoughMemory
from llm_localrun.footprint import bound_of, footprint_of
from llm_localrun.memory import MARGIN, Footprint, Need, Setting, gigabytes
from llm_localrun.naming import siblings

_WORTH = 512
"""Tokens: for a smaller context it is not worth starting an engine."""


def admitted(
    model: LocalModel, settings: EngineSettings, usual: int, *, may_shrink: bool
) -> EngineSettings:
    """The settings if there is memory for them, or else, if it may shrink, with a smaller context.

    `usual` is the context where the settings do not say. Engines that are up have their memory, and
    one of the same file gives its own back. Raises `NotEnoughMemory`.
    """
    assert model.path is not None
    engines = [each for each in running(engine_folder()) if each.spec.path == model.path]
    free = machine.free_ram()
    if free is None or any(_is_enough(engine, settings) for engine in engines):
        return settings
    setting = _setting(settings, settings.context_size or usual)
    bound = bound_of(model.path, settings.files())
    if bound is None or bound.need(setting).total <= free - MARGIN:
        return settings
    footprint = footprint_of(model.path, settings.files()) or bound
    free = (machine.free_memory() or free) + sum(_held(each, footprint) for each in engines)
    affordable = footprint.largest_context(free - MARGIN, setting)
    if affordable >= setting.context_size:
        return settings
    if may_shrink and affordable >= _WORTH:
        return replace(settings, context_size=affordable)
    raise NotEnoughMemory(
        _problem(model, footprint.need(setting), setting, free),
        _remedy([*_ways_out(model, footprint, setting, free - MARGIN)]),
    )


def _is_enough(engine: EngineState, settings: EngineSettings) -> bool:
    others = replace(settings, context_size=None)
    return engine.spec.settings.meets(others) and engine.spec.context_size >= (
        settings.context_size or 0
    )


def _setting(settings: EngineSettings, context_size: int) -> Setting:
    return Setting(
        context_size,
        cache_type=settings.kv_cache_type or "f16",
        flash_attention=settings.flash_attention is not False,
        embedding=settings.embedding,
    )


def _held(engine: EngineState, footprint: Footprint) -> int:
    """What an engine has taken that others cannot have: its weights are the system's to drop."""
    need = footprint.need(_setting(engine.spec.settings, engine.spec.context_size))
    return need.context + need.compute


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
    variants = siblings(model, catalogue("if absent").models)
    for variant in sorted(variants, key=lambda each: -(each.size or 0)):
        if variant.size and replace(footprint, weights=variant.size).need(setting).total <= free:
            yield f"-o quantization {variant.quantization}"
            return


def _remedy(ways: list[str]) -> str:
    if not ways:
        return "Choose a smaller model, or load it all the same with -o overcommit true"
    return f"Use {' or '.join(ways)}, or load it all the same with -o overcommit true"
