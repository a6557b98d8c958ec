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


KEY_ERROR = json_reply(
    {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}}, 401
)
OPEN = ("/health", "/v1/health", "/models", "/v1/models", "/")
"""What a build such as b10434 answers without the key."""


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
    public: tuple[str, ...] = ("/health", "/v1/health"),
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
    return Server(
        {
            "/v1/models": models,
            "/models": models,
            "/props": props(path, "{{ tools }} <think> {{ messages }}", vision=True),
            "/health": {"status": "ok"},
        },
        llama_not_found,
        key,
        KEY_ERROR,
        public,
        posts=posts or {},
        says=llama_says,
    )


def llama_decider() -> Server:
    """With a model for decisions: the list is what b11549 sent for one. It would chat, too."""
    entry = {
        "id": "/models/nimble.gguf",
        "aliases": ["/models/nimble.gguf"],
        "tags": [],
        "architecture": {"input_modalities": ["text"], "output_modalities": ["decisions"]},
        "owned_by": "llamacpp",
        "meta": {**GEMMA_META, "n_ctx": 512},
    }
    own = {**props("/models/nimble.gguf"), "build_info": "b11549-c1c4f1a"}
    return Server({"/v1/models": listing(entry), "/props": own}, llama_not_found)


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


def llama_router_of_folder(
    *paths: str, context: str = "1024", key: str | None = None, loaded: str = ""
) -> Server:
    """With `--models-dir` and `-c`, as b10434 was seen to answer; `loaded` is a path."""

    def entry(path: str) -> Json:
        name = path.rpartition("/")[2].removesuffix(".gguf")
        arguments = ["llama-server", "--host", "127.0.0.1", "--port", "0", "--alias", name]
        return {
            "id": name,
            "aliases": [],
            "tags": [],
            "owned_by": "llamacpp",
            "status": {
                "value": "loaded" if path == loaded else "unloaded",
                "args": [*arguments, "--ctx-size", context, "--model", path, "--threads", "1"],
                "preset": f"[{name}]\nctx-size = {context}\nmodel = {path}\nthreads = 1\n\n",
            },
            "architecture": READS,
            "source": "models_dir",
            "can_remove": False,
        }

    router = {"role": "router", "model_path": "none", "build_info": "b1-7e4c0a9"}
    models = listing(*map(entry, paths))
    return Server(
        {
            "/v1/models": models,
            "/models": models,
            "/props": {**router, "default_generation_settings": {"params": None, "n_ctx": 0}},
            "/health": {"status": "ok"},
        },
        llama_not_found,
        key,
        KEY_ERROR,
        OPEN,
    )
