"""Recognizing a server and what it serves, from JSON alone, without a socket."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from llm_localrun.models import Endpoint, LocalModel, RunsOn, ServerStatus
from llm_localrun.servers.base import ModelListing
from llm_localrun.servers.recognize import Recognition, recognize
from llm_localrun.wire.response import ProbeReply
from llm_localrun.wire.sse import Payload
from tests.fakes.http_server import transcript

pytestmark = pytest.mark.pure

Answers = Mapping[str, ProbeReply]
Otherwise = Callable[[str], ProbeReply]
Facts = Mapping[str, Mapping[str, Any]]

HERE = "http://127.0.0.1:9"


def says(value: Any, status: int = 200) -> ProbeReply:
    return ProbeReply(status, value if isinstance(value, dict) else None, json.dumps(value))


def text(body: str, status: int = 200) -> ProbeReply:
    return ProbeReply(status, None, body)


def not_found(path: str) -> ProbeReply:
    return text("404 page not found", 404)


def unexpected(path: str) -> ProbeReply:
    """LM Studio's answer to a path that it does not know."""
    return says({"error": f"Unexpected endpoint or method. (GET {path})"})


def fastapi(path: str) -> ProbeReply:
    return says({"detail": "Not Found"}, 404)


def website(path: str) -> ProbeReply:
    return text("<!doctype html><title>It works!</title>")


def recorded(*names: str) -> dict[str, ProbeReply]:
    """What an Ollama has answered to each GET."""
    return {
        exchange.path: says(json.loads(exchange.body), exchange.status)
        if "json" in exchange.content_type
        else text(exchange.body.decode().strip(), exchange.status)
        for name in names
        for exchange in transcript(name)
        if exchange.method == "GET"
    }


def ask(
    answers: Answers, otherwise: Otherwise = not_found, url: str = HERE
) -> tuple[Recognition, list[str]]:
    """The identity of the server that gives these answers, and the paths that it was asked for."""
    asked = []

    def reply(path: str, json: Payload | None = None) -> ProbeReply:
        asked.append(path)
        return answers[path] if path in answers else otherwise(path)

    endpoint = Endpoint(name="box", kind="vllm", url=url)
    found = recognize(reply, endpoint, ModelListing())
    assert found is not None
    return found, asked


def listing(*ids: str, owned_by: str | None = None, **more: Any) -> ProbeReply:
    """A /v1/models, of which only the essence is the same everywhere."""
    signed = {} if owned_by is None else {"owned_by": owned_by}
    entries = [{"id": name, "object": "model", "created": 1, **signed, **more} for name in ids]
    return says({"object": "list", "data": entries})


def assert_models(models: Iterable[LocalModel], facts: Facts) -> None:
    """The models are exactly those in `facts`, and of each at least this is known."""
    by_name = {model.name: model for model in models}
    assert [*by_name] == [*facts]
    for name, expected in facts.items():
        assert {field: getattr(by_name[name], field) for field in expected} == expected, name


OTHER_TYPES = ("drafter", "imageGen", "tts", "new")
LMSTUDIO_V1 = {
    "/v1/models": listing("google/gemma-4-26b-a4b", "nomic", owned_by="organization_owner"),
    "/api/v1/models": says(
        {
            "models": [
                {
                    "type": "llm",
                    "publisher": "google",
                    "key": "google/gemma-4-26b-a4b",
                    "architecture": "gemma4",
                    "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
                    "size_bytes": 17990911801,
                    "params_string": "26B-A4B",
                    "loaded_instances": [
                        {
                            "id": "google/gemma-4-26b-a4b",
                            "config": {"context_length": 4096, "parallel": 4},
                        }
                    ],
                    "max_context_length": 262144,
                    "format": "gguf",
                    "capabilities": {"vision": True, "trained_for_tool_use": True},
                    "variants": ["google/gemma-4-26b-a4b@q4_k_m"],
                },
                {
                    "type": "embedding",
                    "publisher": "gaianet",
                    "key": "text-embedding-nomic-embed-text-v1.5-embedding",
                    "quantization": {"name": "F16", "bits_per_weight": 16},
                    "size_bytes": 274290560,
                    "params_string": None,
                    "loaded_instances": [],
                    "max_context_length": 2048,
                    "format": "gguf",
                },
                {
                    "type": "llm",
                    "key": "qwen/qwen3-8b",
                    "architecture": None,
                    "quantization": {"name": None, "bits_per_weight": None},
                    "loaded_instances": [{"id": "qwen/qwen3-8b", "config": {}}],
                    "format": None,
                },
                {"type": "llm", "key": "mystery", "quantization": None},
                *({"type": kind, "key": kind} for kind in OTHER_TYPES),
            ]
        }
    ),
}

