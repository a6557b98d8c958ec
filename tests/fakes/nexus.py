"""A fake of Msty Nexus, a gateway on Ollama's port."""

from tests.fakes.openai_compatible import Server, listing


def nexus() -> Server:
    """Msty's gateway on Ollama's port: its own models look like a provider's."""
    return Server({"/v1/models": listing({"id": "qwen3:8b"}, {"id": "grok-4"})})
