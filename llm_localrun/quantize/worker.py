"""A quantizer with llama-quantize's command line, which calls ggml's functions in a library.

    LIBRARY [--imatrix FILE] SOURCE TARGET TYPE THREADS

Runs in a process of its own, which imports the standard library, `gguf` and `quantize` only. It
reads and writes a few rows at a time, so that a model may be larger than memory. For each tensor it
prints a line like llama-quantize's, and `error: …` as the last line if it fails. The type of each
tensor is chosen in `recipes`, its place in the file in `layout`.
"""

import argparse
import ctypes
import itertools
import math
import os
import signal
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from llm_localrun.gguf.files import parts_of
from llm_localrun.gguf.header import Header, NotGGUF, Tensor, read_header
from llm_localrun.gguf.tensor_types import BLOCKS, TensorType
from llm_localrun.quantize.layout import Layout, encode_number, lay_out
from llm_localrun.quantize.recipes import EMBEDDINGS, MIXES, in_order, shape_of, types_for
from llm_localrun.system.atomic import open_regular
from llm_localrun.system.text import printable

_MAX_BATCH_WEIGHTS = 2**20
_MAX_ROW_WEIGHTS = 2**24
"""Rows are read whole. Those of real models have fewer than 2**20 weights."""
_QUANTIZATION_VERSION = 2
"""GGML_QNT_VERSION in ggml.h; unchanged since 2023."""
_DEFAULT_ALIGNMENT = 32
_SUM_SUFFIX, _COUNT_SUFFIX = ".in_sum2", ".counts"

_Floats: TypeAlias = Any
"""A C array: ctypes makes a type of its own for each length."""


class _WorkerError(Exception):
    """The model cannot be quantized. Its text says why."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a tensor as in its file. `width` is in weights, `importance` a number per column."""

    data: bytes
    type: int
    width: int
    count: int
    importance: _Floats | None


