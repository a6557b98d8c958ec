"""Finds the JSON in an answer that must be JSON, and checks it, against the schema too.

Models put JSON into code fences, and servers put it into the reasoning. Servers leave out of a
schema what they cannot turn into a grammar: llama.cpp drops a `pattern` with a look-ahead, and
`maxLength` beside any pattern (b11549), without a word. jsonschema, if it is installed, checks what
came. Separating thinking is left to `think_tags`, printing the note to `chat.run`.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NoReturn

from llm_localrun.errors import AnswerCutOff, AnswerNotJson
from llm_localrun.wire.events import CUT_OFF, Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.sse import excerpt
from llm_localrun.wire.tool_arguments import fit_arguments

_BLANK = "\ufeff \t\r\n"

_TYPES: dict[str, tuple[type, ...]] = {
    **{"object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,)},
    **{"number": (int, float), "integer": (int, float), "null": (type(None),)},
}
_OPENINGS = {"object": "{", "array": "[", "string": '"'}

_FENCE = re.compile(r"(?:`{3,}|~{3,})[^\n`{\[\"]*\s*")
_FENCE_END = re.compile(r"\s*(?:`{3}|~{3}|\Z)")
_MAX_FENCES = 100
"""A text with more of them, outside of JSON, holds no answer; to look at each would take time."""

_SOMETIMES_IGNORED = {
    *("$dynamicRef", "additionalItems", "allOf", "contains", "dependencies", "dependentRequired"),
    *("dependentSchemas", "exclusiveMaximum", "exclusiveMinimum", "format", "if", "maxContains"),
    *("maxLength", "maxProperties", "maximum", "minContains", "minLength", "minProperties"),
    *("minimum", "multipleOf", "not", "oneOf", "pattern", "patternProperties", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties", "uniqueItems"),
}
"""Keywords that some servers, or llama.cpp in some places, do not enforce."""
_HAVE_NAMES = {
    *("properties", "patternProperties", "$defs", "definitions"),
    *("dependentSchemas", "dependentRequired", "dependencies"),
}
"""Keywords whose value has names of the user's own as keys."""
_HOLD_DATA = {"enum", "const", "default", "examples"}


