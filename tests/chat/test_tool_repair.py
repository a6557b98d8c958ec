"""The second chance: a call that is not valid is asked for once more, under the tool's schema."""

import itertools
import signal
import threading
from collections.abc import Iterator
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
        ([Turn("failed to parse grammar", status=400)], (10, 5)),
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


@pytest.mark.parametrize("is_sent", [True, False])
def test_interruption_of_the_second_request_shows_the_first_answer(
    is_sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_localrun.chat import run

    def interrupting() -> Iterator[str]:
        yield "1"
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        yield from itertools.repeat("1")

    def prepared(sender: Any, attempt: Any) -> Any:
        if attempt.is_repair and not is_sent:
            raise KeyboardInterrupt
        return prepare(sender, attempt)

    prepare = run._Sender.prepared
    monkeypatch.setattr(run._Sender, "prepared", prepared)
    server = Scripted([Turn(BROKEN), Turn('{"name": "weather', goes_on=interrupting())])
    with StandIn(server) as stand_in:
        model = served(stand_in.url, "llamacpp", "m", capabilities=("tools",))
        answer = LocalChat(model).prompt("What is the weather?", tools=OFFERED)
        assert answer.text() == BROKEN
    assert len(server.bodies) == 1 + is_sent
    assert answer.tool_calls() == []
    assert (answer.response_json or {})["finish_reason"] == "interrupted"


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


INVENTED = '{"name": "forecast", "arguments": {"day": "Monday"}}'
UNKNOWN = {
    "bare": INVENTED,
    "Llama's": '{"name": "forecast", "parameters": {"day": "Monday"}}',
    "a fence": f"```json\n{INVENTED}\n```",
    "a tag": f"<tool_call>\n{INVENTED}\n</tool_call>",
    "a tag of no model": f"<json>\n{INVENTED}\n</json>",
    "XML": "<tool_call>\n<function=forecast>\n<parameter=day>\nMonday\n</parameter>\n</function>"
    "\n</tool_call>",
    "Mistral's": '[TOOL_CALLS]forecast[ARGS]{"day": "Monday"}',
    "Python": '<|tool_call_start|>[forecast(day="Monday")]<|tool_call_end|>',
    "OpenAI's": '{"tool_calls": [{"id": "1", "type": "function", "function": {"name": "forecast",'
    ' "arguments": "{}"}}]}',
    "a brace lacks": INVENTED[:-1],
    "before one that is offered": f"[{INVENTED}, {RIGHT}]",
    "several": f"{INVENTED}\n{INVENTED}\n{RIGHT}",
}
ASKED = "local/llamacpp/m wrote a call of forecast, which is not offered; it was asked once more.\n"


@in_every_way
@pytest.mark.parametrize("form", UNKNOWN)
def test_call_of_a_tool_that_is_not_offered_is_asked_about(
    form: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Scripted([Turn(UNKNOWN[form]), Turn(RIGHT), Turn("Dry.")])
    with StandIn(server) as stand_in:
        model = served(stand_in.url, "llamacpp", "m", capabilities=("tools",))
        first, second = chain(model, "What is the weather?", way, tools=TOOLS)
    assert [call.arguments for call in first.tool_calls()] == [{"city": "Paris"}]
    assert (first.text(), second.text()) == ("", "Dry.")
    begun, again = server.bodies[:2]
    assert "response_format" not in again
    assert begun["tools"] == again["tools"]
    (question,) = again["messages"]
    assert question["content"].startswith("What is the weather?\n\n")
    assert "forecast" not in str(again)
    usage = first.usage()
    assert (usage.input, usage.output) == (20, 10)
    assert (first.response_json or {})["tool_repair"] is True
    assert capsys.readouterr() == ("", ASKED)


@in_every_way
@pytest.mark.parametrize(
    "second",
    [
        Turn("I cannot."),
        Turn(INVENTED),
        Turn(BROKEN),
        Turn(""),
        Turn("No.", reasoning="Hm."),
        Turn("", call="forecast"),
        Turn("boom", status=500),
        Turn('{"name": "wea', breaks_off=True),
        Turn("", goes_on=iter(["1" * 100] * 10**4)),
    ],
)
@pytest.mark.parametrize("form", ["bare", "a fence", "several"])
def test_second_answer_without_a_call_shows_the_first(
    form: str, second: Turn, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Scripted([Turn(UNKNOWN[form]), second])
    outcome = asked(server, way)
    assert (outcome.text, outcome.reasoning) == (UNKNOWN[form], "")
    assert [part["type"] for part in outcome.parts] == ["text"]
    assert server.turns == []
    assert "tool_repair" not in (outcome.json or {})
    assert capsys.readouterr().err == ASKED


@in_every_way
@pytest.mark.parametrize(
    ("text", "known"),
    [
        (INVENTED, {"tool_repair": False}),
        (INVENTED, {"json_object": True}),
        (INVENTED, {"schema": {"type": "object", "properties": {"name": {"type": "string"}}}}),
        (f"{INVENTED}\n\nThis is a call.", {}),
        (f"For example:\n{INVENTED}", {}),
        (f"Write `<tool_call>{INVENTED}</tool_call>` then", {}),
        ('{"name": "forecast", "arguments": "Monday"}', {}),
        ('{"name": "Ada Lovelace", "arguments": {"day": "Monday"}}', {}),
        ('{"id": 1, "name": "forecast", "arguments": {"day": "Monday"}}', {}),
        ('{"name": "forecast", "arguments": {"day": "Monday"}, "then": 1}', {}),
        ('{"action": "forecast", "action_input": {"day": "Monday"}}', {}),
        ('{"name": "forecast", "parameters": {"day": {"type": "string"}}}', {}),
        ('{"name": "forecast"}', {}),
        ("<tool>hammer</tool>", {}),
    ],
)
def test_other_text_that_names_no_offered_tool_is_not_asked_about(
    text: str, known: dict[str, Any], way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Scripted([Turn(text)])
    assert (asked(server, way, **known).text, len(server.bodies)) == (text, 1)
    assert capsys.readouterr().err == ""


@in_every_way
def test_call_of_a_tool_that_is_not_offered_is_the_answer_after_results(way: str) -> None:
    server = Scripted([Turn(RIGHT), Turn(INVENTED)])
    with StandIn(server) as stand_in:
        model = served(stand_in.url, "llamacpp", "m", capabilities=("tools",))
        *_, last = chain(model, "What is the weather?", way, tools=TOOLS)
    assert (last.text(), len(server.bodies)) == (INVENTED, 2)


def test_call_that_the_server_finds_makes_up_for_one_that_is_not_offered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    two = f"{INVENTED}\n{INVENTED.replace('forecast', 'news')}"
    (part,) = asked(Scripted([Turn(two), Turn("", call="clock")])).parts
    assert (part["type"], part["name"]) == ("tool_call", "clock")
    said = "m wrote a call of forecast and news, which are not offered; it was asked once more.\n"
    assert capsys.readouterr().err == f"local/llamacpp/{said}"


def test_question_that_is_asked_again_is_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a server that takes no schemas, and describes tools as text."""
    monkeypatch.setattr(server_class("llamacpp"), "accepts_schemas", False)
    server = Scripted([Turn("Yes."), Turn(INVENTED), Turn(RIGHT)])
    with StandIn(server) as stand_in:
        model = served(stand_in.url, "llamacpp", "m", capabilities=("completion",))
        conversation = LocalChat(model).conversation()
        conversation.prompt("Are you there?", tools=OFFERED, system="Be brief.").text()
        (call,) = conversation.prompt("And the weather?", tools=OFFERED).tool_calls()
    assert call.arguments == {"city": "Paris"}
    *same, asked = server.bodies[2]["messages"]
    assert same == server.bodies[1]["messages"][:-1]
    assert asked["content"].startswith("And the weather?\n\n")


NAMED: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
}
CALL_LIKE = {
    **NAMED,
    "properties": {"name": {"type": "string"}, "arguments": {"type": "string"}},
}
AGED = {**NAMED, "properties": {**NAMED["properties"], "age": {}}, "required": ["name", "age"]}
LAX = {"type": "object", "properties": {"a": {"type": "integer"}}}


@in_every_way
@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"schema": NAMED}, '{"name": "clock"}'),
        ({"schema": {"type": "array", "items": NAMED}}, '[{"name": "clock"}]'),
        ({"schema": CALL_LIKE}, '{"name": "weather", "arguments": "x"}'),
        ({"schema": {**LAX, "additionalProperties": True}}, '{"name": "clock"}'),
        ({"json_object": True}, '{"action": "weather", "input": "x"}'),
        ({"json_object": True}, BROKEN),
    ],
)
def test_json_that_is_wanted_is_no_call(wish: Any, said: str, way: str) -> None:
    server = Scripted([Turn(said)])
    outcome = asked(server, way, **wish)
    assert (outcome.text, len(server.bodies)) == (said, 1)
    assert [part["type"] for part in outcome.parts] == ["text"]


@in_every_way
def test_json_that_is_wanted_in_a_fence_is_no_call(way: str) -> None:
    outcome = asked(Scripted([Turn('```json\n{"name": "clock"}\n```')]), way, schema=NAMED)
    assert (outcome.text, len(outcome.parts)) == ('{"name": "clock"}', 1)


@in_every_way
@pytest.mark.parametrize("wish", [{"schema": LAX}, {"schema": AGED}, {"json_object": True}])
def test_call_that_is_not_the_json_that_is_wanted_is_one(wish: Any, way: str) -> None:
    """Though almost any object follows the schema."""
    server = Scripted([Turn(RIGHT)])
    (part,) = asked(server, way, **wish).parts
    assert (part["type"], part["arguments"]) == ("tool_call", {"city": "Paris"})
    assert len(server.bodies) == 1


@in_every_way
@pytest.mark.parametrize(
    "said", ['{"name": "Rex"}', '{"name": "Rex", "age": 3', "Rex is 3.", '```\n{"name": 1}\n```']
)
def test_free_answer_that_is_not_the_json_that_is_wanted_is_not_shown(said: str, way: str) -> None:
    right = '{"name": "Rex", "age": 3}'
    server = Scripted([Turn(said), Turn(right)])
    outcome = asked(server, way, schema=AGED)
    assert (outcome.text, server.turns) == (right, [])
    assert ["response_format" in body for body in server.bodies] == [False, True]


@in_every_way
@pytest.mark.parametrize("right", ['{"name": "`", "age": "```{\\"name\\": 1}```"}'])
def test_free_answer_that_is_the_json_that_is_wanted_is_shown(right: str, way: str) -> None:
    server = Scripted([Turn(right)])
    assert (asked(server, way, schema=AGED).text, len(server.bodies)) == (right, 1)


@in_every_way
def test_call_that_the_server_could_not_read_is_called_that(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    malformed = "The model produced output that does not match the expected peg-native format"
    server = Scripted([Turn(malformed, status=500), Turn(RIGHT)])
    (part,) = asked(server, way).parts
    assert part["arguments"] == {"city": "Paris"}
    said = "m wrote a call that the server could not read; it was asked once more.\n"
    assert capsys.readouterr().err == f"local/llamacpp/{said}"


@in_every_way
@pytest.mark.parametrize("second", ["Dry.", ""])
def test_answer_that_repeats_the_call_is_asked_for_in_words(second: str, way: str) -> None:
    """The call runs again only if there are no words."""
    server = Scripted([Turn(RIGHT), Turn(RIGHT), Turn(second), Turn("It is dry.")])
    with StandIn(server) as stand_in:
        model = served(stand_in.url, "llamacpp", "m", capabilities=("tools",))
        responses = chain(model, "What is the weather?", way, tools=TOOLS)
    assert responses[-1].text() == (second or "It is dry.")
    assert [len(each.tool_calls()) for each in responses] == ([1, 0] if second else [1, 1, 0])
    assert ["tools" in body for body in server.bodies[:3]] == [True, True, False]
