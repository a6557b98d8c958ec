"""A fake of GPT4All."""

from tests.fakes.openai_compatible import Server, listing


def gpt4all() -> Server:
    """No streaming, no tools; some of what it lists is a provider's."""
    return Server(
        {
            "/v1/models": listing(
                {"id": "Llama 3 8B Instruct", "owned_by": "humanity", "created": 0},
                {"id": "Qwen3-4B-Q4_0", "owned_by": "humanity", "created": 0},
                {"id": "ChatGPT-4", "owned_by": "humanity", "created": 0},
            )
        },
        streams=False,
    )
