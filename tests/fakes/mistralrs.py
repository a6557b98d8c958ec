"""A fake of mistral.rs."""

from tests.fakes.openai_compatible import Server, listing


def mistralrs() -> Server:
    """On LM Studio's port; `default` is one of the others."""
    return Server(
        {
            "/v1/models": listing(
                {"id": "default", "owned_by": "local"},
                {"id": "Qwen/Qwen3-4B", "owned_by": "local", "status": "loaded"},
                {"id": "google/gemma-3-4b-it", "owned_by": "local", "status": "unloaded"},
            ),
            "/health": "OK",
        }
    )
