"""The schema of a tool call: what of a tool's schema it has, and that a short one has limits."""

from typing import Any

import pytest

from llm_localrun.wire.call_schema import SHORT_LIST, SHORT_TEXT, call_schema, reached_limit
from llm_localrun.wire.endless import is_endless
from llm_localrun.wire.request import ToolSpec

pytestmark = pytest.mark.pure

TEXT = {"type": "string"}
SHORT = {"type": "string", "maxLength": SHORT_TEXT}
LIST = {"type": "array", "items": TEXT}


def in_call(schema: Any, *, is_short: bool = False) -> Any:
    """What becomes of the schema of an argument."""
    tool = ToolSpec("f", "", {"type": "object", "properties": {"a": schema}, "required": ["a"]})
    call = call_schema([tool], is_short=is_short)
    return call["properties"]["arguments"]["properties"]["a"]


def closed(**properties: Any) -> dict[str, Any]:
    return {
        **{"type": "object", "properties": properties, "required": []},
        "additionalProperties": False,
    }


# A schema, and what becomes of it: without limits, and short.
SCHEMAS: dict[str, tuple[Any, ...]] = {
    "text": ({"type": "string", "description": "D", "default": ""}, TEXT, SHORT),
    "limited text": (
        {"type": "string", "maxLength": 9},
        {**TEXT, "maxLength": 9},
        {**TEXT, "maxLength": 9},
    ),
    "long text": ({"type": "string", "maxLength": 10**6}, TEXT, SHORT),
    "least text": (
        {"type": "string", "minLength": 300},
        {**TEXT, "minLength": 300},
        {**TEXT, "minLength": 300, "maxLength": 300},
    ),
    "date": (*[{"type": "string", "format": "date"}] * 3,),
    "other format": ({"type": "string", "format": "email"}, TEXT, SHORT),
    "pattern": (*[{"type": "string", "pattern": "^[A-F]{2}$"}] * 3,),
    "endless pattern": (*[{"type": "string", "pattern": "^[A-F]+$"}] * 2, SHORT),
    "classes": (
        {"type": "string", "pattern": r"^\d{2}[\w-]\.$"},
        *[{"type": "string", "pattern": r"^[0-9]{2}[A-Za-z0-9_-]\.$"}] * 2,
    ),
    **{
        f"pattern {pattern}": ({"type": "string", "pattern": pattern}, TEXT, SHORT)
        for pattern in ("^(?=a)b$", "a", "^(", "^[z-a]$", r"^(a)\1$", "^a{5000}$", "^(a{99}){99}$")
    },
    "integer": (*[{"type": "integer", "minimum": 1}] * 3,),
    "number": ({"type": "number", "minimum": 0.5, "multipleOf": 2}, *[{"type": "number"}] * 2),
    "enum": ({"type": "string", "enum": ["a", "b"]}, *[{"enum": ["a", "b"]}] * 2),
    "const": ({"const": 1}, *[{"enum": [1]}] * 2),
    "huge enum": ({"type": "string", "enum": [*map(str, range(2000))]}, TEXT, SHORT),
    "types": (
        {"type": ["string", "null"]},
        {"anyOf": [TEXT, {"type": "null"}]},
        {"anyOf": [SHORT, {"type": "null"}]},
    ),
    "one of": ({"oneOf": [TEXT]}, TEXT, SHORT),
    "all of": (
        {"allOf": [{"properties": {"x": TEXT}}, {"properties": {"y": TEXT}, "type": "object"}]},
        {**closed(x=TEXT, y=TEXT)},
        {**closed(x=SHORT, y=SHORT)},
    ),
    "list": (LIST, LIST, {"type": "array", "items": SHORT, "maxItems": SHORT_LIST}),
    "list of lists": (
        {"type": "array", "items": {"type": "array", "items": {"type": "null"}}},
        {"type": "array", "items": {"type": "array", "items": {"type": "null"}}},
        {
            "type": "array",
            "items": {"type": "array", "items": {"type": "null"}, "maxItems": SHORT_LIST // 4},
            "maxItems": SHORT_LIST,
        },
    ),
    "tuple": (*[{"type": "array", "prefixItems": [{"type": "null"}]}] * 3,),
    "no type": ({"properties": {"x": TEXT}}, closed(x=TEXT), closed(x=SHORT)),
    "map": (
        {"type": "object", "additionalProperties": TEXT},
        {**closed(), "additionalProperties": TEXT},
        closed(),
    ),
    "more of anything": (
        {"type": "object", "properties": {"x": TEXT}, "additionalProperties": True},
        {**closed(x=TEXT), "additionalProperties": True},
        closed(x=SHORT),
    ),
    "unknown reference": ({"$ref": "https://example.com"}, {}, in_call({}, is_short=True)),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_schema_of_an_argument(case: str) -> None:
    given, wide, short = SCHEMAS[case]
    assert in_call(given) == wide
    assert in_call(given, is_short=True) == short


@pytest.mark.parametrize("is_short", [True, False])
def test_arguments_are_those_that_the_tool_names(is_short: bool) -> None:
    for parameters in ({}, {"type": "object"}, {"type": "object", "properties": {}}):
        call = call_schema([ToolSpec("f.x", "", parameters)], is_short=is_short)
        assert call == {
            "type": "object",
            "properties": {"name": {"const": "f.x"}, "arguments": closed()},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }


def test_references_of_several_tools_do_not_mix() -> None:
    tools = [
        ToolSpec(
            name, "", {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"const": name}}}
        )
        for name in ("f", "g")
    ]
    call = call_schema(tools)
    for tool in call["anyOf"]:
        reference = tool["properties"]["arguments"]["properties"]["a"]["$ref"]
        named = call["$defs"][reference.removeprefix("#/$defs/")]
        assert named == {"enum": [tool["properties"]["name"]["const"]]}


NODE = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}


def test_recursion_is_kept_and_a_short_call_goes_one_level_down() -> None:
    tool = ToolSpec("f", "", NODE)
    (wide,) = call_schema([tool])["$defs"].values()
    assert wide["properties"]["next"]["anyOf"][0] == {"$ref": "#/$defs/part0"}
    (short,) = call_schema([tool], is_short=True)["$defs"].values()
    assert short["properties"]["next"] == {"type": "null"}


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"a": {"$ref": "#/properties/a"}}},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"properties": {"a": {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}}},
        {"properties": [], "required": {}, "type": 7},
    ],
)
@pytest.mark.parametrize("is_short", [True, False])
def test_odd_schema_has_an_end(parameters: Any, is_short: bool) -> None:
    assert call_schema([ToolSpec("f", "", parameters)], is_short=is_short)["type"] == "object"


def test_large_schema_is_cut() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        deep = {"type": "object", "properties": {"a": deep}}
    wide = {"type": "object", "properties": {f"p{n}": deep for n in range(50)}}
    assert len(str(call_schema([ToolSpec("f", "", wide)]))) < 300_000


@pytest.mark.parametrize(
    ("arguments", "reached"),
    [
        ({"a": "x" * SHORT_TEXT}, True),
        ({"a": [1] * SHORT_LIST}, True),
        ({"a": [{"b": "x" * SHORT_TEXT}]}, True),
        ({"a": "x" * (SHORT_TEXT - 1), "b": [1], "c": 10**300, "d": None}, False),
        (None, False),
    ],
)
def test_limit_that_has_been_reached(arguments: Any, reached: bool) -> None:
    assert reached_limit(arguments) is reached


def test_text_of_the_limit_does_not_count_as_endless() -> None:
    """Otherwise the call that is cut by the limit is left, too."""
    assert not is_endless("1" * SHORT_TEXT)