LMSTUDIO_V0 = {
    "/v1/models": listing("qwen2-vl-7b-instruct", owned_by="organization_owner"),
    "/api/v0/models": says(
        {
            "object": "list",
            "data": [
                {
                    "id": "qwen2-vl-7b-instruct",
                    "type": "vlm",
                    "arch": "qwen2_vl",
                    "compatibility_type": "mlx",
                    "quantization": "4bit",
                    "state": "not-loaded",
                    "max_context_length": 32768,
                },
                {
                    "id": "meta-llama-3.1-8b-instruct",
                    "type": "llm",
                    "arch": "llama",
                    "compatibility_type": "gguf",
                    "quantization": "Q4_K_M",
                    "state": "loaded",
                    "max_context_length": 131072,
                    "loaded_context_length": 8192,
                    "capabilities": ["tool_use"],
                },
                {
                    "id": "text-embedding-nomic-embed-text-v1.5",
                    "type": "embeddings",
                    "arch": "nomic-bert",
                    "quantization": "Q4_0",
                    "state": "not-loaded",
                    "max_context_length": 2048,
                },
                {"id": "whisper", "type": "transcription", "state": "loaded"},
            ],
        }
    ),
}

OLLAMA = {
    **recorded("tags", "version"),
    "/v1/models": listing("smollm2:135m", owned_by="library"),
}

OLLAMA_WITH_STUB = {**OLLAMA, **recorded(RunsOn.CLOUD)}

SMOLLM2 = {
    "architecture": "llama",
    "quantization": "Q4_1",
    "parameters": 134_520_000,
    "size": 98362745,
    "context_max": 8192,
    "context_loaded": None,
    "loaded": None,
    "purpose": "chat",
    "runs_on": RunsOn.THIS_MACHINE,
}

LLAMACPP_META = {
    "vocab_type": 1,
    "n_ctx": 8192,
    "n_ctx_train": 131072,
    "n_params": 3880099328,
    "size": 2484000000,
    "ftype": "Q4_K - Medium",
}


