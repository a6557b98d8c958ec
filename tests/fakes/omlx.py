"""A fake of oMLX."""

from tests.fakes.openai_compatible import Server, fastapi, listing


def omlx(key: str | None = None) -> Server:
    return Server(
        {
            "/v1/models": listing(
                {"id": "Qwen3-8B-4bit", "owned_by": "omlx", "max_model_len": 40960},
                {"id": "my-vlm", "owned_by": "omlx"},
                {"id": "bge-m3", "owned_by": "omlx"},
                {"id": "MarkItDown", "owned_by": "omlx"},
                {"id": "Kimi-K2-4bit", "owned_by": "omlx"},
            ),
            "/v1/models/status": {
                "models": [
                    {
                        "id": "Qwen3-8B-4bit",
                        "model_type": "llm",
                        "loaded": True,
                        "estimated_size": 4620000000,
                        "max_context_window": 32768,
                    },
                    {"id": "Qwen3-VL-4B-6bit", "model_alias": "my-vlm", "model_type": "vlm"},
                    {"id": "bge-m3", "model_type": "embedding", "loaded": False},
                    {"id": "MarkItDown", "model_type": "markitdown", "loaded": True},
                    {"id": "Kimi-K2-4bit", "model_type": "llm", "distributed": True},
                ]
            },
            "/health": {"status": "healthy", "engine_pool": {"model_count": 5, "loaded_count": 1}},
            "/api/status": {"status": "ok", "version": "0.7.0"},
        },
        fastapi,
        key,
        open=("/health",),
    )
