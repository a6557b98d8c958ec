"""Reads the header of a GGUF file with `struct`, and nothing of its tensors' data.

Every length is bounded before it is believed: the file may be truncated or made to harm. Opening
the file is left to the caller. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from mmap import mmap
from typing import BinaryIO, TypeAlias

from llm_localrun.gguf.tensor_types import TensorType

Buffer: TypeAlias = bytes | mmap
Scalar: TypeAlias = int | float | bool | str
Value: TypeAlias = Scalar | tuple[int | float | bool, ...] | None
"""None stands for an array that was passed over: of strings, or a long one."""

MAGIC = b"GGUF"
_MAX_STRING = 16 * 2**20
_MAX_KEY = 2**16
_MAX_KEYS = 2**16
_MAX_TENSORS = 2**17
_MAX_STRINGS = 2**21
"""The largest vocabularies have a quarter of a million tokens, and twice as many merges."""
_MAX_KEPT_ARRAY = 4096
_MAX_SKIP = 2**40
_MAX_DIMENSIONS = 8
_DEFAULT_ALIGNMENT = 32
_FIRST_READ, _LARGEST_READ = 2**13, 2**18
"""Bytes; what a listing needs stands in the first two or three thousand."""
_FIRST_TENSOR = b"token_embd.weight"
"""Every model has it, and its name stands behind the metadata."""

_STRING, _ARRAY = 8, 9
_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}

# Tensor type: (weights in a block, bytes of a block), from ggml.c's type traits (b11549).
BLOCKS: Mapping[int, tuple[int, int]] = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q5_1: (32, 24),
    TensorType.Q8_0: (32, 34),
    TensorType.Q2_K: (256, 84),
    TensorType.Q3_K: (256, 110),
    TensorType.Q4_K: (256, 144),
    TensorType.Q5_K: (256, 176),
    TensorType.Q6_K: (256, 210),
    TensorType.IQ2_XXS: (256, 66),
    TensorType.IQ2_XS: (256, 74),
    TensorType.IQ3_XXS: (256, 98),
    TensorType.IQ1_S: (256, 50),
    TensorType.IQ4_NL: (32, 18),
    TensorType.IQ3_S: (256, 110),
    TensorType.IQ2_S: (256, 82),
    TensorType.IQ4_XS: (256, 136),
    TensorType.I8: (1, 1),
    TensorType.I16: (1, 2),
    TensorType.I32: (1, 4),
    TensorType.I64: (1, 8),
    TensorType.F64: (1, 8),
    TensorType.IQ1_M: (256, 56),
    TensorType.BF16: (1, 2),
    TensorType.TQ1_0: (256, 54),
    TensorType.TQ2_0: (256, 66),
    TensorType.MXFP4: (32, 17),
    TensorType.NVFP4: (64, 36),
    TensorType.Q1_0: (128, 18),
    TensorType.Q2_0: (64, 18),
}


class NotGGUF(ValueError):
    """The file is no usable GGUF file; the message says why, in half a sentence."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An entry of the tensor table; `size` is bytes, None for a type that we do not know."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int | None:
        block = BLOCKS.get(self.type)
        return None if block is None else self.weights // block[0] * block[1]


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata of a GGUF file, and its tensor table if that was asked for."""

    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...] = field(default=(), repr=False)
    rest_at: int | None = None
    """Where in the file the metadata begin that were not read; None if all were."""
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    """Where each key begins in the file, and where its value ends."""
    data_start: int = 0
    """Where the tensors' data begins: their offsets count from here."""
    is_big_endian: bool = False

    @property
    def architecture(self) -> str:
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def of_architecture(self, key: str) -> int | None:
        """The number at `<architecture>.<key>`."""
        return self.number(f"{self.architecture}.{key}")


def read_summary(file: BinaryIO) -> Header:
    """The metadata up to the vocabulary, which is long: enough to list a model.

    Raises `NotGGUF` and OSError.
    """
    reader = _Reader(file)
    metadata: dict[str, Value] = {}
    for _ in range(reader.key_count):
        key, kind = reader.string(_MAX_KEY), reader.kind()
        if kind == _ARRAY and reader.begins_vocabulary():
            return Header(metadata, rest_at=reader.position)
        metadata[key] = _read_value(reader, kind)
    return Header(metadata)