@pytest.mark.parametrize(
    ("answers", "otherwise", "kind", "facts"),
    [
        pytest.param(
            LMSTUDIO_V1,
            unexpected,
            "lmstudio",
            {
                "google/gemma-4-26b-a4b": {
                    "architecture": "gemma4",
                    "quantization": "Q4_K_M",
                    "size": 17990911801,
                    "context_max": 262144,
                    "context_loaded": 4096,
                    "loaded": True,
                    "purpose": "chat",
                    "runs_on": RunsOn.UNKNOWN,
                },
                "text-embedding-nomic-embed-text-v1.5-embedding": {
                    "quantization": "F16",
                    "size": 274290560,
                    "context_max": 2048,
                    "context_loaded": None,
                    "loaded": False,
                    "purpose": "embedding",
                },
                "qwen/qwen3-8b": {
                    "architecture": "",
                    "quantization": "",
                    "size": None,
                    "context_max": None,
                    "context_loaded": None,
                    "loaded": True,
                },
                "mystery": {"quantization": "", "loaded": False},
                **{key: {"purpose": "other"} for key in OTHER_TYPES},
            },
            id="LM Studio since 0.4",
        ),
        pytest.param(
            {**LMSTUDIO_V1, "/v1/models": listing()},
            unexpected,
            "lmstudio",
            {
                "google/gemma-4-26b-a4b": {"loaded": True},
                "text-embedding-nomic-embed-text-v1.5-embedding": {},
                "qwen/qwen3-8b": {},
                "mystery": {},
                **{key: {} for key in OTHER_TYPES},
            },
            id="LM Studio that lists only what is loaded",
        ),
        pytest.param(
            {"/v1/models": listing(), "/api/v1/models": says({"models": []})},
            unexpected,
            "lmstudio",
            {},
            id="LM Studio without models",
        ),
        pytest.param(
            LMSTUDIO_V0,
            unexpected,
            "lmstudio",
            {
                "qwen2-vl-7b-instruct": {
                    "architecture": "qwen2_vl",
                    "quantization": "4bit",
                    "context_max": 32768,
                    "context_loaded": None,
                    "loaded": False,
                    "purpose": "chat",
                },
                "meta-llama-3.1-8b-instruct": {
                    "quantization": "Q4_K_M",
                    "context_max": 131072,
                    "context_loaded": 8192,
                    "loaded": True,
                    "purpose": "chat",
                },
                "text-embedding-nomic-embed-text-v1.5": {"purpose": "embedding", "loaded": False},
                "whisper": {"purpose": "other", "loaded": True},
            },
            id="LM Studio since 0.3.6",
        ),
        pytest.param(
            {"/v1/models": listing("qwen3-8b@q8_0", "phi-4", owned_by="organization_owner")},
            unexpected,
            "lmstudio",
            {
                "qwen3-8b@q8_0": {"quantization": "Q8_0", "loaded": None, "context_max": None},
                "phi-4": {"quantization": ""},
            },
            id="LM Studio that tells names only",
        ),
        pytest.param(OLLAMA, not_found, "ollama", {"smollm2:135m": SMOLLM2}, id="Ollama"),
        pytest.param(
            {
                **OLLAMA,
                "/v1/models": says({"object": "list", "data": None}),
                "/api/tags": says({"models": []}),
            },
            not_found,
            "ollama",
            {},
            id="Ollama with an empty store",
        ),
        pytest.param(
            {**OLLAMA, "/v1/models": listing("me/mine:latest", owned_by="me")},
            not_found,
            "ollama",
            {"smollm2:135m": SMOLLM2},
            id="Ollama whose newest model is a user's",
        ),
        pytest.param(
            {
                **OLLAMA,
                "/api/tags": says(
                    {
                        "models": [
                            {
                                "name": "nomic-embed-text:latest",
                                "digest": "0a",
                                "details": {"families": None, "parameter_size": "137M"},
                                "capabilities": ["embedding"],
                            },
                            {
                                "name": "old:latest",
                                "digest": "0b",
                                "size": 5,
                                "details": {"parameter_size": "1.5B", "quantization_level": ""},
                            },
                            {"name": "bare:latest", "digest": "0c"},
                        ]
                    }
                ),
            },
            not_found,
            "ollama",
            {
                "nomic-embed-text:latest": {"purpose": "embedding", "parameters": 137_000_000},
                "old:latest": {
                    "purpose": "chat",
                    "parameters": 1_500_000_000,
                    "quantization": "",
                    "context_max": None,
                },
                "bare:latest": {"purpose": "chat", "parameters": None, "size": None},
            },
            id="Ollama before 0.30, and an embedding model",
        ),
        pytest.param(
            {
                "/v1/models": says(
                    {
                        "models": [{"name": "gemma-3-4b-it-Q4_K_M.gguf", "details": {}}],
                        "object": "list",
                        "data": [
                            {
                                "id": "gemma-3-4b-it-Q4_K_M.gguf",
                                "owned_by": "llamacpp",
                                "meta": LLAMACPP_META,
                            }
                        ],
                    }
                )
            },
            not_found,
            "llamacpp",
            {
                "gemma-3-4b-it-Q4_K_M.gguf": {
                    "quantization": "Q4_K_M",
                    "parameters": 3880099328,
                    "size": 2484000000,
                    "context_max": 131072,
                    "context_loaded": 8192,
                    "loaded": True,
                    "purpose": "chat",
                }
            },
            id="llama-server",
        ),
        pytest.param(
            {"/v1/models": listing("gemma", owned_by="llamacpp", meta=LLAMACPP_META)},
            not_found,
            "llamacpp",
            {"gemma": {"quantization": "Q4_K_M"}},
            id="llama-server under a name that tells no quantization",
        ),
        pytest.param(
            {"/v1/models": listing("m-Q8_0.gguf", owned_by="llamacpp", meta=None)},
            not_found,
            "llamacpp",
            {
                "m-Q8_0.gguf": {
                    "quantization": "Q8_0",
                    "parameters": None,
                    "context_max": None,
                    "context_loaded": None,
                    "loaded": None,
                }
            },
            id="llama-server that is loading",
        ),
        pytest.param(
            {
                "/v1/models": listing(
                    "/models/qwen3-8b.gguf",
                    owned_by="llamacpp",
                    meta={"n_ctx_train": 40960, "n_params": 8190735360, "size": 5027783488},
                )
            },
            not_found,
            "llamacpp",
            {
                "/models/qwen3-8b.gguf": {
                    "parameters": 8190735360,
                    "context_max": 40960,
                    "context_loaded": None,
                }
            },
            id="llama-server before 2026",
        ),
        pytest.param(
            {
                "/v1/models": listing(),
                "/api/version": says({"version": "0.7.0"}),
                "/api/tags": says({"models": [{"name": "koboldcpp", "digest": "x"}]}),
            },
            website,
            "openai",
            {},
            id="an imitator of Ollama without a model",
        ),
        pytest.param(
            {"/v1/models": listing(), "/health": says({"status": "ok"})},
            fastapi,
            "openai",
            {},
            id="FastAPI without models",
        ),
        pytest.param(
            {
                "/v1/models": listing("openai/gpt-oss", owned_by="openai"),
                "/health": says({"status": "ok"}),
                "/openapi.json": says({"paths": {"/v1/models": {}}}),
            },
            fastapi,
            "openai",
            {"openai/gpt-oss": {"runs_on": RunsOn.UNKNOWN}},
            id="FastAPI whose models are signed with their owners",
        ),
        pytest.param(
            {
                "/v1/models": listing("Qwen3-8B-exl3", owned_by="tabbyAPI"),
                "/health": says({"status": "healthy", "issues": []}),
            },
            fastapi,
            "openai",
            {"Qwen3-8B-exl3": {"runs_on": RunsOn.THIS_MACHINE}},
            id="TabbyAPI",
        ),
        pytest.param(
            {
                "/v1/models": listing(
                    "/embeddings/Qwen3-8B-Q4_K_M.gguf", "C:\\e5\\phi-4-Q8_0.gguf"
                ),
            },
            not_found,
            "openai",
            {
                "/embeddings/Qwen3-8B-Q4_K_M.gguf": {"purpose": "chat", "quantization": "Q4_K_M"},
                "C:\\e5\\phi-4-Q8_0.gguf": {"purpose": "chat", "quantization": "Q8_0"},
            },
            id="models in folders whose names say something else",
        ),
        pytest.param(
            {
                "/v1/models": listing("qwen3", owned_by="library"),
                "/": text("Not quite Ollama is running"),
            },
            not_found,
            "openai",
            {"qwen3": {}},
            id="one that signs like Ollama and is not",
        ),
    ],
)
def test_server_answers(answers: Answers, otherwise: Otherwise, kind: str, facts: Facts) -> None:
    identity, _ = ask(answers, otherwise)
    assert (identity.kind, identity.status) == (kind, ServerStatus.ANSWERS)
    assert_models(identity.models, facts)


