"""GGUF files of many architectures, whose weights are zeros: for what llama.cpp allocates.

The shapes are those that llama.cpp (b11549) asks for in src/models/, the numbers small but in the
proportions of real models. A file is sparse: its tensors take no disk space.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
Key: TypeAlias = int | float | str | bool | list[int] | list[float] | list[str] | list[bool]

_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_F16, _F32 = 1, 0
_ALIGNMENT = 32


@dataclass(frozen=True)
class Tiny:
    """An architecture, its header's keys (without the architecture's name) and its tensors."""

    architecture: str
    keys: Mapping[str, Key]
    tensors: Mapping[str, Shape] = field(repr=False)

    def build(self, target: Path) -> Path:
        """Writes the file."""
        keys = {
            "general.architecture": self.architecture,
            **{f"{self.architecture}.{name}": value for name, value in self.keys.items()},
            **_VOCABULARY,
        }
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(keys))
        head += b"".join(_text(name) + _value(value) for name, value in keys.items())
        offset = 0
        for name, shape in self.tensors.items():
            kind = _type(name, shape)
            dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
            head += _text(name) + dimensions + struct.pack("<IQ", kind, offset)
            offset += _aligned(math.prod(shape) * (2 if kind == _F16 else 4))
        with target.open("wb") as file:
            file.write(head)
            file.truncate(_aligned(len(head)) + offset)
        return target


def _type(name: str, shape: Shape) -> int:
    """llama.cpp wants vectors, and what it convolves, as 32-bit floats."""
    is_small = len(shape) == 1 or "ssm_" in name or "shortconv.conv" in name
    return _F32 if is_small else _F16


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


# The 256 bytes as tokens, and the three that llama.cpp does not do without.
_TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
_UNKNOWN, _CONTROL, _BYTE = 2, 3, 6
_VOCABULARY: dict[str, Key] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": _TOKENS,
    "tokenizer.ggml.scores": [0.0] * len(_TOKENS),
    "tokenizer.ggml.token_type": [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
}


def _value(value: Key) -> bytes:
    """A value of GGUF: the number of its type, then itself."""
    if isinstance(value, list):
        kind, _ = _scalar(value[0])
        # llama.cpp takes the types of tokens as signed numbers only, and other arrays as either.
        kind = _INT32 if kind == _UINT32 else kind
        items = b"".join(_scalar(item)[1] for item in value)
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + items
    kind, data = _scalar(value)
    return struct.pack("<I", kind) + data


def _scalar(value: int | float | str | bool) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return _BOOL, struct.pack("<?", value)
    if isinstance(value, int):
        return _UINT32, struct.pack("<I", value)
    if isinstance(value, float):
        return _FLOAT32, struct.pack("<f", value)
    return _STRING, _text(value)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


# The architectures.


def _numbers(
    layers: int, width: int, heads: int, kv_heads: "int | list[int]", hidden: int, **more: Key
) -> dict[str, Key]:
    return {
        "context_length": 131_072,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-6,
        **more,
    }


def _ends(width: int) -> Iterator[tuple[str, Shape]]:
    yield "token_embd.weight", (width, len(_TOKENS))
    yield "output_norm.weight", (width,)
    yield "output.weight", (width, len(_TOKENS))


def _attention(block: str, width: int, query: int, key: int) -> Iterator[tuple[str, Shape]]:
    yield f"{block}.attn_norm.weight", (width,)
    yield f"{block}.attn_q.weight", (width, query)
    yield f"{block}.attn_k.weight", (width, key)
    yield f"{block}.attn_v.weight", (width, key)
    yield f"{block}.attn_output.weight", (query, width)


def _feed_forward(block: str, width: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    yield f"{block}.ffn_norm.weight", (width,)
    yield f"{block}.ffn_gate.weight", (width, hidden)
    yield f"{block}.ffn_up.weight", (width, hidden)
    yield f"{block}.ffn_down.weight", (hidden, width)


def _experts(block: str, width: int, hidden: int, experts: int) -> Iterator[tuple[str, Shape]]:
    yield f"{block}.ffn_norm.weight", (width,)
    yield f"{block}.ffn_gate_inp.weight", (width, experts)
    yield f"{block}.ffn_gate_exps.weight", (width, hidden, experts)
    yield f"{block}.ffn_up_exps.weight", (width, hidden, experts)
    yield f"{block}.ffn_down_exps.weight", (hidden, width, experts)


def llama(layers: int = 8, width: int = 1024, hidden: int = 2816) -> Tiny:
    """Every layer attends to everything, four query heads to a key."""
    tensors = dict(_ends(width))
    for number in range(layers):
        tensors |= _attention(f"blk.{number}", width, width, width // 4)
        tensors |= _feed_forward(f"blk.{number}", width, hidden)
    keys = _numbers(layers, width, width // 64, width // 256, hidden)
    return Tiny("llama", {**keys, "rope.dimension_count": 64}, tensors)


def gemma3(layers: int = 12, width: int = 768, hidden: int = 3072) -> Tiny:
    """Five layers in six see a window of 1,024 tokens; heads are wider than the model's width."""
    heads, kv_heads, head = 4, 1, 256
    tensors = dict(_ends(width))
    for number in range(layers):
        block = f"blk.{number}"
        tensors |= _attention(block, width, heads * head, kv_heads * head)
        tensors |= _feed_forward(block, width, hidden)
        tensors |= {f"{block}.{name}_norm.weight": (head,) for name in ("attn_q", "attn_k")}
        tensors |= {f"{block}.post_{name}_norm.weight": (width,) for name in ("attention", "ffw")}
    keys = _numbers(layers, width, heads, kv_heads, hidden)
    more: dict[str, Key] = {
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.sliding_window": 1024,
    }
    return Tiny("gemma3", {**keys, **more}, tensors)


