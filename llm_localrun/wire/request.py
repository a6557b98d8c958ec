"""llm's prompt to a `ChatRequest`: what is asked, in no wire language yet.

The messages come from `prompt.messages` alone, which holds the whole conversation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_localrun.wire.media import Media


@dataclass(frozen=True, slots=True)
class PastCall:
    """A tool that the model asked for in an earlier turn."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; `role` is system, user, assistant or tool.

    `reasoning` is what is to be handed back to the model: its thinking since the last question.
    `call_id` and `tool_name` say which call a tool's result answers.
    """

    role: str
    text: str
    media: tuple[Media, ...] = ()
    calls: tuple[PastCall, ...] = ()
    reasoning: str = ""
    call_id: str = ""
    tool_name: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.text or self.media or self.calls or self.role == "tool")


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """A tool that the model may ask for; `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a backend is asked to answer."""

    messages: tuple[ChatMessage, ...]
    options: Mapping[str, Any]
    """The options that the user set, by llm-localrun's names."""
    stream: bool
    tools: tuple[ToolOffer, ...] = ()
    schema: Mapping[str, Any] | None = None
    """The JSON schema that the answer has to follow."""
    conversation: str = ""
    """The id under which llm logs it; "" if it does not, and then nobody may keep it."""
