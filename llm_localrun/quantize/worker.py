"""A quantizer with llama-quantize's command line, made of the functions that ggml exports.

    LIBRARY [--imatrix FILE] SOURCE TARGET TYPE THREADS

Runs in a process of its own and imports no llm. It reads and writes a few rows at a time, so that
a model may be larger than memory. For each tensor it prints a line as llama-quantize does, and
`error: …` at last if it fails.
"""

import argparse
import ctypes
import itertools
import math
import signal
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from llm_localrun.gguf.files import parts_of
from llm_localrun.gguf.header import BLOCKS, Header, NotGGUF, Tensor, read_header
from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.quantize.layout import Layout, lay_out, number_pair
from llm_localrun.quantize.recipes import EMBEDDINGS, MIXES, in_order, shape_of, types_for

_WEIGHTS_AT_ONCE = 2**20
_QUANTIZATION_VERSION = 2
"""ggml.h's GGML_QNT_VERSION, which has not changed since 2023."""
_DEFAULT_ALIGNMENT = 32
_SUM, _COUNT = ".in_sum2", ".counts"

_Floats: TypeAlias = Any
"""A C array: ctypes makes a type of its own for each length."""


class _Failed(Exception):
    """Says why, in half a sentence."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a tensor as they lie in its file; `importance` is a number for each column."""

    data: bytes
    type: int
    width: int
    count: int
    importance: _Floats | None


