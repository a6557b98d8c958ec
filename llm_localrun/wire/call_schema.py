"""The JSON schema of one call of any of some tools, made so that servers can enforce it.

Tools bring schemas of any kind, and servers turn only a part of JSON schema into a grammar: one
keyword may make them refuse the request. So only what they can do is taken over, and what is
dropped is left to `tool_arguments`, which checks the call that comes. Sending the schema is left to
`chat.attempts`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from llm_localrun.wire.request import ToolSpec
from llm_localrun.wire.tool_arguments import referred

Schema: TypeAlias = dict[str, Any]

SHORT_LIST = 16
SHORT_TEXT = 100
"""Items of a list, and characters of a text, in a schema that makes every model come to an end.

Lists in lists are shorter.
"""
_SHORT_OPTIONS = 32
"""Properties in such a schema that are not required."""

_MAX_COUNT = 1000
"""llama.cpp refuses rules that repeat more than 2,000 times (b11549), also if nested."""
_MAX_CHOICES = 1000
"""Values of an enum: more make a grammar that takes seconds for each token."""
_MAX_PARTS = 2000
_MAX_DEPTH = 60
"""Parts of a schema that are taken over, and how deep they are; the rest may be anything."""

_FORMATS = ("date", "time", "date-time", "uuid")
"""The formats that llama.cpp enforces; each has an end."""
_PATTERN = re.compile(r"\^(?:(?!\(\?)[^\\^$]|\\[dws./+*?()\[\]{}|$^-])*\$")
"""Patterns that mean the same in a grammar: whole ones, without look-ahead and back-references."""
_ENDLESS = re.compile(r"(?<!\\)(?:[*+]|\{\d*,\})")

_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": " \\t\\r\\n"}

_ANY_TYPE = ("string", "number", "boolean", "null")
_BY_KEYWORD = {
    **dict.fromkeys(("properties", "required", "additionalProperties"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems"), "array"),
    **dict.fromkeys(("pattern", "format", "minLength", "maxLength"), "string"),
}
"""What a schema without a type is about."""
_INTEGER_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def call_schema(tools: Sequence[ToolSpec], *, is_short: bool = False) -> Schema:
    """The schema of `{"name": …, "arguments": …}` for one of `tools`.

    Texts and lists have no limit but the tool's own, because arguments may be whole files. If
    `is_short`, everything has a limit, so that small models end too.
    """
    definitions: Schema = {}
    calls = [_Translation(tool, definitions, is_short=is_short).call() for tool in tools]
    schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


class _Translation:
    """Makes the schema of a call of one tool. `definitions` are those of all tools."""

    def __init__(self, tool: ToolSpec, definitions: Schema, *, is_short: bool) -> None:
        self._tool = tool
        self._definitions = definitions
        self._is_short = is_short
        self._names: dict[str, str] = {}
        self._open: set[str] = set()
        self._left = _MAX_PARTS
        self._options = _SHORT_OPTIONS if is_short else _MAX_PARTS
        self._depth = 0
        self._lists = 0
        """How many lists what is being translated is in."""

    def call(self) -> Schema:
        arguments = self._resolved(self._tool.parameters)
        # A function takes no arguments that its schema does not name.
        closed = {"type": "object", "additionalProperties": False, **arguments}
        return _closed(
            {"name": {"const": self._tool.name}, "arguments": self._of(closed) or _closed({})}
        )

    def _of(self, schema: Any) -> Schema | None:
        """`schema` as servers can enforce it; None if no value of it can come to an end."""
        if not isinstance(schema, Mapping) or self._left <= 0 or self._depth == _MAX_DEPTH:
            return self._any()
        self._left -= 1
        self._depth += 1
        known = self._known(schema)
        self._depth -= 1
        return known

    def _known(self, schema: Mapping[str, Any]) -> Schema | None:
        if isinstance(schema.get("$ref"), str):
            return self._reference(schema["$ref"])
        if "const" in schema or isinstance(schema.get("enum"), list):
            return self._choice(schema)
        if ways := _alternatives(schema):
            known = [each for each in map(self._of, ways) if each is not None]
            return known[0] if len(known) == 1 else {"anyOf": known} if known else None
        if isinstance(schema.get("allOf"), list):
            return self._of(self._all_of(schema))
        return self._of_type(schema)

    def _of_type(self, schema: Mapping[str, Any]) -> Schema | None:
        about = next((_BY_KEYWORD[key] for key in schema if key in _BY_KEYWORD), None)
        named = schema.get("type", about)
        if named == "object":
            return self._object(schema)
        if named == "array":
            return self._array(schema)
        if named == "string":
            return self._text(schema)
        if named == "integer":
            limits = [name for name in _INTEGER_LIMITS if _is_integer(schema.get(name))]
            return {"type": "integer", **{name: schema[name] for name in limits}}
        return {"type": named} if named in _ANY_TYPE else self._any()

    def _any(self) -> Schema:
        if not self._is_short:
            return {}
        return {"anyOf": [self._text({}), *({"type": each} for each in _ANY_TYPE[1:])]}

    def _choice(self, schema: Mapping[str, Any]) -> Schema | None:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if 0 < len(values) <= _MAX_CHOICES:
            return {"enum": values}
        return self._of({name: value for name, value in schema.items() if name != "enum"})

    def _all_of(self, schema: Mapping[str, Any]) -> Schema:
        merged = {name: value for name, value in schema.items() if name != "allOf"}
        for part in schema["allOf"]:
            merged = _merged(merged, self._resolved(part))
        return merged

    def _object(self, schema: Mapping[str, Any]) -> Schema | None:
        named = schema.get("properties")
        required = _texts(schema.get("required"))
        wanted = {**(named if isinstance(named, dict) else {})}
        optional = [name for name in wanted if name not in required]
        for name in optional[max(0, self._options) :]:
            del wanted[name]
        self._options -= len(optional)
        known = {name: self._of(wanted.get(name)) for name in dict.fromkeys([*wanted, *required])}
        if any(known[name] is None for name in required):
            return None
        more = schema.get("additionalProperties", not known)
        if more is not False:
            more = False if self._is_short else self._of(more) or more is True
        return {
            "type": "object",
            "properties": {name: each for name, each in known.items() if each is not None},
            "required": required,
            "additionalProperties": more,
        }

    def _array(self, schema: Mapping[str, Any]) -> Schema | None:
        first = schema.get("prefixItems")
        if isinstance(first, list) and first:
            known = [self._of(each) for each in first]
            return None if None in known else {"type": "array", "prefixItems": known}
        short = max(2, SHORT_LIST >> 2 * self._lists)
        least, most = self._limits(schema, "minItems", "maxItems", short)
        self._lists += 1
        items = self._of(schema.get("items"))
        self._lists -= 1
        if items is None:
            return None if least else {"enum": [[]]}
        return {"type": "array", "items": items, **least, **most}

    def _text(self, schema: Mapping[str, Any]) -> Schema:
        pattern, form = schema.get("pattern"), schema.get("format")
        if form in _FORMATS:
            return {"type": "string", "format": form}
        # llama.cpp drops a limit beside a pattern.
        if isinstance(pattern, str) and _is_grammar(pattern, self._is_short):
            return {"type": "string", "pattern": _written_out(pattern)}
        least, most = self._limits(schema, "minLength", "maxLength", SHORT_TEXT)
        return {"type": "string", **least, **most}

    def _limits(
        self, schema: Mapping[str, Any], least: str, most: str, short: int
    ) -> tuple[Schema, Schema]:
        lower = min(_count(schema.get(least)) or 0, _MAX_COUNT)
        upper = _count(schema.get(most))
        if upper is not None and upper > _MAX_COUNT:
            upper = None
        if self._is_short:
            upper = min(max(short, lower), _MAX_COUNT if upper is None else upper)
        return ({least: lower} if lower else {}), ({} if upper is None else {most: upper})

    def _reference(self, pointer: str) -> Schema | None:
        if pointer in self._open and self._is_short:
            return None
        if pointer not in self._names:
            target = referred(self._tool.parameters, pointer)
            if target is None:
                return self._any()
            name = f"part{len(self._definitions)}"
            self._names[pointer] = name
            self._definitions[name] = {}
            self._open.add(pointer)
            known = self._of(target)
            self._open.remove(pointer)
            if known is None:
                del self._names[pointer]
                return None
            self._definitions[name] = known
        return {"$ref": f"#/$defs/{self._names[pointer]}"}

    def _resolved(self, schema: Any) -> Schema:
        """`schema`, or what it refers to."""
        for _ in range(_MAX_PARTS):
            if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str):
                break
            schema = referred(self._tool.parameters, schema["$ref"])
        return dict(schema) if isinstance(schema, Mapping) else {}


def _closed(properties: Schema) -> Schema:
    """An object of exactly these properties."""
    names = list(properties)
    return {
        **{"type": "object", "properties": properties},
        **{"required": names, "additionalProperties": False},
    }


def _alternatives(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas of which a value follows one, if `schema` says that."""
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": each} for each in schema["type"]]
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            rest = {name: value for name, value in schema.items() if name != key}
            return [_merged(rest, each) for each in schema[key]]
    return []


