"""The second chance: a call that is not valid is asked for once more, under the tool's schema."""

from typing import Any

import llm
import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.servers.base import server_class
from tests.fakes.http_server import StandIn
from tests.fakes.scripted import Scripted, Turn
from tests.support.contract import chain
from tests.support.drive import WAYS, ask, served

in_every_way = pytest.mark.parametrize("way", WAYS)


def weather(city: str) -> str:
    "The weather"
    return f"dry in {city}"


def clock() -> str:
    "The time"
    return "noon"


TOOLS: list[Any] = [clock, weather]
OFFERED: list[Any] = [
    llm.Tool("clock", input_schema={}),
    llm.Tool("weather", input_schema={"properties": {"city": {}}, "required": ["city"]}),
]
BROKEN = '{"name": "weather", "arguments": {"town": "Paris"}}'
RIGHT = '{"name": "weather", "arguments": {"city": "Paris"}}'
SAID = "local/llamacpp/m wrote a call of weather that is not valid; it was asked once more.\n"


def asked(server: Scripted, way: str = "sync", **known: Any) -> Any:
    with StandIn(server) as stand_in:
        model = served(stand_in.url, "llamacpp", "m", capabilities=("tools",))
        return ask(model, "What is the weather?", way, tools=OFFERED, **known)


@in_every_way
def test_broken_call_is_made_up_for(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    server = Scripted([Turn(BROKEN), Turn(RIGHT), Turn("Dry.")])
    with StandIn(server) as stand_in:
        model = served(stand_in.url, "llamacpp", "m", capabilities=("tools",))
        first, second = chain(model, "What is the weather?", way, tools=TOOLS)
    (call,) = first.tool_calls()
    assert (call.name, call.arguments) == ("weather", {"city": "Paris"})
    assert (first.text(), second.text()) == ("", "Dry.")
    schema = server.bodies[1]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["name"] == {"const": "weather"}
    assert server.bodies[0]["messages"] == server.bodies[1]["messages"]
    assert server.bodies[0]["tools"] == server.bodies[1]["tools"]
    usage = first.usage()
    assert (usage.input, usage.output) == (20, 10)
    assert (first.response_json or {})["tool_repair"] is True
    assert "tool_repair" not in (second.response_json or {})
    assert capsys.readouterr() == ("", SAID)


@in_every_way
@pytest.mark.parametrize("text", [BROKEN, f"I look it up.\n<tool_call>\n{BROKEN}\n</tool_call>"])
def test_nothing_is_asked_with_the_option_off(
    text: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Scripted([Turn(text)])
    assert asked(server, way, tool_repair=False).text == text
    assert len(server.bodies) == 1
    assert capsys.readouterr().err == ""


def test_nothing_is_asked_of_a_server_that_takes_no_schemas(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server_class("llamacpp"), "accepts_schemas", False)
    assert asked(Scripted([Turn(BROKEN)])).text == BROKEN
    assert capsys.readouterr().err == ""


@in_every_way
@pytest.mark.parametrize(
    ("turns", "tokens"),
    [
        ([Turn("boom", status=500)], (10, 5)),
        # Then the tools are described, in case their schemas are why.
        ([Turn("failed to parse grammar", status=400)] * 2, (10, 5)),
        ([Turn('{"name": "wea', breaks_off=True)], (10, 5)),
        ([Turn("I cannot.")], (20, 10)),
        ([Turn(BROKEN, reasoning="Hm.")], (20, 10)),
        ([Turn('{"name": "wea', finish_reason="length"), Turn("", status=500)], (20, 10)),
        ([Turn('{"name": "wea', goes_on=iter("1" * 10**6)), Turn("No.")], (20, 10)),
    ],
)
def test_failure_of_the_second_request_shows_the_first_answer(
    turns: list[Turn], tokens: tuple[int, int], way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Scripted([Turn(BROKEN), *turns])
    outcome = asked(server, way)
    assert server.turns == []
    assert (outcome.text, outcome.reasoning) == (BROKEN, "")
    assert (outcome.input, outcome.output) == tokens
    assert "tool_repair" not in (outcome.json or {})
    assert capsys.readouterr().err == SAID


def test_interruption_of_the_second_request_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_localrun.chat import run

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with StandIn(Scripted([Turn(BROKEN), Turn(RIGHT)])) as server:
        model = served(server.url, "llamacpp", "m", capabilities=("tools",))
        answer = LocalChat(model).prompt("What is the weather?", tools=OFFERED)
        prepare, calls = run._Sender.prepared, iter([False, True])
        monkeypatch.setattr(
            run._Sender,
            "prepared",
            lambda *given: interrupted() if next(calls) else prepare(*given),
        )
        with pytest.raises(KeyboardInterrupt):
            answer.text()


@in_every_way
def test_json_that_is_wanted_comes_after_the_repaired_call(way: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    server = Scripted([Turn(BROKEN), Turn(RIGHT), Turn("Dry."), Turn('{"a": 1}')])
    with StandIn(server) as stand_in:
        model = served(stand_in.url, "llamacpp", "m", capabilities=("tools",))
        first, second = chain(model, "The weather?", way, tools=TOOLS, schema=schema)
    assert [call.arguments for call in first.tool_calls()] == [{"city": "Paris"}]
    assert second.text() == '{"a": 1}'
    # What was read of the answer that does not count, counts in tokens.
    assert (second.usage().input, second.usage().output) == (20, 10)
