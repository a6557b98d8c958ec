"""A stand-in for each kind of model server but LM Studio, which has a module of its own.

Each answers as its documentation or its source has it, quirks included: its unknown paths, its
imitations of others, what it says of a key. Ollama's bytes are recorded. `SERVERS` is all of them;
one of them is the `respond` of a `StandIn`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_server import Request, Respond, events, json_reply, transcript, whole
from tests.fakes.lmstudio import LMStudio

Json = dict[str, Any]
Otherwise = Callable[[str], bytes]


def text(body: str, status: int = 200, content_type: str = "text/plain") -> bytes:
    return whole(body.encode(), content_type, status)


# What servers say to a path that they do not know.


def not_found(path: str) -> bytes:
    return text("404 page not found", 404)


def starlette(path: str) -> bytes:
    """mlx_lm.server's own, and what FastAPI would wrap into JSON."""
    return text("Not Found", 404)


def fastapi(path: str) -> bytes:
    return json_reply({"detail": "Not Found"}, 404)


def llama_not_found(path: str) -> bytes:
    error = {"message": "File Not Found", "type": "not_found_error", "code": 404}
    return json_reply({"error": error}, 404)


def web_interface(path: str) -> bytes:
    """A page for people, whatever the path."""
    return text("<!doctype html><title>Welcome</title>", content_type="text/html")


@dataclass
class Server:
    """Answers GETs out of a table of JSON values and texts, and every prompt with "Hello."."""

    answers: Mapping[str, Any]
    otherwise: Otherwise = not_found
    key: str | None = None
    """The key that it asks for on all paths that are not `open`."""
    refusal: bytes = field(default_factory=lambda: json_reply({"detail": "Unauthorized"}, 401))
    open: tuple[str, ...] = ()
    chat_path: str = "/v1/chat/completions"
    streams: bool = True
    asked: list[Request] = field(default_factory=list)
    """The prompts that it was sent."""

    def __call__(self, request: Request) -> Iterator[bytes]:
        path = request.path
        if self.key and path not in self.open and not self._has_key(request):
            yield self.refusal
        elif request.method == "POST" and path == self.chat_path:
            self.asked.append(request)
            yield self._chat(request.body)
        elif request.method == "GET" and path in self.answers:
            answer = self.answers[path]
            yield text(answer) if isinstance(answer, str) else json_reply(answer)
        else:
            yield self.otherwise(path)

    def _has_key(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.key}"

    def _chat(self, body: Json) -> bytes:
        if not body["stream"]:
            message = {"role": "assistant", "content": "Hello."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return json_reply({"model": body["model"], "choices": [choice]})
        if not self.streams:
            return json_reply({"error": {"message": "streaming is not supported"}}, 400)
        delta = {"index": 0, "delta": {"content": "Hello."}, "finish_reason": "stop"}
        return events({"model": body["model"], "choices": [delta]})


def listing(*entries: Json) -> Json:
    """A /v1/models."""
    usual = {"object": "model", "created": 1763900000}
    return {"object": "list", "data": [{**usual, **entry} for entry in entries]}


def fake_tags(*names: str) -> Json:
    """What imitators of Ollama make of /api/tags."""
    return {
        "models": [{"name": name, "model": name, "digest": "", "details": {}} for name in names]
    }


# llama.cpp's server and those that are it, or were

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


def llama_server(key: str | None = None, path: str = "/models/gemma-3-4b-it-Q4_K_M.gguf") -> Server:
    """With one model; its /v1/models imitates Ollama's list beside OpenAI's."""
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


def llamafile() -> Server:
    """An old one, which knows of no owners, no meta and no /props."""
    return Server(
        {
            "/v1/models": listing({"id": "Llama-3.2-3B-Instruct.Q6_K.gguf"}),
            "/health": {"status": "ok"},
        }
    )


# Servers of what they were started with


def vllm(key: str | None = None) -> Server:
    base = {"owned_by": "vllm", "permission": []}
    return Server(
        {
            "/v1/models": listing(
                {
                    **base,
                    "id": "Qwen/Qwen3-8B",
                    "root": "Qwen/Qwen3-8B",
                    "parent": None,
                    "max_model_len": 40960,
                },
                {
                    **base,
                    "id": "sql-lora",
                    "root": "/adapters/sql",
                    "parent": "Qwen/Qwen3-8B",
                    "max_model_len": None,
                },
            ),
            "/version": {"version": "0.33.0"},
        },
        fastapi,
        key,
        json_reply({"error": "Unauthorized"}, 401),
        ("/version", "/health"),
    )


def vllm_with_a_file() -> Server:
    entry = {"id": "qwen3", "owned_by": "vllm", "root": "/models/qwen3-8b-Q8_0.gguf"}
    return Server({"/v1/models": listing({**entry, "max_model_len": 4096})}, fastapi)


def sglang() -> Server:
    """It imitates Ollama."""
    entry = {"id": "Qwen/Qwen3-8B", "owned_by": "sglang", "root": "Qwen/Qwen3-8B", "parent": None}
    return Server(
        {
            "/v1/models": listing({**entry, "max_model_len": 40960}),
            "/model_info": {
                "model_path": "Qwen/Qwen3-8B",
                "tokenizer_path": "Qwen/Qwen3-8B",
                "is_generation": True,
                "has_image_understanding": True,
                "has_audio_understanding": False,
                "reasoning_parser": "qwen3",
                "tool_call_parser": None,
            },
            "/server_info": {"version": "0.5.23", "model_path": "Qwen/Qwen3-8B"},
            "/api/tags": fake_tags("Qwen/Qwen3-8B"),
        },
        fastapi,
    )


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


def textgen() -> Server:
    """text-generation-webui with `--api`."""
    entry = {"id": "Qwen3-8B-Q4_K_M.gguf", "created": 0, "owned_by": "user"}
    return Server(
        {
            "/v1/models": listing(entry),
            "/v1/internal/model/info": {
                "model_name": "Qwen3-8B-Q4_K_M.gguf",
                "lora_names": [],
                "loader": "llama.cpp",
            },
            "/v1/internal/health": {"status": "ok"},
        },
        fastapi,
    )


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
    )


