"""The stand-in for LM Studio does what LM Studio's documentation says, and its quirks."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fakes.http_server import StandIn
from tests.fakes.lmstudio import MODELS, Call, LMStudio, Reply, Says, in_turn

GEMMA = "google/gemma-4-26b-a4b"
OSS = "openai/gpt-oss-20b"
VISION = "qwen2-vl-7b-instruct"
GRANITE = "granite-3.0-2b-instruct"
LLAMA = "llama-3.1-8b@q4_k_m"
EMBED = "text-embedding-nomic-embed-text-v1.5"

CHAT = "/v1/chat/completions"
CHAT_V0 = "/api/v0/chat/completions"
LOAD = "/api/v1/models/load"
PIXEL = "data:image/png;base64,iVBORw0KGgo="
WEATHER = {
    "type": "function",
    "function": {"name": "get_current_weather", "parameters": {"type": "object"}},
}
CALL = Call("get_current_weather", {"location": "San Francisco"})
DOG = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/Age"}},
    "required": ["name", "age"],
    "$defs": {"Age": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
}
AS_DOG = {"type": "json_schema", "json_schema": {"name": "dog", "schema": DOG}}

Json = dict[str, Any]
Ask = Any


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture
def ask(client: httpx.Client) -> Ask:
    """One request to a server; its status and its JSON."""

    def ask(server: LMStudio, method: str, path: str, body: Any = None, **headers: str) -> Any:
        with StandIn(server) as stand_in:
            reply = client.request(method, stand_in.url + path, json=body, headers=headers)
        return reply.status_code, reply.json()

    return ask


@pytest.fixture
def chat(client: httpx.Client) -> Ask:
    """A prompt: the status and JSON of the reply, or its events if it is streamed."""

    def chat(server: LMStudio, model: str = GEMMA, path: str = CHAT, **body: Any) -> Any:
        messages = [{"role": "user", "content": body.pop("prompt", "Hello")}]
        with StandIn(server) as stand_in:
            payload = {"model": model, "messages": messages, **body}
            reply = client.post(stand_in.url + path, json=payload)
        return reply.status_code, reply.text if body.get("stream") else reply.json()

    return chat


def events(text: str) -> list[Any]:
    """The data of server-sent events; the end mark as it is."""
    lines = [line for line in text.split("\n") if line.startswith("data: ")]
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


def deltas(text: str) -> list[Json]:
    return [event["choices"][0]["delta"] for event in events(text)[:-1]]


def joined(text: str, name: str) -> str:
    return "".join(delta.get(name, "") for delta in deltas(text))


def unexpected(method: str, path: str) -> tuple[int, Json]:
    return 200, {"error": f"Unexpected endpoint or method. ({method} {path})"}


# Paths


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/lmstudio-greeting", {"lmstudio": True}),
        ("/lms-status", {"package": "lmstudio", "version": "0.4.23"}),
    ],
)
def test_fingerprint(ask: Ask, path: str, body: Json) -> None:
    assert ask(LMStudio(), "GET", path) == (200, body)


@pytest.mark.parametrize(
    ("api", "method", "path"),
    [
        ("v1", "GET", "/health"),
        ("v1", "GET", "/api/tags"),
        ("v1", "POST", "/v1/models"),
        ("v1", "GET", "/v1/chat/completions"),
        ("v0", "GET", "/api/v1/models"),
        ("v0", "POST", LOAD),
        ("old", "GET", "/api/v1/models"),
        ("old", "GET", "/api/v0/models"),
    ],
)
def test_unknown_path_succeeds(ask: Ask, api: Any, method: str, path: str) -> None:
    assert ask(LMStudio(api=api), method, path) == unexpected(method, path)


def test_path_that_is_left_out_is_not_unknown(ask: Ask) -> None:
    assert ask(LMStudio(), "POST", "/api/v1/chat", {})[0] == 501


@pytest.mark.parametrize(
    "path", ["/lmstudio-greeting", "/api/v1/models", "/api/v0/models", "/v1/models", "/health"]
)
def test_token_is_needed_everywhere(ask: Ask, path: str) -> None:
    server = LMStudio(token="sk-lm-AbCd1234:20characters0000000")
    for headers in ({}, {"authorization": "Bearer other"}):
        status, body = ask(server, "GET", path, **headers)
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert ask(server, "GET", path, authorization=f"Bearer {server.token}")[0] == 200


def test_token_is_not_looked_at_if_none_is_needed(ask: Ask) -> None:
    assert ask(LMStudio(), "GET", "/v1/models", authorization="Bearer any")[0] == 200


# Listings


def test_v1_listing(ask: Ask) -> None:
    server = LMStudio()
    server.load(GEMMA)
    server.load(EMBED)
    _, body = ask(server, "GET", "/api/v1/models")
    records = {record["key"]: record for record in body["models"]}
    assert records[GEMMA] == {
        "type": "llm",
        "publisher": "google",
        "key": GEMMA,
        "display_name": "Gemma 4 26B A4B",
        "architecture": "gemma4",
        "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
        "size_bytes": 17990911801,
        "params_string": "26B-A4B",
        "loaded_instances": [
            {
                "id": GEMMA,
                "config": {
                    "context_length": 4096,
                    "eval_batch_size": 512,
                    "parallel": 4,
                    "flash_attention": True,
                    "num_experts": 8,
                    "offload_kv_cache_to_gpu": True,
                },
            }
        ],
        "max_context_length": 262144,
        "format": "gguf",
        "capabilities": {
            "vision": True,
            "trained_for_tool_use": True,
            "reasoning": {"allowed_options": ["off", "on"], "default": "on"},
        },
        "description": None,
        "variants": [f"{GEMMA}@q4_k_m", f"{GEMMA}@q8_0"],
        "selected_variant": f"{GEMMA}@q4_k_m",
    }
    assert records[EMBED] == {
        "type": "embedding",
        "publisher": "nomic-ai",
        "key": EMBED,
        "display_name": "Nomic Embed Text v1.5",
        "quantization": {"name": "F16", "bits_per_weight": 16},
        "size_bytes": 274290560,
        "params_string": None,
        "loaded_instances": [{"id": EMBED, "config": {"context_length": 2048}}],
        "max_context_length": 2048,
        "format": "gguf",
    }
    assert records[VISION]["capabilities"] == {"vision": True, "trained_for_tool_use": False}
    assert "variants" not in records[VISION]


def test_v0_listing(ask: Ask) -> None:
    server = LMStudio(api="v0")
    server.load(LLAMA, context_length=8192)
    _, body = ask(server, "GET", "/api/v0/models")
    records = {record["id"]: record for record in body["data"]}
    assert body["object"] == "list"
    assert records[VISION] == {
        "id": VISION,
        "object": "model",
        "type": "vlm",
        "publisher": "mlx-community",
        "arch": "qwen2_vl",
        "compatibility_type": "mlx",
        "quantization": "4bit",
        "state": "not-loaded",
        "max_context_length": 32768,
    }
    assert records[LLAMA].items() >= {"state": "loaded", "loaded_context_length": 8192}.items()
    assert records[LLAMA]["capabilities"] == ["tool_use"]
    assert records[EMBED]["type"] == "embeddings"
    assert ask(server, "GET", f"/api/v0/models/{VISION}") == (200, records[VISION])
    assert ask(server, "GET", "/api/v0/models/none")[0] == 404


def test_openai_listing(ask: Ask) -> None:
    server = LMStudio()
    server.load(GRANITE)
    server.load(GRANITE)
    _, body = ask(server, "GET", "/v1/models")
    keys = [model.key for model in MODELS]
    assert [record["id"] for record in body["data"]] == [*keys, f"{GRANITE}:2"]
    assert body["data"][0] == {"id": GEMMA, "object": "model", "owned_by": "organization_owner"}
    assert ask(server, "GET", f"/v1/models/{GEMMA}") == (200, body["data"][0])
    assert ask(server, "GET", "/v1/models/none")[0] == 404


def test_openai_listing_without_jit_is_what_is_loaded(ask: Ask) -> None:
    server = LMStudio(jit=False)
    server.load(EMBED)
    assert [record["id"] for record in ask(server, "GET", "/v1/models")[1]["data"]] == [EMBED]


# Loading


def test_load_is_not_idempotent(ask: Ask) -> None:
    server = LMStudio()
    body = {"model": OSS, "context_length": 16384, "echo_load_config": True}
    assert ask(server, "POST", LOAD, body) == (
        200,
        {
            "type": "llm",
            "instance_id": OSS,
            "load_time_seconds": 0.0,
            "status": "loaded",
            "load_config": {
                "context_length": 16384,
                "eval_batch_size": 512,
                "flash_attention": True,
                "offload_kv_cache_to_gpu": True,
                "num_experts": 4,
            },
        },
    )
    _, again = ask(server, "POST", LOAD, {"model": OSS})
    assert again["instance_id"] == f"{OSS}:2"
    assert "load_config" not in again
    assert [(it.ttl, it.jit) for it in server.instances] == [(None, False)] * 2


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"model": OSS, "ttl": 300}, "invalid_request"),
        ({"context_length": 4096}, "invalid_request"),
        ({"model": "none"}, "model_not_found"),
        ({"model": GRANITE}, "model_load_failed"),
    ],
)
def test_load_that_is_refused(ask: Ask, body: Json, kind: str) -> None:
    status, answer = ask(LMStudio(unloadable=frozenset({GRANITE})), "POST", LOAD, body)
    assert status >= 400
    assert answer["error"]["type"] == kind
    assert set(answer["error"]) == {"message", "type", "param", "code"}


def test_unload_takes_an_instance(ask: Ask) -> None:
    server = LMStudio()
    server.load(OSS, identifier="mine")
    path = "/api/v1/models/unload"
    assert ask(server, "POST", path, {"instance_id": OSS})[0] == 404
    assert ask(server, "POST", path, {"instance_id": "mine"}) == (200, {"instance_id": "mine"})
    assert server.instances == []


def test_jit_loads_and_evicts_what_jit_loaded(chat: Ask) -> None:
    server = LMStudio()
    server.load(OSS)
    for model, ttl in ((GRANITE, {}), (GRANITE, {"ttl": 5}), (f"{GEMMA}@q8_0", {"ttl": 300})):
        assert chat(server, model, **ttl)[1]["model"] == model
    assert [(it.id, it.ttl) for it in server.instances] == [(OSS, None), (f"{GEMMA}@q8_0", 300)]
    assert server.instances[1].context_length == 4096


def test_two_first_requests_may_make_two_copies(client: httpx.Client) -> None:
    server = LMStudio(load_seconds=0.2)
    with StandIn(server) as stand_in, ThreadPoolExecutor() as pool:
        body = {"model": GRANITE, "messages": []}
        list(pool.map(lambda _: client.post(stand_in.url + CHAT, json=body), range(2)))
    assert [instance.id for instance in server.instances] == [GRANITE, f"{GRANITE}:2"]


def test_jit_that_fails(chat: Ask) -> None:
    status, body = chat(LMStudio(unloadable=frozenset({GEMMA})))
    assert status == 400
    assert body["error"]["message"].startswith(f'Failed to load model "{GEMMA}". Error: ')


# The wrong model


def test_unknown_model_is_answered_by_another(chat: Ask) -> None:
    server = LMStudio()
    status, body = chat(server, "none")
    assert (status, body["error"]["code"]) == (400, None)
    assert body["error"]["message"].startswith("No models loaded.")
    server.load(EMBED)
    server.load(GRANITE)
    assert chat(server, "none")[1]["model"] == GRANITE


def test_model_that_is_not_loaded_is_answered_by_another_without_jit(chat: Ask) -> None:
    server = LMStudio(jit=False)
    server.load(GRANITE)
    assert chat(server, GEMMA)[1]["model"] == GRANITE


def test_unknown_model_may_be_refused(chat: Ask) -> None:
    _, body = chat(LMStudio(unknown_model="refused"), "none")
    assert body["error"]["code"] == "model_not_found"
    assert body["error"]["message"].startswith('Model "none" not found. Your models: ')


# What is refused

TOOL_WITHOUT_TYPE = {"type": "function", "function": {"name": "f", "parameters": {}}}


def image(url: str) -> list[Json]:
    return [{"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize(
    ("api", "body", "error"),
    [
        (
            "v1",
            {"response_format": {"type": "json_object"}},
            "'response_format.type' must be 'json_schema' or 'text'",
        ),
        (
            "old",
            {"response_format": {"type": "text"}},
            "'response_format.type' must be 'json_schema'",
        ),
        (
            "v1",
            {"prompt": image("https://example.com/a.png")},
            "'url' field must be a base64 encoded image.",
        ),
        (
            "v1",
            {"model": GRANITE, "prompt": image(PIXEL)},
            "Model does not support images. Please use a model that does.",
        ),
        (
            "v1",
            {"tools": [TOOL_WITHOUT_TYPE]},
            "'tools[0].function.parameters.type' must be 'object'",
        ),
    ],
)
def test_errors_that_are_strings(chat: Ask, api: Any, body: Json, error: str) -> None:
    for stream in (False, True):
        status, answer = chat(LMStudio(api=api), stream=stream, **body)
        assert (status, json.loads(answer) if stream else answer) == (400, {"error": error})


@pytest.mark.parametrize(
    ("api", "path", "shape"), [("v1", CHAT, dict), ("v1", CHAT_V0, str), ("v0", CHAT, str)]
)
def test_older_paths_have_strings(chat: Ask, api: Any, path: str, shape: type) -> None:
    assert isinstance(chat(LMStudio(api=api), "none", path)[1]["error"], shape)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (VISION, {"prompt": image(PIXEL)}),
        (VISION, {"response_format": {"type": "text"}}),
        (GRANITE, {"reasoning_effort": "high"}),
        (GRANITE, {"max_tokens": -1, "n": 2, "chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_what_is_taken(chat: Ask, model: str, body: Json) -> None:
    assert chat(LMStudio(), model, **body)[1]["choices"][0]["message"]["content"] == "Hello."


@pytest.mark.parametrize(
    ("model", "effort", "thinks"),
    [
        (GEMMA, None, True),
        (GEMMA, "medium", True),
        (GEMMA, "none", False),
        (GEMMA, "high", None),
        (OSS, "high", True),
        (OSS, "none", None),
        (GRANITE, "none", True),
    ],
)
def test_effort(chat: Ask, model: str, effort: str | None, thinks: bool | None) -> None:
    server = LMStudio(lambda _: Says("Yes.", reasoning="Is it?"))
    status, body = chat(server, model, reasoning_effort=effort)
    if thinks is None:
        assert (status, body["error"]["code"]) == (400, "invalid_value")
    else:
        details = body["usage"]["completion_tokens_details"]
        assert details == {"reasoning_tokens": 2 if thinks else 0}


def test_effort_may_fall_back(chat: Ask) -> None:
    server = LMStudio(lambda _: Says("Yes.", reasoning="Is it?"), refuses_effort=False)
    assert chat(server, reasoning_effort="high")[0] == 200


# Replies


def test_whole_reply(chat: Ask) -> None:
    _, body = chat(LMStudio(), prompt="123456789")
    assert body["object"] == "chat.completion"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello."},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert "stats" not in body


def test_v0_reply_tells_how_it_went(chat: Ask) -> None:
    _, body = chat(LMStudio(api="v0"), GRANITE, CHAT_V0, max_tokens=1)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["stats"]["stop_reason"] == "maxPredictedTokensReached"
    assert set(body["stats"]) == {
        *("tokens_per_second", "time_to_first_token", "generation_time", "stop_reason")
    }
    assert body["model_info"] == {
        "arch": "granite",
        "quant": "Q4_K_M",
        "format": "gguf",
        "context_length": 4096,
    }
    assert body["runtime"]["supported_formats"] == ["gguf"]


def test_streamed_reply(chat: Ask) -> None:
    _, text = chat(LMStudio(), stream=True)
    first, second, last, done = events(text)
    assert first["object"] == "chat.completion.chunk"
    assert first["model"] == GEMMA
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "Hell"},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert second["choices"][0]["delta"]["content"] == "o."
    assert last["choices"][0].items() >= {"delta": {}, "finish_reason": "stop"}.items()
    assert done == "[DONE]"
    assert '"usage"' not in text


@pytest.mark.parametrize(("api", "there"), [("v1", True), ("v0", True), ("old", False)])
def test_usage_of_a_stream(chat: Ask, api: Any, there: bool) -> None:
    server = LMStudio(api=api)
    _, text = chat(server, stream=True, stream_options={"include_usage": True})
    before_done = events(text)[-2]
    assert ("usage" in before_done, before_done["choices"] == []) == (there, there)


@pytest.mark.parametrize(
    ("settings", "model", "field", "content"),
    [
        ({}, GEMMA, "reasoning_content", "Yes."),
        ({}, OSS, "reasoning", "Yes."),
        ({"reasoning_in": "reasoning"}, GEMMA, "reasoning", "Yes."),
        ({"reasoning_in": "think"}, GEMMA, None, "<think>Is it?</think>Yes."),
        ({"reasoning_in": "unopened think"}, GEMMA, None, "Is it?</think>Yes."),
        ({"api": "old"}, GEMMA, None, "<think>Is it?</think>Yes."),
    ],
)
def test_reasoning_arrives_in_three_places(
    chat: Ask, settings: Json, model: str, field: str | None, content: str
) -> None:
    thinking = LMStudio(lambda _: Says("Yes.", reasoning="Is it?"), **settings)
    message = {"content": content, **({field: "Is it?"} if field else {})}
    _, body = chat(thinking, model)
    assert body["choices"][0]["message"] == {"role": "assistant", **message}
    _, text = chat(thinking, model, stream=True)
    assert {name: joined(text, name) for name in message} == message


def test_reasoning_counts_against_the_limit(chat: Ask) -> None:
    server = LMStudio(lambda _: Says("Yes.", reasoning="Is it so?"))
    (choice,) = chat(server, max_tokens=2)[1]["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Is it so",
    }


def test_thought_that_is_cut_stays_open() -> None:
    assert Reply("Is it", "", (), "contextLengthReached").fields("think") == {
        "content": "<think>Is it"
    }


def test_stop_string(chat: Ask) -> None:
    server = LMStudio(lambda _: Says("One. Two. Three."))
    _, body = chat(server, GRANITE, CHAT_V0, stop=["Three", " Two"])
    assert body["choices"][0]["message"]["content"] == "One."
    assert body["stats"]["stop_reason"] == "stopStringFound"


@pytest.mark.parametrize(
    ("said", "content"),
    [("Rex is 3.", {"name": "", "age": 0}), ('{"name":"Rex","age":3}', {"name": "Rex", "age": 3})],
)
def test_schema_is_honoured(chat: Ask, said: str, content: Json) -> None:
    server = LMStudio(lambda _: Says(said, reasoning="A dog."))
    _, body = chat(server, response_format=AS_DOG)
    assert json.loads(body["choices"][0]["message"]["content"]) == content
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


# Tools


def test_calls_streamed(chat: Ask) -> None:
    server = LMStudio(lambda _: Says(calls=(CALL, Call("get_current_weather"))))
    _, text = chat(server, GRANITE, stream=True, tools=[WEATHER])
    *calls, last = deltas(text)
    fragments = [delta["tool_calls"][0] for delta in calls]
    ids = [fragment.pop("id") for fragment in fragments if "id" in fragment]
    named = {"name": "get_current_weather", "arguments": ""}
    pieces = ['{"', "location", '":"', "San Francisco", '"}']
    assert fragments == [
        {"index": 0, "type": "function", "function": named},
        *({"index": 0, "function": {"arguments": piece}} for piece in pieces),
        {"index": 1, "type": "function", "function": named},
        {"index": 1, "function": {"arguments": "{}"}},
    ]
    assert len(set(ids)) == 2
    assert all(id_.isdigit() for id_ in ids)
    assert last == {}
    assert events(text)[-2]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("empty", [False, True])
def test_calls_whole(chat: Ask, empty: bool) -> None:
    server = LMStudio(lambda _: Says(calls=(CALL,)), empty_ids=empty)
    (choice,) = chat(server, tools=[WEATHER])[1]["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (call.pop("id") == "") is empty
    arguments = '{"location":"San Francisco"}'
    function = {"name": "get_current_weather", "arguments": arguments}
    assert call == {"type": "function", "function": function}
    assert choice["finish_reason"] == "tool_calls"
    assert "content" not in choice["message"]


@pytest.mark.parametrize(
    ("unparsed", "body"),
    [(True, {"tools": [WEATHER]}), (False, {"tools": [WEATHER], "tool_choice": "none"})],
)
def test_call_that_is_not_parsed_is_content(chat: Ask, unparsed: bool, body: Json) -> None:
    server = LMStudio(lambda _: Says(calls=(CALL,), unparsed=unparsed))
    (choice,) = chat(server, **body)[1]["choices"]
    assert choice["message"]["content"].startswith('[TOOL_REQUEST]{"name":"get_current_weather",')
    assert choice["finish_reason"] == "stop"


# Failures

LONG = "long " * 4096


def test_overflow(chat: Ask) -> None:
    words = (
        "Trying to keep the first 5120 tokens when context overflows. "
        "However, the model is loaded with context length of only 4096 tokens"
    )
    status, body = chat(LMStudio(), prompt=LONG)
    assert status == 400
    assert body["error"]["message"].startswith(words)
    status, text = chat(LMStudio(), prompt=LONG, stream=True)
    assert status == 200
    assert text.startswith("event: error\ndata: ")
    assert events(text)[0]["error"]["message"].startswith(words)


@pytest.mark.parametrize("stream", [False, True])
def test_overflow_may_be_silent(chat: Ask, stream: bool) -> None:
    status, answer = chat(LMStudio(overflow="silence"), prompt=LONG, stream=stream)
    assert status == 200
    (choice,) = events(answer)[0]["choices"] if stream else answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert not choice.get("delta", {})
    assert not choice.get("message", {}).get("content")


def test_failure_in_the_middle_of_a_stream(chat: Ask) -> None:
    server = LMStudio(lambda _: Says("Hello.", fails_after=1, failure="It crashed."))
    status, text = chat(server, stream=True)
    before, after = events(text)
    assert status == 200
    assert before["choices"][0]["delta"]["content"] == "Hell"
    assert after["error"]["message"] == "It crashed."
    assert "event: error\ndata: " in text
    assert "[DONE]" not in text
    status, body = chat(server)
    assert (status, body["error"]["message"]) == (400, "It crashed.")


def test_client_that_goes_away(client: httpx.Client) -> None:
    body = {"model": GEMMA, "messages": [], "stream": True}
    with StandIn(LMStudio(lambda _: Says("Hello.", pause=5.0))) as stand_in:
        with client.stream("POST", stand_in.url + CHAT, json=body):
            pass
        assert stand_in.closed_early.wait(2)


# Embeddings, and the script


def test_embeddings(ask: Ask) -> None:
    server = LMStudio()
    _, body = ask(server, "POST", "/v1/embeddings", {"model": EMBED, "input": ["a", "b", "a"]})
    first, second, third = (datum["embedding"] for datum in body["data"])
    assert first == third != second
    assert [datum["index"] for datum in body["data"]] == [0, 1, 2]
    assert body["model"] == f"{EMBED}@f16"
    status, _ = ask(server, "POST", "/v1/embeddings", {"model": GRANITE, "input": "a"})
    assert status == 400


def test_replies_in_turn(chat: Ask) -> None:
    server = LMStudio(in_turn(Says("One."), Says("Two.")))
    contents = [chat(server)[1]["choices"][0]["message"]["content"] for _ in range(2)]
    assert contents == ["One.", "Two."]


def test_script_sees_the_request(chat: Ask) -> None:
    server = LMStudio(lambda body: Says(body["messages"][-1]["content"]))
    assert chat(server, prompt="Echo.")[1]["choices"][0]["message"]["content"] == "Echo."
