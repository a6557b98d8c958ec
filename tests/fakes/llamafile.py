"""A fake of an old llamafile."""

from tests.fakes.openai_compatible import Server, listing


def llamafile() -> Server:
    """An old one, which knows of no owners, no meta and no /props."""
    return Server(
        {
            "/v1/models": listing({"id": "Llama-3.2-3B-Instruct.Q6_K.gguf"}),
            "/health": {"status": "ok"},
        }
    )
