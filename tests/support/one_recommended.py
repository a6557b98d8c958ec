"""A list of recommended models with one model, so that tests do not depend on the real one."""

import pytest

from llm_localrun.gguf.header import Header
from llm_localrun.recommended import models
from llm_localrun.recommended.models import ListedFile, RecommendedModel, Use

NAME = "qwen3-0.6b"
_HEADER: dict[str, str | int] = {
    "general.architecture": "qwen3",
    "qwen3.block_count": 28,
    "qwen3.context_length": 40960,
    "qwen3.embedding_length": 1024,
    "qwen3.feed_forward_length": 3072,
    "qwen3.attention.head_count": 16,
    "qwen3.attention.head_count_kv": 8,
    "qwen3.attention.key_length": 128,
    "qwen3.attention.value_length": 128,
}


def recommend_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Qwen3 0.6B, of 0.4 GB, the only recommended model."""
    model = RecommendedModel(
        name=NAME,
        good_at="",
        uses=(Use.CHAT,),
        repository="o/r",
        revision="main",
        files=(ListedFile(path="x.gguf", size=396_705_472),),
        projector=None,
        parameters=596_049_920,
        active_parameters=596_049_920,
        quantization="Q4_K_M",
        license="Apache-2.0",
        header=Header(_HEADER),
    )
    monkeypatch.setattr(models, "listed_models", lambda: (model,))
