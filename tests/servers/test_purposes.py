"""What models are for, as each kind of server says it."""

from collections.abc import Mapping
from typing import Any

import pytest

from llm_localrun.models import Endpoint, LocalModel, Purpose
from llm_localrun.servers.base import Facts, ModelListing, server_class
from llm_localrun.servers.fields import served_model, stated_purpose
from llm_localrun.wire.response import ProbeReply
from llm_localrun.wire.sse import Payload
from tests.fakes.http_server import get, parsed
from tests.fakes.openai_compatible import Server, listing

pytestmark = pytest.mark.pure

Listed = Mapping[str, Any]


def models_of(kind: str, answers: Listed, posts: Mapping[str, Listed] | None = None) -> list[Any]:
    """The models that a server lists, with all details. `posts` are /api/show's, by model."""
    server = server_class(kind)(Endpoint(name=kind, kind=kind, url="http://127.0.0.1:9"))

    def ask(path: str, json: Payload | None = None) -> ProbeReply:
        replies = {"/api/show": (posts or {}).get(json["model"])} if json else answers
        return ProbeReply(*parsed(get(Server(replies), path, None, None)))

    listed = server.list_models(ask, ask("/v1/models"), ModelListing())
    assert listed is not None
    *_, models = [list(listed.models), *server.add_details(ask, listed.models)]
    return models


def purposes(models: list[LocalModel]) -> dict[str, Purpose]:
    return {model.name: model.purpose for model in models}


def v1(**entries: Any) -> Listed:
    return {"/v1/models": listing(*({"id": name, **more} for name, more in entries.items()))}


def studio(path: str, key: str, name: str, *kinds: str) -> Listed:
    entries = [{name: kind, "type": kind, "state": "not-loaded"} for kind in kinds]
    return {"/v1/models": listing(), path: {key: entries}}


def outputs(*modalities: str) -> Listed:
    return {"architecture": {"input_modalities": ["text"], "output_modalities": modalities}}


def args(*flags: str) -> Listed:
    status = {"value": "unloaded", "args": ["llama-server", "--alias", "rerank-ish", *flags]}
    return {**outputs("text"), "status": status}


LM_STUDIO_TYPES = ("llm", "vlm", "embedding", "embeddings", "reranker", "decision", "tts", "new")
LM_STUDIO = dict(
    zip(
        LM_STUDIO_TYPES,
        ("chat", "chat", "embedding", "embedding", "rerank", "decision", "other", "other"),
        strict=True,
    )
)
BY_NAME = {
    "qwen3-8b": "chat",
    "bge-m3": "embedding",
    "bge-reranker-base": "rerank",
    "cross-encoder/ms-marco-MiniLM-L6-v2": "rerank",
    "ms-marco-CrossEncoder-MiniLM": "rerank",
    "whisper-1": "other",
    "nimble": "chat",  # Nothing says what it is.
}
WITHOUT_WORDS = (
    *("docker", "gpt4all", "jan", "koboldcpp", "llamafile", "llamaswap", "mistralrs", "mlx"),
    *("openai", "gateway", "sglang", "textgen", "unsloth", "vllm", "lmstudio", "llamacpp"),
    *("localai", "lemonade", "omlx"),
)
STATED: list[tuple[str, Listed, Mapping[str, str]]] = [
    *((kind, v1(**{key: {} for key in BY_NAME}), BY_NAME) for kind in WITHOUT_WORDS),
    ("lmstudio", studio("/api/v1/models", "models", "key", *LM_STUDIO_TYPES), LM_STUDIO),
    ("lmstudio", studio("/api/v0/models", "data", "id", *LM_STUDIO_TYPES), LM_STUDIO),
    (
        "lmstudio",
        {"/api/v1/models": {"models": [{"key": "qwen3-reranker-4b", "type": "llm"}]}},
        {"qwen3-reranker-4b": "rerank"},
    ),
    (
        "llamacpp",
        v1(a=outputs("decisions"), b=outputs("text"), c={}, d=outputs("audio"), e=outputs()),
        {"a": "decision", "b": "chat", "c": "chat", "d": "other", "e": "chat"},
    ),
    (
        "llamacpp",
        v1(
            a=args("--reranking"),
            b=args("--embedding", "--rerank"),
            c=args("--embeddings"),
            d=args(),
            e={**args("--jinja"), **outputs("decisions")},
        ),
        {"a": "rerank", "b": "rerank", "c": "embedding", "d": "chat", "e": "decision"},
    ),
    (
        "localai",
        {
            **v1(a={}, b={}, c={}, d={}, e={}, f={}),
            "/v1/models/capabilities": {
                "data": [
                    {"id": "a", "capabilities": ["completion", "chat", "embeddings"]},
                    {"id": "b", "capabilities": ["embeddings"]},
                    {"id": "c", "capabilities": ["rerank"]},
                    {"id": "d", "capabilities": ["image"]},
                    {"id": "e", "capabilities": ["completion"]},
                    {"id": "f"},
                ]
            },
        },
        {"a": "chat", "b": "embedding", "c": "rerank", "d": "other", "e": "other", "f": "chat"},
    ),
    (
        "lemonade",
        v1(
            a={"labels": ["reasoning"], "recipe": "llamacpp"},
            b={"labels": ["embeddings"], "recipe": "llamacpp"},
            c={"labels": ["reranking"], "recipe": "llamacpp"},
            d={"labels": ["image"], "recipe": "sd-cpp"},
            e={"labels": ["hot"], "recipe": "llamacpp", "downloaded": False},
        ),
        {"a": "chat", "b": "embedding", "c": "rerank", "d": "other"},
    ),
    (
        "omlx",
        {
            **v1(**{key: {} for key in "abcde"}),
            "/v1/models/status": {
                "models": [
                    {"id": "a", "model_type": "vlm"},
                    {"id": "b", "model_type": "embedding"},
                    {"id": "c", "model_type": "reranker"},
                    {"id": "d", "model_type": "audio_stt"},
                    {"id": "e"},
                ]
            },
        },
        {"a": "chat", "b": "embedding", "c": "rerank", "d": "other", "e": "chat"},
    ),
    (
        "sglang",
        {
            **v1(**{"BAAI/bge-reranker-v2-m3": {}}),
            "/model_info": {"is_generation": False},
        },
        {"BAAI/bge-reranker-v2-m3": "rerank"},
    ),
]


@pytest.mark.parametrize(("kind", "answers", "expected"), STATED)
def test_purpose_that_a_server_states(kind: str, answers: Listed, expected: Listed) -> None:
    assert purposes(models_of(kind, answers)) == expected


# Ollama: the list, then /api/show, which counts.

SHOWN: list[tuple[str, Any, Any, str]] = [
    ("m", ["completion", "tools"], {}, "chat"),
    ("m", ["embedding"], {}, "embedding"),
    ("m", ["decision"], {}, "decision"),
    ("m", ["vision", "decision"], {}, "decision"),
    ("m", ["rerank"], {}, "rerank"),
    ("m", ["image"], {}, "other"),
    ("m", ["image", "vision"], {}, "other"),
    ("m", ["of the future"], {}, "other"),
    ("m", None, {}, "chat"),
    ("m", [], {}, "chat"),
    ("nomic-embed-text:latest", None, {}, "embedding"),
    # It takes all that has a pooling for an embedding model, and the rest for a chat model.
    ("m", ["embedding"], {"bert.pooling_type": 4}, "rerank"),
    ("m", ["embedding"], {"bert.pooling_type": 2}, "embedding"),
    ("dengcao/Qwen3-Reranker-0.6B:Q8_0", ["completion"], {}, "rerank"),
    ("m", ["completion"], {"bert.decision.type": "nimble"}, "decision"),
]


@pytest.mark.parametrize(("name", "capabilities", "info", "purpose"), SHOWN)
def test_purpose_of_a_model_at_ollama(
    name: str, capabilities: Any, info: Listed, purpose: str
) -> None:
    told = {} if capabilities is None else {"capabilities": capabilities}
    architecture = {"general.architecture": "bert"} if info else {}
    for in_list in (told, {}):
        tags = {"models": [{"name": name, "digest": "0a", **in_list}]}
        show = {**told, "model_info": {**architecture, **info}}
        found = models_of("ollama", {"/api/tags": tags}, {name: show})
        assert purposes(found) == {name: purpose}


def test_what_the_header_at_ollama_says_is_remembered() -> None:
    tags = {"models": [{"name": "m", "digest": "0a", "capabilities": ["embedding"]}]}
    info = {"general.architecture": "bert", "bert.pooling_type": 4}
    (known,) = models_of("ollama", {"/api/tags": tags}, {"m": {"model_info": info}})
    server = server_class("ollama")(known.served.endpoint)

    def ask(path: str, json: Payload | None = None) -> ProbeReply:
        assert json is None, "it asks again"
        return ProbeReply(*parsed(get(Server({"/api/tags": tags}), path, None, None)))

    listed = server.list_models(ask, ask("/v1/models"), ModelListing((known,)))
    assert listed is not None
    assert purposes([*listed.models]) == {"m": "rerank"}


@pytest.mark.parametrize(
    ("words", "purpose"),
    [
        (("Decision",), "decision"),
        (("rerank", "embeddings"), "embedding"),
        (("decision", "completion"), "chat"),
        ((), "other"),
        (("",), "other"),
    ],
)
def test_words_for_purposes(words: tuple[str, ...], purpose: str) -> None:
    assert stated_purpose(*words) == purpose


@pytest.mark.parametrize(
    ("name", "facts", "purpose"),
    [
        ("qwen3-8b", {}, "chat"),
        ("bge-reranker", {"purpose": "embedding"}, "rerank"),
        ("rerank-nimble", {"purpose": "decision"}, "decision"),
        ("rerank-pictures", {"purpose": "other"}, "other"),
    ],
)
def test_name_of_a_reranker_counts_at_every_server(name: str, facts: Facts, purpose: str) -> None:
    endpoint = Endpoint(name="box", kind="vllm", url="http://127.0.0.1:9")
    assert served_model(endpoint, name, facts).purpose == purpose
