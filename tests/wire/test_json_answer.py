"""Answers that must be JSON: what is delivered, what is held, what is an error and what it says."""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from llm_localrun.errors import AnswerNotJson
from llm_localrun.servers.base import Server
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.json_answer import JsonAnswer
from llm_localrun.wire.response import ResponseContext
from tests.support.replies import at_once, chunk, decode, ollama, single_bytes, streamed, whole
from tests.support.servers import OLLAMA, OPENAI

ANY: dict[str, Any] = {}
LIST = {"type": "array"}
EITHER = {"type": ["object", "null"]}
X = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}

DELIVERED = [
    pytest.param('{"x": 1}', "", None, '{"x": 1}', id="as it is"),
    pytest.param('\n {"x": 1} \n', "", X, '\n {"x": 1} \n', id="blanks"),
    pytest.param('\ufeff{"x": 1}', "", X, '{"x": 1}', id="byte order mark"),
    pytest.param('```json\n{"x": 1}\n```', "", X, '{"x": 1}', id="fence"),
    pytest.param('\n```\n{"x": 1}\n```\n', "", None, '{"x": 1}', id="fence without a language"),
    pytest.param('~~~ json\n{"x": 1}\n~~~', "", X, '{"x": 1}', id="tildes"),
    pytest.param('````json\n{"x": 1}\n````', "", X, '{"x": 1}', id="long fence"),
    pytest.param('```json {"x": 1}```', "", X, '{"x": 1}', id="fence on one line"),
    pytest.param('```json\n{"x": 1}', "", X, '{"x": 1}', id="open fence"),
    pytest.param('Sure:\n```json\n{"x": 1}\n```\nBye.', "", X, '{"x": 1}', id="prose around it"),
    pytest.param("```\nx = 1\n```\n```\n[1]\n```", "", LIST, "[1]", id="one of two fences"),
    pytest.param('```\n{"x": 1}\n```\n```\n[1]\n```', "", LIST, "[1]", id="one of the type"),
    pytest.param('```\n{"x": "```"}\n```', "", None, '{"x": "```"}', id="fence in a string"),
    pytest.param("", '{"x": 1}', X, '{"x": 1}', id="reasoning"),
    pytest.param(" \n", '\n{"x": 1}\n', None, '{"x": 1}', id="reasoning beside blanks"),
    pytest.param("", '```json\n{"x": 1}\n```', X, '{"x": 1}', id="fence in the reasoning"),
    pytest.param("[1]", "", LIST, "[1]", id="list"),
    pytest.param("12", "", ANY, "12", id="number"),
    pytest.param('"Hm"', "", ANY, '"Hm"', id="string"),
    pytest.param("null", "", EITHER, "null", id="null"),
    pytest.param("```\ntrue\n```", "", ANY, "true", id="word in a fence"),
]

REFUSED = [
    pytest.param('{"x": ', "", X, "is not JSON (Expecting value: line 1 column 6", id="broken"),
    pytest.param("I cannot do that", "", X, "is not JSON: I cannot do that.", id="prose"),
    pytest.param("{name} is 3.", "", None, "is not JSON (Expecting property name", id="braces"),
    pytest.param('So: {"x": 1}', "", X, 'is not JSON: So: {"x": 1}', id="JSON within prose"),
    pytest.param("", "", X, "is empty instead of JSON", id="nothing"),
    pytest.param("", "Hm.", None, "is empty instead of JSON", id="reasoning alone"),
    pytest.param("", 'I say {"x": 1}', X, "is empty instead of JSON", id="draft"),
    pytest.param("No.", '{"x": 1}', X, "is not JSON: No.", id="reasoning beside prose"),
    pytest.param('{"x": 1}\n\nThat is it.', "", X, "goes on after its JSON: That is", id="tail"),
    pytest.param('{"x": 1}{"x": 1}', "", None, 'goes on after its JSON: {"x": 1}', id="twice"),
    pytest.param("```\n{}\n```\n```\n{}\n```", "", None, "is not JSON: ``` {}", id="two fences"),
    pytest.param('```\n{"x": \n```', "", X, 'is not JSON: ``` {"x": ```', id="broken in a fence"),
    pytest.param("[1]", "", None, "is JSON of another type than object: [1]", id="list"),
    pytest.param("[1]", "", EITHER, "of another type than object or null: [1]", id="two types"),
    pytest.param('{"x": NaN}', "", None, "is not JSON (NaN is not JSON)", id="not a number"),
    pytest.param("[" * 100_000, "", LIST, "is not JSON (", id="deep"),
    pytest.param("[" * 100_000, "", None, "is not JSON: [[[", id="deep, and not wanted"),
]