@pytest.mark.parametrize(
    ("answers", "otherwise", "kind", "status"),
    [
        pytest.param(
            {},
            lambda _: says(
                {
                    "error": {
                        "type": "invalid_request",
                        "code": "invalid_api_key",
                        "message": "An LM Studio API token is required",
                    }
                },
                401,
            ),
            "lmstudio",
            ServerStatus.NEEDS_KEY,
            id="LM Studio with authentication",
        ),
        pytest.param(
            {},
            lambda _: says({"error": {"message": "Invalid API Key", "code": 401}}, 401),
            "openai",
            ServerStatus.NEEDS_KEY,
            id="llama-server with a key",
        ),
        pytest.param(
            {},
            lambda _: says({"detail": "Forbidden"}, 403),
            "openai",
            ServerStatus.NEEDS_KEY,
            id="403 and a word",
        ),
        pytest.param({}, website, "openai", ServerStatus.UNRECOGNIZED, id="a website"),
        pytest.param({}, not_found, "openai", ServerStatus.UNRECOGNIZED, id="404 to everything"),
        pytest.param(
            {"/v1/models": text(""), "/health": text("OK")},
            not_found,
            "openai",
            ServerStatus.UNRECOGNIZED,
            id="an empty list of a server in good health",
        ),
        pytest.param(
            {"/v1/models": text("Internal Server Error", 500), "/health": says({"status": "ok"})},
            fastapi,
            "openai",
            ServerStatus.UNRECOGNIZED,
            id="FastAPI that fails",
        ),
        pytest.param(
            {}, unexpected, "openai", ServerStatus.UNRECOGNIZED, id="200 and an error, always"
        ),
        pytest.param(
            {},
            lambda _: says({"error": {"code": 503, "message": "Loading model"}}, 503),
            "llamacpp",
            ServerStatus.LOADING,
            id="llama-server that loads",
        ),
        pytest.param(
            {},
            lambda _: text("Service Unavailable", 503),
            "openai",
            ServerStatus.UNRECOGNIZED,
            id="503 to everything",
        ),
        pytest.param(
            {"/v1/models": says({"object": "list", "data": []}, 500)},
            not_found,
            "openai",
            ServerStatus.UNRECOGNIZED,
            id="the right JSON under the wrong status",
        ),
        pytest.param(
            {"/v1/models": says({"object": "list", "data": None})},
            not_found,
            "openai",
            ServerStatus.UNRECOGNIZED,
            id="a null list and no Ollama",
        ),
        pytest.param(
            {"/": text("Ollama is running\n"), "/api/tags": says({"models": None})},
            not_found,
            "ollama",
            ServerStatus.UNRECOGNIZED,
            id="Ollama whose list is broken",
        ),
        pytest.param(
            {"/": text("Ollama is running"), "/api/tags": text("", 500)},
            not_found,
            "ollama",
            ServerStatus.UNRECOGNIZED,
            id="Ollama that cannot list",
        ),
    ],
)
def test_server_without_models(
    answers: Answers, otherwise: Otherwise, kind: str, status: str
) -> None:
    identity, _ = ask(answers, otherwise)
    assert (identity.kind, identity.status, identity.models) == (kind, status, ())


