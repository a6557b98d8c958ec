"""Reads the header of a GGUF file: its metadata and its table of tensors.

The file may be truncated or malicious, so every length is checked against a limit before memory is
allocated or time is spent for it, and so are the sums: the bytes of a header, what is kept of
them, and the strings and numbers in its arrays. No clock decides what is usable. `gguf.files`
opens files. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import SEEK_END
from itertools import islice
from typing import Any, BinaryIO, TypeAlias

from llm_localrun.gguf.tensor_types import BLOCKS
from llm_localrun.system.atomic import read_up_to

Number: TypeAlias = int | float | bool
Value: TypeAlias = Number | str | tuple[Number, ...] | None
"""None: what was skipped: an array that contains strings or is long, or a very long text."""

MAGIC = b"GGUF"
MAX_HEADER = 64 * 2**20
"""Bytes of a header. Those of the largest vocabularies have 20 MB, and a tokenizer.json as much."""
MAX_TRAILER = 64 * 2**20
"""Bytes that may follow the last tensor. llama.cpp reads all of them into memory (b11549)."""
# Limits of each: bytes of a string that is kept, and of a key; otherwise counts.
_MAX_KEPT_STRING = 2 * 2**20
_MAX_KEY = 2**16
_MAX_KEYS = 2**16
_MAX_TENSORS = 2**16
_MAX_KEPT_ARRAY = 4096
# Limits of all together.
_MAX_KEPT = 8 * 2**20
"""Bytes of all keys, texts and names of tensors that are kept."""
_MAX_NUMBERS = 2**16
"""In all arrays that are kept: an array for each layer has a thousand at most."""
_MAX_STRINGS = 2**21
"""In all lists: the largest vocabularies have 250,000 tokens and twice as many merges."""
_MAX_CANDIDATES = 1000
"""How many places that look like the name of a tensor are looked at."""
_MAX_DIMENSIONS = 8
_MAX_END = 2**63
"""Bytes: no file is larger."""
_DEFAULT_ALIGNMENT = 32
_FIRST_READ_BYTES, _MAX_READ_BYTES = 2**13, 2**18
_OVERLAP = 256
"""Bytes by which the parts of a file that is searched overlap: more than what is searched for."""
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
    size = file.seek(0, SEEK_END)
    try:
        if summary.tensors_at is not None:
            _check_tensors(file, summary, summary.tensors_at, size)
        elif not _has_all_tensors(file, summary, size):
            file.seek(0)
            read_header(file, size)
    except NotGGUF as error:
        return str(error)
    return ""


def _windows(file: BinaryIO, start: int, end: int = MAX_HEADER) -> Iterator[tuple[int, bytes]]:
    """What is in a file from `start` to `end`, in parts that overlap, each with its position.

    They are read, not mapped: a file that becomes shorter while it is mapped ends the process.
    """
    while start < end:
        file.seek(start)
        window = read_up_to(file, min(_MAX_READ_BYTES, end - start))
        yield start, window
        if len(window) <= _OVERLAP:
            return
        start += len(window) - _OVERLAP


def _find_tensors(file: BinaryIO, start: int) -> int | None:
    """The position of the table of tensors after a vocabulary; None if it is not recognized.

    It searches the file from `start` for what looks like the first tensor: a name, and the offset
    0. That takes a thirtieth of the time of reading the vocabulary.
    """
    matches = (
        (at, window, found.end() - 4)
        for at, window in _windows(file, start)
        for found in _TENSOR_NAME_END.finditer(window)
    )
    for at, window, name_end in islice(matches, _MAX_CANDIDATES):
        # After the number of dimensions come these, and the type. What the window cuts off is in
        # the next one.
        offset_at = name_end + 4 + 8 * window[name_end] + 4
        if window[offset_at : offset_at + 8] != bytes(8):
            continue
        for size in range(1, min(_MAX_TENSOR_NAME, name_end - 8) + 1):
            name_at = name_end - size
            is_size = window[name_at - 8 : name_at] == struct.pack("<Q", size)
            if is_size and _TENSOR_NAME.fullmatch(window, name_at, name_end):
                return at + name_at - 8
    return None


def _has_all_tensors(file: BinaryIO, summary: Header, file_size: int) -> bool:
    """Whether the table of tensors is found after the vocabulary, and all are in the file.

    Raises OSError.
    """
    assert summary.rest_at is not None
    tensors_at = _find_tensors(file, summary.rest_at)
    if tensors_at is None:
        return False
    try:
        _check_tensors(file, summary, tensors_at, file_size)
    except NotGGUF:
        return False
    return True


def _check_tensors(file: BinaryIO, summary: Header, position: int, file_size: int) -> None:
    """Checks the table of tensors at a position in the file. Raises `NotGGUF` and OSError."""
    file.seek(0)
    reader = _Reader(file)
    reader.skip(position - reader.position)
    _read_tensors(reader, summary.metadata, file_size)


def find_text(file: BinaryIO, key: str, start: int, end: int = MAX_HEADER) -> str:
    """The text at `key` in the metadata from `start` to `end`; "" if there is none.

    It searches for the bytes of the key, its length and its type. For a key after the vocabulary,
    that takes a hundredth of the time of reading all metadata. Raises OSError.
    """
    name = key.encode()
    pattern = struct.pack("<Q", len(name)) + name + struct.pack("<I", _STRING)
    for window_at, window in _windows(file, start, end):
        tensors = window.find(_FIRST_TENSOR)
        at = window.find(pattern, 0, tensors if tensors >= 0 else len(window))
        if at >= 0:
            return _text_at(file, window_at + at + len(pattern), end)
        if tensors >= 0:
            return ""
    return ""


def find_values(file: BinaryIO, prefix: str, start: int) -> dict[str, Value]:
    """The texts and single numbers in the metadata from `start` whose keys begin with `prefix`.

    It searches as `find_text` does. Raises OSError.
    """
    found: dict[str, Value] = {}
    for window_at, window in _windows(file, start):
        tensors = window.find(_FIRST_TENSOR)
        end = tensors if tensors >= 0 else len(window)
        key_at = window.find(prefix.encode(), 8, end)
        while key_at >= 0:
            (size,) = struct.unpack_from("<Q", window, key_at - 8)
            at = key_at + min(size, _OVERLAP) + 4
            kind = int.from_bytes(window[at - 4 : at], "little")
            key = window[key_at : at - 4].decode("utf-8", "replace")
            if kind == _STRING:
                found[key] = _text_at(file, window_at + at, MAX_HEADER)
            elif kind in _FORMATS and at + 8 <= len(window):
                found[key] = struct.unpack_from(f"<{_FORMATS[kind]}", window, at)[0]
            key_at = window.find(prefix.encode(), at, end)
        if tensors >= 0:
            break
    return found


def _text_at(file: BinaryIO, position: int, end: int) -> str:
    """The text at a position, if its length stands before `end`; "" for a very long one."""
    rest = file.seek(0, SEEK_END) - position
    file.seek(position)
    size = read_up_to(file, 8)
    length = int.from_bytes(size, "little")
    if min(end - position, len(size)) < 8 or length > _MAX_KEPT_STRING:
        return ""
    return read_up_to(file, min(length, rest)).decode("utf-8", "replace")


_UNPACK = {
    order: (struct.Struct(f"{order}I").unpack_from, struct.Struct(f"{order}Q").unpack_from)
    for order in "<>"
}
"""Readers of uint32 and uint64 by byte order, made once because a scan reads many headers."""


class _Reader:
    """Reads a file from its beginning through a window in memory, and checks every length."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._window = read_up_to(file, _FIRST_READ_BYTES)
        self._window_at = 0
        self._next = 4
        self._read_size = _FIRST_READ_BYTES
        self._kept = self._strings = self._numbers = 0
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
        self._check_end(size)
        self._read_size = min(2 * self._read_size, _MAX_READ_BYTES)
        rest = self._window[self._next :]
        self._window_at += self._next
        self._window = rest + read_up_to(self._file, max(size - len(rest), self._read_size))
        self._next = 0
        if len(self._window) < size:
            raise NotGGUF("it is cut off in the middle of its header")

    def _check_end(self, size: int) -> None:
        """Raises `NotGGUF` if the next `size` bytes cannot be a part of a header."""
        if self.position + size > MAX_HEADER:
            raise NotGGUF(f"its header is longer than {MAX_HEADER:,} bytes")

    def skip(self, size: int) -> None:
        if self._next + size <= len(self._window):
            self._next += size
            return
        self._check_end(size)
        # Seeking beyond the end of the file would succeed, so read the last byte.
        last = self.position + size - 1
        self._file.seek(last)
        self._window, self._window_at, self._next = b"", last, 0
        self._take(1)

    def skip_strings(self) -> None:
        """Skips the strings of an array, after its type."""
        count = self.count(_MAX_STRINGS - self._strings, "strings in a list")
        self._strings += count
        read, window, at = self._uint64_in, self._window, self._next
        for _ in range(count):
            # Does not call `skip` and `count` for each: lists of a million strings are usual.
            if at + 8 <= len(window) and at + 8 + (size := read(window, at)[0]) <= len(window):
                at += 8 + size
                continue
            self._next = at
            self.skip(self.count())
            window, at = self._window, self._next
        self._next = at

    def begins_vocabulary(self) -> bool:
        """Whether a long array of strings follows. The position does not change."""
        start = self._next = self._take(12)
        (kind,) = self._uint32_in(self._window, start)
        (count,) = self._uint64_in(self._window, start + 4)
        return bool(kind == _STRING and _MAX_KEPT_ARRAY < count <= _MAX_STRINGS)

    def array(self, code: str, count: int) -> tuple[Number, ...] | None:
        """`count` numbers, each of the format `code` of `struct`; None for those that are skipped:
        many, alone or together with those before them."""
        if count > _MAX_KEPT_ARRAY or self._numbers + count > _MAX_NUMBERS:
            self.skip(count * struct.calcsize(f"<{code}"))
            return None
        self._numbers += count
        return self.unpack(f"{count}{code}")

    def unpack(self, form: str) -> tuple[Any, ...]:
        """What follows, in the format `form` of `struct`."""
        form = self.order + form
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

    def count(self, limit: int = MAX_HEADER, of: str = "bytes in a text") -> int:
        # Does not call uint64, because a scan spends much of its time here.
        start = self._take(8)
        count: int = self._uint64_in(self._window, start)[0]
        if count > limit:
            raise NotGGUF(f"its header declares {count:,} {of}")
        return count

    def string(self, limit: int) -> str:
        return self._kept_text(self.count(limit))

    def text(self) -> str | None:
        """A string; None for a very long one, which is skipped."""
        size = self.count()
        if size <= _MAX_KEPT_STRING:
            return self._kept_text(size)
        self.skip(size)
        return None

    def _kept_text(self, size: int) -> str:
        self._kept += size
        if self._kept > _MAX_KEPT:
            raise NotGGUF(f"its header has more than {_MAX_KEPT:,} bytes of texts and names")
        start = self._take(size)
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
        return reader.text()
    if kind == _ARRAY:
        return _read_array(reader)
    value: Number = reader.unpack(_format(kind))[0]
    return value


