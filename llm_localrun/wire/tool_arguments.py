"""Reads the JSON that models write for tool calls, and fits arguments to a tool's schema.

The JSON may be Python's: single quotes, trailing commas, True and None. Of JSON schema, what tools
use is checked; `pattern`, `format` and conditions are not. Finding calls in a text is left to
`tool_text`.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from llm_localrun.wire.shapes import NO_ARGUMENTS, without_halves

# JSON


class Malformed(ValueError):
    """The text is not JSON, however leniently it is read."""


class Incomplete(Exception):
    """The text ends within what it says."""


class Unexpected(Exception):
    """A string is none of those that may stand there."""


MAX_DEPTH = 64
"""Of nested values: deeper ones are no arguments."""
BLANKS = re.compile(r"[\s\ufeff]*")
_QUOTES = {
    '"': re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL),
    "'": re.compile(r"[^'\\]*(?:\\.[^'\\]*)*", re.DOTALL),
    '<|"|>': re.compile(r"[^<]*(?:<(?!\|\"\|>)[^<]*)*"),  # Gemma 4
    "<escape>": re.compile(r"[^<]*(?:<(?!escape>)[^<]*)*"),  # FunctionGemma
}
_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d*)?(?:\.\d*)?(?:[eE][+-]?\d+)?(?![\w.+-])")
_WORD = re.compile(r"[A-Za-z_$][\w$-]*")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": "", '"': '"', "'": "'"}
_ESCAPES |= {"\\": "\\", "/": "/"}


class JsonReader:
    """Reads a text from `at` on. Raises `Malformed`, or `Incomplete` where the text ends."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip_blanks(self) -> None:
        match = BLANKS.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def accepts(self, literal: str) -> bool:
        """Whether `literal` comes next, which is passed then."""
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        if literal.startswith(self.text[self.at : self.at + len(literal)]):
            raise Incomplete
        return False

    def expect(self, literal: str) -> None:
        if not self.accepts(literal):
            raise Malformed(f"no {literal} at {self.at}")

    def ends_here(self) -> bool:
        """Whether a list or an object ends here without a bracket."""
        return False

    def value(self, depth: int = 0) -> Any:
        self.skip_blanks()
        if depth > MAX_DEPTH:
            raise Malformed("too deep")
        if self.accepts("{"):
            return {key: self.value(depth + 1) for key in self.keys()}
        if self.accepts("["):
            return [self.value(depth + 1) for _ in self.items("]")]
        quote = self._quote()
        return self._string(quote) if quote else self._scalar()

    def items(self, end: str) -> Iterator[None]:
        """Stops where each item of a list begins, which the caller reads."""
        while True:
            self.skip_blanks()
            if self.accepts(end):
                return
            yield
            self.skip_blanks()
            if self.ends_here():
                return
            if not self.accepts(","):
                self.expect(end)
                return

    def keys(self, among: Collection[str] = ()) -> Iterator[str]:
        """Stops behind each key of an object, whose value the caller reads."""
        for _ in self.items("}"):
            key = self.key(among)
            self.skip_blanks()
            self.expect(":")
            self.skip_blanks()
            yield key

    def key(self, among: Collection[str] = ()) -> str:
        return self.string(among) if self._quote(peek=True) else self._bare_key(among)

    def string(self, among: Collection[str] = ()) -> str:
        """A string. Raises `Unexpected` as soon as it is none of `among`, unless that is empty."""
        quote = self._quote()
        if not quote:
            raise Malformed(f"no string at {self.at}")
        start = self.at
        try:
            return _one_of(self._string(quote), among)
        except Incomplete:
            _may_become(self.text[start:], among)
            raise

    def word(self) -> str:
        match = _WORD.match(self.text, self.at)
        if match is None:
            raise Malformed(f"no word at {self.at}")
        self.at = match.end()
        return match[0]

    def _bare_key(self, among: Collection[str]) -> str:
        word = self.word()
        if self.at == len(self.text):
            _may_become(word, among)
            raise Incomplete
        return _one_of(word, among)

    def _quote(self, *, peek: bool = False) -> str:
        at = self.at
        if at == len(self.text):
            raise Incomplete
        quote = next((quote for quote in _QUOTES if self.accepts(quote)), "")
        self.at = at if peek else self.at
        return quote

    def _string(self, quote: str) -> str:
        match = _QUOTES[quote].match(self.text, self.at)
        end = match.end() if match else self.at
        raw = self.text[self.at : end]
        if not self.text.startswith(quote, end):
            raise Incomplete
        self.at = end + len(quote)
        return unescaped(raw) if len(quote) == 1 else raw

    def _scalar(self) -> Any:
        text, at = self.text, self.at
        number = _NUMBER.match(text, at)
        if number and number[0].strip("+-"):
            self.at = number.end()
            if self.at == len(text):
                raise Incomplete
            return _number(number[0])
        word = _WORD.match(text, at)
        begun = word[0] if word else text[at : at + 1]
        self.at = at + len(begun)
        if self.at == len(text) and (begun in "+-." or any(w.startswith(begun) for w in _WORDS)):
            raise Incomplete
        if begun not in _WORDS:
            raise Malformed(f"{begun[:20]} is no value")
        return _WORDS[begun]


