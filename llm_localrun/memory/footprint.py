"""How many bytes of memory a model needs: for its weights, its context and its computation.

Where the model's geometry is known, the formulas are llama.cpp's (b11549) with the parameters that
`engine` gives it; each names the file of llama.cpp's `src/` that it comes from. llama.cpp's planner
lays out the compute buffer: that formula was fitted to the sizes that the planner allocates (see
`docs/design/memory.md`). Whether a model fits into an amount of memory is decided in `fit`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llm_localrun.engine_defaults import BATCH_SIZE, PREFIX_CACHE_MIB, SLOTS
from llm_localrun.gguf.files import open_regular, parts_of
from llm_localrun.gguf.header import NotGGUF, read_summary
from llm_localrun.gguf.tensor_types import BLOCKS, TensorType
from llm_localrun.memory.geometry import Geometry, geometry_of

PROCESS_BYTES = 40 * 2**20
"""Of the engine's process besides what it allocates for a model: Python, llama.cpp's code."""
_UNKNOWN_CONTEXT_SHARE = 0.1
"""Of the weights, for the context of a model whose geometry is unknown."""
_UNKNOWN_COMPUTE_BYTES = 3 * 2**28 - PROCESS_BYTES
"""For the compute buffers of a model whose geometry is unknown."""

_SPARE_BYTES = 224 * 2**20
"""What an engine takes besides what is computed here: vocabulary, template, prompts, grammars."""
_TOLERANCE = 0.25
"""Of the context and the computation: how far the formulas may be too low."""
_MAX_CHECKPOINTS = 32
_CHECKPOINT_BYTES = 2**29
"""For the states that llama.cpp keeps of all slots, unless two for each take more."""
_PROJECTOR_BYTES = 2 * 2**30
"""For the images of a prompt, and computing with them."""
_UNKNOWN_LIMIT_BYTES = 4 * 2**30
"""What a model of unknown geometry may take besides twice its weights."""

CACHE_STEP_TOKENS = 256
"""A cache is for a multiple of this number (llama-context.cpp, llama-kv-cache-iswa.cpp)."""
_FLOAT_BYTES, _HALF_BYTES = 4, 2


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is run, as far as that decides what it needs. `context_size` is tokens."""

    context_size: int
    cache_type: str = "f16"
    flash_attention: bool = True
    embedding: bool = False

    @property
    def batch(self) -> int:
        """Tokens that are evaluated at once; a text to embed is one batch."""
        return self.context_size if self.embedding else BATCH_SIZE


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a model needs in a setting; `context` is its caches and states."""

    weights: int
    context: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.context + self.compute + PROCESS_BYTES


@dataclass(frozen=True, slots=True)
class Footprint:
    """What decides how much memory a model needs in any setting.

    `weights` is the bytes of all files that are loaded. Their headers count too: at most a few
    megabytes, and a hub and a server report no other size. Without a `geometry`, the need is a
    bound that holds for contexts of some thousand tokens: a tenth of the weights and 0.75 GiB.
    """

    geometry: Geometry | None
    weights: int

    def need(self, setting: Setting) -> Need:
        if self.geometry is None:
            context = int(self.weights * _UNKNOWN_CONTEXT_SHARE)
            return Need(self.weights, context, _UNKNOWN_COMPUTE_BYTES)
        context = context_bytes(self.geometry, setting)
        return Need(self.weights, context, compute_bytes(self.geometry, setting))


def checkpoint_count(footprint: Footprint, setting: Setting) -> int:
    """How many states of a slot llama.cpp may keep (`n_ctx_checkpoints`).

    It keeps them for models that cannot go back to an earlier token. Its default, 32, can take more
    than the model: 121 MB each for Gemma 3 4B.
    """
    size = _checkpoint_bytes(footprint, setting)
    return max(2, min(_MAX_CHECKPOINTS, _CHECKPOINT_BYTES // (SLOTS * max(size, 1))))


def _checkpoint_bytes(footprint: Footprint, setting: Setting) -> int:
    """The caches with windows and the states of one conversation (server-context.cpp)."""
    if (geometry := footprint.geometry) is None or not geometry.cached:
        return 0
    window = geometry.window_kv_width * min(setting.context_size, geometry.window)
    return _cache_bytes(window, setting) + geometry.state_width * _FLOAT_BYTES


def limit_bytes(footprint: Footprint, setting: Setting, copied: int, *, sees: bool) -> int:
    """The most memory that an engine may take, files included.

    `copied` is the bytes of weights that llama.cpp may hold twice, as they are in the file and
    arranged for the processor. `sees` says whether there is a projector. A model that works must
    never reach it, so what is unknown counts in full: see `docs/design/memory.md`.
    """
    need = footprint.need(setting)
    images = _PROJECTOR_BYTES if sees else 0
    if footprint.geometry is None:
        return 2 * need.weights + PROCESS_BYTES + _UNKNOWN_LIMIT_BYTES + images
    kept = 0
    if not setting.embedding:
        count = checkpoint_count(footprint, setting)
        kept = PREFIX_CACHE_MIB * 2**20 + SLOTS * count * _checkpoint_bytes(footprint, setting)
    tolerance = int(_TOLERANCE * (need.context + need.compute))
    return need.total + copied + images + kept + tolerance + _SPARE_BYTES


def footprint_of_files(
    path: str, others: Iterable[str] = (), loaded_size: int | None = None
) -> Footprint | None:
    """The footprint of the model in the file at `path` and all its parts.

    `others` are files that are loaded with it: a projector, an adapter, a draft model.
    `loaded_size` is that of the first file when it was loaded, if it was: it can have grown since.
    None if one of the files cannot be read.
    """
    first = Path(path)
    files = [*(parts_of(first) or [first]), *map(Path, others)]
    try:
        with open_regular(first) as file:
            geometry = geometry_of(read_summary(file))
        now, *sizes = (file.stat().st_size for file in files)
    except (OSError, NotGGUF):
        return None
    return Footprint(geometry, (now if loaded_size is None else loaded_size) + sum(sizes))


def context_bytes(geometry: Geometry, setting: Setting) -> int:
    """The KV cache, and the states of layers that keep one instead (llama-kv-cache.cpp,
    llama-memory-recurrent.cpp)."""
    if not geometry.cached:
        return 0
    numbers = geometry.kv_width * _cells(setting.context_size)
    numbers += geometry.window_kv_width * _window_cells(geometry, setting)
    return _cache_bytes(numbers, setting) + geometry.state_width * SLOTS * _FLOAT_BYTES


def _cache_bytes(numbers: int, setting: Setting) -> int:
    block_numbers, block_bytes = BLOCKS[TensorType[setting.cache_type.upper()]]
    return int(numbers * block_bytes / block_numbers)


def compute_bytes(geometry: Geometry, setting: Setting) -> int:
    """The intermediate results of a batch of tokens in a layer, and the mask that says which
    tokens each of them sees.

    Without flash attention they include every head's scores for the whole context.
    """
    seen = _cells(setting.context_size) if geometry.kv_width else 0
    seen += _window_cells(geometry, setting) if geometry.window_kv_width else 0
    passed = 5 * geometry.width
    widest = max(3 * geometry.hidden_width, 2 * geometry.query_width)
    if setting.flash_attention:
        return setting.batch * (_FLOAT_BYTES * (passed + widest) + _HALF_BYTES * seen)
    scores = 2 * geometry.query_width + geometry.heads * _cells(setting.context_size)
    return setting.batch * _FLOAT_BYTES * (passed + max(widest, scores) + seen)


def _cells(tokens: int) -> int:
    return -(-tokens // CACHE_STEP_TOKENS) * CACHE_STEP_TOKENS


def _window_cells(geometry: Geometry, setting: Setting) -> int:
    """Enough for the windows of all conversations and a batch (llama-kv-cache-iswa.cpp)."""
    most = geometry.window * SLOTS + setting.batch
    return _cells(min(_cells(setting.context_size), most))
