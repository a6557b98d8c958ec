"""Reads the header of a GGUF file: its metadata and its table of tensors.

The file may be truncated or malicious, so every length is checked against a limit before memory is
allocated or time is spent for it. `gguf.files` opens files. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import SEEK_END
from mmap import ACCESS_READ, mmap
from typing import BinaryIO, TypeAlias

from llm_localrun.gguf.tensor_types import BLOCKS

Buffer: TypeAlias = bytes | mmap
Number: TypeAlias = int | float | bool
Value: TypeAlias = Number | str | tuple[Number, ...] | None
"""None: an array that was skipped, because it contains strings or is long."""

MAGIC = b"GGUF"
MAX_HEADER = 64 * 2**20
"""How many bytes are searched for what follows the vocabulary."""
# Limits: bytes of a string, a key and a skipped array; otherwise counts.
_MAX_STRING = 16 * 2**20
_MAX_KEY = 2**16
_MAX_KEYS = 2**16
_MAX_TENSORS = 2**17
_MAX_STRINGS = 2**21
"""In all lists: the largest vocabularies have 250,000 tokens and twice as many merges."""
_MAX_KEPT_ARRAY = 4096
_MAX_SKIP = 2**40
_MAX_DIMENSIONS = 8
_DEFAULT_ALIGNMENT = 32
_FIRST_READ_BYTES, _MAX_READ_BYTES = 2**13, 2**18
"""The first 3,000 bytes contain what a list of models needs."""
_FIRST_TENSOR = b"token_embd.weight"
"""The name of a tensor that every model has; it follows the metadata."""
_TENSOR_NAME_END = re.compile(rb"\.weight[\x01-\x04]\0{3}")
"""The end of a tensor's name, and its number of dimensions."""
_TENSOR_NAME = re.compile(rb"[a-z][\w.-]*")
_MAX_TENSOR_NAME = 63

_STRING, _ARRAY = 8, 9
_FORMATS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}
"""The `struct` format of each type of value."""


class NotGGUF(ValueError):
    """The file is not a usable GGUF file. The message is half a sentence: "it is empty"."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An entry of the table of tensors. `type` is a number of `TensorType`; `offset` is bytes."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int | None:
        """In bytes; None if the type is unknown."""
        block = BLOCKS.get(self.type)
        return None if block is None else self.weights // block[0] * block[1]


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata of a GGUF file and, from `read_header`, its table of tensors."""

    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...] = field(default=(), repr=False)
    rest_at: int | None = None
    """The position in the file of the first key that was not read; None if all were."""
    tensors_at: int | None = None
    """The position in the file of the table of tensors; None if not all keys were read."""
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    """For each key, its position in the file and the end of its value."""
    data_start: int = 0
    """The position in the file from which the offsets of tensors count."""
    is_big_endian: bool = False

    @property
    def architecture(self) -> str:
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        """The string at `key`; "" if there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """The integer at `key`; None if there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def of_architecture(self, key: str) -> int | None:
        """The integer at `<architecture>.<key>`: `llama.context_length` for `context_length`."""
        return self.number(f"{self.architecture}.{key}")


def read_summary(file: BinaryIO) -> Header:
    """The metadata before the vocabulary, which is long. That is enough to list a model.

    Raises `NotGGUF` and OSError.
    """
    reader = _Reader(file)
    metadata: dict[str, Value] = {}
    for _ in range(reader.key_count):
        key, kind = reader.string(_MAX_KEY), reader.uint32()
        if kind == _ARRAY and reader.begins_vocabulary():
            return Header(metadata, rest_at=reader.position)
        metadata[key] = _read_value(reader, kind)
    return Header(metadata, tensors_at=reader.position)


def read_header(file: BinaryIO, file_size: int) -> Header:
    """All metadata and the table of tensors, checked against `file_size` in bytes.

    Raises `NotGGUF` and OSError.
    """
    reader = _Reader(file)
    metadata = {}
    spans = {}
    for _ in range(reader.key_count):
        begin = reader.position
        key, kind = reader.string(_MAX_KEY), reader.uint32()
        metadata[key] = _read_value(reader, kind)
        spans[key] = (begin, reader.position)
    tensors, start = _read_tensors(reader, metadata, file_size)
    return Header(
        metadata, tensors, spans=spans, data_start=start, is_big_endian=reader.order == ">"
    )


