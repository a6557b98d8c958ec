"""What a model needs of memory, in bytes: its weights, its context of any size, and what it
computes with.

Pure: from a model's geometry. The formulas are llama.cpp's (b11549), with the parameters that
`engine.parameters` has; the file of its `src/` that one was read in is named. The layout of the
compute buffer is a planner's work and not written down there: that formula was fitted to what the
planner allocates, which CONTRIBUTING.md has a table of. What the machine has is `machine`'s
business.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from llm_localrun.engine_defaults import BATCH_SIZE, SLOTS
from llm_localrun.gguf.files import part_stems
from llm_localrun.gguf.header import BLOCKS, Header, NotGGUF, read_header, read_summary
from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.memory.geometry import Geometry, geometry_of

# Beyond the weights: the KV cache at a small context, compute buffers, the rest of the system.
_OVERHEAD = 1.1
_REST_OF_SYSTEM = 2**30

PROCESS = 40 * 2**20
"""Bytes of the engine's process beside what it allocates for a model: Python, llama.cpp's code."""

MARGIN = 2**28
"""Bytes that are left free: for others, and for the prompts that an engine keeps later on."""

_STEP = 256
"""Caches have whole multiples of so many cells (llama-context.cpp, llama-kv-cache-iswa.cpp)."""
_FLOAT, _HALF = 4, 2


def fits(weights: int | None, memory: int | None) -> bool:
    """Whether a model of so many bytes can run in so much memory; True if either is unknown."""
    if weights is None or memory is None:
        return True
    return weights * _OVERHEAD + _REST_OF_SYSTEM <= memory


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is to be run, as far as that decides what it needs."""

    context_size: int
    cache_type: str = "f16"
    flash_attention: bool = True
    embedding: bool = False

    @property
    def batch(self) -> int:
        """Tokens that are evaluated at once; an input to be embedded is one batch."""
        return self.context_size if self.embedding else BATCH_SIZE


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a model needs in a setting: the KV cache and what else is kept is its context."""

    weights: int
    context: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.context + self.compute + PROCESS


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model needs in any setting; `weights` is bytes, of all the files that are loaded."""

    geometry: Geometry
    weights: int

    def need(self, setting: Setting) -> Need:
        """What it needs in `setting`."""
        context = context_bytes(self.geometry, setting)
        return Need(self.weights, context, compute_bytes(self.geometry, setting))

    def largest_context(self, memory: float, setting: Setting) -> int:
        """The largest context in tokens, up to that of `setting`, with which it fits into `memory`
        bytes; 0 if there is none. Smaller ones are multiples of 256."""
        if self.need(setting).total <= memory:
            return setting.context_size
        fitting, too_large = 0, -(-setting.context_size // _STEP)
        while too_large - fitting > 1:
            middle = (fitting + too_large) // 2
            tried = replace(setting, context_size=middle * _STEP)
            if self.need(tried).total <= memory:
                fitting = middle
            else:
                too_large = middle
        return fitting * _STEP


def gigabytes(size: float) -> str:
    """Bytes for people: 0.3 GB, 41.2 GB."""
    return f"{size / 1e9:.1f} GB"


def weight_bytes(header: Header) -> int | None:
    """The bytes of the tensors in a header's table; None if it has one of a type we do not know."""
    sizes = [tensor.size for tensor in header.tensors]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def bytes_per_token(geometry: Geometry, cache_type: str = "f16") -> float:
    """What each token of context takes in the KV cache, where no window bounds it."""
    return geometry.kept * _bytes_per_number(cache_type)


def context_bytes(geometry: Geometry, setting: Setting) -> int:
    """The KV cache, and the states of layers that keep one instead (llama-kv-cache.cpp,
    llama-memory-recurrent.cpp)."""
    if not geometry.is_cached:
        return 0
    numbers = geometry.kept * _cells(setting.context_size)
    numbers += geometry.kept_in_window * _cells_in_window(geometry, setting)
    states = geometry.state * SLOTS * _FLOAT
    return int(numbers * _bytes_per_number(setting.cache_type)) + states


def compute_bytes(geometry: Geometry, setting: Setting) -> int:
    """What a batch of tokens makes on its way through a layer, and which of them sees which.

    Without flash attention, every head's scores for all of the context are among it.
    """
    seen = _cells(setting.context_size) if geometry.kept else 0
    seen += _cells_in_window(geometry, setting) if geometry.kept_in_window else 0
    passed = 5 * geometry.width
    widest = max(3 * geometry.hidden, 2 * geometry.queries)
    if setting.flash_attention:
        return setting.batch * (_FLOAT * (passed + widest) + _HALF * seen)
    scores = 2 * geometry.queries + geometry.heads * _cells(setting.context_size)
    return setting.batch * _FLOAT * (passed + max(widest, scores) + seen)


def _bytes_per_number(cache_type: str) -> float:
    numbers, size = BLOCKS[TensorType[cache_type.upper()]]
    return size / numbers


def _cells(tokens: int) -> int:
    return -(-tokens // _STEP) * _STEP


def _cells_in_window(geometry: Geometry, setting: Setting) -> int:
    """As many as all conversations' windows take, and a batch (llama-kv-cache-iswa.cpp)."""
    most = geometry.window * SLOTS + setting.batch
    return _cells(min(_cells(setting.context_size), most))


def footprint_of(path: str, beside: Iterable[str] = ()) -> Footprint | None:
    """What the model in the file at `path` needs, by the tensor tables of all its parts.

    `beside` are files that are loaded with it. None if one cannot be read, or does not tell.
    """
    try:
        return _read(tuple((file, file.stat().st_mtime_ns) for file in _files(path, beside)))
    except (OSError, NotGGUF):
        return None


def bound_of(path: str, beside: Iterable[str] = ()) -> Footprint | None:
    """No less than what `footprint_of` says, by the sizes of files: in a hundredth of its time."""
    files = _files(path, beside)
    try:
        with files[0].open("rb") as file:
            geometry = geometry_of(read_summary(file))
        size = sum(file.stat().st_size for file in files)
    except (OSError, NotGGUF):
        return None
    return Footprint(geometry, size) if geometry else None


def _files(path: str, beside: Iterable[str]) -> list[Path]:
    first = Path(path)
    parts = [first.with_name(f"{stem}{first.suffix}") for stem in part_stems(first.stem)]
    return [*(parts or [first]), *map(Path, beside)]


@lru_cache(maxsize=8)
def _read(files: tuple[tuple[Path, int], ...]) -> Footprint | None:
    """Of files as they were at a time: reading their headers takes up to a tenth of a second."""
    headers = [_header(path) for path, _ in files]
    geometry = geometry_of(headers[0])
    sizes = [size for header in headers if (size := weight_bytes(header)) is not None]
    return Footprint(geometry, sum(sizes)) if geometry and len(sizes) == len(headers) else None


def _header(path: Path) -> Header:
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)