class JsonAnswer:
    """Passes on the events of one answer, whose text must be JSON.

    Text that begins like the JSON that is wanted goes through at once. Other text is held until the
    end, because the JSON may have to be taken out of it. Without a schema an object is wanted.
    If the answer `may_be_other`, all text is held: it need not be shown.
    """

    def __init__(self, schema: Mapping[str, Any] | None, *, may_be_other: bool = False) -> None:
        self.note = ""
        """At the end: why the answer was not checked as it should be; "" if it was."""
        self._schema = schema
        self._may_be_other = may_be_other
        self._types = _types("object" if schema is None else schema.get("type"))
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._flows: bool | None = None
        """Whether text goes through; None until it begins."""
        self._called = False

    def feed(self, event: Event) -> Iterator[Event]:
        """The events that `event` completes. Raises `AnswerNotJson` after `Finished`."""
        if isinstance(event, TextDelta):
            yield from self._pass_text(event)
            return
        if isinstance(event, Finished):
            yield from self._finish(event)
            return
        if isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, ToolCall) and not self._called:
            # A model that asks for a tool has not answered yet.
            self._called = True
            yield from self.flush()
        yield event

    def names_all_of(self, text: str) -> bool:
        """Whether a text is JSON that follows the schema, which names all that is in it.

        A call is no answer to a schema that almost any object follows.
        """
        try:
            value = _parse(self._in_fence(text) or text)
        except (ValueError, RecursionError):
            return False
        is_list = isinstance(value, list) and bool(value)
        schema: Any = self._schema or {}
        schema = schema.get("items") if is_list else schema
        if not isinstance(schema, Mapping):
            return False
        return all(fit_arguments(each, schema) == each for each in (value if is_list else [value]))

    def flush(self) -> Iterator[Event]:
        """Lets all text through, because there is no JSON to take out of it."""
        yield from self._held("".join(self._text))
        self._flows = True

    def _pass_text(self, event: TextDelta) -> Iterator[Event]:
        self._text.append(event.text)
        begun = event.text.lstrip(_BLANK)
        if self._flows:
            yield event
        elif self._flows is None and begun:
            self._flows = False
            is_begun = any(begun[0] == _OPENINGS.get(name) for name in self._types)
            if is_begun and not self._may_be_other:
                yield from self.flush()

    def _held(self, text: str) -> Iterator[Event]:
        """`text`, if it has not gone through. Readers of JSON stumble over a byte order mark."""
        if not self._flows and (text := text.lstrip("\ufeff")):
            yield TextDelta(text)

    def _finish(self, finished: Finished) -> Iterator[Event]:
        error = None
        if not self._called:
            answer = self._unwrapped("".join(self._text))
            error = self._problem(answer, finished.finish_reason)
            yield from self._held(answer)
        yield finished
        if error is not None:
            raise error

    def _unwrapped(self, text: str) -> str:
        """The answer in `text`, or in a code fence in it, or in the reasoning if there is no text.

        Reasoning may hold drafts, so nothing but the answer may be in it.
        """
        if self._flows or (self._may_be_other and self._is_wanted(text)):
            return text
        whole = "".join(self._reasoning).strip(_BLANK)
        if not text.strip(_BLANK):
            if self._is_wanted(whole):
                return whole
            is_fence = whole[:3] in ("```", "~~~") and whole[-3:] == whole[:3]
            return self._in_fence(whole if is_fence else "") or text
        return self._in_fence(text) or text

    def _in_fence(self, text: str) -> str:
        """The JSON in a code fence; "" if there is none, or more than one."""
        blocks = [block for block in _fenced(text) if self._is_wanted(block)]
        return blocks[0] if len(blocks) == 1 else ""

    def _is_wanted(self, text: str) -> bool:
        try:
            return self._is_of_type(_parse(text))
        except (ValueError, RecursionError):
            return False

    def _is_of_type(self, value: Any) -> bool:
        return any(isinstance(value, _TYPES[name]) for name in self._types)

    def _problem(self, text: str, finish_reason: str) -> AnswerNotJson | None:
        try:
            value = _parse(text)
        except (ValueError, RecursionError) as error:
            return self._not_json(text, finish_reason, error)
        if not self._is_of_type(value):
            wanted = " or ".join(self._types)
            return _refused(f"The answer is JSON of another type than {wanted}: {_short(text)}")
        if self._schema is None:
            return None
        broken, self.note = _lacking(value, self._schema), ""
        if not broken:
            broken, self.note = _check(value, self._schema)
        return _refused(f"The answer does not follow the schema: {broken}") if broken else None

    def _not_json(self, text: str, finish_reason: str, error: Exception) -> AnswerNotJson:
        position = error.pos if isinstance(error, json.JSONDecodeError) else 0
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            rest = text.strip(_BLANK)[position:]
            return _refused(f"The answer goes on after its JSON: {_short(rest)}")
        if finish_reason in ("length", CUT_OFF):
            self.note = _unchecked(self._schema)
            is_full = finish_reason == "length"
            return AnswerCutOff(
                f"The answer ended ({finish_reason}) before its JSON was complete",
                "Use a larger -o max_tokens, or a larger -o context_size"
                if is_full
                else "Try again",
            )
        if not text.strip(_BLANK):
            return _refused("The answer is empty instead of JSON")
        why = f" ({error})" if self._flows else ""
        return _refused(f"The answer is not JSON{why}: {_short(text)}")


def _refused(problem: str) -> AnswerNotJson:
    return AnswerNotJson(problem, "Ask for it in the prompt too, or try another model")


def _short(text: str) -> str:
    return excerpt(text.encode("utf-8", "replace"))


def _types(named: Any) -> list[str]:
    """The types that a schema's `type` names; all if it names none."""
    names = named if isinstance(named, list) else [named]
    return [name for name in _TYPES if name in names] or list(_TYPES)