class _Ggml:
    """ggml's functions in `library`. Raises `_WorkerError` if it lacks them."""

    def __init__(self, library: str) -> None:
        try:
            self._library = ctypes.CDLL(library)
            self._quantize = self._library.ggml_quantize_chunk
            self._is_valid = self._library.ggml_validate_row_data
        except (OSError, AttributeError) as error:
            raise _WorkerError(f"{library} cannot be used: {error}") from None
        number, size, pointer = ctypes.c_int64, ctypes.c_size_t, ctypes.c_void_p
        self._quantize.restype = size
        self._quantize.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
        self._is_valid.restype = ctypes.c_bool
        self._is_valid.argtypes = [ctypes.c_int, pointer, size]

    def convert(self, rows: _Rows, to: int) -> bytes:
        """`rows` in the type `to`. Raises `_WorkerError`."""
        if rows.type == to:
            return rows.data
        weights, size = BLOCKS[to]
        made = ctypes.create_string_buffer(rows.count * rows.width // weights * size)
        floats = self._floats(rows)
        self._quantize(to, floats, made, 0, rows.count, rows.width, rows.importance)
        if not self._is_valid(to, made, len(made)):
            raise _WorkerError("some of its weights are not finite numbers")
        return made.raw

    def _floats(self, rows: _Rows) -> _Floats:
        if rows.type == TensorType.F32:
            return rows.data
        floats = (ctypes.c_float * (rows.count * rows.width))()
        read = getattr(self._library, _dequantizer_name(rows.type))
        read.restype = None
        read(rows.data, floats, ctypes.c_int64(len(floats)))
        return floats


def _dequantizer_name(number: int) -> str:
    """The name of ggml's function that converts rows of a type to floats."""
    names = {TensorType.F16: "ggml_fp16_to_fp32_row", TensorType.BF16: "ggml_bf16_to_fp32_row"}
    kind = TensorType(number)
    return names.get(kind) or f"dequantize_row_{kind.name.lower().replace('_k', '_K')}"


def main() -> None:
    # On Ctrl-C, the parent process ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _quantize(_parse_arguments())
    except (_WorkerError, NotGGUF, OSError) as error:
        _print_line(f"error: {error}")
        sys.exit(1)


def _print_line(line: str) -> None:
    sys.stdout.write(f"{printable(line)}\n")
    sys.stdout.flush()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("type", choices=MIXES)
    parser.add_argument("threads", type=int)
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class _SourcePart:
    """A part of the source, opened."""

    file: BinaryIO
    header: Header

    def pairs(self, changes: Mapping[str, int]) -> Iterator[bytes]:
        """Its key-value pairs as bytes, with those in `changes` replaced or added."""
        for key, (begin, end) in self.header.spans.items():
            if key in changes:
                yield encode_number(key, changes[key])
            elif not key.startswith("split."):
                self.file.seek(begin)
                yield self.file.read(end - begin)
        for key in changes.keys() - self.header.spans.keys():
            yield encode_number(key, changes[key])

    def rows(self, tensor: Tensor, importance: Sequence[float] | None) -> Iterator[_Rows]:
        """The rows of a tensor in batches. Each of its matrices has its own importance."""
        width, height, *others = *tensor.shape, 1, 1
        weights, size = BLOCKS[tensor.type]
        row_size = width // weights * size
        batch = max(1, _MAX_BATCH_WEIGHTS // width)
        self.file.seek(self.header.data_start + tensor.offset)
        for matrix in range(math.prod(others)):
            columns = None
            if importance is not None:
                begin = matrix * width
                columns = (ctypes.c_float * width)(*importance[begin : begin + width])
            for first in range(0, height, batch):
                count = min(batch, height - first)
                data = self.file.read(count * row_size)
                yield _Rows(data, tensor.type, width, count, columns)


def _quantize(arguments: argparse.Namespace) -> None:
    ggml = _Ggml(arguments.library)
    with ExitStack() as stack:
        parts = [_open_part(path, stack) for path in parts_of(arguments.source)]
        sources = {tensor.name: (part, tensor) for part in parts for tensor in part.header.tensors}
        matrix: Path | None = arguments.imatrix
        tensors = [tensor for _, tensor in sources.values()]
        importance = _read_importance(matrix, tensors) if matrix else {}
        layout = _lay_out(parts, arguments.type, has_importance=matrix is not None)
        pool = stack.enter_context(ThreadPoolExecutor(arguments.threads))
        target = stack.enter_context(arguments.target.open("wb"))
        target.write(layout.head)
        for number, tensor in enumerate(layout.tensors, 1):
            part, source = sources[tensor.name]
            rows = part.rows(source, importance.get(tensor.name))
            target.seek(len(layout.head) + tensor.offset)
            for group in _groups(rows, arguments.threads):
                target.writelines(pool.map(ggml.convert, group, itertools.repeat(tensor.type)))
            _print_line(f"[{number:4}/{len(layout.tensors):4}] {tensor.name}")
        target.truncate(layout.size)


def _open_part(path: Path, stack: ExitStack) -> _SourcePart:
    file = stack.enter_context(open_regular(path))
    header = read_header(file, os.fstat(file.fileno()).st_size)
    if any(tensor.shape and tensor.shape[0] > _MAX_ROW_WEIGHTS for tensor in header.tensors):
        raise _WorkerError(f"a row of its weights has more than {_MAX_ROW_WEIGHTS:,} numbers")
    return _SourcePart(file, header)


def _lay_out(parts: Sequence[_SourcePart], quantization: str, *, has_importance: bool) -> Layout:
    first = parts[0].header
    tensors = in_order(tensor for part in parts for tensor in part.header.tensors)
    types = types_for(quantization, tensors, shape_of(first), has_importance=has_importance)
    changes = {
        "general.file_type": MIXES[quantization].file_type,
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    return lay_out(
        list(parts[0].pairs(changes)),
        (replace(tensor, type=types[tensor.name]) for tensor in tensors),
        first.number("general.alignment") or _DEFAULT_ALIGNMENT,
    )


def _groups(rows: Iterator[_Rows], count: int) -> Iterator[list[_Rows]]:
    """Groups of `count` batches, one for each thread: more would only take memory."""
    while group := list(itertools.islice(rows, count)):
        yield group


# Importance matrices: llama.cpp's tools/imatrix/README.md.


def _read_importance(path: Path, sources: Iterable[Tensor]) -> dict[str, Sequence[float]]:
    """By tensor name: the mean square of each column's inputs, for those of `sources`.

    The columns of a tensor with several matrices, as experts have, follow one another. Only what
    has the size of a source is read.
    """
    try:
        with open_regular(path) as file:
            header = read_header(file, os.fstat(file.fileno()).st_size)
            entries = {tensor.name: tensor for tensor in header.tensors}
            if not any(name.endswith(_SUM_SUFFIX) for name in entries):
                raise _WorkerError(f"{path} contains no importance matrix")
            known = (each for each in sources if each.name + _SUM_SUFFIX in entries)
            return {
                tensor.name: _means(*(_floats_of(file, header, each) for each in pair))
                for tensor in known
                if (pair := _pair_for(tensor, entries))
            }
    except (NotGGUF, KeyError, ValueError, ZeroDivisionError) as error:
        raise _WorkerError(f"{path} is not an importance matrix in a GGUF file: {error}") from None
    except OSError as error:
        raise _WorkerError(f"{path} cannot be read: {error.strerror or error}") from None


def _pair_for(source: Tensor, entries: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The sums and the counts for `source`; () for embeddings, which are only looked up, if their
    size is another, as in llama.cpp.

    Raises `_WorkerError` if another tensor's size is.
    """
    sums, counts = (entries[source.name + suffix] for suffix in (_SUM_SUFFIX, _COUNT_SUFFIX))
    width, _, *others = *source.shape, 1, 1
    matrices = math.prod(others)
    if sums.weights == width * matrices and counts.weights <= matrices:
        return sums, counts
    if source.name in EMBEDDINGS:
        return ()
    raise _WorkerError(
        f"the importance matrix is for another model: {source.name} has a different size"
    )


def _floats_of(file: BinaryIO, header: Header, tensor: Tensor) -> Sequence[float]:
    file.seek(header.data_start + tensor.offset)
    return array("f", file.read(4 * tensor.weights))


def _means(sums: Sequence[float], counts: Sequence[float]) -> Sequence[float]:
    """The means for matrices with one count each; 1 for all columns of one without inputs."""
    width = len(sums) // len(counts)
    pairs = zip(sums, (count for count in counts for _ in range(width)), strict=True)
    return array("f", (total / count if count > 0 else 1.0 for total, count in pairs))