def _one_of(text: str, among: Collection[str]) -> str:
    if among and text not in among:
        raise Unexpected(text)
    return text


def _may_become(begun: str, among: Collection[str]) -> None:
    if among and not any(text.startswith(begun) for text in among):
        raise Unexpected(begun)


def unescaped(raw: str) -> str:
    """What stands between quotes; an escape that JSON does not have stays as it is: C:\\data."""

    def character(match: re.Match[str]) -> str:
        escape = match[1]
        return chr(int(escape[1:], 16)) if len(escape) > 1 else _ESCAPES.get(escape, match[0])

    return without_halves(_ESCAPE.sub(character, raw)) if "\\" in raw else raw


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if not math.isfinite(number):
        raise Malformed(f"{text[:20]} is no number of JSON")
    return number


def read_json(text: str) -> Any:
    """The value that is all of `text`. Raises `Malformed`."""
    # Numbers and words at the end of a text may go on; a blank ends them.
    reader = JsonReader(f"{text} ")
    try:
        value = reader.value()
        reader.skip_blanks()
    except Incomplete:
        raise Malformed("it ends too early") from None
    if reader.at != len(reader.text):
        raise Malformed("it goes on")
    return value


# Schemas


class _Unfit(Exception):
    """The value does not follow the schema."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_MAX_STEPS, _MAX_FIT_DEPTH = 100_000, 160
"""Of one fitting: schemas may refer to themselves, and have alternatives in alternatives."""
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "number": _is_number,
    "null": lambda value: value is None,
}


def fit_arguments(given: Any, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """`given` as arguments of the tool whose parameters are `schema`; None if they are invalid.

    Arguments that the schema does not name are invalid, because Python functions refuse them. A
    tool without parameters gets none, whatever a model writes: some copy the schema.
    """
    try:
        given = read_json(given) if isinstance(given, str) and given.strip() else given
    except Malformed:
        return None
    given = {} if given in ([], None) or given in NO_ARGUMENTS else given
    if not isinstance(given, dict):
        return None
    if _has_no_parameters(schema):
        return {}
    for is_exact in (True, False):
        try:
            fitted = _Fitting(schema, is_exact=is_exact).arguments(given)
            return fitted if isinstance(fitted, dict) else None
        except (_Unfit, RecursionError, OverflowError):
            continue
    return None


def _has_no_parameters(schema: Mapping[str, Any]) -> bool:
    names_more = ("additionalProperties", "patternProperties", "$ref", "anyOf", "oneOf", "allOf")
    return not schema.get("properties") and not any(schema.get(key) for key in names_more)


def referred(schema: Mapping[str, Any], pointer: str) -> Any:
    """What `pointer`, a `$ref`, stands for within `schema`; None if it is not there."""
    root, *steps = pointer.split("/")
    found: Any = schema if root == "#" else None
    for step in steps:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal():
            found = dict(enumerate(found)).get(int(name))
        else:
            found = found.get(name) if isinstance(found, Mapping) else None
    return found


class _Fitting:
    """Fits one value to a schema: exactly, or with coercions that lose nothing."""

    def __init__(self, root: Mapping[str, Any], *, is_exact: bool) -> None:
        self._root = root
        self._is_exact = is_exact
        self._steps = 0

    def arguments(self, given: dict[str, Any]) -> Any:
        schema = dict(self._root)
        open_keys = ("patternProperties", "$ref", "anyOf", "oneOf", "allOf")
        if not any(key in schema for key in open_keys):
            schema.setdefault("additionalProperties", False)
        return self._fit(given, {"type": "object", **schema}, 0)

    def _fit(self, value: Any, schema: Any, depth: int) -> Any:
        self._steps += 1
        if schema is False or self._steps > _MAX_STEPS or depth > _MAX_FIT_DEPTH:
            raise _Unfit
        if not isinstance(schema, Mapping):
            return value
        if isinstance(schema.get("$ref"), str):
            value = self._fit(value, referred(self._root, schema["$ref"]), depth + 1)
        for each in _listed(schema.get("allOf")):
            value = self._fit(value, each, depth + 1)
        for key in ("anyOf", "oneOf"):
            if options := _listed(schema.get(key)):
                value = self._any_of(value, options, depth + 1)
        value = self._typed(value, schema)
        value = self._one_of_values(value, schema)
        _check_bounds(value, schema)
        if isinstance(value, dict):
            return self._object(value, schema, depth + 1)
        return self._array(value, schema, depth + 1) if isinstance(value, list) else value

    def _any_of(self, value: Any, options: list[Any], depth: int) -> Any:
        """`value` as the first that it fits exactly, or else as the first that it can be made."""
        exactness = self._is_exact
        for is_exact in dict.fromkeys((True, exactness)):
            for option in options:
                self._is_exact = is_exact
                try:
                    return self._fit(value, option, depth)
                except _Unfit:
                    continue
                finally:
                    self._is_exact = exactness
        raise _Unfit

    def _typed(self, value: Any, schema: Mapping[str, Any]) -> Any:
        named = schema.get("type")
        types = [name for name in _TYPES if name in (_listed(named) or [named])]
        if not types:
            return value
        for name in types:
            if _TYPES[name](value):
                return int(value) if name == "integer" else value
        for name in () if self._is_exact else types:
            coerced = _coerced(value, name)
            if _TYPES[name](coerced):
                return int(coerced) if name == "integer" else coerced
        raise _Unfit

    def _one_of_values(self, value: Any, schema: Mapping[str, Any]) -> Any:
        allowed = [schema["const"]] if "const" in schema else _listed(schema.get("enum"))
        if not allowed and "enum" not in schema:
            return value
        same = (each for each in allowed if each == value and _kind(each) is _kind(value))
        for each in same:
            return each
        texts = {json.dumps(each): each for each in allowed if not isinstance(each, str)}
        if self._is_exact or not isinstance(value, str) or value not in texts:
            raise _Unfit
        return texts[value]

    def _object(self, value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> Any:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        required = [name for name in _listed(schema.get("required")) if isinstance(name, str)]
        if any(name not in value for name in required):
            raise _Unfit
        others = schema.get("additionalProperties", True)
        fitted = {}
        for name, each in value.items():
            try:
                fitted[name] = self._fit(each, properties.get(name, others), depth)
            except _Unfit:
                # Models write null for what they leave out.
                if self._is_exact or each is not None or name in required:
                    raise
                if name not in properties:
                    raise
        return fitted

    def _array(self, value: list[Any], schema: Mapping[str, Any], depth: int) -> list[Any]:
        first = _listed(schema.get("prefixItems"))
        rest = schema.get("items", True)
        schemas = [*first[: len(value)], *[rest] * (len(value) - len(first))]
        return [self._fit(each, wanted, depth) for each, wanted in zip(value, schemas, strict=True)]


def _coerced(value: Any, name: str) -> Any:
    """`value` as a `name` if that loses nothing; `value` itself otherwise."""
    if name == "string" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or name == "string":
        return value
    text = value.strip().lower() if name in ("boolean", "null") else value
    try:
        return read_json({"none": "null"}.get(text, text))
    except Malformed:
        return value


def _check_bounds(value: Any, schema: Mapping[str, Any]) -> None:
    if _is_number(value):
        size, bounds = value, ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    elif isinstance(value, str):
        size, bounds = len(value), ("minLength", "maxLength", "", "")
    elif isinstance(value, list):
        size, bounds = len(value), ("minItems", "maxItems", "", "")
    else:
        return
    least, most, above, below = (_bound(schema.get(name)) for name in bounds)
    is_low = (least is not None and size < least) or (above is not None and size <= above)
    is_high = (most is not None and size > most) or (below is not None and size >= below)
    if is_low or is_high:
        raise _Unfit


def _bound(value: Any) -> float | None:
    return value if _is_number(value) else None


def _kind(value: Any) -> type:
    """1 and True are equal in Python; 1 and 1.0 are the same in JSON."""
    return float if _is_number(value) else type(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
