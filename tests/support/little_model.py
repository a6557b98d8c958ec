"""A model of 2 MB with every kind of tensor that is quantized, and an importance matrix for it."""

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

from llm_localrun.gguf.header import Tensor
from llm_localrun.gguf.tensor_types import TensorType
from tests.support.gguf_files import Value, write

_WIDTH, _HIDDEN, _EXPERTS, _TOKENS = 256, 96, 4, 1024

KEYS: dict[str, Value] = {
    "general.architecture": "llama",
    "general.name": "Little",
    "general.file_type": 1,
    "llama.block_count": 2,
    "llama.context_length": 512,
    "llama.embedding_length": _WIDTH,
    "llama.feed_forward_length": _HIDDEN,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-6,
    "llama.rope.dimension_count": 32,
    "llama.expert_count": _EXPERTS,
    "llama.expert_used_count": 2,
    "tokenizer.ggml.tokens": ["a", "b"],
}


def tensors() -> Iterator[Tensor]:
    f16, bf16, f32, q8_0 = TensorType.F16, TensorType.BF16, TensorType.F32, TensorType.Q8_0
    shapes: dict[str, tuple[TensorType, tuple[int, ...]]] = {
        "token_embd.weight": (f16, (_WIDTH, _TOKENS)),
        "output_norm.weight": (f32, (_WIDTH,)),
        "output.weight": (f16, (_WIDTH, _TOKENS)),
    }
    for block, kind in (("blk.0", f16), ("blk.1", bf16)):
        shapes |= {
            f"{block}.attn_norm.weight": (f32, (_WIDTH,)),
            f"{block}.attn_q.weight": (kind, (_WIDTH, _WIDTH)),
            f"{block}.attn_k.weight": (f32, (_WIDTH, _WIDTH // 4)),
            f"{block}.attn_v.weight": (kind, (_WIDTH, _WIDTH // 4)),
            f"{block}.attn_output.weight": (q8_0, (_WIDTH, _WIDTH)),
            f"{block}.ffn_gate_inp.weight": (f32, (_WIDTH, _EXPERTS)),
            f"{block}.ffn_up_exps.weight": (kind, (_WIDTH, _HIDDEN, _EXPERTS)),
            f"{block}.ffn_down_exps.weight": (kind, (_HIDDEN, _WIDTH, _EXPERTS)),
        }
    for name, (kind, shape) in shapes.items():
        yield Tensor(name, shape, kind, 0)


def build(path: Path) -> Path:
    """Writes the model as one file."""
    write(path, KEYS, tensors(), {tensor.name: _data(tensor) for tensor in tensors()})
    return path


def build_split(folder: Path) -> Path:
    """Writes the model as two files. Returns the first."""
    everything = list(tensors())
    parts = (everything[:6], everything[6:])
    for number, part in enumerate(parts):
        keys = KEYS if number == 0 else {}
        split: dict[str, Value] = {
            "split.no": number,
            "split.count": len(parts),
            "split.tensors.count": len(everything),
        }
        path = folder / f"Little-F16-{number + 1:05}-of-{len(parts):05}.gguf"
        write(path, {**keys, **split}, part, {tensor.name: _data(tensor) for tensor in part})
    return folder / "Little-F16-00001-of-00002.gguf"


def build_importance(path: Path) -> Path:
    """Writes an importance matrix, in which one of the experts has no inputs."""
    entries: dict[str, tuple[Tensor, bytes]] = {}
    for tensor in tensors():
        if len(tensor.shape) > 1 and "_inp" not in tensor.name and "embd" not in tensor.name:
            matrices = prod(tensor.shape[2:])
            sums = Tensor(f"{tensor.name}.in_sum2", (tensor.shape[0], matrices), TensorType.F32, 0)
            counts = replace(sums, name=f"{tensor.name}.counts", shape=(1, matrices))
            squares = [100 * abs(x) for x in _numbers(sums)]
            entries[sums.name] = sums, _floats(squares)
            entries[counts.name] = counts, _floats([512.0, 0.0, 64.0, 8.0][:matrices])
    keys: dict[str, Value] = {
        "general.type": "imatrix",
        "imatrix.datasets": ["text"],
        "imatrix.chunk_count": 1,
        "imatrix.chunk_size": 512,
    }
    data = {name: values for name, (_, values) in entries.items()}
    write(path, keys, [tensor for tensor, _ in entries.values()], data)
    return path


def _numbers(tensor: Tensor) -> list[float]:
    source = random.Random(tensor.name)
    return [source.gauss(0, 0.05) for _ in range(tensor.weights)]


def _data(tensor: Tensor) -> bytes:
    """Random weights, encoded in the tensor's type."""
    numbers = _numbers(tensor)
    if tensor.type == TensorType.F32:
        return _floats(numbers)
    if tensor.type == TensorType.F16:
        return struct.pack(f"<{len(numbers)}e", *numbers)
    if tensor.type == TensorType.BF16:
        floats = _floats(numbers)
        return b"".join(floats[at + 2 : at + 4] for at in range(0, len(floats), 4))
    blocks = (numbers[at : at + 32] for at in range(0, len(numbers), 32))
    return b"".join(struct.pack("<e32b", 0.002, *(_byte(x / 0.002) for x in b)) for b in blocks)


def _byte(number: float) -> int:
    return max(-127, min(127, round(number)))


def _floats(numbers: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)
