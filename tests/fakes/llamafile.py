"""A fake of an old llamafile."""

from tests.fakes.http_server import not_found
from tests.fakes.llama_server import KEY_ERROR
from tests.fakes.openai_compatible import Server, listing


def llamafile(key: str | None = None) -> Server:
    """An old one, which knows of no owners, no meta and no /props."""
    return Server(
        {
            "/v1/models": listing({"id": "Llama-3.2-3B-Instruct.Q6_K.gguf"}),
            "/health": {"status": "ok"},
        },
        not_found,
        key,
        KEY_ERROR,
        ("/health", "/v1/models"),
    )
