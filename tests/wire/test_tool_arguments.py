"""The JSON that models write, and the arguments that fit a tool's schema."""

import json
from typing import Any

import pytest

from llm_localrun.wire.tool_arguments import Malformed, fit_arguments, read_json
from tests.support.growth import is_linear

pytestmark = pytest.mark.pure

NODE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
    "required": ["name"],
}
OBJECT: dict[str, Any] = {"type": "object"}

READ: dict[str, Any] = {
    '{"a": 1, "b": [true, null, -1.5e3]}': {"a": 1, "b": [True, None, -1500.0]},
    "{'a': True, 'b': None, 'c': False}": {"a": True, "b": None, "c": False},
    "[1, 2,]": [1, 2],
    '{"a": {"b": []},}': {"a": {"b": []}},
    "{a: 1, b_c: 2, $d: 3, e-f: 4}": {"a": 1, "b_c": 2, "$d": 3, "e-f": 4},
    r'"\u00e9\n\t\/\"\\"': 'é\n\t/"\\',
    r'"\ud83d\ude00"': "😀",
    r'"\ud83d"': "\ufffd",
    r"'it\'s'": "it's",
    r'"C:\data"': r"C:\data",
    '"a\nb"': "a\nb",
    '<|"|>say "a" < b<|"|>': 'say "a" < b',
    "<escape>Paris<escape>": "Paris",
    " \ufeff 12 ": 12,
    "+5": 5,
    ".5": 0.5,
    "-0": 0,
}
MALFORMED = [
    *("", "{", "[1", '"a', "'", "{a}", "{1: 2}", '{"a" 1}', '{"a": 1 "b": 2}', "[1 2]", "[,]"),
    *("nul", "nulls", "True1", "NaN", "Infinity", "1e999", "007", "1.2.3", "--1", "-", "x", "1 2"),
    *("{}}", "[" * 1000, "[" * 100_000, '{"a":' * 100_000, "9" * 5000 + "x", "\\", "a(b)"),
]


@pytest.mark.parametrize("text", READ)
def test_reading(text: str) -> None:
    value = read_json(text)
    assert (value, type(value)) == (READ[text], type(READ[text]))


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: text[:10])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(Malformed):
        read_json(text)


def of(kind: Any = None, **keywords: Any) -> dict[str, Any]:
    """A tool with the optional argument `x`."""
    return {**OBJECT, "properties": {"x": {"type": kind, **keywords} if kind else keywords}}


def required(*names: str, **properties: Any) -> dict[str, Any]:
    return {**OBJECT, "properties": properties, "required": [*names]}


