"""What is asked: messages from llm's prompts and conversations, and the bodies made of them."""

from collections.abc import Sequence
from typing import Any

import llm
import pytest
from llm.parts import (
    AttachmentPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

from llm_localrun.dialects import OLLAMA, OPENAI, dialect_of
from llm_localrun.framing import Payload
from llm_localrun.models import LocalChat
from llm_localrun.options import Options
from llm_localrun.request import ChatMessage, ChatRequest, chat_request
from tests.drive import served

MODEL = LocalChat(served("http://127.0.0.1:9", "ollama"))

Turn = tuple[str, str]


def prompt(text: str | None = None, **known: Any) -> llm.Prompt:
    return llm.Prompt(text, MODEL, **known)  # type: ignore[no-untyped-call]


def turns(asked: llm.Prompt) -> list[Turn]:
    messages = chat_request(asked, stream=True).messages
    return [(message.role, message.text) for message in messages]


def said(role: str, text: str) -> Message:
    return Message(role, [TextPart(text)])


OLD, NEW = said("system", "Old."), said("system", "New.")
HISTORY = [said("user", "Hi"), said("assistant", "Hello."), said("user", "Who?")]
ASKED = [("user", "Hi"), ("assistant", "Hello."), ("user", "Who?")]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(prompt("Hi"), [("user", "Hi")], id="text"),
        pytest.param(
            prompt("Hi", system="Be brief."),
            [("system", "Be brief."), ("user", "Hi")],
            id="system",
        ),
        pytest.param(
            prompt("Hi", fragments=["One.", "Two."]), [("user", "One.\nTwo.\nHi")], id="fragments"
        ),
        pytest.param(prompt(fragments=["One."]), [("user", "One.")], id="fragments alone"),
        pytest.param(
            prompt("Hi", system="Be brief.", system_fragments=["Be kind."]),
            [("system", "Be kind.\n\nBe brief."), ("user", "Hi")],
            id="system fragments",
        ),
        pytest.param(prompt(""), [], id="nothing"),
        pytest.param(prompt(None), [], id="no prompt"),
        pytest.param(prompt("", system="Be brief."), [("system", "Be brief.")], id="system alone"),
        pytest.param(prompt(" \n"), [("user", " \n")], id="blanks"),
        pytest.param(prompt(messages=HISTORY), ASKED, id="history"),
        pytest.param(prompt("unheard", messages=HISTORY), ASKED, id="history decides"),
        pytest.param(prompt("", messages=HISTORY[:2]), ASKED[:2], id="history without a question"),
        pytest.param(prompt(messages=[]), [], id="empty history"),
    ],
)
def test_messages(asked: llm.Prompt, expected: list[Turn]) -> None:
    assert turns(asked) == expected


@pytest.mark.parametrize(
    ("history", "system", "expected"),
    [
        pytest.param([OLD, *HISTORY], None, [("system", "Old."), *ASKED], id="none for this turn"),
        pytest.param([OLD, *HISTORY], "", [("system", "Old."), *ASKED], id="an empty one"),
        pytest.param([OLD, *HISTORY], "Old.", [("system", "Old."), *ASKED], id="the same"),
        pytest.param([OLD, *HISTORY], "New.", [("system", "New."), *ASKED], id="another"),
        pytest.param(HISTORY, "New.", [("system", "New."), *ASKED], id="the first"),
        pytest.param(
            [OLD, HISTORY[0], NEW, *HISTORY[1:]],
            "New.",
            [("system", "Old."), ASKED[0], ("system", "New."), *ASKED[1:]],
            id="one that is there, later",
        ),
        pytest.param(
            [HISTORY[0], OLD, *HISTORY[1:]],
            "New.",
            [ASKED[0], ("system", "New."), *ASKED[1:]],
            id="where the other was",
        ),
        pytest.param([], "New.", [("system", "New.")], id="no history"),
    ],
)
def test_system_prompt_of_this_turn_takes_the_place_of_the_first(
    history: Sequence[Message], system: str | None, expected: list[Turn]
) -> None:
    assert turns(prompt("Who?", system=system, messages=history)) == expected


