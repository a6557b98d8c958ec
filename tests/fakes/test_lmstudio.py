"""The traps of LM Studio that its fake has to have, or tests of the product would prove nothing."""

import json
from typing import Any

import pytest

from tests.fakes.http_server import Request
from tests.fakes.lmstudio import LMStudio
from tests.fakes.says import Call, ReasoningIn, Says

GEMMA, GRANITE = "google/gemma-4-26b-a4b", "granite-3.0-2b-instruct"
CHAT, LOAD = "/v1/chat/completions", "/api/v1/models/load"


def ask(server: LMStudio, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """The status and the text of a reply."""
    method = "GET" if body is None else "POST"
    pieces = server(Request(method, path, headers, body))
    reply = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    top, _, text = reply.partition(b"\r\n\r\n")
    return int(top.split()[1]), text.decode()


def chat(server: LMStudio, prompt: Any = "Hello", **body: Any) -> tuple[int, str]:
    messages = [{"role": "user", "content": prompt}]
    return ask(server, CHAT, {"model": GEMMA, "messages": messages, **body})


def test_unknown_path_succeeds() -> None:
    status, text = ask(LMStudio(api="v0"), "/api/v1/models")
    assert (status, "Unexpected endpoint or method" in text) == (200, True)


def test_token_is_needed_everywhere() -> None:
    server = LMStudio(token="secret")
    assert ask(server, "/lmstudio-greeting")[0] == 401
    assert ask(server, "/lmstudio-greeting", authorization="Bearer secret")[0] == 200


def test_second_load_makes_a_second_copy() -> None:
    server = LMStudio()
    for _ in range(2):
        ask(server, LOAD, {"model": GRANITE, "context_length": 2048})
    ids = [(instance.id, instance.context_length) for instance in server.instances]
    assert ids == [(GRANITE, 2048), (f"{GRANITE}:2", 2048)]
    assert ask(server, LOAD, {"model": GRANITE, "ttl": 300})[0] == 400


def test_request_loads_a_model_and_unloads_what_a_request_loaded() -> None:
    server = LMStudio()
    server.load("openai/gpt-oss-20b")
    for model in (GRANITE, f"{GEMMA}@q8_0"):
        chat(server, model=model)
    assert [each.id for each in server.instances] == ["openai/gpt-oss-20b", f"{GEMMA}@q8_0"]


def test_unknown_model_is_answered_by_another() -> None:
    server = LMStudio()
    assert "No models loaded." in chat(server, model="none")[1]
    server.load(GRANITE)
    assert json.loads(chat(server, model="none")[1])["model"] == GRANITE


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_object"}},
        {"prompt": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
        {
            "model": GRANITE,
            "prompt": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        },
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    ],
)
def test_some_errors_are_strings(body: Any) -> None:
    status, text = chat(LMStudio(), **body)
    assert (status, type(json.loads(text)["error"])) == (400, str)


def test_prompt_that_is_too_long_is_an_error_in_a_stream_that_succeeds() -> None:
    status, text = chat(LMStudio(), "long " * 4096, stream=True)
    assert (status, "event: error" in text, "[DONE]" in text) == (200, True, False)
    assert "Trying to keep the first 5120 tokens when context overflows" in text
    assert chat(LMStudio(), "long " * 4096)[0] == 400


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("reasoning_content", {"reasoning_content": "Is it?", "content": "Yes."}),
        ("reasoning", {"reasoning": "Is it?", "content": "Yes."}),
        ("think", {"content": "<think>Is it?</think>Yes."}),
        ("unopened think", {"content": "Is it?</think>Yes."}),
    ],
)
def test_reasoning_arrives_in_three_ways(where: ReasoningIn, message: dict[str, str]) -> None:
    server = LMStudio(lambda _: Says("Yes.", reasoning="Is it?"), reasoning_in=where)
    (choice,) = json.loads(chat(server)[1])["choices"]
    assert choice["message"] == {"role": "assistant", **message}


def test_calls_are_streamed_in_fragments() -> None:
    server = LMStudio(lambda _: Says(calls=(Call("f", {"city": "San Francisco"}),)))
    text = chat(server, stream=True)[1]
    for piece in ('"{\\""', '"city"', '"\\":\\""', '"San Francisco"', '"\\"}"'):
        assert f'"arguments": {piece}' in text
    assert '"finish_reason": "tool_calls"' in text