def replies(dialect: Server, text: str, reasoning: str) -> list[tuple[Any, list[bytes]]]:
    """A reply that is not streamed, and one that comes in pieces."""
    half = len(text) // 2
    if dialect is OLLAMA:
        one = ollama(True, thinking=reasoning, content=text, done_reason="stop")
        pieces = [
            ollama(False, thinking=reasoning),
            ollama(False, content=text[:half]),
            ollama(True, content=text[half:], done_reason="stop"),
        ]
    else:
        one = whole("stop", content=text, reasoning_content=reasoning)
        pieces = [
            chunk(reasoning_content=reasoning),
            chunk(content=text[:half]),
            chunk("stop", content=text[half:]),
        ]
    head, body = streamed(dialect, *pieces)
    whole_head, whole_body = at_once(one)
    return [(whole_head, [whole_body]), (head, [body]), (head, single_bytes(body))]


@pytest.mark.parametrize("fence", ["```a", "```json\n[1,", "```\n{}\n```\n"])
def test_not_all_of_very_many_fences_are_looked_at(
    fence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            tried.append(idx)
            return super().raw_decode(s, idx)

    monkeypatch.setattr(json, "JSONDecoder", Counting)
    text = '```\n{"x": 1}\n```\n' + fence * 999
    passed, _, error = feed(None, TextDelta(text), Finished("stop"))
    assert passed == [TextDelta(text), Finished("stop")]
    assert error.startswith("The answer is not JSON: ")
    assert len(tried) <= 101


def test_fences_within_the_json_are_not_counted() -> None:
    text = json.dumps({"x": "```\na\n```\n" * 200})
    passed, _, error = feed(None, TextDelta(f"```json\n{text}\n```"), Finished("stop"))
    assert (passed[0], error) == (TextDelta(text), "")


both = pytest.mark.parametrize("dialect", [OPENAI, OLLAMA], ids=["openai", "ollama"])


@both
@pytest.mark.parametrize(("text", "reasoning", "schema", "delivered"), DELIVERED)
def test_json_is_delivered(
    dialect: Server, text: str, reasoning: str, schema: dict[str, Any] | None, delivered: str
) -> None:
    for head, pieces in replies(dialect, text, reasoning):
        outcome = decode(dialect, head, pieces, ResponseContext(is_json=True, schema=schema))
        assert (outcome.error, outcome.text) == (None, delivered)
        assert outcome.reasoning == reasoning


@both
@pytest.mark.parametrize(("text", "reasoning", "schema", "said"), REFUSED)
def test_all_else_is_kept_and_an_error(
    dialect: Server, text: str, reasoning: str, schema: dict[str, Any] | None, said: str
) -> None:
    for head, pieces in replies(dialect, text, reasoning)[: 2 if len(text) > 999 else 3]:
        outcome = decode(dialect, head, pieces, ResponseContext(is_json=True, schema=schema))
        assert (outcome.error, outcome.text) == (AnswerNotJson, text)
        assert said in outcome.message
        assert [finished.finish_reason for finished in outcome.finished] == ["stop"]


def feed(schema: Mapping[str, Any] | None, *events: Event) -> tuple[list[Event], str, str]:
    """What comes through of an answer, the note on it and the error that ends it."""
    answer, passed = JsonAnswer(schema), list[Event]()
    try:
        for event in events:
            passed.extend(answer.feed(event))
    except AnswerNotJson as error:
        return passed, answer.note, error.problem
    return passed, answer.note, ""


@pytest.mark.parametrize(
    ("pieces", "schema", "flows"),
    [
        (["{", '"x"'], None, True),
        (["\n", " {", '"x"'], X, True),
        (["[", "1"], LIST, True),
        (["[", "1"], ANY, True),
        (['"', "a"], ANY, True),
        (["[", "1"], None, False),
        (['"', "a"], X, False),
        (["``", "`"], None, False),
        (["Sure", ": "], X, False),
        (["1", "2"], ANY, False),
    ],
)
def test_text_flows_that_is_plainly_json(
    pieces: list[str], schema: dict[str, Any] | None, flows: bool
) -> None:
    passed, _, _ = feed(schema, *map(TextDelta, pieces))
    assert "".join(event.text for event in passed if isinstance(event, TextDelta)) == (
        "".join(pieces) if flows else ""
    )


@pytest.mark.parametrize("text", ["Let me see.", "```", "", '{"x":'])
def test_a_call_is_no_answer_yet(text: str) -> None:
    call = ToolCall("1", "t", "{}")
    said: list[Event] = [TextDelta(text)] if text else []
    for reason in ("tool_calls", "stop", "length"):
        events = [*said, call, Finished(reason)]
        assert feed(X, *events) == (events, "", "")


# The schema

KEYWORDS = [
    pytest.param({"pattern": "^(?!x)[a-z]+$"}, '"xyz"', "pattern", id="look-ahead"),
    pytest.param({"pattern": "^[a-z]+$", "maxLength": 2}, '"xyz"', "maxLength", id="beside"),
    pytest.param({"minLength": 4, "pattern": "z"}, '"xyz"', "minLength", id="shortest"),
    pytest.param({"format": "ipv4"}, '"xyz"', "format", id="format"),
    pytest.param({"uniqueItems": True}, "[1, 1]", "uniqueItems", id="unique"),
    pytest.param({"not": {"type": "integer"}}, "1", "not", id="not"),
    pytest.param({"multipleOf": 0.01}, "19.995", "multipleOf", id="multiple"),
    pytest.param({"minimum": 2.5}, "2.4", "minimum", id="minimum"),
    pytest.param({"minProperties": 1}, "{}", "minProperties", id="properties"),
    pytest.param({"propertyNames": {"maxLength": 1}}, '{"ab": 1}', "maxLength", id="names"),
    pytest.param({"contains": {"const": 1}}, "[2]", "contains", id="contains"),
    pytest.param({"if": {"const": 1}, "then": {"not": {}}}, "1", "not", id="if"),
    pytest.param({"dependentRequired": {"a": ["b"]}}, '{"a": 1}', "dependentRequired", id="needs"),
    pytest.param({"oneOf": [{"minimum": 0}, {"minimum": 1}]}, "2", "oneOf", id="one of"),
    pytest.param({"allOf": [{"minimum": 3}]}, "2", "minimum", id="all of"),
]


def object_with(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


@pytest.mark.parametrize(("schema", "value", "keyword"), KEYWORDS)
def test_answer_is_checked_against_the_schema(
    schema: dict[str, Any], value: str, keyword: str
) -> None:
    answer = TextDelta(f'{{"a": {value}}}')
    passed, note, error = feed(object_with(schema), answer, Finished("stop"))
    assert (passed, note) == ([answer, Finished("stop")], "")
    said = re.escape("The answer does not follow the schema: $.a") + f".* breaks {keyword} "
    assert re.match(said, error)


@pytest.mark.parametrize(("schema", "value", "keyword"), KEYWORDS)
def test_without_jsonschema_it_says_what_was_not_checked(
    schema: dict[str, Any], value: str, keyword: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    answer = TextDelta(f'{{"a": {value}}}')
    _, note, error = feed(object_with(schema), answer, Finished("stop"))
    assert error == ""
    assert re.match(rf"The answer was not checked against .*\b{keyword}\b.* in the schema", note)
    assert note.endswith("To check answers: `llm install jsonschema`")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"multipleOf": 0.01}, "19.99"),
        ({"multipleOf": 0.1}, "1e999"),
        ({"multipleOf": 7}, "true"),
        ({"format": "regex"}, '"(?<year>[0-9]+)"'),
        ({"format": "of our own"}, '"x"'),
        ({"type": "integer"}, "1.0"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "true"),
    ],
)
def test_good_answers_pass(schema: dict[str, Any], value: str) -> None:
    assert feed(object_with(schema), TextDelta(f'{{"a": {value}}}'), Finished("stop"))[1:] == (
        "",
        "",
    )


