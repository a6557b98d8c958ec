"""A vision projector that sees nothing: random weights, for an engine that takes images.

llama.cpp (b11549) loads it with any language model, whose embedding size it must have, and
encodes each image, whatever its size, into `IMAGE_TOKENS` tokens: a CLIP encoder and LLaVA's
projector, `mlp`. The names of keys and tensors are in llama.cpp's tools/mtmd/clip-impl.h.
"""

import math
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

_SIDE, _PATCH = 32, 16
IMAGE_TOKENS = (_SIDE // _PATCH) ** 2

_EMBEDDING, _FEED_FORWARD, _HEADS = 32, 64, 2
# llama.cpp leaves out the last block of a LLaVA encoder.
_BLOCKS = 2

_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9
_F32 = 0
_ALIGNMENT = 32

Shape: TypeAlias = tuple[int, ...]


def build_projector(target: Path, embedding_size: int) -> None:
    """Writes the projector as a GGUF file, for a model of `embedding_size`."""
    shapes = dict(_shapes(embedding_size))
    keys = list(_keys(embedding_size))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(keys))
    head += b"".join(keys) + b"".join(_table(shapes))
    weights = (_weights(name, math.prod(shape)) for name, shape in shapes.items())
    target.write_bytes(b"".join(map(_padded, (head, *weights))))


def _keys(embedding_size: int) -> Iterator[bytes]:
    yield _key("general.architecture", _STRING, _text("clip"))
    yield _key("clip.projector_type", _STRING, _text("mlp"))
    yield _key("clip.has_vision_encoder", _BOOL, b"\1")
    for name, number in {
        "image_size": _SIDE,
        "patch_size": _PATCH,
        "embedding_length": _EMBEDDING,
        "feed_forward_length": _FEED_FORWARD,
        "block_count": _BLOCKS,
        "attention.head_count": _HEADS,
        "projection_dim": embedding_size,
    }.items():
        yield _key(f"clip.vision.{name}", _UINT32, struct.pack("<I", number))
    yield _key("clip.vision.attention.layer_norm_epsilon", _FLOAT32, _floats(1e-5))
    for name in ("image_mean", "image_std"):
        yield _key(f"clip.vision.{name}", _ARRAY, struct.pack("<IQ3f", _FLOAT32, 3, *[0.5] * 3))


def _shapes(embedding_size: int) -> Iterator[tuple[str, Shape]]:
    """Each tensor's name and shape, the fastest dimension first."""
    yield "v.patch_embd.weight", (_PATCH, _PATCH, 3, _EMBEDDING)
    yield "v.position_embd.weight", (_EMBEDDING, IMAGE_TOKENS)
    for block in range(_BLOCKS):
        for norm in ("ln1", "ln2"):
            yield f"v.blk.{block}.{norm}.weight", (_EMBEDDING,)
            yield f"v.blk.{block}.{norm}.bias", (_EMBEDDING,)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield f"v.blk.{block}.{part}.weight", (_EMBEDDING, _EMBEDDING)
        yield f"v.blk.{block}.ffn_up.weight", (_EMBEDDING, _FEED_FORWARD)
        yield f"v.blk.{block}.ffn_down.weight", (_FEED_FORWARD, _EMBEDDING)
    yield "mm.0.weight", (_EMBEDDING, _EMBEDDING)
    yield "mm.0.bias", (_EMBEDDING,)
    yield "mm.2.weight", (_EMBEDDING, embedding_size)
    yield "mm.2.bias", (embedding_size,)


def _table(shapes: dict[str, Shape]) -> Iterator[bytes]:
    offset = 0
    for name, shape in shapes.items():
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        yield _text(name) + dimensions + struct.pack("<IQ", _F32, offset)
        offset += math.prod(shape) * 4
        offset += -offset % _ALIGNMENT


def _weights(name: str, count: int) -> bytes:
    """Random, but the same in every run; so large that another image gets another answer."""
    numbers = random.Random(name)
    return _floats(*(numbers.uniform(-1, 1) for _ in range(count)))


def _key(name: str, kind: int, value: bytes) -> bytes:
    return _text(name) + struct.pack("<I", kind) + value


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
