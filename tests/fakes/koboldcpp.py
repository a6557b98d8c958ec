"""A fake of KoboldCpp."""

from tests.fakes.http_server import json_reply
from tests.fakes.openai_compatible import Server, fake_tags, listing, web_interface


def koboldcpp(password: str | None = None) -> Server:
    """It imitates Ollama, and answers the rest with its page. A password guards what generates."""
    error = {"error": "Unauthorized", "msg": "Authentication key is missing or invalid."}
    server = Server(
        {
            "/v1/models": listing({"id": "koboldcpp/mistral-7b.Q4_K_S", "owned_by": "koboldcpp"}),
            "/api/extra/version": {"result": "KoboldCpp", "version": "1.103", "vision": True},
            "/api/extra/true_max_context_length": {"value": 16384},
            "/api/version": {"version": "0.7.0"},
            "/api/tags": fake_tags("koboldcpp/mistral-7b.Q4_K_S"),
            "/": "<!doctype html><title>KoboldAI Lite</title>",
        },
        web_interface,
        password,
        json_reply({"detail": error}, 401),
    )
    server.open = tuple(server.answers)
    server.answers = {**server.answers, "/api/extra/generate/check": {"results": [{"text": ""}]}}
    return server
