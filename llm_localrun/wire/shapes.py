"""JSON shapes that the wire languages share: texts, counts, lists, errors, tools and their calls.

Shapes of one language are in `openai`, `ollama` and `scoring`, those of one server in its module in
`servers`.
"""

import json
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import with_default_schema

from llm_localrun.system.json_files import parse_json
from llm_localrun.wire.request import ToolSpec
from llm_localrun.wire.sse import Payload


class WireModel(BaseModel):
    """A JSON object from a server; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def without_halves(text: str) -> str:
    """`text` with halves of surrogate pairs, which cannot be stored, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


Text: TypeAlias = Annotated[str, AfterValidator(without_halves)]
Name: TypeAlias = Annotated[Text, Field(min_length=1, max_length=4096)]
"""Of a model: it may be a path, which is no longer on any system."""
Fragment: TypeAlias = str
"""A piece of a text; `wire.response` joins the halves of a surrogate pair in two pieces."""
Vector: TypeAlias = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1)
]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Index: TypeAlias = Annotated[int, Field(gt=-(2**31), lt=2**31)]
"""Larger ones may be chosen such that all have the same hash."""
Rate: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _NoneIfMalformed:
    """What `Maybe` means, for pydantic's core: a validator in Python takes longer."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return with_default_schema(handler(source), default=None, on_error="default")


MAX_ENTRIES = 10_000
"""Of a list that a server sends of its models: what is done with each may take time."""


def _without_malformed(sent: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    sent = sent[:MAX_ENTRIES] if isinstance(sent, list) else sent
    try:
        return validate(sent)
    except ValidationError as error:
        malformed = {each["loc"][0] for each in error.errors() if each["loc"]}
        if not isinstance(sent, list) or len(malformed) == len(sent):
            raise
        return validate([entry for at, entry in enumerate(sent) if at not in malformed])


_Value = TypeVar("_Value")
Maybe = Annotated[_Value | None, _NoneIfMalformed()]
"""An optional field: a value of another type counts as absent."""
Entries = Annotated[tuple[_Value, ...], WrapValidator(_without_malformed)]
"""A list without the entries of another shape; a list of nothing else is not what it should be."""


def _none_if_empty(sent: Any) -> Any:
    return sent if sent or sent == {} else None


OrNothing = Annotated[_Value | None, BeforeValidator(_none_if_empty)]
"""An object, in whose place servers send null, "", [] or 0 if there is none."""


def _text_in(sent: Any) -> Any:
    """The text of a message, which may be null or a list of parts; anything else as it is."""
    if not isinstance(sent, list):
        return "" if sent is None else sent
    if not all(isinstance(part, str | dict | None) for part in sent):
        return sent
    parts = (part.get("text") if isinstance(part, dict) else part for part in sent)
    return "".join(text for text in parts if isinstance(text, str))


def _thinking_in(sent: Any) -> str:
    """What the parts of a message say that hold thinking: nothing if it has no parts."""
    if not isinstance(sent, list):
        return ""
    thoughts = (_text_in(part.get("thinking")) for part in sent if isinstance(part, dict))
    return "".join(thought for thought in thoughts if isinstance(thought, str))


Content: TypeAlias = Annotated[Fragment, BeforeValidator(_text_in)]
"""The text of a message: [{"type": "text", "text": "Hello"}] means the same as "Hello"."""
ThinkingParts: TypeAlias = Annotated[Fragment, BeforeValidator(_thinking_in)]
"""Of the same list: {"type": "thinking", "thinking": …}, as Mistral's API has it."""


