"""A fake of llama.cpp's server: with one model, while it loads, and as a router."""

from collections.abc import Mapping
from typing import Any

from tests.fakes.http_server import json_reply
from tests.fakes.openai_compatible import Json, Server, listing

GEMMA_META = {
    "vocab_type": 1,
    "n_vocab": 262144,
    "n_ctx": 8192,
    "n_ctx_train": 131072,
    "n_embd": 2560,
    "n_params": 3880099328,
    "size": 2484000000,
    "ftype": "Q4_K - Medium",
}


SEES = {"input_modalities": ["text", "image"], "output_modalities": ["text"]}


READS = {"input_modalities": ["text"], "output_modalities": ["text"]}


def props(model_path: str, template: str = "{{ messages }}", **modalities: bool) -> Json:
    return {
        "default_generation_settings": {"id": 0, "n_ctx": 8192, "params": {"seed": 4294967295}},
        "total_slots": 4,
        "model_alias": "gemma",
        "model_ftype": "Q4_K - Medium",
        "model_path": model_path,
        "modalities": {"vision": False, "video": False, "audio": False, **modalities},
        "endpoint_slots": True,
        "chat_template": template,
        "chat_template_caps": {"supports_tools": "tools" in template, "supports_parallel": True},
        "build_info": "b11434-0a1b2c3d",
        "is_sleeping": False,
    }


def llama_not_found(path: str) -> bytes:
    error = {"message": "File Not Found", "type": "not_found_error", "code": 404}
    return json_reply({"error": error}, 404)


def llama_says(body: Json) -> str | bytes:
    """Of b10434: a schema rules out the grammar without a word, and JSON needs a schema."""
    asked = body.get("response_format", {})
    if asked.get("type", "text") not in ("text", "json_object", "json_schema"):
        message = f'response_format type must be one of "text" or "json_object", but got: {asked}'
        error = {"code": 400, "message": message, "type": "invalid_request_error"}
        return json_reply({"error": error}, 400)
    if "schema" in asked or "json_schema" in asked:
        return '{"a": 1}'
    return "yes" if body.get("grammar") else "Hello."


def llama_server(
    key: str | None = None,
    path: str = "/models/gemma-3-4b-it-Q4_K_M.gguf",
    posts: Mapping[str, Any] | None = None,
) -> Server:
    """With one model; its /v1/models imitates Ollama's list in addition to OpenAI's."""
    name = "gemma-3-4b-it-Q4_K_M.gguf"
    ollama_like = {"name": name, "model": name, "size": "", "digest": "", "details": {"family": ""}}
    entry = {
        "id": name,
        "aliases": [],
        "owned_by": "llamacpp",
        "architecture": SEES,
        "meta": GEMMA_META,
    }
    models = {"models": [ollama_like], **listing(entry)}
    error = {"message": "Invalid API Key", "type": "authentication_error", "code": 401}
    return Server(
        {
            "/v1/models": models,
            "/models": models,
            "/props": props(path, "{{ tools }} <think> {{ messages }}", vision=True),
            "/health": {"status": "ok"},
        },
        llama_not_found,
        key,
        json_reply({"error": error}, 401),
        ("/health", "/v1/health"),
        posts=posts or {},
        says=llama_says,
    )


def llama_server_loading() -> Server:
    error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
    return Server({}, lambda _: json_reply({"error": error}, 503))


def llama_router() -> Server:
    """Without a model of its own: one is loaded, one sleeps, one waits, one comes from a folder."""

    def entry(name: str, status: str, *args: str, **more: Any) -> Json:
        return {
            "id": name,
            "aliases": [],
            "tags": [],
            "owned_by": "llamacpp",
            "status": {"value": status, "args": ["llama-server", *args], "preset": ""},
            "architecture": READS,
            "source": "cache",
            "can_remove": True,
            **more,
        }

    loaded, waiting = "ggml-org/gemma-3-4b-it-GGUF:Q4_K_M", "unsloth/Qwen3-8B-GGUF:UD-Q4_K_XL"
    models = listing(
        entry(loaded, "loaded", "-hf", loaded, meta=GEMMA_META, architecture=SEES),
        entry("ggml-org/tiny-GGUF:Q8_0", "sleeping", "-hf", "ggml-org/tiny-GGUF:Q8_0"),
        entry(waiting, "unloaded", "-hf", waiting),
        entry("mine", "unloaded", "--port", "0", "--model", "/models/mine-Q6_K.gguf"),
    )
    child = "/props?model=ggml-org%2Fgemma-3-4b-it-GGUF%3AQ4_K_M&autoload=false"
    router = {"role": "router", "model_path": "none", "build_info": "b11434-0a1b2c3d"}
    return Server(
        {
            "/v1/models": models,
            "/models": models,
            "/props": {**router, "default_generation_settings": {"params": {}, "n_ctx": 0}},
            child: props("/cache/gemma-3-4b-it-Q4_K_M.gguf", "{{ tools }}", vision=True),
            "/health": {"status": "ok"},
        },
        llama_not_found,
    )
