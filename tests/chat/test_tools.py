"""Tools, schemas and thinking: with the real engine, and with fakes that say what a test needs.

The starter model's own template knows no tools. A copy of it has one that does, and shows the model
two calls before the conversation begins: so small a model imitates them, and llama.cpp has real
calls to parse. The template asks for the next city after the first and the second result, and after
the third it begins the answer. (A call that the template itself has begun is not parsed as one, and
`"tool_choice": "required"` lets prose through, in xllamacpp 2026.10.11549.)
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.errors import AnswerCutOff, ServerRefused
from llm_localrun.models import LocalModel
from tests.conftest import CONFIG, Llm, configure, stop_engines
from tests.fakes.http_server import Request, Respond, StandIn, chunked, events, json_reply
from tests.fakes.says import Call, Says
from tests.support.contract import SERVERS, call_ids, chain, found, saying, sent, with_template
from tests.support.drive import WAYS, ask, failure, served

in_every_way = pytest.mark.parametrize("way", WAYS)
at_every_server = pytest.mark.parametrize("kind", SERVERS)

TEMPLATE = """\
{%- macro say(role, text) %}<|im_start|>{{ role }}
{{ text }}<|im_end|>
{% endmacro -%}
{%- macro call(name, arguments) %}<tool_call>
{"name": "{{ name }}", "arguments": {{ arguments|tojson }}}
</tool_call>{% endmacro -%}
{%- macro ask(city) %}{{ say('user', 'What is the weather in ' + city + '?') }}{% endmacro -%}
{%- if tools %}{{ say('system', tools|tojson) }}
{%- for city in ['Rome', 'Oslo'] %}
{{- ask(city) }}{{ say('assistant', call('get_weather', {'city': city})) }}
{%- endfor %}{% endif -%}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls %}{{ call(c.function.name, c.function.arguments) }}\
{% endfor %}<|im_end|>
{% endfor -%}
{%- if messages|length == 3 %}{{ ask('London') }}{% endif -%}
{%- if messages|length == 5 %}{{ ask('Berlin') }}{% endif -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if messages|length > 6 %}It is{% endif %}{% endif %}"""

CITIES = ["Paris", "London", "Berlin"]
QUESTION = "What is the weather in Paris?"
FUNCTION = """
def get_weather(city: str) -> str:
    "The weather in a city"
    return f"{len(city)} degrees in {city}"
"""
GREEDY = {"temperature": 0, "max_tokens": 40, "stop": "."}
GREEDY_ARGUMENTS = [f for k, v in GREEDY.items() for f in ("-o", k, str(v))]


def get_weather(city: str) -> str:
    "The weather in a city"
    return f"{len(city)} degrees in {city}"


@pytest.fixture(scope="session")
def calling_user(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user directory with a model that calls tools, whose engine stays warm."""
    user = tmp_path_factory.mktemp("calling")
    configure(user, **CONFIG)
    with_template(starter_model, user / "localrun/models/Calling-135M.Q4_1.gguf", TEMPLATE)
    yield user
    stop_engines(user)


@pytest.fixture
def calling(calling_user: Path, monkeypatch: pytest.MonkeyPatch) -> LocalModel:
    """The model that calls tools, as discovery finds it."""
    monkeypatch.setenv("LLM_USER_PATH", str(calling_user))
    return found("local-calling")


@pytest.fixture
def plain(warm: Path) -> LocalModel:
    """The starter model, as discovery finds it."""
    return found("local-smollm2")


def messages_sent(body: Any) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = body["messages"]
    return messages


def results_sent(body: Any) -> list[str]:
    """What a request hands back of tools."""
    return [message["content"] for message in messages_sent(body) if message["role"] == "tool"]


# With the real engine


@in_every_way
def test_engine_runs_a_chain_of_three_calls(calling: LocalModel, way: str) -> None:
    responses = chain(calling, QUESTION, way, tools=[get_weather], options=GREEDY)
    arguments = [[call.arguments for call in response.tool_calls()] for response in responses]
    assert arguments == [*([{"city": city}] for city in CITIES), []]
    assert len({each for response in responses for each in call_ids(response)}) == 3
    assert [response.text() for response in responses[:3]] == ["", "", ""]
    assert responses[3].text().strip()
    results = [result.output for response in responses for result in response.prompt.tool_results]
    assert results == [get_weather(city) for city in CITIES]
    reasons = [(response.response_json or {})["finish_reason"] for response in responses]
    assert reasons[:3] == ["tool_calls"] * 3


