"""JSON shapes that the wire languages share: texts, counts, errors, tools.

Shapes of one language are in `openai`, `ollama` and `scoring`, those of one server in its module in
`servers`.
"""

import json
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from llm_localrun.system.json_files import parse_json
from llm_localrun.wire.request import ToolSpec
from llm_localrun.wire.sse import Payload


class WireModel(BaseModel):
    """A JSON object from a server; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _printable(text: str) -> str:
    """`text` with lone surrogates, which cannot be printed or stored, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


Text: TypeAlias = Annotated[str, AfterValidator(_printable)]
Vector: TypeAlias = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1)
]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Rate: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
        self.message = _printable(message)
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
