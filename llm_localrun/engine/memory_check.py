"""Checks that there is memory for an engine before it starts, and says what would fit if not.
Also reckons the most that it may take (`bound_of`), to which `limits` and `host` hold it.

llama.cpp does not check: the system kills it when memory runs out, and other programs before it.
Whether a model fits into an amount of memory is decided in `memory.fit`.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from llm_localrun.catalogue import get_catalogue
from llm_localrun.config import read_config
from llm_localrun.engine import builds
from llm_localrun.engine.evict import need_of, setting_of, size_in_memory
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.state import EngineSettings, EngineSpec, EngineState, list_running
from llm_localrun.engine_defaults import CONTEXT_SIZE
from llm_localrun.errors import BadModelFile, NotEnoughMemory
from llm_localrun.gguf.files import checked_header, parts_of
from llm_localrun.gguf.header import Tensor
from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.memory import machine
from llm_localrun.memory.fit import MARGIN_BYTES, is_enough, largest_context
from llm_localrun.memory.footprint import (
    Footprint,
    Need,
    Setting,
    checkpoint_count,
    footprint_of_files,
    limit_bytes,
)
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import siblings
from llm_localrun.recommended.advice import smaller
from llm_localrun.recommended.choose import usable_memory
from llm_localrun.system.paths import engine_folder

_FLOATS = (TensorType.F32, TensorType.F16, TensorType.BF16)


def ensure_fits(
    model: LocalModel, request: EngineRequest, *, may_shrink: bool, remedy: str = ""
) -> EngineRequest:
    """The request if there is memory for it, else, if `may_shrink`, with a smaller context.

    Its limits are such that idle engines end for it. Without a context size in the settings, it
    gets the one that engines have by default. A model that RPC servers share is not checked: their
    memory is unknown.

    Raises `BadModelFile`, and `NotEnoughMemory` with `remedy`, or with the options that would help.
    """
    settings = request.settings
    free, engines = machine.free_ram(), list_running(engine_folder())
    footprint = footprint_of_files(request.path, settings.files())
    is_up = any(engine.spec.runs(request.path, settings) for engine in engines)
    if free is None or footprint is None or is_up or settings.rpc:
        return request
    if settings.context_size is None:
        request = request.with_context(min(model.context_max or CONTEXT_SIZE, CONTEXT_SIZE))
    setting = setting_of(request.settings)
    if is_enough(free, footprint, setting):
        return request
    # A file that is no GGUF file, or has a hole of 100 GB, is not a lack of memory.
    check_others(settings)
    named = request.limits.llama_server
    free = free_memory(named, request.path, settings.gpu_layers) or free
    limits = request.limits.within(free - MARGIN_BYTES + sum(map(size_in_memory, engines)))
    free += sum(map(_released_by, engines))
    affordable = largest_context(footprint, setting, free)
    if affordable == setting.context_size or (may_shrink and affordable):
        return replace(request.with_context(affordable), limits=limits)
    raise NotEnoughMemory(
        _problem(model, footprint.need(setting), setting, free),
        remedy or _remedy(model, footprint, setting, free),
    )


def check_others(settings: EngineSettings) -> None:
    """Raises `BadModelFile` for files besides the model that make llama.cpp abort."""
    for path in settings.files():
        try:
            checked_header(path)
        except BadModelFile as error:
            raise error.with_load_problem("") from None


def free_memory(
    llama_server: str | None, model: str = "", gpu_layers: int | None = None
) -> int | None:
    """The RAM and the memory of GPUs that is free, in bytes; None if the system does not say.

    `llama_server` is as in config.json; `model` is the file to run, `gpu_layers` what the user has
    set. Takes up to a second with GPUs.
    """
    free = machine.free_ram()
    # A Mac's GPU shares the RAM, which is counted already.
    if free is None or sys.platform == "darwin":
        return free
    return free + builds.free_memory_of_gpus(engine_folder(), llama_server, model, gpu_layers)


def memory_for_a_new_model() -> int | None:
    """The bytes that a model may take on this machine when it is idle, as `recommend` has it; None
    if the system does not say how much RAM there is. Takes up to a second with GPUs."""
    ram = machine.usable_ram()
    if ram is None or sys.platform == "darwin":
        return ram and usable_memory(ram)
    llama_server = read_config().llama_server
    return usable_memory(ram) + builds.free_memory_of_gpus(engine_folder(), llama_server)


def _released_by(engine: EngineState) -> int:
    """What is free when an engine ends. The system can drop weights anyway, but for a GPU's."""
    need = need_of(engine.spec)
    on_gpu = need.weights * engine.offloaded // engine.layers if engine.layers else 0
    return need.context + need.compute + on_gpu


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """What an engine may take: `limit` bytes, of which `mapped` are files that it maps.

    `checkpoints` is how many states of a slot it may keep.
    """

    limit: int
    mapped: int
    checkpoints: int