NAMED_AS_KEYWORDS = {
    "type": "object",
    "properties": {"pattern": {"enum": [{"not": 1}]}, "format": {"$ref": "#/$defs/not"}},
    "definitions": {"contains": {"default": {"not": 1}}, "const": {"title": "enum"}},
    "$defs": {"not": {"anyOf": [{"type": "array", "items": {"const": {"if": 1}}}, {}]}},
    "required": ["pattern"],
    "additionalProperties": False,
}


def test_nothing_to_say_if_every_server_enforces_the_schema(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    answer = TextDelta('{"pattern": {"not": 1}}')
    assert feed(NAMED_AS_KEYWORDS, answer, Finished("stop"))[1:] == ("", "")


def test_cut_answer_may_be_due_to_what_the_server_ignored() -> None:
    """A string without an end, because `maxLength` beside a pattern is dropped."""
    schema = object_with({"type": "string", "pattern": "^(?=a)", "maxLength": 9})
    _, note, error = feed(schema, TextDelta('{"a": "aaaaaaaaaaaaa'), Finished("length"))
    assert "before its JSON was complete" in error
    assert note == (
        "The answer was not checked against maxLength, pattern in the schema, which the server may"
        " have ignored."
    )


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "text"}, "jsonschema cannot use $.properties.a.type: 'text' is not valid"),
        ({"pattern": "\\p{L}"}, "jsonschema cannot use $.properties.a.pattern"),
        ({"$ref": "https://example.com/a.json"}, "its $ref https://example.com/a.json is not"),
        ({"$ref": "file:///etc/passwd"}, "its $ref file:///etc/passwd is not within it"),
        ({"$ref": "#/$defs/b"}, "its $ref /$defs/b is not within it"),
        ({"$ref": "#/properties/a"}, "maximum recursion depth exceeded"),
        ({"$ref": "#/required"}, ""),
        ({"$schema": 5}, "jsonschema cannot use $.properties.a"),
        ({"minimum": "x"}, "jsonschema cannot use $.properties.a.minimum: 'x' is not of type"),
    ],
)
def test_schema_that_cannot_be_checked(schema: dict[str, Any], why: str) -> None:
    """Nothing is fetched, and nothing but the note goes wrong."""
    passed, note, error = feed(object_with(schema), TextDelta('{"a": 1}'), Finished("stop"))
    assert (len(passed), error) == (2, "")
    assert note.startswith(f"The answer was not checked against the schema: {why}")


