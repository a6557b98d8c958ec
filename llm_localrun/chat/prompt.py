"""llm's prompt to a `ChatRequest`.

The messages come from `prompt.messages` alone, which holds the whole conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import llm
from llm.parts import (
    AttachmentPart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

from llm_localrun.wire.media import Media
from llm_localrun.wire.request import ChatMessage, ChatRequest, PastCall, ToolSpec


class Load(Protocol):
    """Reads an attachment; `may_fetch` is whether the user has given it, and so its address."""

    def __call__(self, attachment: llm.Attachment, *, may_fetch: bool) -> Media: ...


def chat_request(
    prompt: llm.Prompt,
    load: Load,
    *,
    stream: bool,
    schema: Mapping[str, Any] | None = None,
    conversation: str = "",
) -> ChatRequest:
    """What `prompt` asks for; `schema` is the one of its conversation where it has none.

    `load` reads an attachment.
    """
    messages = _with_system(_messages(prompt.messages, load), prompt.system)
    return ChatRequest(
        messages=tuple(message for message in messages if not message.is_empty),
        options=prompt.options.model_dump(exclude_none=True),
        stream=stream,
        tools=tuple(_offer(tool) for tool in prompt.tools if isinstance(tool, llm.Tool)),
        schema=prompt.schema if isinstance(prompt.schema, dict) else schema,
        conversation=conversation,
    )


def _offer(tool: llm.Tool) -> ToolSpec:
    parameters = {"type": "object", "properties": {}, **(tool.input_schema or {})}
    return ToolSpec(tool.name, tool.description or "", parameters)


def _messages(messages: Sequence[llm.Message], load: Load) -> list[ChatMessage]:
    """Thinking is handed back only in a chain of tool calls, as the models' templates expect."""
    last_question = max((i for i, m in enumerate(messages) if _is_question(m)), default=-1)
    chat: list[ChatMessage] = []
    for place, message in enumerate(messages):
        if message.role == "tool":
            chat += [_tool_result(p) for p in message.parts if _is_own(p, ToolResultPart)]
            continue
        turn = ChatMessage(
            role=message.role,
            text=_joined(message.parts, TextPart),
            media=_media(message.parts, load, may_fetch=not _follows_tool(messages, place)),
            calls=tuple(_call(part) for part in message.parts if _is_own(part, ToolCallPart)),
            reasoning=_joined(message.parts, ReasoningPart) if place > last_question else "",
        )
        chat.append(turn)
    return chat


def _is_question(message: llm.Message) -> bool:
    return message.role == "user" and any(isinstance(part, TextPart) for part in message.parts)


def _joined(parts: Sequence[Part], kind: type[TextPart | ReasoningPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, kind))


def _is_own(part: Part, kind: type[ToolCallPart | ToolResultPart]) -> bool:
    """Whether `part` is of `kind` and was run here: a cloud's own tools mean nothing to us."""
    return isinstance(part, kind) and not part.server_executed


def _follows_tool(messages: Sequence[llm.Message], place: int) -> bool:
    """Whether a message holds what a tool has attached to its result: llm puts it behind that."""
    follows = place > 0 and messages[place - 1].role == "tool"
    return follows and not _is_question(messages[place])


def _media(parts: Sequence[Part], load: Load, *, may_fetch: bool) -> tuple[Media, ...]:
    attachments = (part.attachment for part in parts if isinstance(part, AttachmentPart))
    return tuple(
        load(attachment, may_fetch=may_fetch)
        for attachment in attachments
        if attachment is not None
    )


def _call(part: Part) -> PastCall:
    assert isinstance(part, ToolCallPart)
    # Another provider may have kept what is no JSON object.
    arguments: Any = part.arguments
    known = arguments if isinstance(arguments, dict) else {"_raw": arguments}
    return PastCall(part.tool_call_id or "", part.name, known)


def _tool_result(part: Part) -> ChatMessage:
    assert isinstance(part, ToolResultPart)
    text = part.output if isinstance(part.output, str) else str(part.output)
    return ChatMessage(
        "tool", text or part.exception or "", call_id=part.tool_call_id or "", tool_name=part.name
    )


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