TEXT = {"type": "string"}
FITTING: list[tuple[dict[str, Any], Any, Any]] = [
    # A schema, what the model writes, and the arguments that it means.
    (of("integer"), {"x": 3}, {"x": 3}),
    (of("integer"), {"x": "3"}, {"x": 3}),
    (of("integer"), {"x": 3.0}, {"x": 3}),
    (of("number"), {"x": "3.5"}, {"x": 3.5}),
    (of("number"), {"x": 3}, {"x": 3}),
    (of("boolean"), {"x": "true"}, {"x": True}),
    (of("boolean"), {"x": "False"}, {"x": False}),
    (of("null"), {"x": "None"}, {"x": None}),
    (of("string"), {"x": 12}, {"x": "12"}),
    (of("string"), {"x": "12"}, {"x": "12"}),
    (of("array", items={"type": "integer"}), {"x": "[1, 2]"}, {"x": [1, 2]}),
    (of("array", items={"type": "integer"}), {"x": ["1", 2]}, {"x": [1, 2]}),
    (
        of("array", prefixItems=[TEXT], items={"type": "integer"}),
        {"x": ["1", "2"]},
        {"x": ["1", 2]},
    ),
    (of("object"), {"x": "{'a': 1}"}, {"x": {"a": 1}}),
    (
        of("object", properties={"a": {"type": "integer"}}),
        {"x": {"a": "1", "b": 2}},
        {"x": {"a": 1, "b": 2}},
    ),
    (of(["string", "null"]), {"x": None}, {"x": None}),
    (of(["integer", "string"]), {"x": "3"}, {"x": "3"}),
    (of(anyOf=[{"type": "integer"}, {"type": "null"}]), {"x": "3"}, {"x": 3}),
    (of(anyOf=[{"type": "integer"}, {"type": "string"}]), {"x": "3"}, {"x": "3"}),
    (of(oneOf=[{"type": "integer"}, {"type": "boolean"}]), {"x": "true"}, {"x": True}),
    (of(allOf=[{"type": "integer"}, {"minimum": 3}]), {"x": "3"}, {"x": 3}),
    (of(enum=[1, 2]), {"x": "2"}, {"x": 2}),
    (of(enum=[1, 2]), {"x": 2.0}, {"x": 2}),
    (of("string", enum=["a", "b"]), {"x": "b"}, {"x": "b"}),
    (of(const="a"), {"x": "a"}, {"x": "a"}),
    (of("string", minLength=1, maxLength=2), {"x": "ab"}, {"x": "ab"}),
    (of("number", exclusiveMinimum=0, maximum=1), {"x": 1}, {"x": 1}),
    # An optional argument that is null is left out.
    (of("integer"), {"x": None}, {}),
    (of("integer"), {}, {}),
    (of(), {"x": [{"a": None}]}, {"x": [{"a": None}]}),
    (of(True), {"x": 1}, {"x": 1}),
    # Arguments as text, and none.
    (of("integer"), '{"x": 3}', {"x": 3}),
    (of("integer"), "{'x': '3',}", {"x": 3}),
    (of("integer"), "", {}),
    (of("integer"), "null", {}),
    (of("integer"), None, {}),
    (of("integer"), [], {}),
    # A tool without parameters gets none.
    (OBJECT, {"type": "object", "properties": {}}, {}),
    ({}, {"x": 1}, {}),
    ({"type": "object", "properties": {}}, '{"x": 1}', {}),
    ({**OBJECT, "additionalProperties": True}, {"x": 1}, {"x": 1}),
    ({**OBJECT, "additionalProperties": {"type": "integer"}}, {"x": "1"}, {"x": 1}),
    # References
    (
        {**required("x", x={"$ref": "#/$defs/node"}), "$defs": {"node": NODE}},
        {"x": {"name": "a", "next": {"name": 5}}},
        {"x": {"name": "a", "next": {"name": "5"}}},
    ),
    ({"$ref": "#/$defs/node", "$defs": {"node": NODE}}, {"name": "a"}, {"name": "a"}),
    (of(**{"$ref": "#/$defs/unknown"}), {"x": 1}, {"x": 1}),
    # Schemas that are none
    ({**OBJECT, "properties": {"x": 5}, "required": [[], 1]}, {"x": 1}, {"x": 1}),
    (of([["string"], {}]), {"x": 1}, {"x": 1}),
]
UNFIT: list[tuple[dict[str, Any], Any]] = [
    (of("integer"), {"x": "three"}),
    (of("integer"), {"x": 3.5}),
    (of("integer"), {"x": "3.5"}),
    (of("integer"), {"x": True}),
    (of("number"), {"x": "1e999"}),
    (of("number"), {"x": False}),
    (of("boolean"), {"x": 1}),
    (of("boolean"), {"x": "yes"}),
    (of("string"), {"x": True}),
    (of("string"), {"x": 1.5}),
    (of("string"), {"x": ["a"]}),
    (of("array"), {"x": "a"}),
    (of("array", items={"type": "integer"}), {"x": [1, "a"]}),
    (of("array", maxItems=1), {"x": [1, 2]}),
    (of("object", required=["a"]), {"x": {}}),
    (of("object", properties={}, additionalProperties=False), {"x": {"a": 1}}),
    (of(anyOf=[{"type": "integer"}, {"type": "null"}]), {"x": "a"}),
    (of(allOf=[{"type": "integer"}, {"minimum": 3}]), {"x": 2}),
    (of(enum=["on", "off"]), {"x": "On"}),
    (of(enum=[1]), {"x": True}),
    (of(enum=[]), {"x": 1}),
    (of(const=1), {"x": 2}),
    (of("string", minLength=3), {"x": "ab"}),
    (of("number", exclusiveMaximum=1), {"x": 1}),
    (of("integer", minimum=1), {"x": "0"}),
    ({**OBJECT, "properties": {"x": False}}, {"x": 1}),
    # What the schema does not name.
    (of("integer"), {"x": 1, "y": 2}),
    (of("integer"), {"y": None}),
    (required("x", x=TEXT), {}),
    (required("x", x=TEXT), {"x": None}),
    (required("x", x=TEXT), "[]"),
    ({**OBJECT, "additionalProperties": {"type": "integer"}}, {"x": "a"}),
    # No object
    (of("integer"), 3),
    (of("integer"), [1]),
    (of("integer"), "x"),
    (of("integer"), "{"),
]


@pytest.mark.parametrize(("schema", "given", "expected"), FITTING)
def test_fitting(schema: dict[str, Any], given: Any, expected: Any) -> None:
    fitted = fit_arguments(given, schema)
    assert json.dumps(fitted) == json.dumps(expected)


@pytest.mark.parametrize(("schema", "given"), UNFIT)
def test_unfit(schema: dict[str, Any], given: Any) -> None:
    assert fit_arguments(given, schema) is None


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"anyOf": [schema, schema]}
    return schema


HOSTILE_SCHEMAS: dict[str, dict[str, Any]] = {
    "itself": {**of(**{"$ref": "#/$defs/a"}), "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "the root": {**OBJECT, "$ref": "#"},
    "alternatives": of(**nested(40)),
    "deep": of(**{"allOf": [nested(12)] * 200}),
}


@pytest.mark.parametrize("name", HOSTILE_SCHEMAS)
def test_schemas_without_an_end(name: str) -> None:
    assert fit_arguments({"x": "a"}, HOSTILE_SCHEMAS[name]) is None


@pytest.mark.parametrize("unit", ['{"a":', "[", '"', "1,", "\\", "'", "a", "<", "-", "9", " ", "."])
@pytest.mark.parametrize("begun", ["", '"', "[", "{'a': ", '["'])
def test_reading_takes_a_time_that_grows_with_the_length(unit: str, begun: str) -> None:
    def use(text: str) -> None:
        fit_arguments(text, of("array"))

    assert is_linear(use, lambda length: begun + unit * (length // len(unit)), 20_000)