def cloud_tags(*names: str) -> Answers:
    models = [{"name": name, "digest": "0a", "size": 292} for name in names]
    return {**OLLAMA, "/api/tags": says({"models": models})}


LEMONADE_CLOUD = listing("gpt-5", owned_by="lemonade", recipe=RunsOn.CLOUD, cloud_provider="openai")
PEER = listing("big", owned_by="llama-swap", meta={"llamaswap": {"type": "peer"}}, peerID="nas")


@pytest.mark.parametrize(
    (ServerStatus.ANSWERS, "url", "runs_on"),
    [
        pytest.param(
            OLLAMA_WITH_STUB,
            HERE,
            {
                "cloudstub:latest": RunsOn.CLOUD,
                "smollm2-go:latest": RunsOn.THIS_MACHINE,
                "smollm2-native:latest": RunsOn.THIS_MACHINE,
                "smollm2-embed:latest": RunsOn.THIS_MACHINE,
                "smollm2:135m": RunsOn.THIS_MACHINE,
            },
            id="a stub under a name of its own",
        ),
        pytest.param(
            cloud_tags("gpt-oss:120b-cloud", "glm-4.6:cloud", "cloud:8b", "m:icloud"),
            HERE,
            {
                "gpt-oss:120b-cloud": RunsOn.CLOUD,
                "glm-4.6:cloud": RunsOn.CLOUD,
                "cloud:8b": RunsOn.THIS_MACHINE,
                "m:icloud": RunsOn.THIS_MACHINE,
            },
            id="a name whose tag says cloud",
        ),
        pytest.param(
            OLLAMA_WITH_STUB,
            "http://192.168.1.40:11434",
            {
                "cloudstub:latest": RunsOn.CLOUD,
                "smollm2-go:latest": RunsOn.ANOTHER_MACHINE,
                "smollm2-native:latest": RunsOn.ANOTHER_MACHINE,
                "smollm2-embed:latest": RunsOn.ANOTHER_MACHINE,
                "smollm2:135m": RunsOn.ANOTHER_MACHINE,
            },
            id="Ollama on another machine",
        ),
        pytest.param(
            OLLAMA,
            "https://ollama.com:443",
            {"smollm2:135m": RunsOn.CLOUD},
            id="Ollama's own cloud",
        ),
        pytest.param(
            {"/v1/models": listing("m", owned_by="vllm")},
            "http://box.local:8000",
            {"m": RunsOn.ANOTHER_MACHINE},
            id="a host with a name",
        ),
        pytest.param(
            {"/v1/models": listing("m", owned_by="vllm")},
            "http://[::1]:8000",
            {"m": RunsOn.THIS_MACHINE},
            id="loopback in the sixth version",
        ),
        pytest.param(
            {"/v1/models": LEMONADE_CLOUD},
            HERE,
            {"gpt-5": RunsOn.CLOUD},
            id="a provider of Lemonade's",
        ),
    ],
)
def test_where_models_run(answers: Answers, url: str, runs_on: dict[str, str]) -> None:
    identity, _ = ask(answers, url=url)
    assert {model.name: model.runs_on for model in identity.models} == runs_on


