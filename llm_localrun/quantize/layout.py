"""Computes the layout of a GGUF file: the bytes before the tensor data, and each tensor's offset.

Pure; writing the file is left to the caller. Format: version 3 of
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llm_localrun.gguf.header import MAGIC, Tensor

_VERSION = 3
_UINT32 = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """A file to write: `head`, then the tensors at their offsets from its end; `size` in all."""

    head: bytes
    tensors: tuple[Tensor, ...]
    size: int


def lay_out(pairs: Sequence[bytes], tensors: Iterable[Tensor], alignment: int) -> Layout:
    """The layout for encoded key-value `pairs` and `tensors`, whose offsets are ignored.

    `pairs` must include `general.alignment` unless `alignment` is 32.
    """
    moved = []
    end = 0
    for tensor in tensors:
        moved.append(replace(tensor, offset=align(end, alignment)))
        assert tensor.size is not None
        end = moved[-1].offset + tensor.size
    head = MAGIC + struct.pack("<IQQ", _VERSION, len(moved), len(pairs))
    head += b"".join(pairs) + b"".join(map(_encode_tensor, moved))
    head += bytes(align(len(head), alignment) - len(head))
    return Layout(head, tuple(moved), len(head) + align(end, alignment))


def align(size: int, alignment: int) -> int:
    """`size` rounded up to a multiple of `alignment`."""
    return -(-size // alignment) * alignment


def encode_number(key: str, value: int) -> bytes:
    """A key-value pair with an unsigned 32-bit number."""
    return _encode_text(key) + struct.pack("<II", _UINT32, value)


def _encode_tensor(tensor: Tensor) -> bytes:
    dimensions = len(tensor.shape)
    numbers = struct.pack(f"<I{dimensions}Q", dimensions, *tensor.shape)
    return _encode_text(tensor.name) + numbers + struct.pack("<IQ", tensor.type, tensor.offset)


def _encode_text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded
