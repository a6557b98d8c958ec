"""Requests made from llm's prompts and conversations: messages, tools, schemas and options."""

from collections.abc import Sequence
from typing import Any

import llm
import pytest
from llm.parts import (
    AttachmentPart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pydantic import BaseModel

from llm_localrun.chat.models import LocalChat
from llm_localrun.chat.options import Options
from llm_localrun.chat.prompt import chat_request, with_missing_turns
from llm_localrun.errors import BadAttachment
from llm_localrun.wire.request import ChatMessage, ChatRequest, Media, PastCall, ToolSpec
from tests.support.drive import served

pytestmark = pytest.mark.pure

MODEL = LocalChat(served("http://127.0.0.1:9", "ollama"))

Turn = tuple[str, str]


def prompt(text: str | None = None, **known: Any) -> llm.Prompt:
    return llm.Prompt(text, MODEL, **known)  # type: ignore[no-untyped-call]


def load(attachment: llm.Attachment, *, may_fetch: bool) -> Media:
    """Returns the content and the type that the attachment states."""
    return Media(attachment.type or "", attachment.content or b"")


def messages_of(asked: llm.Prompt) -> tuple[ChatMessage, ...]:
    return chat_request(asked, load, stream=True).messages


def turns(asked: llm.Prompt) -> list[Turn]:
    return [(message.role, message.text) for message in messages_of(asked)]


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
def test_system_prompt_of_this_turn_replaces_the_first(
    history: Sequence[Message], system: str | None, expected: list[Turn]
) -> None:
    assert turns(prompt("Who?", system=system, messages=history)) == expected


CALL = ToolCallPart(name="weather", arguments={"city": "Paris"}, tool_call_id="c1")
TIME = ToolCallPart(name="time", arguments={}, tool_call_id="c2")
SEARCH = ToolCallPart(name="web_search", arguments={}, tool_call_id="s1", server_executed=True)
FOUND = ToolResultPart(name="web_search", output="11 C", tool_call_id="s1", server_executed=True)
IMAGE = AttachmentPart(llm.Attachment(type="image/png", content=b"\x89PNG"))
SOUND = AttachmentPart(llm.Attachment(type="audio/wav", content=b"RIFF"))

PAST_CALL = PastCall("c1", "weather", {"city": "Paris"})
PAST_TIME = PastCall("c2", "time", {})
PNG, WAV = Media("image/png", b"\x89PNG"), Media("audio/wav", b"RIFF")


def result(output: str, **known: Any) -> ToolResultPart:
    return ToolResultPart(name="weather", output=output, tool_call_id="c1", **known)


def answers(text: str) -> ChatMessage:
    return ChatMessage("tool", text, call_id="c1", tool_name="weather")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(
            Message("assistant", [TextPart("Hel"), ReasoningPart("Hm."), TextPart("lo.")]),
            [ChatMessage("assistant", "Hello.")],
            id="text in pieces",
        ),
        pytest.param(
            Message("assistant", [CALL]),
            [ChatMessage("assistant", "", calls=(PAST_CALL,))],
            id="a tool call alone",
        ),
        pytest.param(
            Message("assistant", [TextPart("Let me see."), CALL, TIME]),
            [ChatMessage("assistant", "Let me see.", calls=(PAST_CALL, PAST_TIME))],
            id="text and tool calls, in their order",
        ),
        pytest.param(
            Message("assistant", [ToolCallPart(name="time", arguments={})]),
            [ChatMessage("assistant", "", calls=(PastCall("", "time", {}),))],
            id="a tool call without an id",
        ),
        pytest.param(Message("tool", [result("11 C")]), [answers("11 C")], id="a tool's result"),
        pytest.param(Message("tool", [result("")]), [answers("")], id="a tool that says nothing"),
        pytest.param(
            Message("tool", [result("", exception="ValueError: no such city")]),
            [answers("ValueError: no such city")],
            id="a tool that fails",
        ),
        pytest.param(
            Message("tool", [result("Error: no", exception="ValueError: no")]),
            [answers("Error: no")],
            id="a tool that fails and says so",
        ),
        pytest.param(
            Message(
                "tool",
                [result("11 C"), ToolResultPart(name="time", output="12:00", tool_call_id="c2")],
            ),
            [answers("11 C"), ChatMessage("tool", "12:00", call_id="c2", tool_name="time")],
            id="each result is a turn",
        ),
        pytest.param(
            Message("assistant", [SEARCH, FOUND, TextPart("It rains.")]),
            [ChatMessage("assistant", "It rains.")],
            id="a search by another provider",
        ),
        pytest.param(
            Message("assistant", [SEARCH, FOUND]),
            [ChatMessage("assistant", "")],
            id="nothing but such a search",
        ),
        pytest.param(Message("tool", [FOUND]), [], id="what such a search found"),
        pytest.param(
            Message("assistant", [TextPart("Hello.", provider_metadata={"openai": {"id": "x"}})]),
            [ChatMessage("assistant", "Hello.")],
            id="another provider's metadata",
        ),
        pytest.param(
            Message("user", [IMAGE]), [ChatMessage("user", "", (PNG,))], id="an attachment alone"
        ),
        pytest.param(
            Message("user", [TextPart("Compare."), IMAGE, SOUND]),
            [ChatMessage("user", "Compare.", (PNG, WAV))],
            id="attachments, in their order",
        ),
        pytest.param(
            Message("user", [TextPart("See."), AttachmentPart(None)]),
            [ChatMessage("user", "See.")],
            id="an attachment that is lost",
        ),
        pytest.param(
            Message("assistant", [ReasoningPart("", redacted=True), TextPart("Hello.")]),
            [ChatMessage("assistant", "Hello.")],
            id="reasoning that is kept secret",
        ),
        pytest.param(
            Message("assistant", [ReasoningPart("Hmm.")]),
            [ChatMessage("assistant", "")],
            id="reasoning alone",
        ),
        pytest.param(Message("user", []), [], id="no parts"),
        pytest.param(Message("tool", []), [], id="no results"),
        pytest.param(
            Message("assistant", [TextPart("")]), [ChatMessage("assistant", "")], id="an empty text"
        ),
    ],
)
def test_earlier_turns(message: Message, expected: list[ChatMessage]) -> None:
    history = [said("user", "Hi"), message, said("user", "Who?")]
    hi, *middle, who = messages_of(prompt(messages=history))
    assert (hi, who) == (ChatMessage("user", "Hi"), ChatMessage("user", "Who?"))
    assert middle == expected