# Servers of many models


def omlx(key: str | None = None) -> Server:
    return Server(
        {
            "/v1/models": listing(
                {"id": "Qwen3-8B-4bit", "owned_by": "omlx", "max_model_len": 40960},
                {"id": "my-vlm", "owned_by": "omlx"},
                {"id": "bge-m3", "owned_by": "omlx"},
                {"id": "MarkItDown", "owned_by": "omlx"},
                {"id": "Kimi-K2-4bit", "owned_by": "omlx"},
            ),
            "/v1/models/status": {
                "models": [
                    {
                        "id": "Qwen3-8B-4bit",
                        "model_type": "llm",
                        "loaded": True,
                        "estimated_size": 4620000000,
                        "max_context_window": 32768,
                    },
                    {"id": "Qwen3-VL-4B-6bit", "model_alias": "my-vlm", "model_type": "vlm"},
                    {"id": "bge-m3", "model_type": "embedding", "loaded": False},
                    {"id": "MarkItDown", "model_type": "markitdown", "loaded": True},
                    {"id": "Kimi-K2-4bit", "model_type": "llm", "distributed": True},
                ]
            },
            "/health": {"status": "healthy", "engine_pool": {"model_count": 5, "loaded_count": 1}},
            "/api/status": {"status": "ok", "version": "0.7.0"},
        },
        fastapi,
        key,
        open=("/health",),
    )


