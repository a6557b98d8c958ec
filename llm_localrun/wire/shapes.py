"""What the wire languages share: how servers report errors, and how a reply breaks off."""

import json
import secrets
from collections.abc import Collection
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from llm_localrun.wire.request import ToolSpec
from llm_localrun.wire.sse import Payload


class WireModel(BaseModel):
    """A JSON object from a server: fields that we do not know are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _printable(text: str) -> str:
    """`text` with halves of surrogate pairs, which nothing can print or keep, made visible."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


Text: TypeAlias = Annotated[str, AfterValidator(_printable)]
Vector: TypeAlias = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1)
]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Rate: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CutOff(Exception):
    """The reply ended, in good order as far as HTTP can tell, before it was complete."""


class ErrorReported(Exception):
    """The server says that it failed. `prompt_tokens` and `context_size` if that is why."""

    def __init__(
        self, message: str, prompt_tokens: int | None = None, context_size: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = _printable(message)
        self.prompt_tokens = prompt_tokens
        self.context_size = context_size


def call_id(given: str | None, taken: Collection[str]) -> str:
    """The server's id for a tool call, or ours if it could not be told from another's.

    LM Studio counts its calls from the beginning in each reply.
    """
    if not given or given.isdigit() or given in taken:
        return f"call_{secrets.token_hex(8)}"
    return given


def function_tool(tool: ToolSpec) -> Payload:
    """A tool as both OpenAI's API and Ollama's describe it."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }


def error_in(payload: Payload) -> ErrorReported | None:
    """The error that `payload` reports, if it does.

    `error` is a string at Ollama and sometimes at LM Studio, an object at the others; Ollama wraps
    llama-server's object, as JSON text, into its string.
    """
    error = payload.get("error")
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


def _nested(text: str) -> ErrorReported | None:
    if not text.startswith("{"):
        return None
    try:
        inner = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return error_in(inner) if isinstance(inner, dict) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**31 else None