SEEN = Message("user", [AttachmentPart(llm.Attachment(type="image/png", content=b"x"))])
CALLED = Message("assistant", [ToolCallPart(name="f", arguments={}, tool_call_id="1")])
NO_ANSWER = ("assistant", "")


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(HISTORY, ASKED, id="an answer to each question"),
        pytest.param(
            [OLD, said("user", "Hi"), said("user", "Who?")],
            [("system", "Old."), ("user", "Hi"), NO_ANSWER, ("user", "Who?")],
            id="no answer",
        ),
        pytest.param(
            [said("user", text) for text in "abc"],
            [("user", "a"), NO_ANSWER, ("user", "b"), NO_ANSWER, ("user", "c")],
            id="no answer twice",
        ),
        pytest.param(
            [said("user", "Hi"), CALLED, Message("tool", [result("11 C")]), said("user", "Who?")],
            [("user", "Hi"), NO_ANSWER, ("tool", "11 C"), NO_ANSWER, ("user", "Who?")],
            id="a tool's result without an answer",
        ),
        pytest.param(
            [said("user", "Hi"), CALLED, Message("tool", [result("11 C")]), SEEN],
            [("user", "Hi"), NO_ANSWER, ("tool", "11 C"), ("user", "")],
            id="an image that is the result of a tool",
        ),
        pytest.param(
            [OLD, said("assistant", "Hello."), said("user", "Who?")],
            [("system", "Old."), ("user", ""), ("assistant", "Hello."), ("user", "Who?")],
            id="no question",
        ),
        pytest.param(
            [said("user", "Hi"), said("assistant", "a"), said("assistant", "b")],
            [("user", "Hi"), ("assistant", "a"), ("user", ""), ("assistant", "b")],
            id="no second question",
        ),
        pytest.param([SEEN, SEEN], [("user", ""), NO_ANSWER, ("user", "")], id="images alone"),
    ],
)
def test_turns_that_are_missing(history: list[Message], expected: list[Turn]) -> None:
    """Templates that want the turns to alternate would refuse the conversation for ever."""
    request = with_missing_turns(chat_request(prompt(messages=history), load, stream=True))
    assert [(message.role, message.text) for message in request.messages] == expected


def thought(reasoning: str, *parts: Part) -> Message:
    return Message("assistant", [ReasoningPart(reasoning), *parts])


RESULT = Message("tool", [result("11 C")])


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param(
            [said("user", "Hi"), thought("Hm.", TextPart("Hello.")), said("user", "Who?")],
            ["", "", ""],
            id="before the last question",
        ),
        pytest.param(
            [said("user", "Rain?"), thought("Hm.", CALL), RESULT], ["", "Hm.", ""], id="in a chain"
        ),
        pytest.param(
            [said("user", "Rain?"), thought("Hm.", CALL), RESULT, thought("And?", CALL), RESULT],
            ["", "Hm.", "", "And?", ""],
            id="all through a chain",
        ),
        pytest.param(
            [
                said("user", "Rain?"),
                thought("Hm.", CALL),
                RESULT,
                thought("Ah.", TextPart("Yes.")),
                said("user", "And snow?"),
                thought("Snow.", CALL),
                RESULT,
            ],
            ["", "", "", "", "", "Snow.", ""],
            id="in the last chain only",
        ),
        pytest.param(
            [said("user", "Rain?"), thought("Hm.", CALL), RESULT, Message("user", [IMAGE])],
            ["", "Hm.", "", ""],
            id="what a tool has attached is no question",
        ),
        pytest.param(
            [
                said("user", "Rain?"),
                Message("assistant", [ReasoningPart("H"), ReasoningPart("m."), CALL]),
            ],
            ["", "Hm."],
            id="in pieces",
        ),
        pytest.param([thought("Hm.", TextPart("Hello."))], ["Hm."], id="without a question"),
    ],
)
def test_reasoning_is_sent_back_since_the_last_question(
    history: Sequence[Message], expected: list[str]
) -> None:
    assert [message.reasoning for message in messages_of(prompt(messages=history))] == expected


