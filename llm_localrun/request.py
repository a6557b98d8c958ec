"""llm's prompt to a `ChatRequest`: what is asked, in no wire language yet.

The messages come from `prompt.messages` alone, which holds the whole conversation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import llm
from llm.parts import Part, TextPart


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; `role` is system, user or assistant."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a backend is asked to answer."""

    messages: tuple[ChatMessage, ...]
    options: Mapping[str, Any]
    """The options that the user set, by llm-localrun's names."""
    stream: bool


def chat_request(prompt: llm.Prompt, *, stream: bool) -> ChatRequest:
    """What `prompt` asks for."""
    return ChatRequest(
        messages=tuple(_with_system(_messages(prompt.messages), prompt.system)),
        options=prompt.options.model_dump(exclude_none=True),
        stream=stream,
    )


def _messages(messages: Sequence[llm.Message]) -> list[ChatMessage]:
    chat = [ChatMessage(message.role, _text(message.parts)) for message in messages]
    return [message for message in chat if message.text]


def _text(parts: Sequence[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def _with_system(messages: list[ChatMessage], system: str | None) -> list[ChatMessage]:
    """Lets a system prompt given for this turn take the place of the conversation's.

    llm keeps the first one in `prompt.messages` when `-c -s NEW` gives another.
    """
    systems = [message for message in messages if message.role == "system"]
    if not system or any(message.text == system for message in systems):
        return messages
    if not systems:
        return [ChatMessage("system", system), *messages]
    return [
        replace(message, text=system) if message is systems[0] else message for message in messages
    ]