def damage_of(file: BinaryIO, summary: Header) -> str:
    """Why a file cannot be loaded: "it is cut off: 5 bytes of at least 9"; "" if it is whole.

    Raises OSError.
    """
    size, tensors_at = file.seek(0, SEEK_END), summary.tensors_at
    if summary.rest_at is not None:
        with mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
            tensors_at = _find_tensors(mapped, summary.rest_at)
    try:
        if tensors_at is None or not _has_all_tensors(file, summary, tensors_at, size):
            file.seek(0)
            read_header(file, size)
    except NotGGUF as error:
        return str(error)
    return ""


def _find_tensors(head: Buffer, start: int) -> int | None:
    """The position of the table of tensors after a vocabulary; None if it is not recognized.

    It searches `head` from `start` for something that looks like the name of a tensor. That takes a
    thirtieth of the time of reading the vocabulary.
    """
    for found in _TENSOR_NAME_END.finditer(head, start, min(len(head), MAX_HEADER)):
        name_end = found.end() - 4
        for size in range(1, _MAX_TENSOR_NAME + 1):
            name_at = name_end - size
            is_size = head[name_at - 8 : name_at] == struct.pack("<Q", size)
            if is_size and _TENSOR_NAME.fullmatch(head, name_at, name_end):
                return name_at - 8
    return None


def _has_all_tensors(file: BinaryIO, summary: Header, tensors_at: int, file_size: int) -> bool:
    """Whether the table of tensors is at `tensors_at`, and all of them are in the file.

    Raises OSError.
    """
    file.seek(0)
    try:
        reader = _Reader(file)
        reader.skip(tensors_at - reader.position)
        tensors, _ = _read_tensors(reader, summary.metadata, file_size)
    except NotGGUF:
        return False
    return not tensors or tensors[0].offset == 0


def find_text(head: Buffer, key: str, start: int, end: int) -> str:
    """The text at `key` in the metadata from `start` to `end` of `head`; "" if there is none.

    It searches for the bytes of the key, its length and its type. For a key after the vocabulary,
    that takes a hundredth of the time of reading all metadata.
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


_UNPACK = {
    order: (struct.Struct(f"{order}I").unpack_from, struct.Struct(f"{order}Q").unpack_from)
    for order in "<>"
}
"""Readers of uint32 and uint64 by byte order, made once because a scan reads many headers."""


class _Reader:
    """Reads a file from its beginning through a window in memory, and checks every length."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._window = file.read(_FIRST_READ_BYTES)
        self._window_at = 0
        self._next = 4
        self._read_size = _FIRST_READ_BYTES
        self.skipped_strings = 0
        if not self._window:
            raise NotGGUF("it is empty")
        if self._window[:4] != MAGIC:
            raise NotGGUF("it does not begin with GGUF")
        self._take(4)
        self.order = _byte_order(self._window[4:8])
        self._uint32_in, self._uint64_in = _UNPACK[self.order]
        self.tensor_count = self.count(_MAX_TENSORS, "tensors")
        self.key_count = self.count(_MAX_KEYS, "keys")

    @property
    def position(self) -> int:
        return self._window_at + self._next

    def _take(self, size: int) -> int:
        """Advances by `size` bytes; returns their index in the window."""
        if self._next + size > len(self._window):
            self._refill(size)
        start = self._next
        self._next += size
        return start

    def _refill(self, size: int) -> None:
        """Moves the window so that it contains the next `size` bytes."""
        self._read_size = min(2 * self._read_size, _MAX_READ_BYTES)
        rest = self._window[self._next :]
        self._window_at += self._next
        self._window = rest + self._file.read(max(size - len(rest), self._read_size))
        self._next = 0
        if len(self._window) < size:
            raise NotGGUF("it is cut off in the middle of its header")

    def skip(self, size: int) -> None:
        if size > _MAX_SKIP:
            raise NotGGUF(f"its header declares an array of {size:,} bytes")
        if self._next + size <= len(self._window):
            self._next += size
            return
        # Seeking beyond the end of the file would succeed, so read the last byte.
        last = self.position + size - 1
        self._file.seek(last)
        self._window, self._window_at, self._next = b"", last, 0
        self._take(1)

    def begins_vocabulary(self) -> bool:
        """Whether a long array of strings follows. The position does not change."""
        start = self._next = self._take(12)
        (kind,) = self._uint32_in(self._window, start)
        (count,) = self._uint64_in(self._window, start + 4)
        return bool(kind == _STRING and _MAX_KEPT_ARRAY < count <= _MAX_STRINGS)

    def unpack(self, code: str, count: int) -> tuple[Number, ...]:
        """`count` numbers, each of the format `code` of `struct`."""
        form = f"{self.order}{count}{code}"
        start = self._take(struct.calcsize(form))
        return struct.unpack_from(form, self._window, start)

    def uint32(self) -> int:
        start = self._take(4)
        number: int = self._uint32_in(self._window, start)[0]
        return number

    def uint64(self) -> int:
        start = self._take(8)
        number: int = self._uint64_in(self._window, start)[0]
        return number

    def count(self, limit: int = _MAX_STRING, of: str = "bytes in a text") -> int:
        # Does not call uint64, because a scan spends much of its time here.
        start = self._take(8)
        count: int = self._uint64_in(self._window, start)[0]
        if count > limit:
            raise NotGGUF(f"its header declares {count:,} {of}")
        return count

    def string(self, limit: int = _MAX_STRING) -> str:
        start = self._take(self.count(limit))
        return self._window[start : self._next].decode("utf-8", "replace")


