"""A fake of Jan."""

from tests.fakes.http_server import text
from tests.fakes.openai_compatible import Server, listing


def jan(key: str | None = "jan-key") -> Server:
    """The app, which always wants the key that was set in it, and shows nothing of its own."""
    return Server(
        {"/v1/models": listing({"id": "Qwen3-8B-Q4_K_M"}, {"id": "claude-opus-4-1"})},
        key=key,
        refusal=text("Unauthorized", 401),
    )
