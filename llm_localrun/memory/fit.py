"""Whether a model fits into memory, and up to which context: the one answer for all commands.

A model fits into an amount of memory if the engine would load it with that much memory free: its
weights, a context of at least `MIN_USEFUL_CONTEXT_TOKENS`, its compute buffers and the engine's
process, with `MARGIN_BYTES` to spare. `models`, `show`, `which` and `doctor` ask for all RAM of
this machine, so that the answer does not change with what else runs. `recommend`, `search` and
`pull` ask for what the system leaves of it for a new model, and for what is free of GPUs. The
engine, `verify` and `quantize` ask for the memory that is free, that of GPUs included.

Pure: `machine` and `engine.memory_check` know how much memory there is.
"""

from bisect import bisect_left
from dataclasses import dataclass, replace

from llm_localrun.engine_defaults import CONTEXT_SIZE
from llm_localrun.memory.footprint import CACHE_STEP_TOKENS, Footprint, Setting
from llm_localrun.memory.geometry import Geometry
from llm_localrun.models import LocalModel, OnDisk, Purpose, RunsOn

MIN_USEFUL_CONTEXT_TOKENS = 512
"""Loading a model for less is not worthwhile, unless it was trained for less or you ask for it."""
MARGIN_BYTES = 2**28
"""Stays free: for other programs, and for the prompts that an engine keeps later on."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model fits into an amount of memory.

    `context_size` is the largest context, in tokens, with which it fits: 0 if it fits with none,
    None if no limit is known.
    """

    context_size: int | None

    @property
    def fits(self) -> bool:
        return self.context_size != 0

    def fits_with(self, context_size: int) -> bool:
        """Whether the model fits with a context of this many tokens."""
        return self.context_size is None or context_size <= self.context_size


UNLIMITED = Fit(None)


def fit_of(footprint: Footprint, setting: Setting, memory: float) -> Fit:
    """How a model fits into `memory` bytes, with a context of at most that of `setting`."""
    largest = largest_context(footprint, setting, memory)
    return UNLIMITED if largest and footprint.geometry is None else Fit(largest)


def fit_of_model(model: LocalModel, memory: int | None) -> Fit:
    """How a model of the catalogue fits into `memory` bytes, in the setting that the engine gives
    it by default. Opens no file.

    A model fits where nothing says that it does not: if its size or the memory is unknown, or if
    another machine runs it.
    """
    footprint = footprint_of(model)
    if footprint is None or memory is None:
        return UNLIMITED
    return fit_of(footprint, default_setting(model.context_max, model.purpose), memory)


def footprint_of(model: LocalModel) -> Footprint | None:
    """The footprint of a model on this machine, from what the catalogue knows.

    None if the size is unknown, or if another machine runs the model, or may do so.
    """
    if model.on_disk is not None and model.on_disk.load_size:
        return Footprint(_geometry_in(model.on_disk), model.on_disk.load_size)
    runs_here = model.on_disk is not None or model.runs_on == RunsOn.THIS_MACHINE
    return Footprint(None, model.size) if runs_here and model.size is not None else None


def _geometry_in(route: OnDisk) -> Geometry | None:
    is_whole = len(route.geometry) == len(Geometry._fields)
    return Geometry._make(route.geometry) if is_whole else None


def default_setting(context_max: int | None, purpose: Purpose) -> Setting:
    """The setting in which the engine runs a model with the largest context that it may have.

    `context_max` is the context in tokens that it was trained for, None if that is unknown.
    """
    is_pooled = purpose in ("embedding", "rerank")
    return Setting(max(1, context_max or CONTEXT_SIZE), embedding=is_pooled)


def largest_context(footprint: Footprint, setting: Setting, memory: float) -> int:
    """The largest context in tokens, up to that of `setting`, with which a model fits into
    `memory` bytes; 0 if it fits with none. Smaller ones than that of `setting` are multiples of
    256."""
    if is_enough(memory, footprint, setting):
        return setting.context_size

    def is_too_large(size: int) -> bool:
        return not is_enough(memory, footprint, replace(setting, context_size=size))

    if is_too_large(min(MIN_USEFUL_CONTEXT_TOKENS, setting.context_size)):
        return 0
    sizes = range(0, setting.context_size, CACHE_STEP_TOKENS)
    return sizes[bisect_left(sizes, True, key=is_too_large) - 1]


def is_enough(memory: float, footprint: Footprint, setting: Setting) -> bool:
    """Whether a model fits into `memory` bytes in a setting."""
    return footprint.need(setting).total + MARGIN_BYTES <= memory
