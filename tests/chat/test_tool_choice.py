"""`-o tool_choice`: what is sent, what counts as a call, and that small models make valid ones."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Optional

import jsonschema
import llm
import pytest
from pydantic import BaseModel

from llm_localrun.chat.models import LocalChat
from llm_localrun.errors import NoToolCall, UnsupportedOption
from llm_localrun.servers.base import CallForcing, server_class, server_kinds
from llm_localrun.wire.call_schema import SHORT_TEXT
from tests.conftest import Llm
from tests.fakes.http_server import StandIn
from tests.fakes.scripted import Scripted, Turn
from tests.support.contract import chain, found
from tests.support.drive import WAYS, ask, served

in_every_way = pytest.mark.parametrize("way", WAYS)


def clock() -> str:
    "The time"
    return "noon"


def weather(city: str) -> str:
    "The weather"
    return f"dry in {city}"


TOOLS: list[Any] = [clock, weather]
CLOCK, WEATHER = llm.Tool("clock", input_schema={}), llm.Tool("weather", input_schema={})
CLOCK_CALL = '{"name": "clock", "arguments": {}}'
WEATHER_CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'
NOT_CALLED = "local/openai/m did not make the call that it had to; it was asked once more.\n"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def running(server: Scripted, way: str = "sync", kind: str = "llamacpp", **known: Any) -> Any:
    """The responses of a chain about a question with both tools."""
    with StandIn(server) as stand_in:
        model = served(stand_in.url, kind, "m", capabilities=("tools",))
        return chain(model, "What time is it?", way, **{"tools": TOOLS, **known})


def calls_in(responses: list[Any]) -> list[list[tuple[str, Any]]]:
    return [[(call.name, call.arguments) for call in each.tool_calls()] for each in responses]


def names_in(body: Any) -> list[str]:
    """The tools of which the schema in a request lets the model make a call."""
    schema = body["response_format"]["json_schema"]["schema"]
    return [each["properties"]["name"]["const"] for each in schema.get("anyOf", [schema])]


@in_every_way
@pytest.mark.parametrize(
    ("choice", "names", "said", "called"),
    [
        ("required", ["clock", "weather"], CLOCK_CALL, [("clock", {})]),
        ("weather", ["weather"], WEATHER_CALL, [("weather", {"city": "Paris"})]),
    ],
)
def test_call_is_made_under_a_schema_and_the_answer_freely(
    choice: str, names: list[str], said: str, called: Any, way: str
) -> None:
    """Otherwise the chain would never end."""
    server = Scripted([Turn(said), Turn("It is noon.")])
    responses = running(server, way, options={"tool_choice": choice})
    assert calls_in(responses) == [called, []]
    assert [each.text() for each in responses] == ["", "It is noon."]
    first, second = server.bodies
    assert names_in(first) == names
    assert "response_format" not in second
    # With a format, llama-server is to leave calls in the text.
    assert [each.get("tool_choice") for each in server.bodies] == ["none", None]
    assert [len(each["tools"]) for each in server.bodies] == [2, 2]
    usage = responses[0].usage()
    assert (usage.input, usage.output) == (10, 5)


def test_next_question_of_a_conversation_requires_a_call_again() -> None:
    server = Scripted([Turn(CLOCK_CALL), Turn("Noon."), Turn(CLOCK_CALL), Turn("Still noon.")])
    with StandIn(server) as stand_in:
        model = LocalChat(served(stand_in.url, "llamacpp", "m", capabilities=("tools",)))
        conversation = model.conversation(tools=TOOLS)
        for _ in range(2):
            conversation.chain("What time is it?", options={"tool_choice": "required"}).text()
    assert ["response_format" in body for body in server.bodies] == [True, False, True, False]


@in_every_way
@pytest.mark.parametrize(("choice", "sent"), [("required", 2), ("clock", 1)])
def test_server_that_forces_calls_itself(
    choice: str, sent: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not each such server takes a name: the tool that is named is the only one that is sent."""
    monkeypatch.setattr(server_class("openai"), "call_forcing", CallForcing.NATIVE)
    server = Scripted([Turn(call="clock", finish_reason="tool_calls"), Turn("It is noon.")])
    responses = running(server, way, "openai", options={"tool_choice": choice})
    assert calls_in(responses) == [[("clock", {})], []]
    assert [body.get("tool_choice") for body in server.bodies] == ["required", None]
    assert [len(body["tools"]) for body in server.bodies] == [sent, 2]
    assert not any("response_format" in body for body in server.bodies)


