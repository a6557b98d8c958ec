"""What `execute` makes of llm's prompt: messages, attachments, system prompts."""

import inspect
from pathlib import Path
from typing import Any

import llm
import pytest
from llm.models import Conversation

from llm_localrun.chat.models import AsyncLocalChat, LocalChat
from llm_localrun.models import LocalModel
from tests.fakes.http_server import StandIn
from tests.fakes.says import Says
from tests.support.contract import (
    HISTORY,
    PNG,
    Backend,
    at_every_server,
    in_every_way,
    output,
    saying,
    sent,
)
from tests.support.drive import ask, failure

# llm leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


@pytest.mark.parametrize("model", [LocalChat, AsyncLocalChat])
def test_execute_has_the_signature_that_llm_expects(
    model: type[LocalChat | AsyncLocalChat],
) -> None:
    signature = inspect.signature(model.execute)
    assert list(signature.parameters) == [
        *("self", "prompt", "stream", "response", "conversation", "key")
    ]
    assert signature.parameters["key"].default is None


@in_every_way
def test_conversation_may_be_none(backend: Backend, way: str) -> None:
    assert backend.ask("Hi", way).text


class Unread(Conversation):
    """A conversation of which only the number of turns may be read."""

    def __getattribute__(self, name: str) -> Any:
        return [object()] if name == "responses" else super().__getattribute__(name)


@at_every_server
def test_messages_sent_come_from_the_prompt_only(kind: str) -> None:
    with saying(kind, Says("Hello.")) as (local, server):
        model = LocalChat(local)
        messages = [llm.user("One"), llm.assistant("Two"), llm.user("Three")]
        prompt = llm.Prompt(None, model=model, messages=messages)  # type: ignore[no-untyped-call]
        response = llm.Response(prompt, model=model, stream=True)
        list(model.execute(prompt, True, response, Unread(model=model)))
    (body,) = sent(server)
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("user", "One"),
        ("assistant", "Two"),
        ("user", "Three"),
    ]


@in_every_way
@at_every_server
def test_all_roles_and_parts_are_sent(kind: str, way: str) -> None:
    with saying(kind, Says("Hello.")) as (model, server):
        ask(model, None, way, messages=HISTORY)
    image = llm.Attachment(content=PNG).base64_content()  # type: ignore[no-untyped-call]
    (body,) = sent(server)
    expected = {
        "ollama": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look", "images": [image]},
            {
                "role": "assistant",
                "content": "I ask.",
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "ValueError: no", "tool_name": "f", "tool_call_id": "1"},
            {"role": "user", "content": "And?"},
        ],
        "lmstudio": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
                ],
            },
            {
                "role": "assistant",
                "content": "I ask.",
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a": 1}'},
                    }
                ],
            },
            {"role": "tool", "content": "ValueError: no", "tool_call_id": "1"},
            {"role": "user", "content": "And?"},
        ],
    }
    assert body["messages"] == expected[kind]


@in_every_way
def test_empty_prompt(backend: Backend, way: str) -> None:
    assert backend.ask("", way).text


@in_every_way
@at_every_server
def test_attachment_alone(kind: str, way: str) -> None:
    with saying(kind, Says("A dot.")) as (model, server):
        outcome = ask(model, "", way, attachments=[llm.Attachment(content=PNG)])
    assert outcome.text == "A dot."
    (message,) = sent(server)[0]["messages"]
    assert "images" in message or [part["type"] for part in message["content"]] == ["image_url"]


@in_every_way
@at_every_server
def test_tool_results_alone(kind: str, way: str) -> None:
    results = [llm.ToolResult(name="f", output="11 C", tool_call_id="1")]
    with saying(kind, Says("Cold.")) as (model, server):
        outcome = ask(model, None, way, messages=HISTORY[:3], tool_results=results)
    assert outcome.text == "Cold."
    last = sent(server)[0]["messages"][-1]
    assert (last["role"], last["content"], last["tool_call_id"]) == ("tool", "11 C", "1")


@pytest.mark.parametrize(
    ("arguments", "systems"),
    [
        (("-c", "And?"), ["Be brief."]),
        (("-c", "-s", "Be long.", "And?"), ["Be long."]),
        (("-c", "-s", "Be brief.", "And?"), ["Be brief."]),
    ],
)
def test_new_system_prompt_replaces_the_first(
    arguments: tuple[str, ...], systems: list[str], box: StandIn
) -> None:
    output("-m", "local-gemma4", "-s", "Be brief.", "Hi")
    output(*arguments)
    messages = sent(box)[1]["messages"]
    assert [m["content"] for m in messages if m["role"] == "system"] == systems
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]


@in_every_way
@at_every_server
@pytest.mark.parametrize("type_", [None, "image/png"])
def test_attachment_in_the_history_whose_file_is_gone(
    type_: str | None, kind: str, way: str, tmp_path: Path
) -> None:
    path = tmp_path / "gone.png"
    attachment = llm.Attachment(path=str(path), type=type_)
    messages = [llm.user("Look", attachment), llm.user("And?")]
    with saying(kind) as (model, server):
        said = failure(lambda: ask(model, None, way, messages=messages))
    assert said == f"{path} cannot be read: No such file or directory. Check the path."
    assert server.requests == []


@in_every_way
def test_attachment_in_the_history_of_a_model_without_vision(plain: LocalModel, way: str) -> None:
    said = failure(lambda: ask(plain, None, way, messages=HISTORY[1:2]))
    assert "image/png" in said
    assert "It takes text only" in said
