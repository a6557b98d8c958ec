"""Measures how fast this machine multiplies weights of each type: a program.

    LIBRARY SECONDS [busy]

Prints JSON: `reads` has bytes a second by the name of a tensor type, `step` the seconds of a small
operation, `worked` the share of the time for which the threads worked. With ggml's functions in
LIBRARY, it computes what the engine computes for a token: a matrix of 128 MiB times a vector, in as
many threads and in the same arrangement of the weights. If LIBRARY lacks them, it searches memory
for a byte instead, and `reads` has one figure, at "". On a busy machine it counts the time that the
threads work, not that for which they wait; a search says nothing there, so it prints null.

Runs in a process of its own, because wrong bytes make a library crash: `bandwidth` starts it, and
keeps what it prints. Imports only the standard library and `gguf`.
Source: ggml.h, ggml-backend.h and ggml-cpu.h of llama.cpp b11549.
"""

import ctypes
import json
import os
import random
import statistics
import struct
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

from llm_localrun.gguf.tensor_types import TensorType

_BYTES, _BUSY_BYTES = 128 * 2**20, 64 * 2**20
"""Of a matrix; more than processors cache. A busy machine has time for less."""
_SCRATCH_BYTES = 16 * 2**20
"""For the vectors."""
_TILE_NUMBERS = 2**13
"""Numbers that are repeated in the matrix. ggml looks up the scale of a block in a table, so the
speed depends on how the scales spread: equal ones are up to 1.3 times as fast as these, random
bytes 0.7 to 1.1 times. These spread log-normally (sigma 0.5), and are 0.9 to 1.1 times as fast as
real weights of Q8_0, Q4_1, Q5_0, Q6_K and F16 (in small pages)."""
_WIDTH, _ROWS = 2048, 64
"""Weights in a row, and what the number of rows is a multiple of."""
_SMALL_WIDTH, _SMALL_ROWS, _SMALL_COUNT = 256, 32, 50
_SMALL_TRIES = 5
_MAX_ROUNDS = 3
_USUAL_COUNT = 8
_REARRANGED = b"CPU_REPACK"
"""The arrangement of weights that ggml prefers for some types."""
# The usual ones first: on a slow machine there is time only for these.
_TYPES = (
    *(TensorType.F16, TensorType.Q4_K, TensorType.Q6_K, TensorType.Q8_0, TensorType.MXFP4),
    *(TensorType.Q5_K, TensorType.Q4_0, TensorType.Q5_0, TensorType.BF16, TensorType.IQ4_XS),
    *(TensorType.Q4_1, TensorType.Q3_K, TensorType.Q2_K, TensorType.IQ4_NL, TensorType.IQ3_S),
)
_SEARCH_SHARE = 0.7
"""Multiplying reads weights at this share of the speed of a search: 0.5 to 1.3 by their type on a
machine with two cores (EPYC 9004)."""
_SEARCHES = 4
_MEMORY_GAIN = 1.5
"""How much faster all threads read memory than one does on a busy machine: 1.3 on that one, idle,
and the others take some."""


class _HugePages(Enum):
    """For what memory the system uses huge pages."""

    NONE = "never"
    ADVISED = "madvise"
    ALL = "always"


_SHARES = {_HugePages.NONE: 1.0, _HugePages.ADVISED: 0.72, _HugePages.ALL: 1.0}
"""A model reads weights at this share of the speed of the matrix, which lies in huge pages if there
are any: the speed of small ones depends on where the system finds them, by a factor of 1.5 from
process to process. Where programs have to ask for huge pages, weights lie in pages of 4 KiB: eight
models read them at 0.6 to 0.75 of the speed that huge ones allow (EPYC 9004)."""
_HUGE_PAGE_BYTES, _MADV_HUGEPAGE = 2**21, 14
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_USUAL_STEP_S = 1e-6
"""For two threads; on a busy machine they sleep while they wait for each other."""

_POINTER, _NUMBER, _SIZE, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_int64


class _Parameters(ctypes.Structure):
    """`ggml_init_params`."""

    _fields_ = (("size", _SIZE), ("memory", _POINTER), ("no_alloc", ctypes.c_bool))