def _byte_order(version: bytes) -> str:
    """`<` for little-endian, `>` for big-endian, by the version that follows the magic."""
    number = int.from_bytes(version, "little")
    if number in (2, 3):
        return "<"
    if int.from_bytes(version, "big") in (2, 3):
        return ">"
    raise NotGGUF(f"its version is {number}; 2 and 3 are known")


def _read_value(reader: _Reader, kind: int) -> Value:
    if kind == _STRING:
        return reader.string()
    if kind == _ARRAY:
        return _read_array(reader)
    return reader.unpack(_format(kind), 1)[0]


def _read_array(reader: _Reader) -> Value:
    kind = reader.uint32()
    if kind == _STRING:
        count = reader.count(_MAX_STRINGS - reader.skipped_strings, "strings in a list")
        reader.skipped_strings += count
        for _ in range(count):
            reader.skip(reader.count())
        return None
    count, code = reader.uint64(), _format(kind)
    if count <= _MAX_KEPT_ARRAY:
        return reader.unpack(code, count)
    reader.skip(count * struct.calcsize(f"<{code}"))
    return None


def _format(kind: int) -> str:
    if kind not in _FORMATS:
        raise NotGGUF(f"its header contains a value of the unknown type {kind}")
    return _FORMATS[kind]


def _read_tensors(
    reader: _Reader, metadata: Mapping[str, Value], file_size: int
) -> tuple[tuple[Tensor, ...], int]:
    """The table of tensors, and the position from which their offsets count.

    Raises `NotGGUF` if the file ends before the last tensor does.
    """
    tensors = tuple(_read_tensor(reader) for _ in range(reader.tensor_count))
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise NotGGUF("its alignment is not a positive number")
    start = -(-reader.position // alignment) * alignment
    ends = (start + tensor.offset + (tensor.size or 0) for tensor in tensors)
    end = max(ends, default=reader.position)
    if end > file_size:
        raise NotGGUF(f"it is cut off: {file_size:,} bytes of at least {end:,}")
    return tensors, start


def _read_tensor(reader: _Reader) -> Tensor:
    name = reader.string(_MAX_KEY)
    dimensions = reader.uint32()
    if dimensions > _MAX_DIMENSIONS:
        raise NotGGUF(f"its header declares a tensor of {dimensions} dimensions")
    shape = tuple(reader.uint64() for _ in range(dimensions))
    return Tensor(name, shape, reader.uint32(), reader.uint64())
