"""The types of tensors, as ggml stores them.

Choosing a type when a model is quantized is left to `quantize.recipes`.

Source: ggml of llama.cpp b11549, `enum ggml_type` in include/ggml.h and the type traits in ggml.c.
"""

from collections.abc import Mapping
from enum import IntEnum


class TensorType(IntEnum):
    """A type: its number in a GGUF file, the weights in a block, and the bytes of a block."""

    block: tuple[int, int]

    # With the defaults, a type checker accepts a lookup: TensorType(12).
    def __new__(cls, number: int, block_weights: int = 0, block_bytes: int = 0) -> "TensorType":
        member = int.__new__(cls, number)
        member._value_ = number
        member.block = block_weights, block_bytes
        return member

    F32 = 0, 1, 4
    F16 = 1, 1, 2
    Q4_0 = 2, 32, 18
    Q4_1 = 3, 32, 20
    Q5_0 = 6, 32, 22
    Q5_1 = 7, 32, 24
    Q8_0 = 8, 32, 34
    Q2_K = 10, 256, 84
    Q3_K = 11, 256, 110
    Q4_K = 12, 256, 144
    Q5_K = 13, 256, 176
    Q6_K = 14, 256, 210
    IQ2_XXS = 16, 256, 66
    IQ2_XS = 17, 256, 74
    IQ3_XXS = 18, 256, 98
    IQ1_S = 19, 256, 50
    IQ4_NL = 20, 32, 18
    IQ3_S = 21, 256, 110
    IQ2_S = 22, 256, 82
    IQ4_XS = 23, 256, 136
    I8 = 24, 1, 1
    I16 = 25, 1, 2
    I32 = 26, 1, 4
    I64 = 27, 1, 8
    F64 = 28, 1, 8
    IQ1_M = 29, 256, 56
    BF16 = 30, 1, 2
    TQ1_0 = 34, 256, 54
    TQ2_0 = 35, 256, 66
    MXFP4 = 39, 32, 17
    NVFP4 = 40, 64, 36
    Q1_0 = 41, 128, 18
    Q2_0 = 42, 64, 18


BLOCKS: Mapping[int, tuple[int, int]] = {each: each.block for each in TensorType}
"""Weights in a block and bytes of a block, by the number of a type."""


def type_name(number: int) -> str:
    """The name of a type: `Q4_K`; `type 99` if it is unknown."""
    return TensorType(number).name if number in BLOCKS else f"type {number}"
