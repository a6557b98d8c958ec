"""JSON shapes that the wire languages share: texts, counts, errors, tools.

Shapes of one language are in `openai`, `ollama` and `scoring`, those of one server in its module in
`servers`.
"""

import json
import secrets
from collections.abc import Collection
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from llm_localrun.system.json_files import parse_json
from llm_localrun.wire.request import ToolSpec
from llm_localrun.wire.sse import Payload


class WireModel(BaseModel):
    """A JSON object from a server; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def printable(text: str) -> str:
    """`text` with lone surrogates, which cannot be printed or stored, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


Text: TypeAlias = Annotated[str, AfterValidator(printable)]
Fragment: TypeAlias = str
"""A piece of a text; `wire.response` joins the halves of a surrogate pair in two pieces."""
Vector: TypeAlias = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1)
]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Rate: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CutOff(Exception):
    """The response ended without an HTTP error before it was complete."""


class ErrorReported(Exception):
    """The server reports an error, with `prompt_tokens` and `context_size` if they are why."""

    def __init__(
        self, message: str, prompt_tokens: int | None = None, context_size: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.prompt_tokens = prompt_tokens
        self.context_size = context_size


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
    return ErrorReported(
        str(message), _count(error.get("n_prompt_tokens")), _count(error.get("n_ctx"))
    )


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
