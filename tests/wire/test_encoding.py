"""What each kind of server is sent: exact JSON bodies for text, media, tools and thinking."""

import json
from typing import Any

import pytest

from llm_localrun.wire.request import ChatMessage, ChatRequest, Media, PastCall, ToolSpec
from llm_localrun.wire.sse import Payload
from tests.fakes.http_server import transcript
from tests.support.servers import encode, server

KINDS = ("ollama", "lmstudio", "llamacpp", "vllm", "sglang", "engine", "openai", "unheard-of")

OPENAI_KINDS = KINDS[1:]


def encoded(kind: str, request: ChatRequest, options: Payload | None = None) -> Payload:
    """What a server of `kind` receives: a body that went through JSON."""
    body = encode(kind, request, options or {})
    parsed: Payload = json.loads(json.dumps(body, allow_nan=False))
    return parsed


def asking(*messages: ChatMessage, **known: Any) -> ChatRequest:
    return ChatRequest(messages, {}, **{"stream": False, **known})


HI = ChatMessage("user", "Hi")
HI_BODY = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("kind", "stream", "options", "expected"),
    [
        (
            "ollama",
            True,
            {"options": {"num_ctx": 8192}, "keep_alive": 0.0},
            {
                "stream": True,
                "truncate": False,
                "shift": False,
                "options": {"num_ctx": 8192},
                "keep_alive": 0.0,
            },
        ),
        ("ollama", False, {}, {"stream": False, "truncate": False, "shift": False}),
        ("ollama", False, {"truncate": True}, {"stream": False, "truncate": True, "shift": False}),
        (
            "vllm",
            True,
            {"top_p": 0.5},
            {"stream": True, "stream_options": {"include_usage": True}, "top_p": 0.5},
        ),
        ("lmstudio", False, {}, {"stream": False}),
        ("llamacpp", False, {"grammar": "g"}, {"stream": False, "grammar": "g"}),
        (
            "openai",
            True,
            {"stream_options": {}},
            {"stream": True, "stream_options": {}},
        ),
    ],
)
def test_bodies(kind: str, stream: bool, options: Payload, expected: Payload) -> None:
    request = asking(ChatMessage("system", "Be brief."), HI, stream=stream)
    messages = [{"role": "system", "content": "Be brief."}, HI_BODY]
    assert encoded(kind, request, options) == {
        "model": "qwen3:8b",
        "messages": messages,
        **expected,
    }


PNG, JPEG = Media("image/png", b"\x89PNG"), Media("image/jpeg", b"\xff\xd8\xff")
WAV, MP3 = Media("audio/wav", b"RIFF"), Media("audio/mpeg", b"ID3")

PNG_BODY = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
JPEG_BODY = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/"}}
WAV_BODY = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
MP3_BODY = {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}}

CALL = PastCall("c1", "weather", {"city": "Zürich", "days": 2})
TIME = PastCall("c2", "time", {})

# A turn, what Ollama is sent for it, and what all others are.
TURNS: dict[str, tuple[ChatMessage, Payload, Payload]] = {
    "text": (HI, HI_BODY, HI_BODY),
    "an image": (
        ChatMessage("user", "See.", (PNG,)),
        {"role": "user", "content": "See.", "images": ["iVBORw=="]},
        {"role": "user", "content": [{"type": "text", "text": "See."}, PNG_BODY]},
    ),
    "an image without a word": (
        ChatMessage("user", "", (JPEG,)),
        {"role": "user", "content": "", "images": ["/9j/"]},
        {"role": "user", "content": [JPEG_BODY]},
    ),
    "images and sounds in their order": (
        ChatMessage("user", "All.", (WAV, PNG, MP3, JPEG)),
        {"role": "user", "content": "All.", "images": ["UklGRg==", "iVBORw==", "SUQz", "/9j/"]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "All."}, WAV_BODY, PNG_BODY, MP3_BODY, JPEG_BODY],
        },
    ),
    "past calls": (
        ChatMessage("assistant", "", calls=(CALL, TIME)),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}},
                },
                {"id": "c2", "function": {"name": "time", "arguments": {}}},
            ],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {
                        "name": "weather",
                        "arguments": '{"city": "Z\\u00fcrich", "days": 2}',
                    },
                },
                {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
    ),
    "text before a past call": (
        ChatMessage("assistant", "Let me see.", calls=(TIME,)),
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"id": "c2", "function": {"name": "time", "arguments": {}}}],
        },
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}}
            ],
        },
    ),
    "a tool's result": (
        ChatMessage("tool", "11 C", call_id="c1", tool_name="weather"),
        {"role": "tool", "content": "11 C", "tool_name": "weather", "tool_call_id": "c1"},
        {"role": "tool", "content": "11 C", "tool_call_id": "c1"},
    ),
    "a tool that says nothing": (
        ChatMessage("tool", "", call_id="c1", tool_name="weather"),
        {"role": "tool", "content": "", "tool_name": "weather", "tool_call_id": "c1"},
        {"role": "tool", "content": "", "tool_call_id": "c1"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turn", TURNS)
def test_turns(turn: str, kind: str) -> None:
    message, to_ollama, to_others = TURNS[turn]
    body = encoded(kind, asking(HI, message))
    assert body["messages"] == [HI_BODY, to_ollama if kind == "ollama" else to_others]


THOUGHTFUL = ChatMessage("assistant", "", calls=(TIME,), reasoning="Hm.")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ollama", {"thinking": "Hm."}),
        ("lmstudio", {"reasoning_content": "Hm."}),
        ("llamacpp", {"reasoning_content": "Hm."}),
        ("engine", {"reasoning_content": "Hm."}),
        ("sglang", {"reasoning_content": "Hm."}),
        ("vllm", {"reasoning": "Hm."}),
        # It is unknown under what name the others would take it.
        ("openai", {}),
        ("unheard-of", {}),
    ],
)
def test_thinking_that_is_handed_back(kind: str, expected: Payload) -> None:
    (message,) = encoded(kind, asking(THOUGHTFUL))["messages"]
    known = {"role", "content", "tool_calls"}
    assert {key: value for key, value in message.items() if key not in known} == expected


