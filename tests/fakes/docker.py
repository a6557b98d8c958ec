"""A fake of Docker Model Runner."""

from tests.fakes.openai_compatible import Server, fake_tags, listing

DMR = {
    "context_window": 131072,
    "architecture": "gemma3",
    "parameters": "3.88 B",
    "quantization": "MOSTLY_Q4_K_M",
    "size": "2.31 GiB",
}


def docker(has_alias: bool = True) -> Server:
    """Docker Model Runner; /v1 is a newer alias of /engines/v1. It imitates Ollama."""
    models = listing(
        {"id": "ai/gemma3:4B-Q4_K_M", "owned_by": "docker", "dmr": DMR},
        {
            "id": "ai/smollm2:latest",
            "owned_by": "docker",
            "dmr": {"parameters": "361.82 M", "quantization": "IQ2_XXS/Q4_K_M"},
        },
        {"id": "ai/mxbai-embed-large:latest", "owned_by": "docker"},
    )
    running = {"backend_name": "llama.cpp", "mode": "completion", "in_use": True}
    return Server(
        {
            "/": "Docker Model Runner is running",
            "/engines/v1/models": models,
            **({"/v1/models": models} if has_alias else {}),
            "/engines/ps": [{**running, "model_name": "ai/gemma3:4B-Q4_K_M"}],
            "/api/tags": fake_tags("ai/gemma3:4B-Q4_K_M"),
        },
        chat_path="/engines/v1/chat/completions",
    )