class CallFragment(WireModel):
    """A tool call or a piece of one: {"id": …, "function": {"name": …, "arguments": …}}.

    Some servers leave out the object around the name and the arguments, name the arguments as
    another API does, or send arguments that are not JSON text. What is no call at all becomes the
    arguments of one without a name, so that the model is told.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)

    index: Maybe[Index] = None
    id: Maybe[Text] = None
    name: Maybe[Text] = None
    arguments: str = ""

    @model_validator(mode="before")
    @classmethod
    def _flattened(cls, sent: Any) -> Payload:
        if not isinstance(sent, dict):
            return {"arguments": _text_of_value(sent)}
        function = sent.get("function")
        if isinstance(function, str):
            function = {"name": function}
        inner = {**sent, **(function if isinstance(function, dict) else {})}
        given = (inner[name] for name in _ARGUMENTS if inner.get(name) is not None)
        return {**sent, "name": inner.get("name"), "arguments": _text_of_value(next(given, None))}

    @property
    def says_nothing(self) -> bool:
        return not (self.id or self.name or self.arguments)


_ARGUMENTS = ("arguments", "parameters", "input", "args")
"""What OpenAI, Cohere, Anthropic and Google call the arguments of a call."""


def _text_of_value(sent: Any) -> str:
    return "" if sent is None else sent if isinstance(sent, str) else json.dumps(sent)


def _listed(sent: Any) -> list[Any]:
    calls = sent if isinstance(sent, list) else [sent] if isinstance(sent, dict) else []
    return [call for call in calls if call not in (None, "", False)]


Calls: TypeAlias = Annotated[tuple[CallFragment, ...], BeforeValidator(_listed)]
"""The tool calls of a message; a single one may stand without a list, and "none" for none."""


NO_ARGUMENTS = ("", "null", "[]")


def call_arguments(text: str) -> str:
    """The arguments of a tool call as the JSON text of an object, if they can only mean one.

    Blank text, null and [] are no arguments, and an object may be written as a JSON text in a JSON
    text. Whatever else comes stays as it is.
    """
    if text.strip() in NO_ARGUMENTS:
        return "{}"
    inner = parse_json(text)
    unwrapped = call_arguments(inner) if isinstance(inner, str) else text
    return without_halves(unwrapped if is_object(unwrapped) else text)


def is_object(text: str) -> bool:
    return isinstance(parse_json(text), dict)


class CutOff(Exception):
    """The response ended without an HTTP error before it was complete."""


@dataclass(frozen=True, slots=True)
class Overflow:
    """What a server says of a request that does not fit its context, in tokens. 0 is unknown."""

    context_size: int = 0
    prompt_tokens: int = 0
    is_least: bool = False
    """Whether the prompt may take more than `prompt_tokens`."""
    answer_tokens: int = 0
    """What the request asks for, if the server counts it."""


class ErrorReported(Exception):
    """The server reports an error, and as numbers what does not fit, if that is why."""

    def __init__(self, message: str, overflow: Overflow | None = None) -> None:
        super().__init__(message)
        self.message = without_halves(message)
        self.overflow = overflow


def call_id(given: str | None, taken: Collection[str]) -> str:
    """The server's id for a tool call, or a new one if that is not unique.

    LM Studio numbers its calls from the beginning in each response.
    """
    if not given or given.isdigit() or given in taken:
        return f"call_{secrets.token_hex(8)}"
    return given


def function_tool(tool: ToolSpec) -> Payload:
    """A tool as OpenAI's API and Ollama's both describe it."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }


def error_in(payload: Payload) -> ErrorReported | None:
    """The error in `payload`, if there is one.

    `error` is a string from Ollama and sometimes from LM Studio, an object from the others. Ollama
    puts llama-server's object, as JSON text, into its string. In {"object": "error"} the payload
    itself is the object.
    """
    error = payload if payload.get("object") == "error" else payload.get("error")
    if not error:
        return None
    if isinstance(error, str):
        return _nested(error) or ErrorReported(error)
    if not isinstance(error, dict):
        return ErrorReported(json.dumps(error))
    message = error.get("message") or error.get("type") or json.dumps(error)
    prompt_tokens, context_size = _count(error.get("n_prompt_tokens")), _count(error.get("n_ctx"))
    is_known = prompt_tokens is not None and context_size is not None
    return ErrorReported(
        str(message), Overflow(context_size or 0, prompt_tokens or 0) if is_known else None
    )


_ABOUT_TEMPLATE = re.compile(r"Jinja Exception|for this template|chat template parsing error")
_TEMPLATE_ERROR = re.compile(
    r"(?:(?:^|\s)Error|common_chat_templates_init: error|Jinja Exception): "
    r"(?:Jinja Exception: )?([^\n]+)",
    re.MULTILINE,
)
_SAID_BY_TEMPLATES = "roles must alternate"


def template_error_in(message: str) -> str:
    """Why a chat template failed, if the server's error or log says that; "" otherwise.

    llama.cpp quotes the template first (b11549): "…^ Error: Jinja Exception: No system role". vLLM
    repeats what the template says (0.32).
    """
    found = _TEMPLATE_ERROR.search(message) if _ABOUT_TEMPLATE.search(message) else None
    if found:
        return found[1].strip()
    lines = (line for line in message.splitlines() if _SAID_BY_TEMPLATES in line.lower())
    return next(lines, "").strip()


_Shape = TypeVar("_Shape", bound=WireModel)


def parse_payload(shape: type[_Shape], payload: Payload) -> _Shape:
    """The payload as a `shape`.

    Raises `ErrorReported` if it holds the server's error, and pydantic's `ValidationError` if it is
    something else.
    """
    if error := error_in(payload):
        raise error
    return shape.model_validate(payload)


def _nested(text: str) -> ErrorReported | None:
    inner = parse_json(text) if text.startswith("{") else None
    return error_in(inner) if isinstance(inner, dict) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**31 else None