def _parse(text: str) -> Any:
    return json.loads(text.strip(_BLANK), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _fenced(text: str) -> list[str]:
    """The JSON texts in code fences, the last of which may lack its end.

    The JSON itself says where it ends, because fences may stand in its strings.
    """
    blocks: list[str] = []
    end = tried = 0
    for fence in _FENCE.finditer(text):
        if fence.start() < end:
            continue
        tried += 1
        if tried > _MAX_FENCES:
            return []
        try:
            _, stop = json.JSONDecoder().raw_decode(text, fence.end())
        except (ValueError, RecursionError):
            continue
        if closed := _FENCE_END.match(text, stop):
            end = closed.end()
            blocks.append(text[fence.end() : stop])
    return blocks


def _lacking(value: Any, schema: Mapping[str, Any]) -> str:
    """What an object lacks of what its schema requires. Needs no jsonschema."""
    required = schema.get("required")
    if not (isinstance(value, dict) and isinstance(required, list)):
        return ""
    missing = [name for name in required if isinstance(name, str) and name not in value]
    return f"it lacks {', '.join(map(repr, missing))}" if missing else ""


def _check(value: Any, schema: Mapping[str, Any]) -> tuple[str, str]:
    """What in `value` breaks `schema`, and why that could not be checked; "" for nothing."""
    try:
        return _violation(value, schema), ""
    except ImportError:
        unchecked = _unchecked(schema)
        return "", unchecked and f"{unchecked} To check answers: `llm install jsonschema`"
    except Exception as error:  # noqa: BLE001  # what only a $ref reaches may be anything
        return "", f"The answer was not checked against the schema: {_short(str(error))}."


def _violation(value: Any, schema: Mapping[str, Any]) -> str:
    """What in `value` breaks `schema`. Raises ValueError if jsonschema cannot use the schema."""
    from jsonschema import FormatChecker
    from jsonschema.exceptions import SchemaError, best_match
    from jsonschema.validators import Draft202012Validator, extend, validator_for

    # Without retrieval, unlike jsonschema's own: nothing is fetched because a schema says so.
    from jsonschema_specifications import REGISTRY
    from referencing.exceptions import Unresolvable

    dialect = schema if isinstance(schema.get("$schema"), str) else {}
    kind = validator_for(dialect, default=Draft202012Validator)
    # Its `regex` accepts what Python does, not what JavaScript does.
    formats = FormatChecker(Draft202012Validator.FORMAT_CHECKER.checkers.keys() - {"regex"})
    validator = extend(kind, {"multipleOf": _multiple_of})
    try:
        kind.check_schema(schema)
        found = validator(schema, registry=REGISTRY, format_checker=formats).iter_errors(value)
        error = best_match(found)
    except SchemaError as invalid:
        where = invalid.json_path
        raise ValueError(f"jsonschema cannot use {where}: {_short(invalid.message)}") from None
    except Unresolvable as unknown:
        raise ValueError(f"its $ref {unknown.ref} is not within it") from None
    if error is None:
        return ""
    rule = _short(json.dumps(error.validator_value, ensure_ascii=False))
    keyword = f"{error.validator} {rule}" if error.validator else "false"
    return f"{error.json_path} breaks {keyword}: {_short(error.message)}"


def _multiple_of(validator: Any, factor: Any, number: Any, _: Any) -> Iterator[Any]:
    """jsonschema's own says that 19.99 is no multiple of 0.01."""
    from jsonschema import ValidationError

    if not validator.is_type(number, "number") or not math.isfinite(number):
        return
    if (Fraction(repr(number)) / Fraction(repr(factor))).denominator != 1:
        yield ValidationError(f"{number!r} is not a multiple of {factor!r}")


def _unchecked(schema: Mapping[str, Any] | None) -> str:
    """What an unchecked answer may break; "" if every server enforces all of `schema`."""
    keywords = ", ".join(sorted(set(_ignored(schema))))
    return keywords and (
        f"The answer was not checked against {keywords} in the schema, which the server may have"
        " ignored."
    )


def _ignored(schema: Any, *, keys_are_names: bool = False) -> Iterator[str]:
    """The keywords in `schema` that not every server enforces."""
    for each in schema if isinstance(schema, list) else []:
        yield from _ignored(each)
    for key, value in schema.items() if isinstance(schema, Mapping) else []:
        if key in _SOMETIMES_IGNORED and not keys_are_names:
            yield key
        if key not in _HOLD_DATA or keys_are_names:
            are_names = key in _HAVE_NAMES and not keys_are_names
            yield from _ignored(value, keys_are_names=are_names)
