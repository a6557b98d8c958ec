"""A fake of Unsloth Studio."""

from tests.fakes.http_server import json_reply
from tests.fakes.llama_server import props
from tests.fakes.openai_compatible import Server, fastapi, listing


def unsloth(key: str | None = "sk-unsloth-key") -> Server:
    return Server(
        {
            "/v1/models": listing(
                {
                    "id": "unsloth/Qwen3-8B-GGUF",
                    "owned_by": "unsloth-studio",
                    "loaded": True,
                    "status": {"value": "loaded"},
                    "quant": "UD-Q4_K_XL",
                    "context_length": 32768,
                    "max_context_length": 40960,
                    "native_context_length": 40960,
                    "vram_fit_context_length": 36864,
                },
                {"id": "openai/gpt-5", "owned_by": "unsloth-studio"},
            ),
            "/api/health": {
                "status": "healthy",
                "service": "Unsloth UI Backend",
                "version": "2026.10.9",
            },
            "/props": {**props("/x.gguf"), "build_info": "unsloth-studio/2026.10.9"},
        },
        fastapi,
        key,
        json_reply({"detail": "Not authenticated"}, 401),
        ("/api/health",),
    )