def _merged(first: Schema, second: Any) -> Any:
    """A schema of what follows both, as far as properties and types say."""
    if not isinstance(second, Mapping):
        return first
    if not first:
        return second
    both = {**first, **second}
    for key in ("properties", "$defs", "definitions"):
        if isinstance(first.get(key), dict) and isinstance(second.get(key), dict):
            both[key] = {**first[key], **second[key]}
    both["required"] = [
        *dict.fromkeys(_texts(first.get("required")) + _texts(second.get("required")))
    ]
    return both


def _is_grammar(pattern: str, is_short: bool) -> bool:
    """Whether servers can make a grammar of a pattern, which comes to an end if `is_short`."""
    if not _PATTERN.fullmatch(pattern) or (is_short and _ENDLESS.search(pattern)):
        return False
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return math.prod(max(1, int(n)) for n in re.findall(r"\d+(?=[,}])", pattern)) <= _MAX_COUNT


def _written_out(pattern: str) -> str:
    """A pattern without the classes that llama.cpp takes for any character (b11549)."""

    def without(match: "re.Match[str]") -> str:
        inside = re.sub(r"\\([dws])", lambda short: _CLASSES[short[1]], match[0])
        return inside if match[0].startswith("[") else f"[{inside}]"

    return re.sub(r"\[(?:\\.|[^\]\\])*\]|(?<!\\)\\[dws]", without, pattern)


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def reached_limit(arguments: Any) -> bool:
    """Whether a call that was made with `is_short` has a text or a list that a limit has ended."""
    if isinstance(arguments, str):
        return len(arguments) >= SHORT_TEXT
    if isinstance(arguments, list):
        return len(arguments) >= SHORT_LIST or any(map(reached_limit, arguments))
    return isinstance(arguments, dict) and any(map(reached_limit, arguments.values()))
