"""A fake of vLLM."""

from tests.fakes.http_server import json_reply
from tests.fakes.openai_compatible import Server, fastapi, listing


def vllm(key: str | None = None) -> Server:
    base = {"owned_by": "vllm", "permission": []}
    return Server(
        {
            "/v1/models": listing(
                {
                    **base,
                    "id": "Qwen/Qwen3-8B",
                    "root": "Qwen/Qwen3-8B",
                    "parent": None,
                    "max_model_len": 40960,
                },
                {
                    **base,
                    "id": "sql-lora",
                    "root": "/adapters/sql",
                    "parent": "Qwen/Qwen3-8B",
                    "max_model_len": None,
                },
            ),
            "/version": {"version": "0.33.0"},
        },
        fastapi,
        key,
        json_reply({"error": "Unauthorized"}, 401),
        ("/version", "/health"),
    )


def vllm_of(name: str) -> Server:
    """With one model, which it was started with under this name."""
    entry = {"id": name, "owned_by": "vllm", "root": name, "max_model_len": 4096}
    return Server({"/v1/models": listing(entry), "/version": {"version": "0.33.0"}}, fastapi)


def vllm_with_a_file() -> Server:
    entry = {"id": "qwen3", "owned_by": "vllm", "root": "/models/qwen3-8b-Q8_0.gguf"}
    return Server({"/v1/models": listing({**entry, "max_model_len": 4096})}, fastapi)