def read_header(file: BinaryIO, file_size: int) -> Header:
    """All metadata and the tensor table, checked against `file_size` in bytes.

    Raises `NotGGUF` and OSError.
    """
    reader = _Reader(file)
    metadata = {}
    spans = {}
    for _ in range(reader.key_count):
        begin = reader.position
        key, kind = reader.string(_MAX_KEY), reader.kind()
        metadata[key] = _read_value(reader, kind)
        spans[key] = (begin, reader.position)
    tensors = tuple(_read_tensor(reader) for _ in range(reader.tensor_count))
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise NotGGUF("its alignment is not a number")
    start = -(-reader.position // alignment) * alignment
    end = start + max((t.offset + (t.size or 0) for t in tensors), default=0)
    if end > file_size:
        raise NotGGUF(f"it is cut off: {file_size:,} bytes of at least {end:,}")
    return Header(
        metadata, tensors, spans=spans, data_start=start, is_big_endian=reader.order == ">"
    )


def find_text(head: Buffer, key: str, start: int, end: int) -> str:
    """The text at `key` among the metadata from `start` to `end` in `head`; "" if there is none.

    For a key that stands behind the vocabulary: found by its bytes, length and type included, in a
    hundredth of the time that reading up to it takes.
    """
    name = key.encode()
    pattern = struct.pack("<Q", len(name)) + name + struct.pack("<I", _STRING)
    tensors = head.find(_FIRST_TENSOR, start, end)
    at = head.find(pattern, start, end if tensors < 0 else tensors)
    text_at = at + len(pattern) + 8
    if at < 0 or text_at > end:
        return ""
    (length,) = struct.unpack("<Q", head[text_at - 8 : text_at])
    if length > _MAX_STRING:
        return ""
    return head[text_at : text_at + length].decode("utf-8", "replace")


class _Reader:
    """Bounded reads from the beginning of a file, a window of which is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._window = file.read(_FIRST_READ)
        self._window_at = 0
        self._next = 0
        self._read_size = _FIRST_READ
        self.order = "<"
        if not self._window:
            raise NotGGUF("it is empty")
        if self._window[:4] != MAGIC:
            raise NotGGUF("it does not begin with GGUF")
        self._next = 4
        version = self.unpack("I")
        if version not in (2, 3):
            swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
            if swapped not in (2, 3):
                raise NotGGUF(f"its version is {version}; 2 and 3 are known")
            self.order = ">"
        self._kind_in = struct.Struct(f"{self.order}I").unpack_from
        self._length_in = struct.Struct(f"{self.order}Q").unpack_from
        self.tensor_count = self.count(_MAX_TENSORS, "tensors")
        self.key_count = self.count(_MAX_KEYS, "keys")

    @property
    def position(self) -> int:
        return self._window_at + self._next

    def _take(self, size: int) -> int:
        """Where in the window the next `size` bytes stand; they are passed."""
        if self._next + size > len(self._window):
            self._refill(size)
        start = self._next
        self._next += size
        return start

    def _refill(self, size: int) -> None:
        """Moves the window on, so that at least the next `size` bytes are in it."""
        self._read_size = min(2 * self._read_size, _LARGEST_READ)
        rest = self._window[self._next :]
        self._window_at += self._next
        self._window = rest + self._file.read(max(size - len(rest), self._read_size))
        self._next = 0
        if len(self._window) < size:
            raise NotGGUF("it ends in the middle of its header")

    def skip(self, size: int) -> None:
        if size > _MAX_SKIP:
            raise NotGGUF(f"an array of {size:,} bytes stands in its header")
        if self._next + size <= len(self._window):
            self._next += size
            return
        # Seeking past the end would succeed, so the last byte is read.
        last = self.position + size - 1
        self._file.seek(last)
        self._window, self._window_at, self._next = b"", last, 0
        self._take(1)

    def skip_strings(self, count: int) -> None:
        for _ in range(count):
            self.skip(self.length())

    def begins_vocabulary(self) -> bool:
        """Whether a long array of strings comes next; nothing is passed."""
        start = self._next = self._take(12)
        (kind,) = self._kind_in(self._window, start)
        (count,) = self._length_in(self._window, start + 4)
        return bool(kind == _STRING and _MAX_KEPT_ARRAY < count <= _MAX_STRINGS)

    def unpack(self, code: str) -> int | float | bool:
        return self.unpack_many(code, 1)[0]

    def unpack_many(self, code: str, count: int) -> tuple[int | float | bool, ...]:
        fmt = f"{self.order}{count}{code}"
        start = self._take(struct.calcsize(fmt))
        return struct.unpack_from(fmt, self._window, start)

    def kind(self) -> int:
        start = self._take(4)
        kind: int = self._kind_in(self._window, start)[0]
        return kind

    def length(self, limit: int = _MAX_STRING) -> int:
        start = self._take(8)
        length: int = self._length_in(self._window, start)[0]
        if length > limit:
            raise NotGGUF(f"a length of {length:,} stands in its header")
        return length

    def count(self, limit: int, of: str) -> int:
        count = int(self.unpack("Q"))
        if count > limit:
            raise NotGGUF(f"its header speaks of {count:,} {of}")
        return count

    def string(self, limit: int = _MAX_STRING) -> str:
        start = self._take(self.length(limit))
        return self._window[start : self._next].decode("utf-8", "replace")


def _read_value(reader: _Reader, kind: int) -> Value:
    if kind == _STRING:
        return reader.string()
    if kind == _ARRAY:
        return _read_array(reader)
    return reader.unpack(_format(kind))


def _read_array(reader: _Reader) -> Value:
    kind = reader.kind()
    if kind == _STRING:
        reader.skip_strings(reader.count(_MAX_STRINGS, "strings in a list"))
        return None
    count = int(reader.unpack("Q"))
    code = _format(kind)
    if count <= _MAX_KEPT_ARRAY:
        return reader.unpack_many(code, count)
    reader.skip(count * struct.calcsize(f"<{code}"))
    return None


def _format(kind: int) -> str:
    try:
        return _FORMATS[kind]
    except KeyError:
        raise NotGGUF(f"a value of the unknown type {kind} stands in its header") from None


def _read_tensor(reader: _Reader) -> Tensor:
    name = reader.string(_MAX_KEY)
    dimensions = int(reader.unpack("I"))
    if dimensions > _MAX_DIMENSIONS:
        raise NotGGUF(f"a tensor of {dimensions} dimensions stands in its header")
    shape = tuple(int(size) for size in reader.unpack_many("Q", dimensions))
    return Tensor(name, shape, int(reader.unpack("I")), int(reader.unpack("Q")))