def _read_array(reader: _Reader) -> Value:
    kind = reader.uint32()
    if kind == _STRING:
        reader.skip_strings()
        return None
    count = reader.uint64()
    return reader.array(_format(kind), count)


def _format(kind: int) -> str:
    if kind not in _FORMATS:
        raise NotGGUF(f"its header contains a value of the unknown type {kind}")
    return _FORMATS[kind]


def _read_tensors(
    reader: _Reader, metadata: Mapping[str, Value], file_size: int
) -> tuple[tuple[Tensor, ...], int]:
    """The table of tensors, and the position from which their offsets count.

    Raises `NotGGUF` if the file ends before the last tensor does, or long after it.
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
    is_known = all(tensor.size is not None for tensor in tensors)
    if is_known and file_size - end > MAX_TRAILER:
        raise NotGGUF(f"it is padded: {file_size - end:,} bytes follow its last tensor")
    return tensors, start


def _read_tensor(reader: _Reader) -> Tensor:
    name = reader.string(_MAX_KEY)
    dimensions = reader.uint32()
    if not name:
        raise NotGGUF("its header declares a tensor without a name")
    if not 0 < dimensions <= _MAX_DIMENSIONS:
        raise NotGGUF(f"its header declares a tensor of {dimensions} dimensions")
    *shape, kind, offset = reader.unpack(f"{dimensions}QIQ")
    if math.prod(shape) + offset > _MAX_END:
        raise NotGGUF("its header declares a tensor that is larger than any file")
    return Tensor(name, tuple(shape), kind, offset)
