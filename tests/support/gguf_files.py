"""Writes small GGUF files for tests, with the package's own layout."""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from llm_localrun.gguf.header import Tensor, read_header
from llm_localrun.quantize.layout import Layout, lay_out

Value: TypeAlias = int | float | str | list[str]

_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY, _INT64 = 4, 5, 6, 8, 9, 11


def pair(key: str, value: Value) -> bytes:
    """A key and its value as bytes."""
    if isinstance(value, list):
        items = b"".join(map(_text, value))
        return _text(key) + struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + items
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, int) and value >= 2**32:
        return _text(key) + struct.pack("<Iq", _INT64, value)
    if isinstance(value, int):
        return _text(key) + struct.pack("<Iq", _UINT32 if value >= 0 else _INT32, value)[:8]
    return _text(key) + struct.pack("<If", _FLOAT32, value)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def write(
    path: Path,
    keys: Mapping[str, Value],
    tensors: Iterable[Tensor],
    data: Mapping[str, bytes],
    alignment: int = 32,
) -> Layout:
    """Writes a file. Tensors without `data` are zeros, which take no disk space."""
    layout = lay_out([pair(*item) for item in keys.items()], tensors, alignment)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(layout.head)
        for tensor in layout.tensors:
            if tensor.name in data:
                file.seek(len(layout.head) + tensor.offset)
                file.write(data[tensor.name])
        file.truncate(layout.size)
    return layout


def with_keys(
    source: Path, target: Path, keys: Mapping[str, Value], *, at_end: bool = False
) -> Path:
    """A copy of a model with more keys: before the others, or behind the vocabulary `at_end`."""
    data = source.read_bytes()
    with source.open("rb") as file:
        header = read_header(file, len(data))
    own = [data[begin:end] for begin, end in header.spans.values()]
    more = [pair(*item) for item in keys.items()]
    layout = lay_out([*own, *more] if at_end else [*more, *own], header.tensors, alignment=32)
    assert layout.tensors == header.tensors
    target.write_bytes(layout.head + data[header.data_start :])
    return target
