"""A fake of mlx_lm.server."""

from tests.fakes.openai_compatible import Server, listing, starlette


def mlx() -> Server:
    """mlx_lm.server: whatever MLX repository is in the Hugging Face cache."""
    return Server(
        {
            "/v1/models": listing(
                {"id": "mlx-community/Qwen3-8B-4bit"},
                {"id": "mlx-community/bge-small-en-v1.5-bf16"},
                {"id": "mlx-community/whisper-large-v3-mlx"},
            ),
            "/health": {"status": "ok"},
        },
        starlette,
    )
