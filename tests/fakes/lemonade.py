"""A fake of Lemonade."""

from typing import Any

from tests.fakes.openai_compatible import Json, Server, listing


def lemonade() -> Server:
    def entry(name: str, recipe: str, labels: list[str], **more: Any) -> Json:
        usual = {"owned_by": "lemonade", "recipe": recipe, "labels": labels, "downloaded": True}
        return {"id": name, **usual, **more}

    models = listing(
        entry(
            "Qwen3-4B-GGUF",
            "llamacpp",
            ["reasoning", "tool-calling"],
            checkpoint="unsloth/Qwen3-4B-GGUF:Q4_0",
            size=2.4,
            max_context_window=40960,
            context_length=4096,
        ),
        entry(
            "Gemma-3-4b-it-GGUF", "llamacpp", ["vision"], checkpoint="ggml-org/gemma-3-4b-it-GGUF"
        ),
        entry("nomic-embed-text-v2-GGUF", "llamacpp", ["embeddings"], size=0.5),
        entry("bge-reranker-v2-m3-GGUF", "llamacpp", ["reranking"]),
        entry("Whisper-Tiny", "whispercpp", ["audio", "transcription"]),
        entry("SD-Turbo", "sd-cpp", ["image"]),
        entry("fireworks.glm-5p3", "cloud", ["tool-calling"], cloud_provider="fireworks"),
        entry("Halo", "collection.router", []),
    )
    health = {
        "status": "ok",
        "version": "10.3.0",
        "model_loaded": "Qwen3-4B-GGUF",
        "all_models_loaded": [
            {
                "model_name": "Qwen3-4B-GGUF",
                "recipe": "llamacpp",
                "recipe_options": {"ctx_size": 8192, "llamacpp_backend": "vulkan"},
                "device": "gpu",
            }
        ],
    }
    return Server(
        {
            **{f"{root}/models": models for root in ("/v1", "/api/v1", "/api/v0")},
            **{f"{root}/health": health for root in ("/v1", "/api/v1", "/api/v0")},
            "/live": {"status": "ok"},
        }
    )


def lemonade_without_models() -> Server:
    """Its empty list is the same under the paths of LM Studio's."""
    models, health = listing(), {"status": "ok", "version": "10.3.0", "all_models_loaded": []}
    return Server(
        {
            **{f"{root}/models": models for root in ("/v1", "/api/v1", "/api/v0")},
            "/v1/health": health,
        }
    )
