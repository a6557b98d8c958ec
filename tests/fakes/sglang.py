"""A fake of SGLang."""

from tests.fakes.openai_compatible import Server, fake_tags, fastapi, listing


def sglang() -> Server:
    """It imitates Ollama."""
    entry = {"id": "Qwen/Qwen3-8B", "owned_by": "sglang", "root": "Qwen/Qwen3-8B", "parent": None}
    return Server(
        {
            "/v1/models": listing({**entry, "max_model_len": 40960}),
            "/model_info": {
                "model_path": "Qwen/Qwen3-8B",
                "tokenizer_path": "Qwen/Qwen3-8B",
                "is_generation": True,
                "has_image_understanding": True,
                "has_audio_understanding": False,
                "reasoning_parser": "qwen3",
                "tool_call_parser": None,
            },
            "/server_info": {"version": "0.5.23", "model_path": "Qwen/Qwen3-8B"},
            "/api/tags": fake_tags("Qwen/Qwen3-8B"),
        },
        fastapi,
    )
