"""What every backend produces while it answers: a closed union of events.

A reply is any number of deltas and then exactly one `Finished`. A reply that breaks off has no
`Finished`: it raises.
"""

from dataclasses import dataclass
from typing import TypeAlias


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
    """The model asks for a tool. Always whole, with an id that no other call has.

    `arguments` is what the model wrote: JSON text, or what was to be JSON.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a reply, with what the server reported about it; None where it did not say.

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


Event: TypeAlias = TextDelta | ReasoningDelta | ToolCall | Finished
