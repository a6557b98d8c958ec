"""Measures how fast this machine multiplies weights of each type: a program.

    LIBRARY SECONDS

Prints JSON: `reads` has bytes a second by the name of a tensor type, `step` the seconds of a small
operation. With ggml's functions in LIBRARY, it computes what the engine computes for a token: a
matrix of 128 MiB times a vector, in as many threads and in the same arrangement of the weights. If
LIBRARY lacks them, it searches memory for a byte instead, and `reads` has one figure, at "".

Runs in a process of its own, because wrong bytes make a library crash: `bandwidth` starts it, and
keeps what it prints. Imports only the standard library and `gguf`.
Source: ggml.h, ggml-backend.h and ggml-cpu.h of llama.cpp b11549.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llm_localrun.gguf.tensor_types import TensorType

_BYTES = 128 * 2**20
"""More than processors cache."""
_SCRATCH_BYTES = 16 * 2**20
"""For the vectors."""
_TILE_BYTES = 2**16
"""What is repeated in the weights. ggml looks up the scales of blocks in a table: equal weights
would be multiplied 1.5 times as fast as a model's, and those of this size are as fast."""
_WIDTH, _ROWS = 2048, 64
"""Weights in a row, and what the number of rows is a multiple of."""
_SMALL_WIDTH, _SMALL_ROWS, _SMALL_COUNT = 256, 32, 200
_MAX_ROUNDS = 3
_REARRANGED = b"CPU_REPACK"
"""The arrangement of weights that ggml prefers for some types."""
# The usual ones first: on a slow machine there is no time for all.
_TYPES = (
    *(TensorType.Q4_K, TensorType.Q6_K, TensorType.Q8_0, TensorType.F16, TensorType.MXFP4),
    *(TensorType.Q5_K, TensorType.Q4_0, TensorType.Q5_0, TensorType.BF16, TensorType.IQ4_XS),
    *(TensorType.Q4_1, TensorType.Q3_K, TensorType.Q2_K, TensorType.IQ4_NL, TensorType.IQ3_S),
)
_SEARCH_SHARE = 0.7
"""Multiplying reads weights at this share of the speed of a search: 0.5 to 1.3 by their type on a
machine with two cores (EPYC 9004)."""
_USUAL_STEP_S = 1.5e-6

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
    """ggml's functions in `library`. Raises OSError and AttributeError if it lacks them."""

    def __init__(self, library: str) -> None:
        loaded = ctypes.CDLL(library)
        self._call = {name: getattr(loaded, name) for name in _FUNCTIONS}
        for name, (result, *arguments) in _FUNCTIONS.items():
            self._call[name].restype, self._call[name].argtypes = result, arguments
        self._backend = self("backend_cpu_init")
        counts = (getattr(loaded, name, None) for name in _THREAD_COUNTS)
        count = next(filter(None, counts), os.cpu_count)()
        self("backend_cpu_set_n_threads", self._backend, count or 1)
        kind = self._rearranged() or self("backend_cpu_buffer_type")
        size = _BYTES + _SCRATCH_BYTES
        self._arranged = self("backend_buft_alloc_buffer", kind, size)
        self._base: int = self("backend_buffer_get_base", self._arranged)
        self._plain = self("backend_cpu_buffer_from_ptr", self._base, size)
        tile = os.urandom(_TILE_BYTES)
        for at in range(0, _BYTES, _TILE_BYTES):
            ctypes.memmove(self._base + at, tile, _TILE_BYTES)
        ctypes.memset(self._base + _BYTES, 0, _SCRATCH_BYTES)

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
        width, rows = shape
        matrix = self("new_tensor_2d", context, kind, width, rows)
        self("backend_tensor_alloc", buffer, matrix, self._base)
        vector = self("new_tensor_2d", context, TensorType.F32, width, 1)
        self("backend_tensor_alloc", self._plain, vector, self._base + _BYTES)
        product: int = self("mul_mat", context, matrix, vector)
        result_at = self._base + _BYTES + _SCRATCH_BYTES // 2
        self("backend_tensor_alloc", self._plain, product, result_at)
        return product


def measure(library: str, seconds: float) -> dict[str, Any]:
    """What this program prints. It takes little more than `seconds`."""
    ends_at = time.perf_counter() + seconds
    try:
        ggml = _Ggml(library)
    except (OSError, AttributeError):
        return {"reads": {"": _SEARCH_SHARE * _search_speed()}, "step": _USUAL_STEP_S}
    step = _fastest(ggml.products(TensorType.F16, _SMALL_WIDTH, _SMALL_ROWS, _SMALL_COUNT), 4)
    best: dict[str, float] = {}
    for kind in _TYPES * _MAX_ROUNDS:
        weights, size = kind.block
        row_bytes = _WIDTH // weights * size
        rows = _BYTES // row_bytes // _ROWS * _ROWS
        taken = _fastest(ggml.products(kind, _WIDTH, rows, 1))
        best[kind.name] = max(best.get(kind.name, 0), rows * row_bytes / taken)
        if time.perf_counter() > ends_at:
            break
    return {"reads": best, "step": step / _SMALL_COUNT}


def _fastest(work: Callable[[], object], tries: int = 1) -> float:
    """The seconds of the fastest try: other processes make the others slower."""
    times = []
    for _ in range(tries):
        began_at = time.perf_counter()
        work()
        times.append(time.perf_counter() - began_at)
    return min(times)


def _search_speed() -> float:
    """Bytes a second of searching memory, in a thread for each processor."""
    library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    search = library.memchr
    search.restype, search.argtypes = _POINTER, (_POINTER, _NUMBER, _SIZE)
    memory = ctypes.create_string_buffer(_BYTES)
    start = ctypes.memset(memory, 1, _BYTES)
    count = os.cpu_count() or 1
    size = _BYTES // count
    with ThreadPoolExecutor(count) as pool:

        def search_all() -> None:
            list(pool.map(lambda at: search(start + at * size, 2, size), range(count)))

        return size * count / _fastest(search_all, 4)


def main() -> None:
    json.dump(measure(sys.argv[1], float(sys.argv[2])), sys.stdout)
