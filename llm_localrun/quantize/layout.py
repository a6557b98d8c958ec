"""How a GGUF file is laid out: the bytes before the tensors' data, and where each tensor lies.

Pure arithmetic; writing is left to the caller. Format: version 3 of
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
    """A file to be: `head`, then each tensor at its offset, which counts from the head's end."""

    head: bytes
    tensors: tuple[Tensor, ...]
    size: int


def lay_out(pairs: Sequence[bytes], tensors: Iterable[Tensor], alignment: int) -> Layout:
    """The layout for keys with their values, as bytes, and tensors, whose offsets are set anew.

    `pairs` have to say the same `alignment`, unless it is 32.
    """
    placed = []
    end = 0
    for tensor in tensors:
        placed.append(replace(tensor, offset=aligned(end, alignment)))
        assert tensor.size is not None
        end = placed[-1].offset + tensor.size
    head = MAGIC + struct.pack("<IQQ", _VERSION, len(placed), len(pairs))
    head += b"".join(pairs) + b"".join(map(_entry, placed))
    head += bytes(aligned(len(head), alignment) - len(head))
    return Layout(head, tuple(placed), len(head) + aligned(end, alignment))


def aligned(size: int, alignment: int) -> int:
    """The next multiple of `alignment`."""
    return -(-size // alignment) * alignment


def number_pair(key: str, value: int) -> bytes:
    """A key with an unsigned number of 32 bits."""
    return _text(key) + struct.pack("<II", _UINT32, value)


def _entry(tensor: Tensor) -> bytes:
    dimensions = len(tensor.shape)
    numbers = struct.pack(f"<I{dimensions}Q", dimensions, *tensor.shape)
    return _text(tensor.name) + numbers + struct.pack("<IQ", tensor.type, tensor.offset)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded
