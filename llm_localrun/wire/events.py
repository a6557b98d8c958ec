"""The events of a response: a closed union.

A response is any number of deltas and tool calls and then exactly one `Finished`. A response that
ends early raises an error and has no `Finished`; after an answer that is not the JSON that was
asked for, an error follows it. Making events is left to the decoders of `openai`
and `ollama`, writing them into llm's response to `chat.response`.
"""

from dataclasses import dataclass
from typing import TypeAlias

from llm_localrun.system.progress import Progress

CUT_OFF = "cut off"
"""The `finish_reason` of an answer that its server ended without one, or that was not read on."""
READING = "reading the prompt"
WAITING = Progress("waiting for the answer")
GENERATING = Progress("generating")
WRITING_CALL = Progress("writing a tool call")
"""What a model does of whose answer nothing can be shown yet."""


def share_of(what: str, share: float | None) -> Progress:
    """`what` is being done, of which a share between 0 and 1 is done; None if unknown."""
    return Progress(what) if share is None else Progress(what, round(100 * share), 100, "%")


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the model's thinking; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model calls a tool. Always complete, with an id that no other call has.

    `arguments` is what the model wrote: JSON text, possibly malformed.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a response, with what the server reported about it; None means not reported.

    Tokens are counts, times are seconds, rates are tokens per second.
    """

    finish_reason: str
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    load_seconds: float | None = None
    prompt_tokens_per_second: float | None = None
    generation_tokens_per_second: float | None = None
    context_size: int | None = None
    remote_host: str | None = None
    """The machine that the server passed the prompt on to."""
    tool_repair: bool | None = None
    """True if the answer makes up for a tool call that was not valid, or not due."""


Event: TypeAlias = TextDelta | ReasoningDelta | ToolCall | Finished