def bound_of(spec: EngineSpec, tensors: Iterable[Tensor]) -> MemoryBound:
    """What an engine may take. `tensors` are those of the model's own files."""
    settings = spec.settings
    footprint = footprint_of_files(spec.path, settings.files()) or Footprint(None, spec.file_size)
    setting = setting_of(settings)
    copied = sum(_copied(tensor) for tensor in tensors)
    limit = limit_bytes(footprint, setting, copied, sees=bool(settings.projector))
    for path in set(settings.files()) & {settings.draft_model}:
        if draft := footprint_of_files(path):
            limit += limit_bytes(draft, setting, draft.weights, sees=False)
    mapped = sum(part.stat().st_size for part in parts_of(Path(spec.path)) if part.exists())
    return MemoryBound(limit, mapped, checkpoint_count(footprint, setting))


def _copied(tensor: Tensor) -> int:
    """The bytes of a tensor that llama.cpp may rearrange for the processor (ggml-cpu/repack.cpp,
    and amx/amx.cpp for half-precision floats)."""
    is_copied = tensor.type not in _FLOATS or (
        tensor.type == TensorType.F16 and machine.has_matrix_units()
    )
    return tensor.size or 0 if is_copied else 0


def _problem(model: LocalModel, need: Need, setting: Setting, free: float) -> str:
    available = max(0, free - MARGIN_BYTES)
    return (
        f"{model.name} does not fit into the free memory: with a context of"
        f" {setting.context_size:,} tokens it needs {_gigabytes(need.total)}"
        f" ({_gigabytes(need.weights)} for its weights, {_gigabytes(need.context)} for the"
        f" context), and {_gigabytes(available)} are available"
    )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _remedy(model: LocalModel, footprint: Footprint, setting: Setting, free: float) -> str:
    """The options with which it would fit, else a smaller model that does."""
    models = get_catalogue(CachePolicy.IF_EMPTY).models
    use = " or ".join(_options(footprint, setting, free, siblings(model, models)))
    anyway = "load it anyway with -o overcommit true"
    if use:
        return f"Use {use}, or {anyway}"
    advice = smaller(model, models, free)
    return f"L{anyway[1:]}. {advice}" if advice else f"Choose a smaller model, or {anyway}"


def _options(
    footprint: Footprint, setting: Setting, free: float, variants: Iterable[LocalModel]
) -> Iterator[str]:
    """What would fit: a smaller context, a smaller type of cache, a smaller variant."""
    if affordable := largest_context(footprint, setting, free):
        yield f"-o context_size {affordable}"
    smaller_cache = replace(setting, cache_type="q8_0")
    if setting.cache_type == "f16" and is_enough(free, footprint, smaller_cache):
        yield "-o kv_cache_type q8_0"
    for variant in sorted(variants, key=lambda each: -(each.size or 0)):
        if variant.size and is_enough(free, replace(footprint, weights=variant.size), setting):
            yield f"-o quantization {variant.quantization}"
            return