def jan(key: str | None = "jan-key") -> Server:
    """The app, which always wants the key that was set in it, and shows nothing of its own."""
    return Server(
        {"/v1/models": listing({"id": "Qwen3-8B-Q4_K_M"}, {"id": "claude-opus-4-1"})},
        key=key,
        refusal=text("Unauthorized", 401),
    )


def localai(key: str | None = None) -> Server:
    """It does not sign, and imitates Ollama."""
    names = ("gpt-4", "bge-m3", "whisper-1")
    return Server(
        {
            "/v1/models": {
                "object": "list",
                "data": [{"id": name, "object": "model"} for name in names],
            },
            "/v1/models/capabilities": {
                "object": "list",
                "data": [
                    {
                        "id": "gpt-4",
                        "object": "model",
                        "capabilities": ["chat", "completion", "vision"],
                        "input_modalities": ["text", "image"],
                        "output_modalities": ["text"],
                        "context_size": 8192,
                    },
                    {"id": "bge-m3", "object": "model", "capabilities": ["embeddings"]},
                    {"id": "whisper-1", "object": "model", "capabilities": ["transcript"]},
                ],
            },
            "/.well-known/localai.json": {
                "version": "v4.9.0",
                "endpoints": {"chat_completions": "/v1/chat/completions"},
            },
            "/api/tags": fake_tags(*names),
            "/readyz": "OK",
        },
        web_interface,
        key,
        json_reply({"error": {"code": 401, "message": "invalid api key", "type": ""}}, 401),
        ("/.well-known/localai.json", "/readyz"),
    )


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


def llamaswap() -> Server:
    def entry(name: str, kind: str, status: str = "unloaded", **more: Any) -> Json:
        meta = {"llamaswap": {"type": kind}}
        return {
            "id": name,
            "owned_by": "llama-swap",
            "status": {"value": status},
            "meta": meta,
            **more,
        }

    return Server(
        {
            "/v1/models": listing(
                entry(
                    "qwen3-8b",
                    "model",
                    "loaded",
                    context_length=32768,
                    capabilities={"function_calling": True},
                    meta={"llamaswap": {"type": "model"}, "n_ctx": 32768},
                ),
                entry("gemma-3", "model", capabilities={"vision": True}),
                entry("unsloth/Qwen3-8B-GGUF:Q4_K_M", "peer", peerID="nas"),
                entry("best", "selector"),
            ),
            "/api/version": {"version": "180", "commit": "abc", "build_date": "2026-08-22"},
            "/running": {"running": []},
            "/health": "OK",
        }
    )


def llamaswap_of_old() -> Server:
    """Its list says neither what is loaded nor what is a peer's, but for the peer's id."""
    return Server(
        {
            "/v1/models": listing(
                {"id": "qwen3-8b", "owned_by": "llama-swap"},
                {
                    "id": "glm-5",
                    "owned_by": "llama-swap",
                    "name": "nas: glm-5",
                    "meta": {"llamaswap": {"peerID": "nas"}},
                },
            ),
            "/running": {"running": [{"model": "qwen3-8b", "state": "ready", "ttl": 0}]},
            "/health": "OK",
        }
    )


def unsloth(key: str | None = "sk-unsloth-key") -> Server:
    return Server(
        {
            "/v1/models": listing(
                {
                    "id": "unsloth/Qwen3-8B-GGUF",
                    "owned_by": "unsloth-studio",
                    "loaded": True,
                    "status": {"value": "loaded"},
                    "quant": "UD-Q4_K_XL",
                    "context_length": 32768,
                    "max_context_length": 40960,
                    "native_context_length": 40960,
                    "vram_fit_context_length": 36864,
                },
                {"id": "openai/gpt-5", "owned_by": "unsloth-studio"},
            ),
            "/api/health": {
                "status": "healthy",
                "service": "Unsloth UI Backend",
                "version": "2026.10.9",
            },
            "/props": {**props("/x.gguf"), "build_info": "unsloth-studio/2026.10.9"},
        },
        fastapi,
        key,
        json_reply({"detail": "Not authenticated"}, 401),
        ("/api/health",),
    )


