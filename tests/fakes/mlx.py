"""Fakes of mlx_lm.server, the last two of what 0.32.2 was seen to answer."""

from tests.fakes.http_server import whole
from tests.fakes.openai_compatible import Json, Server, listing, starlette


def mlx_says(body: Json) -> str:
    """Of 0.32: it cuts texts to stop at out and goes on, and knows no format and no effort."""
    said = "I think. Hello." if _thinks(body) else "Hello."
    for stop in body.get("stop", ()):
        said = said.replace(stop, "")
    return said


def _thinks(body: Json) -> bool:
    return bool(body.get("chat_template_kwargs", {}).get("enable_thinking"))


def mlx() -> Server:
    """mlx_lm.server: whatever MLX repository is in the Hugging Face cache."""
    return Server(
        {
            "/v1/models": listing(
                {"id": "mlx-community/Qwen3-8B-4bit"},
                {"id": "mlx-community/bge-small-en-v1.5-bf16"},
                {"id": "mlx-community/whisper-large-v3-mlx"},
            ),
            "/health": {"status": "ok"},
        },
        starlette,
        says=mlx_says,
    )


def mlx_without_cache() -> Server:
    """It cannot list what is in a cache that does not exist, and sends no body at all."""
    return Server({"/v1/models": whole(b""), "/health": {"status": "ok"}}, starlette)


def mlx_of_a_folder() -> Server:
    """With `--model FOLDER` and an empty cache."""
    models = listing({"id": "/models/SmolLM2-135M-Instruct"})
    return Server({"/v1/models": models, "/health": {"status": "ok"}}, starlette)
