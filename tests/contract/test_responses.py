"""What llm's response holds: text, thinking, calls, usage, facts, and its metadata."""

import json
from dataclasses import replace
from typing import Any

import llm
import pytest
from llm.parts import Message, TextPart

from llm_localrun.chat.models import LocalChat
from llm_localrun.models import LocalModel
from tests.fakes.http_server import StandIn, events, transcript
from tests.fakes.lmstudio import LMStudio
from tests.fakes.says import Says
from tests.support.contract import (
    NAMES,
    PNG,
    Backend,
    at_every_server,
    call_ids,
    chain,
    command,
    in_every_way,
    saying,
    sent,
    turns,
)
from tests.support.drive import WAYS, Outcome, ask, served

# llm leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


def lasting(outcome: Outcome) -> Outcome:
    """`outcome` without what differs from time to time."""
    facts = {k: v for k, v in (outcome.json or {}).items() if "second" not in k and "time" not in k}
    facts.pop("cached_tokens", None)
    return replace(outcome, json=facts, details=None)


def test_streamed_and_unstreamed_replies_are_the_same(backend: Backend) -> None:
    first, *others = [lasting(backend.ask("Hi", way)) for way in WAYS]
    assert [part["type"] for part in first.parts] == ["reasoning", "text"]
    assert others == [first] * 3


@pytest.mark.parametrize("piece_size", [0, 7])
def test_recorded_replies_are_the_same_in_every_way(piece_size: int) -> None:
    outcomes = []
    for way in WAYS:
        name = "chat_nostream" if "unstreamed" in way else "chat_stream"
        reply = transcript(name)[0].reply()
        with StandIn(lambda _, reply=reply: [reply], piece_size=piece_size) as server:  # type: ignore[misc]
            outcomes.append(lasting(ask(served(server.url, "ollama"), "Hi", way)))
    assert outcomes == [outcomes[0]] * 4
    assert (outcomes[0].text, outcomes[0].input) == ("The capital of France is Paris.", 16)


@pytest.mark.parametrize("stream", [True, False])
def test_texts_and_thinking_are_events(backend: Backend, stream: bool) -> None:
    response = LocalChat(backend.model).prompt("Hi", stream=stream, **backend.options)
    received = list(response.stream_events())  # type: ignore[no-untyped-call]
    kinds = [event.type for event in received]
    assert set(kinds) == {"reasoning", "text"}
    assert kinds == sorted(kinds)
    assert all(isinstance(event.chunk, str) and event.chunk for event in received)


@in_every_way
@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "think", "unopened think"])
def test_thinking_is_found_in_every_field(field: Any, way: str) -> None:
    server = LMStudio(lambda _: Says("Hello.", reasoning="Hm."), reasoning_in=field)
    with StandIn(server) as box:
        model = served(box.url, "lmstudio", NAMES["lmstudio"], capabilities=("thinking",))
        outcome = ask(model, "Hi", way)
    assert (outcome.reasoning, outcome.text) == ("Hm.", "Hello.")


def fragment(index: int, id_: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    call = {"index": index, "id": id_, "function": {"name": name, "arguments": arguments}}
    return {"choices": [{"delta": {"tool_calls": [call]}}]}


@pytest.mark.parametrize("way", ["sync", "async"])
def test_interleaved_calls_are_separated(way: str) -> None:
    interleaved = events(
        fragment(0, "a", "f", '{"n'),
        fragment(1, "b", "f", ""),
        fragment(0, None, None, '": 1'),
        fragment(1, None, None, '{"n": 2}'),
        fragment(0, None, None, "}"),
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
    )
    done = events({"choices": [{"delta": {"content": "3"}, "finish_reason": "stop"}]})
    replies = iter([interleaved, done])

    def f(n: int) -> int:
        return n

    with StandIn(lambda _: [next(replies)]) as server:
        first, second = chain(served(server.url, "vllm"), "Add", way, tools=[f])
    assert call_ids(first) == ["a", "b"]
    assert [call.arguments for call in first.tool_calls()] == [{"n": 1}, {"n": 2}]
    assert [result.output for result in second.prompt.tool_results] == ["1", "2"]


def test_hidden_reasoning_is_logged_and_not_shown(backend: Backend) -> None:
    shown = command(*backend.arguments, "Hi")
    hidden = command(*backend.arguments, "Hi", "-R")
    assert shown.stdout == hidden.stdout
    first, second = turns(2)
    assert first["reasoning"] == second["reasoning"] != ""
    assert first["reasoning"] in shown.stderr
    assert hidden.stderr == ""
    if backend.server is not None:
        # Nothing has to be asked for that is not to be shown.
        asked, asked_again = sent(backend.server)
        assert asked == asked_again


@in_every_way
def test_usage_and_resolved_model(backend: Backend, way: str) -> None:
    outcome = backend.ask("Hi", way)
    assert outcome.input is not None
    assert outcome.output is not None
    assert outcome.input > 0
    assert outcome.output > 0
    assert all(outcome.details.values()) if outcome.details else outcome.details is None
    assert outcome.resolved_model == backend.model.name
    if backend.kind == "lmstudio":
        assert outcome.details == {"reasoning_tokens": 1}


@in_every_way
@at_every_server
def test_response_json_is_small_and_safe(kind: str, way: str) -> None:
    with saying(kind, Says("A dot.")) as (model, _):
        outcome = ask(model, "Look", way, attachments=[llm.Attachment(content=PNG)])
    facts = json.loads(json.dumps(outcome.json, allow_nan=False))
    assert facts["finish_reason"] == "stop"
    assert facts["time_to_first_token"] >= 0
    assert llm.Attachment(content=PNG).base64_content() not in json.dumps(facts)  # type: ignore[no-untyped-call]
    assert not hasattr(LocalChat(model), "json_replacements")


def test_engine_reports_its_timings(plain: LocalModel) -> None:
    facts = ask(plain, "Hi", temperature=0, max_tokens=2).json
    assert facts is not None
    assert facts["finish_reason"] == "length"
    assert facts["generation_tokens_per_second"] > 0


@pytest.mark.parametrize("way", ["sync", "async unstreamed"])
def test_parts_carry_no_metadata(backend: Backend, way: str) -> None:
    assert all("provider_metadata" not in part for part in backend.ask("Hi", way).parts)


@at_every_server
def test_metadata_of_other_providers_is_kept_and_not_sent(kind: str) -> None:
    part = TextPart(text="Two", provider_metadata={"openai": {"id": "msg_1"}})
    messages = [llm.user("One"), Message(role="assistant", parts=[part]), llm.user("Three")]
    with saying(kind, Says("Hello.")) as (model, server):
        response = LocalChat(model).prompt(messages=messages)
        response.text()
    assert "msg_1" not in json.dumps(sent(server))
    assert response.to_dict()["prompt"]["messages"][1]["parts"][0]["provider_metadata"] == {
        "openai": {"id": "msg_1"}
    }