# Ollama and what stands at its port


def recorded(*names: str) -> Respond:
    """What an Ollama 0.32.15 has answered to each request that it was recorded with."""
    exchanges = [exchange for name in names for exchange in transcript(name)]

    def respond(request: Request) -> Iterator[bytes]:
        for exchange in exchanges:
            asked = (exchange.method, exchange.path, exchange.request)
            if asked == (request.method, request.path, request.body):
                yield exchange.reply()
                return
        yield not_found(request.path)

    return respond


def litellm() -> Server:
    """A proxy, which signs everything as OpenAI's."""
    return Server(
        {
            "/v1/models": listing(
                {"id": "gpt-4o", "owned_by": "openai"}, {"id": "my-claude", "owned_by": "openai"}
            )
        },
        fastapi,
    )


def nexus() -> Server:
    """Msty's gateway on Ollama's port: nothing tells its own models from a provider's."""
    return Server({"/v1/models": listing({"id": "qwen3:8b"}, {"id": "grok-4"})})


# What is no model server


def airplay() -> Server:
    """macOS, on text-generation-webui's port."""
    return Server({}, lambda _: text("", 403, ""))


def jupyter() -> Server:
    """On Unsloth's port."""
    return Server({}, web_interface)


SERVERS: dict[str, Callable[[], Respond]] = {
    "llama-server": llama_server,
    "llama-server, loading": llama_server_loading,
    "llama-server, locked": lambda: llama_server("secret"),
    "llama-server, router": llama_router,
    "llamafile": llamafile,
    "vLLM": vllm,
    "vLLM, locked": lambda: vllm("secret"),
    "vLLM, a file": vllm_with_a_file,
    "SGLang": sglang,
    "KoboldCpp": koboldcpp,
    "text-generation-webui": textgen,
    "mistral.rs": mistralrs,
    "mlx_lm.server": mlx,
    "oMLX": omlx,
    "oMLX, locked": lambda: omlx("secret"),
    "Jan": lambda: jan(key=None),
    "Jan, locked": jan,
    "LocalAI": localai,
    "LocalAI, locked": lambda: localai("secret"),
    "GPT4All": gpt4all,
    "Docker Model Runner": docker,
    "Docker Model Runner of old": lambda: docker(has_alias=False),
    "Lemonade": lemonade,
    "Lemonade without models": lemonade_without_models,
    "llama-swap": llamaswap,
    "llama-swap of old": llamaswap_of_old,
    "Unsloth Studio": lambda: unsloth(key=None),
    "Unsloth Studio, locked": unsloth,
    "Ollama": lambda: recorded("openai", "tags", "version", "show", "ps"),
    "LM Studio": LMStudio,
    "LM Studio 0.3.30": lambda: LMStudio(api="v0"),
    "LM Studio 0.3.5": lambda: LMStudio(api="old"),
    "LM Studio, locked": lambda: LMStudio(token="secret"),
    "LM Studio without models": lambda: LMStudio(models=()),
    "LM Studio that loads nothing by itself": lambda: LMStudio(jit=False),
    "LiteLLM": litellm,
    "Msty Nexus": nexus,
    "AirPlay": airplay,
    "Jupyter": jupyter,
}
"""By what they are; each call makes a new one."""


def get(respond: Respond, path: str, key: str | None = None, body: Any = None) -> bytes:
    """The reply to one request, without a socket."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    method = "GET" if body is None else "POST"
    pieces = respond(Request(method, path, headers, body))
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def parsed(reply: bytes) -> tuple[int, Any, str]:
    """Status, JSON if it is any, and text of a reply."""
    head, _, body = reply.partition(b"\r\n\r\n")
    if b"chunked" in head:
        body = b"".join(body.split(b"\r\n")[1::2])
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    return int(head.split()[1]), value, body.decode()