def test_results_of_this_turn_follow_their_calls() -> None:
    given = [llm.ToolResult(name="weather", output="11 C", tool_call_id="c1")]
    assert messages_of(prompt(tool_results=given)) == (answers("11 C"),)


def weather(city: str, days: int = 1) -> str:
    """The weather in a city."""
    return f"{city} {days}"


def now() -> str:
    return "12:00"


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        pytest.param(
            weather,
            ToolSpec(
                "weather",
                "The weather in a city.",
                {
                    "type": "object",
                    "properties": {
                        "city": {"type": "string"},
                        "days": {"type": "integer", "default": 1},
                    },
                    "required": ["city"],
                },
            ),
            id="a function",
        ),
        pytest.param(
            now,
            ToolSpec("now", "", {"type": "object", "properties": {}}),
            id="without parameters or description",
        ),
        pytest.param(
            llm.Tool(name="t", input_schema={"properties": {"a": {}}, "$defs": {"b": {}}}),
            ToolSpec("t", "", {"type": "object", "properties": {"a": {}}, "$defs": {"b": {}}}),
            id="a schema of its own",
        ),
        pytest.param(
            llm.Tool(name="t", description="It."),
            ToolSpec("t", "It.", {"type": "object", "properties": {}}),
            id="without a schema",
        ),
    ],
)
def test_tools(tool: Any, expected: ToolSpec) -> None:
    assert chat_request(prompt("Hi", tools=[tool]), load, stream=True).tools == (expected,)


def test_tools_of_a_provider_are_not_offered() -> None:
    theirs = llm.ServerSideTool()
    assert chat_request(prompt("Hi", tools=[theirs, now]), load, stream=True).tools == (
        ToolSpec("now", "", {"type": "object", "properties": {}}),
    )


class Dog(BaseModel):
    name: str


CITY = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.mark.parametrize(
    ("own", "of_conversation", "expected"),
    [
        pytest.param(None, None, None, id="none"),
        pytest.param(CITY, None, CITY, id="its own"),
        pytest.param(None, CITY, CITY, id="its conversation's"),
        pytest.param({"type": "object"}, CITY, {"type": "object"}, id="its own comes first"),
        pytest.param(Dog, None, Dog.model_json_schema(), id="a class"),
    ],
)
def test_schemas(own: Any, of_conversation: Any, expected: Any) -> None:
    asked = prompt("Hi", schema=own)
    assert chat_request(asked, load, stream=True, schema=of_conversation).schema == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(), {}),
        (Options(temperature=0, seed=0), {"temperature": 0.0, "seed": 0}),
        (Options(json_object=False), {"json_object": False}),
        (Options(stop=["END"], keep_alive=0), {"stop": ["END"], "keep_alive": 0.0}),
        (
            Options(think="on", context_size="max", extra_body={"a": 1}),
            {"think": "on", "context_size": "max", "extra_body": {"a": 1}},
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_options_that_the_user_set(
    stream: bool, options: Options, expected: dict[str, object]
) -> None:
    request = chat_request(prompt("Hi", options=options), load, stream=stream)
    assert request == ChatRequest((ChatMessage("user", "Hi"),), expected, stream)


def test_attachment_that_cannot_be_read_is_an_error() -> None:
    def refuse(attachment: llm.Attachment, *, may_fetch: bool) -> Media:
        raise BadAttachment("It is gone", "Attach another file")

    with pytest.raises(BadAttachment, match=r"^It is gone\. Attach another file\.$"):
        chat_request(prompt("Hi", attachments=[IMAGE.attachment]), refuse, stream=True)


LINK = AttachmentPart(llm.Attachment(url="http://127.0.0.1:9/cat.png"))


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param([Message("user", [TextPart("See."), LINK])], [True], id="a question's"),
        pytest.param([Message("user", [LINK])], [True], id="a question without a word"),
        pytest.param(
            [said("user", "Rain?"), Message("assistant", [CALL]), RESULT, Message("user", [LINK])],
            [False],
            id="a tool's",
        ),
        pytest.param(
            [
                Message("user", [TextPart("See."), LINK]),
                Message("assistant", [CALL]),
                RESULT,
                Message("user", [LINK, LINK]),
                said("assistant", "A cat."),
                Message("user", [TextPart("And this?"), LINK]),
            ],
            [True, False, False, True],
            id="each for itself",
        ),
    ],
)
def test_only_addresses_of_the_user_are_fetched(
    history: Sequence[Message], expected: list[bool]
) -> None:
    asked: list[bool] = []

    def note(attachment: llm.Attachment, *, may_fetch: bool) -> Media:
        asked.append(may_fetch)
        return PNG

    chat_request(prompt(messages=history), note, stream=True)
    assert asked == expected
