"""A fake of LocalAI."""

from tests.fakes.http_server import json_reply
from tests.fakes.openai_compatible import Server, fake_tags, web_interface


def localai(key: str | None = None) -> Server:
    """It does not sign, and imitates Ollama."""
    names = ("gpt-4", "bge-m3", "whisper-1")
    return Server(
        {
            "/v1/models": {
                "object": "list",
                "data": [{"id": name, "object": "model"} for name in names],
            },
            "/v1/models/capabilities": {
                "object": "list",
                "data": [
                    {
                        "id": "gpt-4",
                        "object": "model",
                        "capabilities": ["chat", "completion", "vision"],
                        "input_modalities": ["text", "image"],
                        "output_modalities": ["text"],
                        "context_size": 8192,
                    },
                    {"id": "bge-m3", "object": "model", "capabilities": ["embeddings"]},
                    {"id": "whisper-1", "object": "model", "capabilities": ["transcript"]},
                ],
            },
            "/.well-known/localai.json": {
                "version": "v4.9.0",
                "endpoints": {"chat_completions": "/v1/chat/completions"},
            },
            "/api/tags": fake_tags(*names),
            "/readyz": "OK",
        },
        web_interface,
        key,
        json_reply({"error": {"code": 401, "message": "invalid api key", "type": ""}}, 401),
        ("/.well-known/localai.json", "/readyz"),
    )