_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "ggml_init": (_POINTER, _Parameters),
    "ggml_new_tensor_2d": (_POINTER, _POINTER, _NUMBER, _LONG, _LONG),
    "ggml_mul_mat": (_POINTER, _POINTER, _POINTER, _POINTER),
    "ggml_new_graph": (_POINTER, _POINTER),
    "ggml_build_forward_expand": (None, _POINTER, _POINTER),
    "ggml_backend_cpu_init": (_POINTER,),
    "ggml_backend_cpu_reg": (_POINTER,),
    "ggml_backend_cpu_set_n_threads": (None, _POINTER, _NUMBER),
    "ggml_backend_cpu_buffer_type": (_POINTER,),
    "ggml_backend_cpu_buffer_from_ptr": (_POINTER, _POINTER, _SIZE),
    "ggml_backend_reg_dev_get": (_POINTER, _POINTER, _SIZE),
    "ggml_backend_reg_get_proc_address": (_POINTER, _POINTER, ctypes.c_char_p),
    "ggml_backend_buft_name": (ctypes.c_char_p, _POINTER),
    "ggml_backend_buft_alloc_buffer": (_POINTER, _POINTER, _SIZE),
    "ggml_backend_buffer_get_base": (_POINTER, _POINTER),
    "ggml_backend_tensor_alloc": (_NUMBER, _POINTER, _POINTER, _POINTER),
    "ggml_backend_supports_op": (ctypes.c_bool, _POINTER, _POINTER),
    "ggml_backend_graph_compute": (_NUMBER, _POINTER, _POINTER),
}
_THREAD_COUNTS = ("_Z23common_cpu_get_num_mathv", "_Z16cpu_get_num_mathv")
"""The function of llama.cpp that says in how many threads it computes, by its C++ name."""


class _Ggml:
    """ggml's functions in `library`, and memory for a matrix of `size` bytes.

    Raises OSError and AttributeError if it lacks them.
    """

    def __init__(self, library: str, size: int) -> None:
        loaded = ctypes.CDLL(library)
        self._call = {name: getattr(loaded, name) for name in _FUNCTIONS}
        for name, (result, *arguments) in _FUNCTIONS.items():
            self._call[name].restype, self._call[name].argtypes = result, arguments
        self._backend = self("backend_cpu_init")
        counts = (getattr(loaded, name, None) for name in _THREAD_COUNTS)
        self.threads = next(filter(None, counts), usable_cores)() or 1
        self("backend_cpu_set_n_threads", self._backend, self.threads)
        kind = self._rearranged() or self("backend_cpu_buffer_type")
        self.size = size
        self._arranged = self("backend_buft_alloc_buffer", kind, size + _SCRATCH_BYTES)
        self._matrix: int = self("backend_buffer_get_base", self._arranged)
        self._vector = self._matrix + size
        self._result = self._vector + _SCRATCH_BYTES // 2
        self._plain = self("backend_cpu_buffer_from_ptr", self._matrix, size + _SCRATCH_BYTES)
        self.share = _SHARES[_use_huge_pages(self._matrix, size)]
        numbers = (0.001 * random.lognormvariate(0, 0.5) for _ in range(_TILE_NUMBERS))
        tile = struct.pack(f"<{_TILE_NUMBERS}e", *numbers)
        for at in range(0, size, len(tile)):
            ctypes.memmove(self._matrix + at, tile, len(tile))
        ctypes.memset(self._vector, 0, _SCRATCH_BYTES)

    def __call__(self, name: str, *arguments: Any) -> Any:
        return self._call[f"ggml_{name}"](*arguments)

    def _rearranged(self) -> int | None:
        """The kind of buffer that holds rearranged weights; None if there is none."""
        registry = self("backend_cpu_reg")
        name = b"ggml_backend_dev_get_extra_bufts"
        address = self("backend_reg_get_proc_address", registry, name)
        if not address:
            return None
        prototype = ctypes.CFUNCTYPE(ctypes.POINTER(_POINTER), _POINTER)
        kinds = prototype(address)(self("backend_reg_dev_get", registry, 0))
        at = 0
        while kinds and (kind := kinds[at]):
            if self("backend_buft_name", kind) == _REARRANGED:
                return int(kind)
            at += 1
        return None

    def products(self, kind: TensorType, width: int, rows: int, count: int) -> Callable[[], None]:
        """What multiplies `count` matrices of a type with vectors, one after the other."""
        context = self("init", _Parameters(2**21, None, True))
        for buffer in (self._arranged, self._plain):
            graph = self("new_graph", context)
            for _ in range(count):
                product = self._product(context, kind, (width, rows), buffer)
                self("build_forward_expand", graph, product)
            if self("backend_supports_op", self._backend, product):
                break
        return lambda: self("backend_graph_compute", self._backend, graph)

    def _product(self, context: int, kind: int, shape: tuple[int, int], buffer: int) -> int:
        matrix = self("new_tensor_2d", context, kind, *shape)
        vector = self("new_tensor_2d", context, TensorType.F32, shape[0], 1)
        self("backend_tensor_alloc", buffer, matrix, self._matrix)
        self("backend_tensor_alloc", self._plain, vector, self._vector)
        product: int = self("mul_mat", context, matrix, vector)
        self("backend_tensor_alloc", self._plain, product, self._result)
        return product