@pytest.mark.parametrize("more", [(), ("--no-stream", "--async")])
def test_command_runs_tools_and_logs_them(
    calling: LocalModel, run_llm: Llm, more: tuple[str, ...]
) -> None:
    done = run_llm(
        "-m", "local-calling", "--functions", FUNCTION, QUESTION, *GREEDY_ARGUMENTS, *more
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    turns = json.loads(run_llm("logs", "--json", "-n", "4").stdout)
    calls = [[(call["name"], call["arguments"]) for call in turn["tool_calls"]] for turn in turns]
    assert calls == [*([("get_weather", {"city": city})] for city in CITIES), []]
    results = [[result["output"] for result in turn["tool_results"]] for turn in turns]
    assert results == [[], *([get_weather(city)] for city in CITIES)]
    ids = [call["tool_call_id"] for turn in turns for call in turn["tool_calls"]]
    assert ids == [result["tool_call_id"] for turn in turns for result in turn["tool_results"]]
    assert done.stdout.endswith(f"{turns[3]['response']}\n")


def test_model_without_a_place_for_tools_calls_them(plain: LocalModel) -> None:
    """They are described to it, and a schema keeps so small a model from rambling."""
    options = {"tool_choice": "required", **GREEDY}
    asked = LocalChat(plain).chain(QUESTION, tools=[get_weather], options=options)
    # It may not understand the result: what it makes of it differs from run to run.
    first = next(iter(asked.responses()))
    (call,) = first.tool_calls()
    assert call.name == "get_weather"
    (result,) = first.execute_tool_calls()
    assert result.output == get_weather(**call.arguments)


# With servers


@in_every_way
@at_every_server
def test_parallel_calls_keep_their_order(kind: str, way: str) -> None:
    calls = tuple(Call("get_weather", {"city": city}) for city in CITIES)
    with saying(kind, Says(calls=calls), Says("Warm.")) as (model, server):
        first, second = chain(model, QUESTION, way, tools=[get_weather])
    assert [call.arguments["city"] for call in first.tool_calls()] == CITIES
    ids = call_ids(first)
    assert len(ids) == 3
    assert second.text() == "Warm."
    body = sent(server)[1]
    assert [message["role"] for message in messages_sent(body)] == [
        "user",
        "assistant",
        *["tool"] * 3,
    ]
    asked, *answered = messages_sent(body)[1:]
    assert [call["id"] for call in asked["tool_calls"]] == ids
    assert [message["tool_call_id"] for message in answered] == ids
    assert results_sent(body) == [get_weather(city) for city in CITIES]


@in_every_way
def test_ids_that_cannot_be_told_apart_are_replaced(way: str) -> None:
    """LM Studio counts its ids, or leaves them empty."""
    calls = (Call("get_weather", {"city": "Paris"}), Call("get_weather", {"city": "Lima"}))
    with saying("lmstudio", Says(calls=calls), Says(calls=calls), Says("Warm.")) as (model, _):
        responses = chain(model, QUESTION, way, tools=[get_weather])
    ids = [each for response in responses for each in call_ids(response)]
    assert len(set(ids)) == 4
    assert not any(each.isdigit() for each in ids)


@in_every_way
@pytest.mark.parametrize(
    "arguments",
    ['{"city": "Par', '["Paris"]', '"Paris"', "Paris", "1", '{"a" "b"}', "[" * 5000],
    ids=lambda arguments: arguments[:12],
)
def test_malformed_arguments_go_back_to_the_model(arguments: str, way: str) -> None:
    turns = (Says(calls=(Call("get_weather", arguments),)), Says("Sorry."))
    with saying("lmstudio", *turns) as (model, server):
        first, second = chain(model, QUESTION, way, tools=[get_weather])
    assert second.text() == "Sorry."
    (result,) = second.prompt.tool_results
    assert result.exception is not None
    expected = f"Error: the arguments are not a JSON object: {arguments}"
    assert result.output == expected
    assert results_sent(sent(server)[1]) == [expected]
    assert result.tool_call_id == call_ids(first)[0]


def test_malformed_arguments_are_logged(user_path: Path) -> None:
    turns = (Says(calls=(Call("get_weather", '{"city": "Par'),)), Says("Sorry."))
    database = llm_database(user_path)
    with saying("lmstudio", *turns) as (model, _):
        for response in chain(model, QUESTION, tools=[get_weather]):
            response.log_to_db(database)  # type: ignore[no-untyped-call]
    (row,) = database.query("select payload from parts where type = 'tool_call'")
    assert json.loads(row["payload"])["arguments"] == {"_raw": '{"city": "Par'}


def llm_database(user: Path) -> Any:
    import sqlite_utils
    from llm.migrations import migrate

    database = sqlite_utils.Database(user / "logs.db")
    migrate(database)  # type: ignore[no-untyped-call]
    return database


@in_every_way
@at_every_server
def test_tool_that_does_not_exist_is_an_error_for_the_model(kind: str, way: str) -> None:
    with saying(kind, Says(calls=(Call("nothing"),)), Says("Sorry.")) as (model, server):
        chain(model, QUESTION, way, tools=[get_weather])
    assert results_sent(sent(server)[1]) == ['Error: tool "nothing" does not exist']


@in_every_way
@at_every_server
def test_tool_that_fails(kind: str, way: str) -> None:
    def broken() -> str:
        raise RuntimeError("out of paper")

    with saying(kind, Says(calls=(Call("broken"),)), Says("Sorry.")) as (model, server):
        _, second = chain(model, "Print", way, tools=[broken])
    assert results_sent(sent(server)[1]) == ["Error: out of paper"]
    assert second.text() == "Sorry."


def call_of(arguments: Any, name: Any = "get_weather", **more: Any) -> dict[str, Any]:
    return {"id": "a", **more, "function": {"name": name, "arguments": arguments}}


CITY = {"city": "Lima"}
HALVES = '{"city": ', '"Lima"}'
WEATHER = "4 degrees in Lima"
MISSING = "missing 1 required positional argument: 'city'"
ODD_CALLS: dict[str, tuple[list[Any], list[str]]] = {
    "an object": ([call_of(CITY)], [WEATHER]),
    "text": ([call_of(json.dumps(CITY))], [WEATHER]),
    "text in text": ([call_of(json.dumps(json.dumps(CITY)))], [WEATHER]),
    "null": ([call_of(None)], [MISSING]),
    "null as text": ([call_of("null")], [MISSING]),
    "blank": ([call_of(" \n")], [MISSING]),
    "a list": ([call_of(["Lima"])], ['not a JSON object: ["Lima"]']),
    "prose": ([call_of("Lima")], ["not a JSON object: Lima"]),
    "flat": ([{"name": "get_weather", "arguments": CITY}], [WEATHER]),
    "no name": ([call_of(CITY, None), call_of(CITY, id="b")], ['tool "" does not', WEATHER]),
    "a text for a call": (["Lima", call_of(CITY)], ['tool "" does not exist', WEATHER]),
    "null for a call": ([None, call_of(CITY)], [WEATHER]),
}
"""Calls as servers send them in a list, and what goes back to the model."""
FRAGMENTS: dict[str, list[Any]] = {
    "the name in each": [call_of(half, index=0) for half in HALVES],
    "no index": [call_of(HALVES[0]), call_of(HALVES[1])],
    "no index and no id": [call_of(HALVES[0], id=None), call_of(HALVES[1], None, id=None)],
    "everything so far": [call_of(HALVES[0], index=0), call_of(json.dumps(CITY), index=0)],
    "a name in pieces": [
        call_of("", "get_", index=0),
        call_of("", "weather", index=0),
        call_of(json.dumps(CITY), None, index=0),
    ],
}
"""One call in each."""


def sends(kind: str, *deltas: dict[str, Any]) -> Respond:
    """A server whose first answer has these pieces of a message, and whose second is text."""
    answers = iter([deltas, ({"content": "Warm."},)])

    def respond(request: Request) -> Iterator[bytes]:
        pieces = next(answers)
        if kind == "ollama":
            lines = [{"message": piece, "done": False} for piece in pieces]
            lines.append({"message": None, "done": True})
            (one, *_) = [{"message": piece, "done": True} for piece in pieces]
            yield (
                json_reply(one)
                if not request.body["stream"]
                else chunked(
                    [json.dumps(line).encode() + b"\n" for line in lines], "application/x-ndjson"
                )
            )
        elif request.body["stream"]:
            chunks = [{"choices": [{"delta": piece}]} for piece in pieces]
            yield events(*chunks, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
        else:
            yield json_reply({"choices": [{"message": pieces[0], "finish_reason": "stop"}]})

    return respond


def results(kind: str, way: str, *deltas: dict[str, Any]) -> list[str]:
    """What goes back to a model whose first answer has these pieces."""
    with StandIn(sends(kind, *deltas)) as server:
        _, last = chain(served(server.url, kind), QUESTION, way, tools=[get_weather])
    assert last.text() == "Warm."
    return results_sent(server.requests[1].body)


@in_every_way
@pytest.mark.parametrize("kind", ["ollama", "vllm"])
@pytest.mark.parametrize("case", ODD_CALLS)
def test_calls_in_odd_shapes(case: str, kind: str, way: str) -> None:
    calls, expected = ODD_CALLS[case]
    found = results(kind, way, {"content": None, "tool_calls": calls})
    assert len(found) == len(expected)
    for result, part in zip(found, expected, strict=True):
        assert part in result


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("case", FRAGMENTS)
def test_calls_in_odd_fragments(case: str, way: str) -> None:
    deltas = [{"tool_calls": [fragment]} for fragment in FRAGMENTS[case]]
    assert results("vllm", way, *deltas) == [WEATHER]


@in_every_way
def test_function_call_of_old(way: str) -> None:
    call = {"name": "get_weather", "arguments": json.dumps(CITY)}
    assert results("vllm", way, {"content": None, "function_call": call}) == [WEATHER]


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cf"
    "c0f01f0005000201ff1a8d1b3c0000000049454e44ae426082"
)


@in_every_way
@at_every_server
def test_image_that_a_tool_returns(kind: str, way: str) -> None:
    def look() -> llm.ToolOutput:
        return llm.ToolOutput(output="a picture", attachments=[llm.Attachment(content=PIXEL)])

    known = {"capabilities": ("tools", "vision")}
    with saying(kind, Says(calls=(Call("look"),)), Says("A dot."), **known) as (model, server):
        _, second = chain(model, "Look", way, tools=[look])
    assert second.text() == "A dot."
    *_, result, picture = messages_sent(sent(server)[1])
    assert (result["role"], result["content"]) == ("tool", "a picture")
    assert picture["role"] == "user"
    image = llm.Attachment(content=PIXEL).base64_content()  # type: ignore[no-untyped-call]
    if kind == "ollama":
        assert picture["images"] == [image]
    else:
        url = f"data:image/png;base64,{image}"
        assert picture["content"] == [{"type": "image_url", "image_url": {"url": url}}]


class Memory(llm.Toolbox):  # type: ignore[no-untyped-call]
    """Remembers from call to call."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def keep(self, text: str) -> str:
        "Keep a text"
        self.kept.append(text)
        return f"kept {len(self.kept)}"


@in_every_way
@at_every_server
def test_toolbox(kind: str, way: str) -> None:
    memory = Memory()
    turns = [Says(calls=(Call("Memory_keep", {"text": text}),)) for text in ("a", "b")]
    with saying(kind, *turns, Says("Kept.")) as (model, server):
        chain(model, "Keep a and b", way, tools=[memory])
    assert memory.kept == ["a", "b"]
    assert results_sent(sent(server)[2]) == ["kept 1", "kept 2"]
    (offered,) = sent(server)[0]["tools"]
    assert offered["function"]["name"] == "Memory_keep"
    assert offered["function"]["parameters"]["required"] == ["text"]


async def wait(city: str) -> str:
    "The weather in a city"
    return get_weather(city)


@in_every_way
@at_every_server
def test_asynchronous_tool(kind: str, way: str) -> None:
    turns = (Says(calls=(Call("wait", {"city": "Lima"}),)), Says("Warm."))
    with saying(kind, *turns) as (model, server):
        chain(model, QUESTION, way, tools=[wait])
    assert results_sent(sent(server)[1]) == ["4 degrees in Lima"]


@in_every_way
@at_every_server
def test_thinking_goes_back_in_a_chain(kind: str, way: str) -> None:
    turns = (Says(reasoning="Ask.", calls=(Call("get_weather", {"city": "Lima"}),)), Says("Warm."))
    with saying(kind, *turns) as (model, server):
        first, _ = chain(model, QUESTION, way, tools=[get_weather])
    kinds = [part.to_dict()["type"] for message in first.messages() for part in message.parts]
    assert kinds == ["reasoning", "tool_call"]
    (turn,) = (m for m in messages_sent(sent(server)[1]) if m["role"] == "assistant")
    assert turn["thinking" if kind == "ollama" else "reasoning_content"] == "Ask."


# Schemas

DOG = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def schema_sent(body: Any) -> Any:
    if "format" in body:
        return body["format"]
    return body.get("response_format", {"json_schema": {"schema": None}})["json_schema"]["schema"]


@in_every_way
@at_every_server
def test_schema_holds_through_turns_of_tools(kind: str, way: str) -> None:
    calls = [Says(calls=(Call("get_weather", {"city": city}),)) for city in CITIES]
    """It is sent to a model that has made its calls: before, it would forbid them."""
    rex = {"name": "Rex", "age": 3}
    with saying(kind, *calls, Says("Rex is 3."), Says(json.dumps(rex))) as (model, server):
        *_, last = chain(model, "A dog", way, tools=[get_weather], schema=DOG)
    assert json.loads(last.text()) == rex
    assert [schema_sent(body) for body in sent(server)] == [None] * 4 + [DOG]


@in_every_way
def test_engine_follows_a_schema(plain: LocalModel, way: str) -> None:
    outcome = ask(plain, "Invent a dog", way, schema=DOG, temperature=0, max_tokens=80)
    dog = json.loads(outcome.text)
    assert dog.keys() == {"name", "age"}
    assert isinstance(dog["age"], int)


def test_command_follows_a_schema(plain: LocalModel, run_llm: Llm) -> None:
    arguments = ("--schema", "name, age int", "-o", "temperature", "0", "-o", "max_tokens", "80")
    done = run_llm("-m", "local", "Invent a dog", *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"name", "age"}
    (turn,) = json.loads(run_llm("logs", "--json", "-n", "1").stdout)
    assert turn["schema_json"]["required"] == ["name", "age"]
    data = run_llm("logs", "--schema", "name, age int", "--data", "-n", "1").stdout
    assert json.loads(data) == json.loads(done.stdout) == json.loads(turn["response"])


@in_every_way
def test_schema_that_is_cut_off_gives_advice(plain: LocalModel, way: str) -> None:
    with pytest.raises(AnswerCutOff) as caught:
        ask(plain, "Invent a dog", way, schema=DOG, temperature=0, max_tokens=4)
    assert str(caught.value) == (
        "The answer ended (length) before its JSON was complete. Use a larger"
        " -o max_tokens, or a larger -o context_size."
    )


@in_every_way
def test_schema_that_the_engine_cannot_convert(plain: LocalModel, way: str) -> None:
    schema = {"type": "object", "properties": {"name": {"$ref": "#/$defs/missing"}}}
    with pytest.raises(ServerRefused, match="schema") as caught:
        ask(plain, "Invent a dog", way, schema=schema, max_tokens=4)
    assert "Simplify the schema" in str(caught.value)


# Thinking

THINKING = {"grammar": 'root ::= "<think>" [a-z ]{3,10} "</think>" [a-z ]{3,10}', "temperature": 0}


@in_every_way
def test_engine_takes_thinking_apart_from_the_answer(plain: LocalModel, way: str) -> None:
    outcome = ask(plain, "Think", way, **THINKING)
    assert [part["type"] for part in outcome.parts] == ["reasoning", "text"]
    assert re.fullmatch("[a-z ]{3,10}", outcome.reasoning)
    assert re.fullmatch("[a-z ]{1,10}", outcome.text)


def test_command_shows_thinking_unless_it_is_not_wanted(plain: LocalModel, run_llm: Llm) -> None:
    arguments = (
        "-m",
        "local",
        "Think",
        *(f for k, v in THINKING.items() for f in ("-o", k, str(v))),
    )
    shown, hidden = run_llm(*arguments), run_llm(*arguments, "-R")
    turns = json.loads(run_llm("logs", "--json", "-n", "2").stdout)
    assert all(turn["reasoning"] for turn in turns)
    assert shown.stdout == hidden.stdout == f"{turns[0]['response']}\n"
    assert turns[0]["reasoning"] in shown.stderr
    assert hidden.stderr == ""


def test_failure_of_a_chain_is_one_for_people() -> None:
    broken = Says(fails_after=1, text="Warm and dry")
    with saying("lmstudio", Says(calls=(Call("get_weather", {"city": "Lima"}),)), broken) as (m, _):
        said = failure(lambda: chain(m, QUESTION, tools=[get_weather]))
    assert said.startswith("LM Studio at http://127.0.0.1:")
    assert "crashed" in said
