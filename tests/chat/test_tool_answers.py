"""What becomes of an answer after a tool's result that calls again, and of calls without end.

Small models make a call again that was answered, invent others, and do not stop.
"""

import itertools
import json
from typing import Any

import llm
import pytest

from llm_localrun.chat.tools import has_results, with_results_told
from llm_localrun.servers.base import server_class
from llm_localrun.wire.request import ChatMessage, ChatRequest, Media, PastCall, ToolSpec
from tests.fakes.http_server import StandIn
from tests.fakes.says import Call, Says
from tests.fakes.scripted import Scripted, Turn
from tests.support.contract import chain, saying
from tests.support.drive import WAYS, served

in_every_way = pytest.mark.parametrize("way", WAYS)
RAN: list[str] = []


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    RAN.clear()


def weather(city: str) -> str:
    "The weather"
    RAN.append(city)
    return f"dry in {city}"


def clock() -> str:
    "The time"
    RAN.append("clock")
    return "noon"


def a_call(city: str) -> str:
    return json.dumps({"name": "weather", "arguments": {"city": city}})


PARIS, CLOCK = a_call("Paris"), '{"name": "clock", "arguments": {}}'
BROKEN = '{"name": "clock", "arguments": {"zone": '
FIRST, DRY = Turn(PARIS), Turn("It is dry.")
MODEL = "local/llamacpp/m"


def running(server: Scripted, way: str = "sync", kind: str = "llamacpp", **known: Any) -> Any:
    with StandIn(server) as stand_in:
        model = served(stand_in.url, kind, "m", capabilities=("tools",))
        known = {"tools": [clock, weather], **known}
        return chain(model, "What is the weather in Paris?", way, **known)


ASKED = "Use it to answer my question, in a sentence or more."
INSTEAD = f"{MODEL} wrote a call of clock instead of an answer; it was asked once more"
AGAIN = f"{MODEL} made the same call of weather again; it was asked once more"
NO_ANSWERS: dict[str, tuple[Turn, str]] = {
    "a broken call": (Turn(BROKEN), INSTEAD),
    "a call with an invented result": (Turn(f'{CLOCK}\n{{"time": "noon"}}'), INSTEAD),
    "the same call": (Turn(PARIS), AGAIN),
    "the same call among others": (Turn(f"{CLOCK}\n{PARIS}"), AGAIN),
    "a call that the server cannot read": (
        Turn("The model produced output that does not match the expected format", status=500),
        f"{MODEL} wrote a call instead of an answer; it was asked once more",
    ),
}


