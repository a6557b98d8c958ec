"""What a header tells about the memory that a context needs, for published models."""

from typing import Any

import pytest

from llm_localrun.gguf.header import Header
from llm_localrun.memory.geometry import Geometry, geometry_of
from tests.support.published_models import (
    DEEPSEEK_V3,
    GEMMA_3_27B,
    GEMMA_4_SHARING,
    GPT_OSS_20B,
    JAMBA,
    LLAMA_3_1_8B,
    QWEN3_30B_A3B,
    QWEN3_NEXT_80B,
)


def geometry(keys: dict[str, Any], **more: Any) -> Geometry:
    known = geometry_of(Header({**keys, **more}))
    assert known is not None
    return known


@pytest.mark.parametrize(
    ("keys", "per_token", "in_window", "window"),
    [
        pytest.param(LLAMA_3_1_8B, 131_072, 0, 0, id="Llama 3.1 8B"),
        pytest.param(QWEN3_30B_A3B, 98_304, 0, 0, id="Qwen3 30B A3B"),
        pytest.param(DEEPSEEK_V3, 70_272, 0, 0, id="DeepSeek V3"),
        pytest.param(GPT_OSS_20B, 24_576, 24_576, 128, id="gpt-oss 20B"),
        pytest.param(GEMMA_3_27B, 81_920, 425_984, 1024, id="Gemma 3 27B"),
        pytest.param(QWEN3_NEXT_80B, 24_576, 0, 0, id="Qwen3 Next 80B"),
        pytest.param(JAMBA, 1024, 0, 0, id="Jamba"),
        pytest.param(GEMMA_4_SHARING, 2048, 2048, 512, id="Gemma 4, layers that share"),
    ],
)
def test_what_is_cached_for_a_token(
    keys: dict[str, Any], per_token: int, in_window: int, window: int
) -> None:
    known = geometry(keys)
    assert 2 * known.kv_width == per_token
    assert (2 * known.window_kv_width, known.window) == (in_window, window)


@pytest.mark.parametrize(
    ("more", "kv_width"),
    [
        # llama.cpp does not cache for a layer that predicts further tokens.
        ({"llama.block_count": 33, "llama.nextn_predict_layers": 1}, 65_536),
        # Without the number of key heads there are as many as heads.
        ({"llama.attention.head_count_kv": None}, 262_144),
        # This architecture has no windows.
        ({"llama.attention.sliding_window": 4096}, 65_536),
        ({"llama.attention.key_length": 256, "llama.attention.value_length": 128}, 98_304),
        ({"llama.attention.head_count_kv": (8, 0, 8, 0), "llama.block_count": 4}, 4096),
        ({"llama.attention.head_count": 0}, 0),
    ],
)
def test_keys_that_change_what_is_cached(more: dict[str, Any], kv_width: int) -> None:
    known = geometry(LLAMA_3_1_8B, **more)
    assert (known.kv_width, known.window_kv_width) == (kv_width, 0)


def test_states() -> None:
    """36 of 48 layers: 3 steps of the convolution over 8,192 numbers, and 128 for each of 4,096."""
    assert geometry(QWEN3_NEXT_80B).state_width == 36 * (3 * 8192 + 128 * 4096)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"general.architecture": "llama"},
        {"general.architecture": "llama", "llama.block_count": 32},
        {"general.architecture": "llama", "llama.embedding_length": 64, "llama.block_count": 0},
        {k: v for k, v in LLAMA_3_1_8B.items() if k != "llama.embedding_length"},
        {k: -v if isinstance(v, int) else v for k, v in LLAMA_3_1_8B.items()},
    ],
)
def test_header_without_the_numbers(keys: dict[str, Any]) -> None:
    assert geometry_of(Header(keys)) is None
