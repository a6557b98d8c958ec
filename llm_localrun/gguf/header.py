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
_MAX_KEPT_ARRAY = 4096
_MAX_SKIP = 2**40
_MAX_DIMENSIONS = 8
_DEFAULT_ALIGNMENT = 32

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
    """The metadata up to the tokenizer's, which is long: enough to list a model.

    Raises `NotGGUF` and OSError.
    """
    metadata, _ = _read_metadata(_Reader(file), stop_at="tokenizer.")
    return Header(metadata)


def read_header(file: BinaryIO, file_size: int) -> Header:
    """All metadata and the tensor table, checked against `file_size` in bytes.

    Raises `NotGGUF` and OSError.
    """
    reader = _Reader(file)
    metadata, spans = _read_metadata(reader)
    tensors = tuple(_read_tensor(reader) for _ in range(reader.tensor_count))
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise NotGGUF("its alignment is not a number")
    start = -(-reader.position // alignment) * alignment
    end = start + max((t.offset + (t.size or 0) for t in tensors), default=0)
    if end > file_size:
        raise NotGGUF(f"it is cut off: {file_size:,} bytes of at least {end:,}")
    return Header(metadata, tensors, spans, start, is_big_endian=reader.order == ">")


def find_text(head: Buffer, key: str, end: int) -> str:
    """The text at `key` among the metadata before `end` in `head`; "" if there is none.

    For a key that stands behind the tokenizer's long arrays: found by its bytes, length and type
    included, in a hundredth of the time that reading up to it takes.
    """
    name = key.encode()
    pattern = struct.pack("<Q", len(name)) + name + struct.pack("<I", _STRING)
    at = head.find(pattern, 0, end)
    start = at + len(pattern) + 8
    if at < 0 or start > end:
        return ""
    (length,) = struct.unpack("<Q", head[start - 8 : start])
    if length > _MAX_STRING:
        return ""
    return head[start : start + length].decode("utf-8", "replace")


class _Reader:
    """Bounded reads from the beginning of a file; counts what it has passed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0
        magic = file.read(4)
        if not magic:
            raise NotGGUF("it is empty")
        if magic != MAGIC:
            raise NotGGUF("it does not begin with GGUF")
        self.position = 4
        self.order = "<"
        version = self.unpack("I")
        if version not in (2, 3):
            swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
            if swapped not in (2, 3):
                raise NotGGUF(f"its version is {version}; 2 and 3 are known")
            self.order = ">"
        self.tensor_count = int(self.unpack("Q"))
        self.key_count = int(self.unpack("Q"))

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.position += len(data)
        if len(data) != size:
            raise NotGGUF("it ends in the middle of its header")
        return data

    def skip(self, size: int) -> None:
        # Seeking past the end would succeed, so the last byte is read.
        if size > _MAX_SKIP:
            raise NotGGUF(f"an array of {size:,} bytes stands in its header")
        if size > 0:
            self._file.seek(size - 1, 1)
            self.position += size - 1
            self.read(1)

    def unpack(self, code: str) -> int | float | bool:
        fmt = self.order + code
        value: int | float | bool = struct.unpack(fmt, self.read(struct.calcsize(fmt)))[0]
        return value

    def unpack_many(self, code: str, count: int) -> tuple[int | float | bool, ...]:
        fmt = f"{self.order}{count}{code}"
        return struct.unpack(fmt, self.read(struct.calcsize(fmt)))

    def length(self, limit: int) -> int:
        length = int(self.unpack("Q"))
        if length > limit:
            raise NotGGUF(f"a length of {length:,} stands in its header")
        return length

    def string(self, limit: int = _MAX_STRING) -> str:
        return self.read(self.length(limit)).decode("utf-8", "replace")


def _read_metadata(
    reader: _Reader, stop_at: str | None = None
) -> tuple[dict[str, Value], dict[str, tuple[int, int]]]:
    """The values by their keys, and the places of both."""
    metadata: dict[str, Value] = {}
    spans: dict[str, tuple[int, int]] = {}
    for _ in range(reader.key_count):
        begin = reader.position
        key = reader.string(_MAX_KEY)
        if stop_at is not None and key.startswith(stop_at):
            break
        metadata[key] = _read_value(reader, int(reader.unpack("I")))
        spans[key] = (begin, reader.position)
    return metadata, spans


def _read_value(reader: _Reader, kind: int) -> Value:
    if kind == _STRING:
        return reader.string()
    if kind == _ARRAY:
        return _read_array(reader)
    return reader.unpack(_format(kind))


def _read_array(reader: _Reader) -> Value:
    kind, count = int(reader.unpack("I")), int(reader.unpack("Q"))
    if kind == _STRING:
        for _ in range(count):
            reader.skip(reader.length(_MAX_STRING))
        return None
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