def test_server_that_was_to_force_a_call_and_did_not_gets_a_schema(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server_class("openai"), "call_forcing", CallForcing.NATIVE)
    server = Scripted([Turn("It is late."), Turn(CLOCK_CALL), Turn("It is noon.")])
    responses = running(server, kind="openai", options={"tool_choice": "required"})
    assert calls_in(responses) == [[("clock", {})], []]
    assert server.bodies[1]["tool_choice"] == "none"
    assert names_in(server.bodies[1]) == ["clock", "weather"]
    assert capsys.readouterr().err == NOT_CALLED


@in_every_way
@pytest.mark.parametrize("second", [Turn("No."), Turn("boom", status=500)])
def test_server_that_was_to_force_a_call_and_does_not_by_a_schema_either(
    second: Turn, way: str
) -> None:
    server = Scripted([Turn("It is late."), second])
    with pytest.raises(NoToolCall, match="made no valid call of clock or weather"):
        running(server, way, "openai", options={"tool_choice": "required"})
    assert server.turns == []


@in_every_way
@pytest.mark.parametrize(
    "other", [Turn(CLOCK_CALL), Turn(call="clock", finish_reason="tool_calls")]
)
def test_call_of_another_tool_than_the_chosen_one_does_not_run(
    other: Turn, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Scripted([other, Turn(WEATHER_CALL), Turn("Dry.")])
    responses = running(server, way, "openai", options={"tool_choice": "weather"})
    assert calls_in(responses) == [[("weather", {"city": "Paris"})], []]
    assert capsys.readouterr().err == NOT_CALLED
    server = Scripted([other, other])
    with pytest.raises(NoToolCall, match="made no valid call of weather"):
        running(server, way, "openai", options={"tool_choice": "weather"})
    assert "reports a tool call" not in capsys.readouterr().err


@in_every_way
@pytest.mark.parametrize("choice", ["auto", "required", "clock"])
@pytest.mark.parametrize("wish", [{"schema": SCHEMA}, {"options": {"json_object": True}}])
def test_format_that_the_server_lacks_is_refused_before_a_call_runs(
    wish: Any, choice: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = server_class("openai")
    options = {name: each for name, each in cls.options.items() if name != "json_object"}
    monkeypatch.setattr(cls, "options", options)
    monkeypatch.setattr(cls, "accepts_schemas", "schema" not in wish)
    server = Scripted([])
    with pytest.raises(UnsupportedOption, match=r"json_object|schema"):
        more = {**wish, "options": {"tool_choice": choice, **wish.get("options", {})}}
        running(server, way, "openai", **more)
    assert server.bodies == []


def test_server_that_was_to_force_a_call_and_takes_no_schema(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_class("openai"), "call_forcing", CallForcing.NATIVE)
    monkeypatch.setattr(server_class("openai"), "accepts_schemas", False)
    with pytest.raises(NoToolCall, match="made no valid call of clock or weather"):
        running(Scripted([Turn("It is late.")]), kind="openai", options={"tool_choice": "required"})


@pytest.mark.parametrize("kind", server_kinds())
@pytest.mark.parametrize("choice", ["auto", "none"])
def test_choice_that_every_server_takes(kind: str, choice: str) -> None:
    cls = server_class(kind)
    assert "tool_choice" in cls.options
    assert cls(served("http://127.0.0.1:9", kind, "m").served.endpoint).encode_options(  # type: ignore[union-attr]
        {"tool_choice": choice}
    ) == dict(cls.fixed_body)


@in_every_way
def test_none_sends_no_tools_and_text_is_text(way: str) -> None:
    server = Scripted([Turn(CLOCK_CALL)])
    responses = running(server, way, options={"tool_choice": "none"})
    assert [each.text() for each in responses] == [CLOCK_CALL]
    assert calls_in(responses) == [[]]
    assert "tools" not in server.bodies[0]


@pytest.mark.parametrize(
    ("forcing", "tools", "choice", "said"),
    [
        (CallForcing.SCHEMA, [], "required", "needs tools, and none are offered. Add them with -T"),
        (CallForcing.SCHEMA, [], "clock", "-o tool_choice clock needs tools"),
        (CallForcing.SCHEMA, [CLOCK], "Clock", "names no tool that is offered. Use auto, required"),
        (CallForcing.SCHEMA, [CLOCK, WEATHER], "x", "or one of clock, weather"),
        (CallForcing.NONE, [CLOCK], "required", "llama-server cannot make a model call a tool. "),
        (CallForcing.NONE, [CLOCK], "clock", "llama-server cannot make a model call a tool. "),
    ],
)
def test_choice_that_cannot_be_kept(
    forcing: CallForcing, tools: Any, choice: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_class("llamacpp"), "call_forcing", forcing)
    server = Scripted([])
    with StandIn(server) as stand_in, pytest.raises(UnsupportedOption) as refused:
        ask(served(stand_in.url, "llamacpp", "m"), "Hi", tools=tools, tool_choice=choice)
    assert said in str(refused.value)
    assert server.bodies == []


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_choice_without_tools_is_a_prompt_like_any_other(choice: str) -> None:
    server = Scripted([Turn("Hello.")])
    with StandIn(server) as stand_in:
        model = served(stand_in.url, "llamacpp", "m")
        assert ask(model, "Hi", tool_choice=choice).text == "Hello."
        if choice == "none":
            server.turns = [Turn("yes")]
            rule: dict[str, Any] = {
                "tools": [CLOCK],
                "tool_choice": "none",
                "grammar": 'root ::= "yes"',
            }
            assert ask(model, "Hi", **rule).text == "yes"


def test_words_win_over_names_of_tools() -> None:
    server = Scripted([Turn("It is noon.")])
    auto = llm.Tool(name="auto", input_schema={})
    responses = running(server, tools=[auto], options={"tool_choice": "auto"})
    assert [each.text() for each in responses] == ["It is noon."]
    assert "response_format" not in server.bodies[0]


@in_every_way
@pytest.mark.parametrize("wish", [{"schema": SCHEMA}, {"options": {"json_object": True}}])
def test_call_comes_before_the_json_that_is_wanted(wish: Any, way: str) -> None:
    server = Scripted([Turn(CLOCK_CALL), Turn('{"a": 1}')])
    options = {"tool_choice": "required", **wish.get("options", {})}
    responses = running(server, way, **{**wish, "options": options})
    assert calls_in(responses) == [[("clock", {})], []]
    assert names_in(server.bodies[0]) == ["clock", "weather"]
    assert responses[1].text() == '{"a": 1}'


@in_every_way
@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([Turn("I cannot.")], "made no valid call of weather. Ask for it in the prompt too"),
        ([Turn('{"name": "weather", "arguments": {}}')], "made no valid call of weather. "),
        ([Turn('{"name": "clock", "arguments": {"a":')], "made no valid call of weather. "),
        (
            [Turn('{"name": "wea', finish_reason="length")] * 2,
            r"weather: the answer ended \(length\) before it was complete. Use a larger",
        ),
        (
            [Turn('{"name": "wea', goes_on=itertools.repeat("1"))] * 2,
            "weather: its arguments did not end. Try",
        ),
    ],
)
def test_answer_without_the_call_is_an_error(turns: list[Turn], said: str, way: str) -> None:
    """Whatever it looks like; a call of another tool is one, because llama.cpp enforces names."""
    server = Scripted([*turns])
    with pytest.raises(NoToolCall, match=said):
        running(server, way, options={"tool_choice": "weather"})
    assert server.turns == []