def qwen3moe(layers: int = 6, width: int = 768, hidden: int = 384) -> Tiny:
    """Eight experts of which two work on a token."""
    heads, kv_heads, head = 12, 2, 128
    tensors = dict(_ends(width))
    for number in range(layers):
        block = f"blk.{number}"
        tensors |= _attention(block, width, heads * head, kv_heads * head)
        tensors |= {f"{block}.{name}_norm.weight": (head,) for name in ("attn_q", "attn_k")}
        tensors |= _experts(block, width, hidden, 8)
    keys = _numbers(layers, width, heads, kv_heads, 4 * hidden)
    more: dict[str, Key] = {
        "attention.key_length": head,
        "attention.value_length": head,
        "expert_count": 8,
        "expert_used_count": 2,
        "expert_feed_forward_length": hidden,
    }
    return Tiny("qwen3moe", {**keys, **more}, tensors)


def deepseek2(layers: int = 6, width: int = 1024, hidden: int = 2048) -> Tiny:
    """Multi-head latent attention: what is kept of a token is one vector, for all heads."""
    heads, latent, rope, nope, value = 8, 256, 32, 64, 64
    tensors = dict(_ends(width))
    for number in range(layers):
        block = f"blk.{number}"
        tensors |= {
            f"{block}.attn_norm.weight": (width,),
            f"{block}.attn_q.weight": (width, heads * (nope + rope)),
            f"{block}.attn_kv_a_mqa.weight": (width, latent + rope),
            f"{block}.attn_kv_a_norm.weight": (latent,),
            f"{block}.attn_k_b.weight": (nope, latent, heads),
            f"{block}.attn_v_b.weight": (latent, value, heads),
            f"{block}.attn_output.weight": (heads * value, width),
        }
        tensors |= _feed_forward(block, width, hidden)
    keys = _numbers(layers, width, heads, 1, hidden)
    more: dict[str, Key] = {
        "attention.key_length": latent + rope,
        "attention.value_length": latent,
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": value,
        "attention.kv_lora_rank": latent,
        "attention.q_lora_rank": 0,
        "rope.dimension_count": rope,
        "leading_dense_block_count": layers,
        "expert_feed_forward_length": hidden,
        "expert_shared_count": 1,
    }
    return Tiny("deepseek2", {**keys, **more}, tensors)


def lfm2(layers: int = 8, width: int = 1024, hidden: int = 2560) -> Tiny:
    """Three layers in four convolve and keep a state of a fixed size instead of every token."""
    heads, kv_heads = 16, 4
    attends = [number % 4 == 3 for number in range(layers)]
    tensors: dict[str, Shape] = {
        "token_embd.weight": (width, len(_TOKENS)),
        "token_embd_norm.weight": (width,),
    }
    for number in range(layers):
        block = f"blk.{number}"
        if attends[number]:
            tensors |= _attention(block, width, width, width // heads * kv_heads)
            names = ("attn_q", "attn_k")
            tensors |= {f"{block}.{name}_norm.weight": (width // heads,) for name in names}
        else:
            tensors |= {
                f"{block}.attn_norm.weight": (width,),
                f"{block}.shortconv.conv.weight": (3, width),
                f"{block}.shortconv.in_proj.weight": (width, 3 * width),
                f"{block}.shortconv.out_proj.weight": (width, width),
            }
        tensors |= _feed_forward(block, width, hidden)
    kv_heads_of = [kv_heads if does else 0 for does in attends]
    keys = _numbers(layers, width, heads, kv_heads_of, hidden)
    return Tiny("lfm2", {**keys, "shortconv.l_cache": 3, "vocab_size": len(_TOKENS)}, tensors)


def mamba2(layers: int = 6, width: int = 768) -> Tiny:
    """No attention at all: the state is all that is kept."""
    inner, state, groups, heads, kernel = 2 * width, 128, 1, 24, 4
    mixed = inner + 2 * groups * state
    tensors = dict(_ends(width))
    for number in range(layers):
        block = f"blk.{number}"
        tensors |= {
            f"{block}.attn_norm.weight": (width,),
            f"{block}.ssm_in.weight": (width, inner + mixed + heads),
            f"{block}.ssm_conv1d.weight": (kernel, mixed),
            f"{block}.ssm_conv1d.bias": (mixed,),
            f"{block}.ssm_dt.bias": (heads,),
            f"{block}.ssm_a": (1, heads),
            f"{block}.ssm_d": (1, heads),
            f"{block}.ssm_norm.weight": (inner // groups, groups),
            f"{block}.ssm_out.weight": (inner, width),
        }
    keys = _numbers(layers, width, 0, 0, 0)
    more: dict[str, Key] = {
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.group_count": groups,
        "ssm.time_step_rank": heads,
    }
    return Tiny("mamba2", {**keys, **more}, tensors)
