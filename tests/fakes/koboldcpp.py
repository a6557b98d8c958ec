"""A fake of KoboldCpp."""

from tests.fakes.openai_compatible import Server, fake_tags, listing, web_interface


def koboldcpp() -> Server:
    """It imitates Ollama, and answers the rest with its page."""
    return Server(
        {
            "/v1/models": listing({"id": "koboldcpp/mistral-7b.Q4_K_S", "owned_by": "koboldcpp"}),
            "/api/extra/version": {"result": "KoboldCpp", "version": "1.103", "vision": True},
            "/api/extra/true_max_context_length": {"value": 16384},
            "/api/version": {"version": "0.7.0"},
            "/api/tags": fake_tags("koboldcpp/mistral-7b.Q4_K_S"),
        },
        web_interface,
    )