TOOL = ToolSpec("time", "The time.", {"type": "object", "properties": {}})
TOOLS_BODY = [
    {
        "type": "function",
        "function": {
            "name": "time",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "output", "strict": True, "schema": SCHEMA},
}
OWN = {"truncate": False, "shift": False}

# What is added to the body at Ollama, and at all others.
ADDED: dict[str, tuple[Payload, Payload, Payload]] = {
    "nothing": ({}, OWN, {}),
    "tools": ({"tools": (TOOL,)}, {**OWN, "tools": TOOLS_BODY}, {"tools": TOOLS_BODY}),
    "a schema": ({"schema": SCHEMA}, {**OWN, "format": SCHEMA}, {"response_format": FORMAT}),
    "an empty schema": (
        {"schema": {}},
        {**OWN, "format": {}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "output", "strict": True, "schema": {}},
            }
        },
    ),
    "tools and a schema": (
        {"tools": (TOOL,), "schema": SCHEMA},
        {**OWN, "tools": TOOLS_BODY, "format": SCHEMA},
        {"tools": TOOLS_BODY, "response_format": FORMAT},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ADDED)
def test_tools_and_schemas(case: str, kind: str) -> None:
    asked, at_ollama, at_others = ADDED[case]
    assert encoded(kind, asking(HI, **asked)) == {
        "model": "qwen3:8b",
        "messages": [HI_BODY],
        "stream": False,
        **(at_ollama if kind == "ollama" else at_others),
    }


def test_a_whole_conversation_with_a_tool() -> None:
    """As an Ollama 0.32 has taken it."""
    request = asking(
        ChatMessage("user", "What is the weather in Paris?"),
        ChatMessage(
            "assistant", "", calls=(PastCall("call_x1", "get_weather", {"city": "Paris"}),)
        ),
        ChatMessage("tool", "11 C, rain", call_id="call_x1", tool_name="get_weather"),
    )
    taken = transcript("tools_go")[2].request["messages"]
    # It says which call of several a call is; it does not ask for that.
    del taken[1]["tool_calls"][0]["function"]["index"]
    assert encoded("ollama", request)["messages"] == taken


@pytest.mark.parametrize("kind", ["ollama", "vllm"])
def test_a_request_is_not_changed(kind: str) -> None:
    """It may be sent again."""
    options: Payload = {"options": {"seed": 1}}
    request = asking(HI, THOUGHTFUL, tools=(TOOL,), schema=SCHEMA)
    copy = json.dumps(encode(kind, request, options))
    assert json.dumps(encode(kind, request, options)) == copy
    assert options == {"options": {"seed": 1}}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ollama", {"truncate": False}),
        *((kind, {"encoding_format": "float"}) for kind in OPENAI_KINDS),
    ],
)
def test_texts_to_embed(kind: str, expected: Payload) -> None:
    body = server(kind).encode_texts("minilm", ("one", "two"))
    assert body == {"model": "minilm", "input": ["one", "two"], **expected}