CALL = ToolCallPart(name="weather", arguments={"city": "Paris"}, tool_call_id="c1")
SEARCH = ToolCallPart(name="web_search", arguments={}, tool_call_id="s1", server_executed=True)
FOUND = ToolResultPart(name="web_search", output="11 C", tool_call_id="s1", server_executed=True)
IMAGE = AttachmentPart(llm.Attachment(type="image/png", content=b"\x89PNG"))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(
            Message("assistant", [ReasoningPart("Hmm."), TextPart("Hello.")]),
            [("assistant", "Hello.")],
            id="reasoning",
        ),
        pytest.param(
            Message("assistant", [TextPart("Hel"), ReasoningPart("Hm."), TextPart("lo.")]),
            [("assistant", "Hello.")],
            id="text in pieces",
        ),
        pytest.param(
            Message("assistant", [SEARCH, FOUND, TextPart("It rains.")]),
            [("assistant", "It rains.")],
            id="a search by another provider",
        ),
        pytest.param(
            Message("assistant", [ReasoningPart("", redacted=True), TextPart("Hello.")]),
            [("assistant", "Hello.")],
            id="reasoning that is kept secret",
        ),
        pytest.param(
            Message("assistant", [TextPart("Hello.", provider_metadata={"openai": {"id": "x"}})]),
            [("assistant", "Hello.")],
            id="another provider's metadata",
        ),
        pytest.param(Message("assistant", [CALL]), [], id="a tool call alone"),
        pytest.param(Message("assistant", [ReasoningPart("Hmm.")]), [], id="reasoning alone"),
        pytest.param(
            Message("tool", [ToolResultPart(name="weather", output="11 C", tool_call_id="c1")]),
            [],
            id="a tool's result",
        ),
        pytest.param(Message("user", [IMAGE]), [], id="an attachment alone"),
        pytest.param(
            Message("user", [TextPart("See."), IMAGE]), [("user", "See.")], id="an attachment"
        ),
        pytest.param(Message("user", []), [], id="no parts"),
        pytest.param(Message("assistant", [TextPart("")]), [], id="an empty text"),
    ],
)
def test_parts_that_we_cannot_send_are_left_out(message: Message, expected: list[Turn]) -> None:
    history = [said("user", "Hi"), message, said("user", "Who?")]
    assert turns(prompt(messages=history)) == [("user", "Hi"), *expected, ("user", "Who?")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(), {}),
        (Options(temperature=0, seed=0), {"temperature": 0.0, "seed": 0}),
        (Options(json_object=False), {"json_object": False}),
        (Options(stop="END", keep_alive=0), {"stop": ["END"], "keep_alive": 0.0}),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_options_that_the_user_set(
    stream: bool, options: Options, expected: dict[str, object]
) -> None:
    request = chat_request(prompt("Hi", options=options), stream=stream)
    assert request == ChatRequest((ChatMessage("user", "Hi"),), expected, stream)


REQUEST = (ChatMessage("system", "Be brief."), ChatMessage("user", "Hi"))
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


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
        (
            "vllm",
            True,
            {"top_p": 0.5},
            {"stream": True, "stream_options": {"include_usage": True}, "top_p": 0.5},
        ),
        ("lmstudio", False, {}, {"stream": False}),
    ],
)
def test_bodies(kind: str, stream: bool, options: Payload, expected: Payload) -> None:
    body = dialect_of(kind).encode("qwen3:8b", ChatRequest(REQUEST, {}, stream), options)
    assert body == {"model": "qwen3:8b", "messages": MESSAGES, **expected}


@pytest.mark.parametrize("kind", ["ollama", "lmstudio", "llamacpp", "vllm", "engine", "unheard-of"])
def test_dialects(kind: str) -> None:
    assert dialect_of(kind) is (OLLAMA if kind == "ollama" else OPENAI)