@pytest.mark.parametrize("dialect", [5, "https://example.com/own", "http://[bad"])
def test_odd_dialects_of_schemas(dialect: object) -> None:
    _, note, error = feed({"$schema": dialect}, TextDelta("1"), Finished("stop"))
    assert error == ""
    assert ("$['$schema']" in note) == (dialect == 5)


def test_reasoning_passes_at_once() -> None:
    thought = ReasoningDelta('{"x": 1}')
    assert feed(X, thought)[0] == [thought]
    assert feed(X, thought, Finished("stop")) == (
        [thought, TextDelta('{"x": 1}'), Finished("stop")],
        "",
        "",
    )


@pytest.mark.parametrize(
    ("schema", "text", "missing"),
    [
        (object_with({}) | {"required": ["a"]}, '{"b": 1}', "it lacks 'a'"),
        (object_with({}) | {"required": ["a", "c"]}, "{}", "it lacks 'a', 'c'"),
        (object_with({}) | {"required": ["a"]}, '{"a": 1}', ""),
        (object_with({}) | {"required": "a"}, "{}", ""),
        ({"type": ["object", "array"], "required": ["a"]}, "[]", ""),
    ],
)
def test_what_is_required_needs_no_jsonschema(
    schema: dict[str, Any], text: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    error = feed(schema, TextDelta(text), Finished("stop"))[2]
    said = f"The answer does not follow the schema: {missing}" if missing else ""
    assert error == said


@pytest.mark.parametrize(
    ("finish_reason", "said"),
    [
        ("length", "The answer ended (length) before its JSON was complete"),
        ("cut off", "The answer ended (cut off) before its JSON was complete"),
        ("eos_token", "The answer is not JSON"),
        ("content_filter", "The answer is not JSON"),
    ],
)
def test_only_a_limit_can_be_raised(finish_reason: str, said: str) -> None:
    assert feed(None, TextDelta('{"a": '), Finished(finish_reason))[2].startswith(said)