ENDLESS: dict[str, Iterable[str]] = {
    "a character": itertools.repeat("1"),
    "a word": itertools.repeat("example.com/"),
    "blanks between": itertools.repeat("1.  \\n "),
    "counting": (f"{n}, " for n in itertools.count()),
}


@in_every_way
@pytest.mark.parametrize("case", ENDLESS)
def test_call_that_does_not_end_is_left_and_asked_for_again_with_limits(
    case: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = Turn('{"name": "weather", "arguments": {"city": "', goes_on=ENDLESS[case])
    cut = json.dumps({"name": "weather", "arguments": {"city": "1" * SHORT_TEXT}})
    for second, said in ((WEATHER_CALL, ""), (cut, "m did not end the arguments of weather: ")):
        server = Scripted([begun, Turn(second), Turn("Dry.")])
        responses = running(server, way, options={"tool_choice": "weather"})
        assert [len(each) for each in calls_in(responses)] == [1, 0]
        assert [each.text() for each in responses] == ["", "Dry."]
        assert ["maxLength" in str(body) for body in server.bodies] == [False, True, False]
        assert said in capsys.readouterr().err


def test_long_argument_is_not_cut() -> None:
    """20 KB of a file, with the rows of dashes and of numbers that files have."""
    rows = "\n".join(f"| {n} | row {n * n % 97} | {'-' * 120} |" for n in range(130))
    call = {"name": "weather", "arguments": {"city": rows + str([*range(100)])}}
    assert len(rows) > 17_000
    server = Scripted([Turn(json.dumps(call)), Turn("Dry.")])
    responses = running(server, options={"tool_choice": "weather"})
    assert calls_in(responses)[0] == [("weather", call["arguments"])]
    assert len(server.bodies) == 2


# With the real engine


class Leaf(BaseModel):
    name: str
    children: list["Leaf"] = []
    next: Optional["Leaf"] = None


class Order(BaseModel):
    size: Literal["small", "größer"]
    count: int | None = None
    where: dict[str, int] = {}
    leaf: Leaf


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


LONG = {"type": "string", "description": "Very long. " * 40}
PARAMETERS: dict[str, dict[str, Any]] = {
    "no-arguments": {"type": "object", "properties": {}},
    "nothing.at.all": {},
    "enums": an_object(a={"enum": ["x", "y"]}, b={"const": 3}, c={"enum": [None, 1.5, "ü"]}),
    "nested": an_object(a=an_object(b=an_object(c={"type": "string"}))),
    "lists": an_object(
        a={"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    ),
    "optional": {"type": "object", "properties": {"a": LONG, "b": {"type": ["integer", "null"]}}},
    "any-of": an_object(a={"anyOf": [{"type": "integer"}, an_object(b={"type": "boolean"})]}),
    "pydantic": Order.model_json_schema(),
    "recursive": Leaf.model_json_schema(),
    "itself": {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"type": "integer"}}},
    "elsewhere": an_object(a={"$ref": "https://example.com/schema.json"}),
    "patterns": an_object(
        a={"type": "string", "pattern": r"^\d{4}-[A-F]{2}$"},
        b={"type": "string", "pattern": "^(?=x)y+$"},
        c={"type": "string", "pattern": "("},
    ),
    "many values": an_object(a={"enum": [f"value {n}" for n in range(150)]}),
    "limits": an_object(a={"type": "string", "minLength": 2, "maxLength": 10**6}),
    "größer 中文.v2": an_object(**{'größe "x"': {"type": "integer", "minimum": 3}}),
    "odd": an_object(a=True, b={"type": "odd"}, c={"oneOf": []}, d={"items": True}),
}
CHECKED = {
    **PARAMETERS,
    # Of these, jsonschema cannot check all.
    "patterns": {"properties": {"a": PARAMETERS["patterns"]["properties"]["a"]}},
    **{name: {} for name in ("elsewhere", "odd")},
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_smallest_model_makes_a_valid_call_of_any_tool(name: str, warm: Path) -> None:
    """It does not know what it does, so the schema alone makes the call."""
    tools: list[Any] = [llm.Tool(name, "Does it", PARAMETERS[name])]
    options: dict[str, Any] = {"tool_choice": "required", "temperature": 0, "max_tokens": 400}
    model = LocalChat(found("local-smollm2"))
    (call,) = model.prompt("Do it.", tools=tools, **options).tool_calls()
    assert call.name == name
    jsonschema.validate(dict(call.arguments), CHECKED[name])


@pytest.mark.parametrize("more", [(), ("--no-stream", "--async")])
def test_command_makes_the_smallest_model_call(
    more: tuple[str, ...], warm: Path, run_llm: Llm
) -> None:
    function = 'def clock() -> str:\n    "The time"\n    return "noon"\n'
    asked = ("-m", "local-smollm2", "--functions", function, "--td", "What time is it?")
    limits = ("-o", "tool_choice", "clock", "-o", "temperature", "0", "-o", "max_tokens", "30")
    done = run_llm(*asked, *limits, *more)
    assert done.returncode == 0, done.stderr
    assert "Tool call: clock({})" in done.stderr
    first, _ = json.loads(run_llm("logs", "--json", "-n", "2").stdout)
    assert [call["name"] for call in first["tool_calls"]] == ["clock"]
    assert first["response"] == ""
