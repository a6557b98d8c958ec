"""llm's log, and responses that are stored and loaded again."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llm
import pytest
import sqlite_utils
from llm.parts import Message

from llm_localrun.chat.models import AsyncLocalChat, LocalChat
from tests.fakes.http_server import StandIn
from tests.fakes.says import Call, Says
from tests.support.contract import (
    NAMES,
    Backend,
    at_every_server,
    in_every_way,
    output,
    respond_as,
    sent,
    turns,
)
from tests.support.drive import WAYS
from tests.support.snapshots import point_at

# llm leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


def test_log_of_every_backend(backend: Backend) -> None:
    output(*backend.arguments, "One")
    output("-c", "Two", *backend.given)
    first, second = turns(2)
    assert first["conversation_id"] == second["conversation_id"]
    for turn in (first, second):
        assert turn["model"] == backend.model.id
        assert turn["resolved_model"] == backend.model.name
        assert turn["reasoning"]
        assert turn["response"]
        assert turn["input_tokens"] > 0
        assert turn["output_tokens"] > 0
    shown = output("logs", "-n", "2", "-u")
    for said in ("One", "Two", first["reasoning"], first["response"], "Token usage"):
        assert said in shown
    assert f"{first['input_tokens']} input" in shown
    assert len(json.loads(output("logs", "--json", "-c"))) == 2
    assert len(json.loads(output("logs", "--json", "-m", backend.model.id))) == 2
    if backend.server is not None:
        assert [m["content"] for m in sent(backend.server)[1]["messages"]] == [
            *("One", "Hello.", "Two")
        ]


FUNCTION = "def f(n: int) -> int:\n    return n + 1\n"


@at_every_server
def test_log_of_tools(kind: str, user_path: Path) -> None:
    replies = iter([Says(calls=(Call("f", {"n": 1}),)), Says("Two.")])
    with StandIn(respond_as(kind, lambda _: next(replies))) as server:
        point_at(user_path, server.url)
        output("-m", f"local/box/{NAMES[kind]}", "--functions", FUNCTION, "Add")
    first, second = turns(2)
    (call,) = first["tool_calls"]
    (result,) = second["tool_results"]
    assert (call["name"], call["arguments"], result["output"]) == ("f", {"n": 1}, "2")
    assert call["tool_call_id"] == result["tool_call_id"] is not None
    shown = output("logs", "-n", "2")
    assert "n: `1`" in shown
    assert str(call["tool_call_id"]) in shown


@dataclass(frozen=True)
class RoundTrip:
    """A response, what its messages are after a round trip, and the reply to what came back."""

    first: Any
    again: list[Message]
    model_id: str
    second: Any


def round_trip(backend: Backend, stream: bool) -> RoundTrip:
    first = LocalChat(backend.model).prompt("One", stream=stream, **backend.options)
    first.text()
    again = llm.Response.from_dict(json.loads(json.dumps(first.to_dict())))
    second = again.reply("Two", options=backend.options)
    second.text()
    return RoundTrip(first, again.messages(), again.model.model_id, second)


async def round_trip_async(backend: Backend, stream: bool) -> RoundTrip:
    first = AsyncLocalChat(backend.model).prompt("One", stream=stream, **backend.options)
    await first.text()
    again = llm.AsyncResponse.from_dict(json.loads(json.dumps(first.to_dict())))
    second = await again.reply("Two", options=backend.options)
    await second.text()
    return RoundTrip(first, await again.messages(), again.model.model_id, second)


@in_every_way
def test_round_trip(backend: Backend, way: str) -> None:
    stream = "unstreamed" not in way
    if way.startswith("sync"):
        trip = round_trip(backend, stream)
    else:
        trip = asyncio.run(round_trip_async(backend, stream))
    database = sqlite_utils.Database(Path(str(llm.user_dir())) / "logs.db")  # type: ignore[no-untyped-call]
    for response in (trip.first, trip.second):
        response.log_to_db(database)
    database.close()
    assert trip.model_id == backend.model.id
    (message,) = trip.again
    assert [part.to_dict()["type"] for part in message.parts] == ["reasoning", "text"]
    assert [each.to_dict() for each in trip.second.prompt.messages[:2]] == [
        *(each.to_dict() for each in trip.first.prompt.messages),
        message.to_dict(),
    ]
    first, second = turns(2)
    assert (first["prompt"], second["prompt"]) == ("One", "Two")
    for turn in (first, second):
        assert turn["reasoning"]
        assert turn["resolved_model"] == backend.model.name
        assert turn["input_tokens"] > 0


def test_only_this_machine_is_connected_to(backend: Backend, connections: list[Any]) -> None:
    for way in WAYS:
        backend.ask("Hi", way)
    output(*backend.arguments, "Hi")
    output("models")
    assert connections
    assert {address[0] for address in connections} == {"127.0.0.1"}