@in_every_way
@pytest.mark.parametrize("case", NO_ANSWERS)
def test_answer_that_calls_again_is_asked_for_without_tools(
    case: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    turn, said = NO_ANSWERS[case]
    server = Scripted([FIRST, turn, DRY])
    first, second = running(server, way)
    assert (first.text(), second.text(), second.tool_calls()) == ("", "It is dry.", [])
    assert RAN == ["Paris"]
    assert server.turns == []
    body = server.bodies[2]
    assert {"tools", "tool_choice", "response_format"}.isdisjoint(body)
    assert [(each["role"], each["content"]) for each in body["messages"]] == [
        ("user", "What is the weather in Paris?"),
        ("assistant", PARIS),
        ("user", f"The result of weather:\ndry in Paris\n\n{ASKED}"),
    ]
    assert body["stream"] is server.bodies[0]["stream"]
    usage = second.usage()
    is_counted = turn.status == 200
    assert (usage.input, usage.output) == ((20, 10) if is_counted else (10, 5))
    assert second.response_json["tool_repair"] is True
    assert capsys.readouterr().err == f"{said}, without tools.\n"


@in_every_way
@pytest.mark.parametrize("kind", ["openai", "mlx"])
def test_server_needs_no_schemas_for_it(kind: str, way: str) -> None:
    assert not server_class("mlx").accepts_schemas
    server = Scripted([FIRST, Turn(BROKEN), DRY])
    assert [each.text() for each in running(server, way, kind)] == ["", "It is dry."]


@in_every_way
@pytest.mark.parametrize("goes_on", [f"\n{a_call('Rome')}", '\n{"a": 1}'])
def test_answer_that_goes_on_after_an_answered_call_is_left(
    goes_on: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of its other calls is another one, so it does not repeat itself."""
    cities = (f"\n{a_call(f'City {n}')}" for n in range(10**6))
    more = itertools.chain([goes_on], cities)
    server = Scripted([FIRST, Turn(PARIS, goes_on=more), DRY])
    assert [each.text() for each in running(server, way)] == ["", "It is dry."]
    assert RAN == ["Paris"]
    assert next(cities) != ""
    assert capsys.readouterr().err == (
        f"{MODEL} wrote a call of weather instead of an answer; it was asked once more,"
        " without tools.\n"
    )


FAILURES: dict[str, Turn] = {
    "an error": Turn("boom", status=500),
    "a broken connection": Turn("", breaks_off=True),
    "nothing": Turn(""),
    "blanks": Turn(" \n"),
    "thinking": Turn("", reasoning="Hm."),
}


@in_every_way
@pytest.mark.parametrize("case", FAILURES)
def test_failure_shows_the_first_answer(
    case: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Scripted([FIRST, Turn(BROKEN), FAILURES[case]])
    _, second = running(server, way)
    assert (second.text(), second.tool_calls()) == (BROKEN, [])
    assert "tool_repair" not in second.response_json
    assert server.turns == []
    assert capsys.readouterr().err == f"{INSTEAD}, without tools.\n"


def test_failure_after_the_same_call_makes_it() -> None:
    server = Scripted([FIRST, Turn(PARIS), Turn("boom", status=500), DRY])
    assert [each.text() for each in running(server)] == ["", "", "It is dry."]
    assert RAN == ["Paris", "Paris"]


def test_words_are_shown_as_they_come_and_calls_in_them_are_text() -> None:
    server = Scripted([FIRST, Turn(BROKEN), Turn("Dry.", breaks_off=True)])
    with StandIn(server) as stand_in:
        model = served(stand_in.url, "llamacpp", "m", capabilities=("tools",))
        with pytest.raises(llm.ModelError, match="closed the connection"):
            chain(model, "Hi", tools=[clock, weather])
    server = Scripted([FIRST, Turn(BROKEN), Turn(CLOCK)])
    assert running(server)[1].text() == CLOCK
    assert RAN == ["Paris", "Paris"]


@in_every_way
@pytest.mark.parametrize("text", [BROKEN, f"{CLOCK}\n{PARIS}"])
def test_nothing_is_asked_with_the_option_off(
    text: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Scripted([FIRST, Turn(text), DRY])
    _, second, *_ = running(server, way, options={"tool_repair": False})
    assert second.text() == ("" if text != BROKEN else BROKEN)
    assert len(second.tool_calls()) == (0 if text == BROKEN else 2)
    assert all("tools" in body for body in server.bodies)
    assert capsys.readouterr().err == ""


def test_call_runs_again_after_others() -> None:
    """As tests do after each change of a program."""
    server = Scripted([FIRST, Turn(CLOCK), Turn(PARIS), DRY])
    assert running(server)[-1].text() == "It is dry."
    assert RAN == ["Paris", "clock", "Paris"]
    assert server.turns == []


def test_call_that_a_server_reports_runs_again() -> None:
    server = Scripted([*[Turn(call="clock", finish_reason="tool_calls")] * 2, DRY])
    assert running(server)[-1].text() == "It is dry."
    assert RAN == ["clock"] * 2


@in_every_way
def test_results_of_several_calls_are_told_together(way: str) -> None:
    server = Scripted([Turn(f"{PARIS}\n{CLOCK}"), Turn(PARIS), DRY])
    assert running(server, way)[-1].text() == "It is dry."
    assert server.bodies[2]["messages"][-1]["content"] == (
        "The result of weather:\ndry in Paris\n\nThe result of clock:\nnoon\n\n"
        "Use them to answer my question, in a sentence or more."
    )


@in_every_way
def test_json_that_is_wanted_is_asked_for_without_tools(way: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    server = Scripted([FIRST, Turn(BROKEN), Turn('{"a": 1}')])
    _, second = running(server, way, schema=schema)
    assert second.text() == '{"a": 1}'
    assert "tools" not in server.bodies[2]
    assert server.bodies[2]["response_format"]["json_schema"]["schema"]["required"] == ["a"]


def test_results_are_told() -> None:
    question, answer = ChatMessage("user", "Hi"), ChatMessage("assistant", "Hm.")
    made = ChatMessage("assistant", "", calls=(PastCall("1", "clock", {}),))
    result = ChatMessage("tool", "noon", call_id="1", tool_name="clock")
    tools = (ToolSpec("clock", "", {}),)
    for more in ((), (answer,)):
        messages = (question, made, result, *more)
        told = with_results_told(ChatRequest(messages, {}, stream=True, tools=tools))
        assert told.tools == ()
        assert [each.role for each in told.messages[:3]] == ["user", "assistant", "user"]
        assert told.messages[-1].role == "user"
        assert told.messages[-1].text.endswith("in a sentence or more.")
        assert not any(each.calls for each in told.messages)


# Answers without an end

ENDLESS: dict[str, tuple[str, Any]] = {
    "the same call": ("", itertools.repeat(f"{a_call('Rome')}\n")),
    "a row of calls": ("", itertools.cycle(f"{a_call(c)}\n" for c in ("Rome", "Oslo", "Bonn"))),
    "calls": ("", (f"{a_call(f'City {n}')}\n" for n in itertools.count())),
    "an argument": (a_call("")[:-3], itertools.repeat("Rome, ")),
    "an argument after words": (f"I ask.\n<tool_call>\n{a_call('')[:-3]}", itertools.repeat("1")),
}


@in_every_way
@pytest.mark.parametrize("case", ENDLESS)
def test_call_without_end_is_left_and_forced(
    case: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, goes_on = ENDLESS[case]
    server = Scripted([Turn(text, goes_on=goes_on), FIRST, DRY])
    first, second = running(server, way)
    assert (first.text().strip(), second.text()) == ("I ask." if "words" in case else "", DRY.text)
    assert RAN == ["Paris"]
    assert (first.usage().input, first.usage().output) == (10, 5)
    assert capsys.readouterr().err == (
        f"{MODEL} wrote a call of weather and did not come to an end; it was asked once more.\n"
    )


@in_every_way
@pytest.mark.parametrize("case", ENDLESS)
def test_answer_without_end_after_a_result_is_left(case: str, way: str) -> None:
    text, goes_on = ENDLESS[case]
    server = Scripted([FIRST, Turn(text, goes_on=goes_on), DRY])
    _, second = running(server, way)
    assert second.text().endswith(DRY.text)
    assert RAN == ["Paris"]
    assert "tools" not in server.bodies[2]


@in_every_way
@pytest.mark.parametrize("case", ENDLESS)
@pytest.mark.parametrize("before", [[], [FIRST]])
def test_answer_without_end_is_cut_with_the_option_off(
    before: list[Turn], case: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, goes_on = ENDLESS[case]
    server = Scripted([*before, Turn(text, goes_on=goes_on)])
    last = running(server, way, options={"tool_repair": False})[-1]
    assert last.text().startswith(text or '{"name": "weather", "arguments": {"city": "')
    assert last.tool_calls() == []
    assert last.response_json["finish_reason"] == "cut off"
    assert capsys.readouterr().err == f"{MODEL} did not come to an end: its answer was cut.\n"


@pytest.mark.parametrize("text", ["1", "Hm. ", f"{a_call('Rome')} is how I ask. "])
@pytest.mark.parametrize("reasoning", ["", "Hm. " * 200])
def test_text_that_flows_is_read_to_its_end(text: str, reasoning: str) -> None:
    text = "So: " + text * 300
    server = Scripted([Turn(text, reasoning=reasoning)])
    (response,) = running(server)
    assert response.text() == text
    assert response.response_json["finish_reason"] == "stop"


def test_answer_without_end_that_comes_whole_is_forced_when_it_has_come(
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = Scripted([Turn(a_call("")[:-3] + "1" * 500, finish_reason="length"), FIRST, DRY])
    assert running(server, "sync unstreamed")[-1].text() == DRY.text
    assert RAN == ["Paris"]
    assert "did not come to an end" in capsys.readouterr().err


# Equal calls in one answer


@in_every_way
@pytest.mark.parametrize("text", [f"{PARIS}\n{PARIS}\n{CLOCK}\n{PARIS}", f"[{PARIS}, {PARIS}]"])
def test_equal_calls_in_one_answer_run_once(
    text: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Scripted([Turn(text), DRY])
    first, _ = running(server, way)
    assert ["Paris", *(["clock"] if CLOCK in text else [])] == RAN
    assert len(first.tool_calls()) == len(RAN)
    assert capsys.readouterr().err == (
        f"{MODEL} made the same call of weather more than once: it counts once.\n"
    )


@in_every_way
@pytest.mark.parametrize("kind", ["ollama", "lmstudio"])
def test_equal_calls_that_a_server_reports_run_once(kind: str, way: str) -> None:
    """Whatever the order of their arguments."""
    one, two = {"city": "Paris", "day": 1}, {"day": 1.0, "city": "Paris"}
    calls = tuple(Call("weather", given) for given in (one, two, {"city": "Paris", "day": 2}))

    def weather(city: str, day: int) -> str:
        RAN.append(f"{city} {day}")
        return "dry"

    with saying(kind, Says("", calls=calls), Says("Dry.")) as (model, _):
        responses = chain(model, "Hi", way, tools=[weather])
    assert (RAN, responses[-1].text()) == (["Paris 1", "Paris 2"], "Dry.")


def test_results_belong_to_the_last_question() -> None:
    picture = ChatMessage("user", "", media=(Media("image/png", b"x"),))
    made = ChatMessage("assistant", "", calls=(PastCall("1", "clock", {}),))
    result = ChatMessage("tool", "noon", call_id="1", tool_name="clock")
    chain_of_calls = (ChatMessage("user", "Hi"), made, result)
    answered = (*chain_of_calls, ChatMessage("assistant", "Noon."))
    cases = [
        (chain_of_calls[:1], False),
        (chain_of_calls, True),
        # The tool has attached it.
        ((*chain_of_calls, picture), True),
        ((*answered, ChatMessage("user", "And?")), False),
        # A question without words.
        ((*answered, picture), False),
    ]
    for messages, expected in cases:
        assert has_results(ChatRequest(messages, {}, stream=True)) == expected