def test_peer_of_llama_swap_is_not_on_this_machine() -> None:
    identity, _ = ask({"/v1/models": PEER})
    assert [model.runs_on for model in identity.models] in ([RunsOn.UNKNOWN], [RunsOn.CLOUD])


@pytest.mark.parametrize(
    ("owner", "meta"),
    [
        ("llama-swap", {"llamaswap": {"type": "model"}, "n_ctx": 32768}),
        ("llama-swap", {"llamaswap": {"type": "model"}}),
        ("llamacpp", None),
    ],
)
@pytest.mark.parametrize("status", ["unloaded", ServerStatus.LOADING])
def test_model_that_can_be_loaded_is_not_called_loaded(
    owner: str, meta: dict[str, Any] | None, status: str
) -> None:
    entry = listing("qwen3-8b", owned_by=owner, status={"value": status}, meta=meta)
    (model,) = ask({"/v1/models": entry})[0].models
    assert not model.loaded


def test_model_on_linked_devices_is_one_model() -> None:
    def on_a_device(context: int) -> dict[str, Any]:
        instance = {"id": "google/gemma", "config": {"context_length": context}}
        return {"type": "llm", "key": "google/gemma", "loaded_instances": [instance]}

    answers = {
        "/v1/models": listing("google/gemma", owned_by="organization_owner"),
        "/api/v1/models": says({"models": [on_a_device(8192), on_a_device(4096)]}),
    }
    (model,) = ask(answers, unexpected)[0].models
    assert model.context_loaded == 4096


@pytest.mark.parametrize(
    "body",
    [
        '{"data": {}}',
        '{"data": "models"}',
        '{"data": ["m"]}',
        '{"data": [null]}',
        '{"data": [{}]}',
        '{"data": [{"id": null}]}',
        '{"data": [{"id": 7}]}',
    ],
)
def test_broken_listing_is_not_understood(body: str) -> None:
    identity, _ = ask({"/v1/models": says(json.loads(body))})
    assert (identity.status, identity.models) == (ServerStatus.UNRECOGNIZED, ())


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("8.2B", 8_200_000_000),
        ("567.75M", 567_750_000),
        ("22k", 22_000),
        ("1T", 1_000_000_000_000),
        ("", None),
        ("large", None),
        ("-1B", None),
        ("9" * 400 + "B", None),
    ],
)
def test_size_that_ollama_tells(size: str, parameters: int | None) -> None:
    tags = {"models": [{"name": "m", "digest": "0a", "details": {"parameter_size": size}}]}
    (model,) = ask({**OLLAMA, "/api/tags": says(tags)})[0].models
    assert model.parameters == parameters


@pytest.mark.parametrize(
    ("answers", "otherwise", "asked"),
    [
        pytest.param(
            {"/v1/models": listing("m", owned_by="humanity")},
            not_found,
            ["/v1/models"],
            id="signed",
        ),
        pytest.param(
            LMSTUDIO_V1, unexpected, ["/v1/models", "/api/v1/models"], id="LM Studio since 0.4"
        ),
        pytest.param(
            LMSTUDIO_V0,
            unexpected,
            ["/v1/models", "/api/v1/models", "/api/v0/models"],
            id="LM Studio since 0.3.6",
        ),
        pytest.param(
            OLLAMA,
            not_found,
            ["/v1/models", "/", "/api/tags", "/api/ps", "/api/version", "/api/show"],
            id="Ollama",
        ),
        pytest.param({}, website, ["/v1/models", "/"], id="a website"),
    ],
)
def test_no_needless_question(answers: Answers, otherwise: Otherwise, asked: list[str]) -> None:
    assert ask(answers, otherwise)[1] == asked


@pytest.mark.parametrize(
    "odd",
    [{"meta": {"n_ctx": math.inf}}, {"meta": [1]}, {"meta": {"n_ctx": -1}}, {"max_model_len": "x"}],
)
@pytest.mark.parametrize("owner", ["llamacpp", "vllm"])
def test_odd_fact_is_not_known_and_no_more(owner: str, odd: dict[str, Any]) -> None:
    (model,) = ask({"/v1/models": listing("m", owned_by=owner, **odd)})[0].models
    assert (model.name, model.context_loaded) == ("m", None)
