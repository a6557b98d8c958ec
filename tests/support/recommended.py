"""Made-up models for the list of recommended ones."""

from llm_localrun.gguf.header import Header, Value
from llm_localrun.recommended.models import ListedFile, RecommendedModel, Use

LLAMA: dict[str, Value] = {
    "general.architecture": "llama",
    "llama.context_length": 32_768,
    "llama.block_count": 32,
    "llama.embedding_length": 4096,
    "llama.feed_forward_length": 12_288,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
}


def listed(
    name: str, size: float, *uses: Use, active: float | None = None, **keys: Value
) -> RecommendedModel:
    """A model of `size` GB, of which `active` are read for a token."""
    return RecommendedModel(
        name=name,
        good_at=", ".join(use.value for use in uses) or "chat",
        uses=uses or (Use.CHAT,),
        repository=f"org/{name}",
        revision="main",
        files=(ListedFile(path=f"{name}.gguf", size=int(size * 10**9)),),
        projector=None,
        parameters=int(size * 2 * 10**9),
        active_parameters=int((active or size) * 2 * 10**9),
        quantization="Q4_K_M",
        license="MIT",
        date="2026-11-29",
        header=Header({**LLAMA, **keys}),
    )