def _use_huge_pages(address: int, size: int) -> _HugePages:
    """Asks for huge pages for memory that was not written to yet. Says which memory has them."""
    try:
        text = _HUGE_PAGES.read_text()
        start = -(-address // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return _HugePages.NONE
    pages = next((each for each in _HugePages if f"[{each.value}]" in text), _HugePages.NONE)
    if pages is not _HugePages.ADVISED:
        return pages
    has_failed = advise(_POINTER(start), _SIZE(address + size - start), _MADV_HUGEPAGE)
    return _HugePages.NONE if has_failed else pages


def usable_cores() -> int:
    """The processors on which this process may run."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure(library: str, seconds: float, *, is_busy: bool) -> dict[str, Any] | None:
    """What this program prints. It takes little more than `seconds`."""
    ends_at = time.perf_counter() + seconds
    try:
        ggml = _Ggml(library, _BUSY_BYTES if is_busy else _BYTES)
    except (OSError, AttributeError):
        # Searching is measured by the wall clock.
        return None if is_busy else _searched()
    # Other processes make the wall clock's figures too low, and a virtual machine the
    # processor time's too high.
    better = min if is_busy else max
    best: dict[str, float] = {}
    shares = []
    step = _USUAL_STEP_S if is_busy else _step_of(ggml)
    for kind in (*_TYPES, *_TYPES[:_USUAL_COUNT] * _MAX_ROUNDS):
        speed, worked = _speed_of(ggml, kind, is_busy=is_busy)
        best[kind.name] = better(best.get(kind.name, speed), speed)
        shares.append(worked)
        if not is_busy:
            step = min(step, _step_of(ggml))
        if len(best) >= _USUAL_COUNT and time.perf_counter() > ends_at:
            break
    if is_busy:
        # Threads that work one after the other do not share the memory's speed as they would.
        limit = best[TensorType.F16.name] / ggml.threads * min(ggml.threads, _MEMORY_GAIN)
        best = {name: min(speed, limit) for name, speed in best.items()}
    reads = {name: speed * ggml.share for name, speed in best.items()}
    return {"reads": reads, "step": step, "worked": statistics.fmean(shares)}


def _speed_of(ggml: _Ggml, kind: TensorType, *, is_busy: bool) -> tuple[float, float]:
    """Bytes a second of a large matrix of a type, and the share of the time for which the threads
    worked."""
    weights, size = kind.block
    row_bytes = _WIDTH // weights * size
    rows = ggml.size // row_bytes // _ROWS * _ROWS
    taken, worked = _taken(ggml.products(kind, _WIDTH, rows, 1), ggml.threads)
    return rows * row_bytes / (worked if is_busy else taken), worked / taken


def _step_of(ggml: _Ggml) -> float:
    work = ggml.products(TensorType.F16, _SMALL_WIDTH, _SMALL_ROWS, _SMALL_COUNT)
    # The fastest: other processes make some slower.
    return min(_taken(work, ggml.threads)[0] for _ in range(_SMALL_TRIES)) / _SMALL_COUNT


def _taken(work: Callable[[], object], threads: int) -> tuple[float, float]:
    """The seconds that it takes, and those for which each of `threads` works."""
    began_at, before = time.perf_counter(), time.process_time()
    work()
    worked = time.process_time() - before
    return time.perf_counter() - began_at, worked / threads


def _searched() -> dict[str, Any]:
    """What is printed of searching memory, in a thread for each processor."""
    library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    search = library.memchr
    search.restype, search.argtypes = _POINTER, (_POINTER, _NUMBER, _SIZE)
    memory = ctypes.create_string_buffer(_BYTES)
    start = ctypes.memset(memory, 1, _BYTES)
    count = usable_cores()
    size = _BYTES // count
    with ThreadPoolExecutor(count) as pool:

        def search_all() -> None:
            list(pool.map(lambda at: search(start + at * size, 2, size), range(count)))

        found = [_taken(search_all, count) for _ in range(_SEARCHES)]
    speed = size * count / min(taken for taken, _ in found)
    worked = max(worked / taken for taken, worked in found)
    return {"reads": {"": _SEARCH_SHARE * speed}, "step": _USUAL_STEP_S, "worked": worked}


def main() -> None:
    library, seconds, *flags = sys.argv[1:]
    json.dump(measure(library, float(seconds), is_busy=bool(flags)), sys.stdout)