class _Ggml:
    """The functions of ggml that it takes."""

    def __init__(self, library: str) -> None:
        try:
            self._library = ctypes.CDLL(library)
            self._quantize = self._library.ggml_quantize_chunk
            self._is_valid = self._library.ggml_validate_row_data
        except (OSError, AttributeError) as error:
            raise _Failed(f"{library} cannot be used: {error}") from None
        number, size, pointer = ctypes.c_int64, ctypes.c_size_t, ctypes.c_void_p
        self._quantize.restype = size
        self._quantize.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
        self._is_valid.restype = ctypes.c_bool
        self._is_valid.argtypes = [ctypes.c_int, pointer, size]

    def convert(self, rows: _Rows, to: int) -> bytes:
        """`rows` in the type `to`. Raises `_Failed`."""
        if rows.type == to:
            return rows.data
        weights, size = BLOCKS[to]
        made = ctypes.create_string_buffer(rows.count * rows.width // weights * size)
        floats = self._floats(rows)
        self._quantize(to, floats, made, 0, rows.count, rows.width, rows.importance)
        if not self._is_valid(to, made, len(made)):
            raise _Failed("it holds weights that are no numbers")
        return made.raw

    def _floats(self, rows: _Rows) -> _Floats:
        if rows.type == TensorType.F32:
            return rows.data
        floats = (ctypes.c_float * (rows.count * rows.width))()
        read = getattr(self._library, _reader(rows.type))
        read.restype = None
        read(rows.data, floats, ctypes.c_int64(len(floats)))
        return floats


def _reader(number: int) -> str:
    """What ggml calls the function that makes floats of a type."""
    names = {TensorType.F16: "ggml_fp16_to_fp32_row", TensorType.BF16: "ggml_bf16_to_fp32_row"}
    kind = TensorType(number)
    return names.get(kind) or f"dequantize_row_{kind.name.lower().replace('_k', '_K')}"


def main() -> None:
    # Ctrl-C is for whoever started this, who will end it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _quantize(_arguments())
    except (_Failed, NotGGUF, OSError) as error:
        _say(f"error: {error}")
        sys.exit(1)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("type", choices=MIXES)
    parser.add_argument("threads", type=int)
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the files that hold the source."""

    file: BinaryIO
    header: Header

    def pairs(self, anew: Mapping[str, int]) -> Iterator[bytes]:
        """Its keys with their values as they are, but for those that are set `anew`."""
        for key, (begin, end) in self.header.spans.items():
            if key in anew:
                yield number_pair(key, anew[key])
            elif not key.startswith("split."):
                self.file.seek(begin)
                yield self.file.read(end - begin)
        for key in anew.keys() - self.header.spans.keys():
            yield number_pair(key, anew[key])

    def rows(self, tensor: Tensor, importance: Sequence[float] | None) -> Iterator[_Rows]:
        """The rows of a tensor, some at a time: each matrix has an importance of its own."""
        width, height, *others = *tensor.shape, 1, 1
        weights, size = BLOCKS[tensor.type]
        row_size = width // weights * size
        at_once = max(1, _WEIGHTS_AT_ONCE // width)
        self.file.seek(self.header.data_start + tensor.offset)
        for matrix in range(math.prod(others)):
            of_matrix = _of_matrix(importance, matrix, width)
            for first in range(0, height, at_once):
                count = min(at_once, height - first)
                data = self.file.read(count * row_size)
                yield _Rows(data, tensor.type, width, count, of_matrix)


def _of_matrix(importance: Sequence[float] | None, matrix: int, width: int) -> _Floats | None:
    if importance is None:
        return None
    return (ctypes.c_float * width)(*importance[matrix * width : (matrix + 1) * width])


def _quantize(arguments: argparse.Namespace) -> None:
    ggml = _Ggml(arguments.library)
    importance = _read_importance(arguments.imatrix) if arguments.imatrix else {}
    with ExitStack() as held:
        parts = [_open(path, held) for path in parts_of(arguments.source)]
        sources = {tensor.name: (part, tensor) for part in parts for tensor in part.header.tensors}
        layout = _lay_out(parts, arguments.type, has_importance=bool(importance))
        pool = held.enter_context(ThreadPoolExecutor(arguments.threads))
        target = held.enter_context(arguments.target.open("wb"))
        target.write(layout.head)
        for number, tensor in enumerate(layout.tensors, 1):
            part, source = sources[tensor.name]
            rows = part.rows(source, _checked(importance.get(tensor.name), source))
            target.seek(len(layout.head) + tensor.offset)
            for some in _batches(rows, arguments.threads):
                target.writelines(pool.map(ggml.convert, some, itertools.repeat(tensor.type)))
            _say(f"[{number:4}/{len(layout.tensors):4}] {tensor.name}")
        target.truncate(layout.size)


def _open(path: Path, held: ExitStack) -> _Part:
    file = held.enter_context(path.open("rb"))
    return _Part(file, read_header(file, path.stat().st_size))


def _lay_out(parts: Sequence[_Part], quantization: str, *, has_importance: bool) -> Layout:
    first = parts[0].header
    tensors = in_order(tensor for part in parts for tensor in part.header.tensors)
    types = types_for(quantization, tensors, shape_of(first), has_importance=has_importance)
    anew = {
        "general.file_type": MIXES[quantization].file_type,
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    return lay_out(
        list(parts[0].pairs(anew)),
        (replace(tensor, type=types[tensor.name]) for tensor in tensors),
        first.number("general.alignment") or _DEFAULT_ALIGNMENT,
    )


def _batches(rows: Iterator[_Rows], count: int) -> Iterator[list[_Rows]]:
    """So many at a time as there are threads: more would only fill the memory."""
    while some := list(itertools.islice(rows, count)):
        yield some


# Importance matrices: llama.cpp's tools/imatrix/README.md.


def _read_importance(path: Path) -> dict[str, Sequence[float]]:
    """For each column of a tensor, the mean square of what it is multiplied with.

    Tensors of several matrices, as experts have, have them one after the other.
    """
    try:
        with path.open("rb") as file:
            header = read_header(file, path.stat().st_size)
            found = {tensor.name: _numbers(file, header, tensor) for tensor in header.tensors}
        sums = [name for name in found if name.endswith(_SUM)]
        means = {
            name.removesuffix(_SUM): _means(found[name], found[name.removesuffix(_SUM) + _COUNT])
            for name in sums
        }
    except (NotGGUF, KeyError, ValueError, ZeroDivisionError) as error:
        raise _Failed(f"{path} is no importance matrix in a GGUF file: {error}") from None
    if not means:
        raise _Failed(f"{path} holds no importance matrix")
    return means


def _numbers(file: BinaryIO, header: Header, tensor: Tensor) -> Sequence[float]:
    file.seek(header.data_start + tensor.offset)
    return array("f", file.read(4 * tensor.weights))


def _means(sums: Sequence[float], counts: Sequence[float]) -> Sequence[float]:
    """`sums` have a count for each matrix; one of which nothing was counted weighs all alike."""
    width = len(sums) // len(counts)
    pairs = zip(sums, (count for count in counts for _ in range(width)), strict=True)
    return array("f", (total / count if count > 0 else 1.0 for total, count in pairs))


def _checked(importance: Sequence[float] | None, tensor: Tensor) -> Sequence[float] | None:
    """As llama.cpp does, the embeddings, which are only looked up, go without."""
    width, _, *others = *tensor.shape, 1, 1
    if importance is None or len(importance) == width * math.prod(others):
        return importance
    if tensor.name in EMBEDDINGS:
        return None
    raise _Failed(f"the importance matrix is another model's: {tensor.name} has another width")
