"""A fake of text-generation-webui."""

from tests.fakes.openai_compatible import Server, fastapi, listing


def textgen() -> Server:
    """text-generation-webui with `--api`."""
    entry = {"id": "Qwen3-8B-Q4_K_M.gguf", "created": 0, "owned_by": "user"}
    return Server(
        {
            "/v1/models": listing(entry),
            "/v1/internal/model/info": {
                "model_name": "Qwen3-8B-Q4_K_M.gguf",
                "lora_names": [],
                "loader": "llama.cpp",
            },
            "/v1/internal/health": {"status": "ok"},
        },
        fastapi,
    )
