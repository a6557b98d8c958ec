"""Converts llm's prompt to a `ChatRequest`.

`prompt.messages` holds the whole conversation, so the messages come from there alone. Reading
attachments is left to `attachments`, sending the request to `run`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import llm
from llm.parts import (
    AttachmentPart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

from llm_localrun.wire.request import ChatMessage, ChatRequest, Media, PastCall, ToolSpec

_ToolPart = TypeVar("_ToolPart", ToolCallPart, ToolResultPart)


class Load(Protocol):
    """Reads an attachment. `may_fetch`: the user gave it, so its URL may be fetched."""

    def __call__(self, attachment: llm.Attachment, *, may_fetch: bool) -> Media: ...


def chat_request(
    prompt: llm.Prompt,
    load: Load,
    *,
    stream: bool,
    schema: Mapping[str, Any] | None = None,
    conversation: str = "",
) -> ChatRequest:
    """The request for `prompt`.

    `load` reads an attachment. `schema` applies if the prompt has none of its own. `conversation`
    is the id under which llm logs it, "" if it does not.
    """
    messages = _with_system(_messages(prompt.messages, load), prompt.system)
    return ChatRequest(
        messages=tuple(message for message in messages if not message.is_empty),
        options=prompt.options.model_dump(exclude_none=True),
        stream=stream,
        tools=tuple(_tool_offer(tool) for tool in prompt.tools if isinstance(tool, llm.Tool)),
        schema=prompt.schema if isinstance(prompt.schema, dict) else schema,
        conversation=conversation,
    )


def with_missing_turns(request: ChatRequest) -> ChatRequest:
    """The request with an empty turn wherever a question or an answer is missing.

    llm keeps no message of a turn without text. Then two questions or two answers would follow each
    other, which the templates of Gemma and Mistral refuse.
    """
    messages: list[ChatMessage] = []
    for message in request.messages:
        # After the result of a tool, media without a text belong to it.
        others = ("user", "tool") if message.text else ("user",)
        last = messages[-1].role if messages else ""
        if message.role == "user" and last in others:
            messages.append(ChatMessage("assistant", ""))
        elif message.role == "assistant" and last not in ("user", "tool"):
            messages.append(ChatMessage("user", ""))
        messages.append(message)
    return replace(request, messages=tuple(messages))


def _tool_offer(tool: llm.Tool) -> ToolSpec:
    parameters = {"type": "object", "properties": {}, **(tool.input_schema or {})}
    return ToolSpec(tool.name, tool.description or "", parameters)


def _messages(messages: Sequence[llm.Message], load: Load) -> list[ChatMessage]:
    """Reasoning is sent back only within a chain of tool calls, as the models' templates expect."""
    last_question = max((i for i, m in enumerate(messages) if _is_question(m)), default=-1)
    chat: list[ChatMessage] = []
    for index, message in enumerate(messages):
        if message.role == "tool":
            chat += [_tool_result(part) for part in _local(message.parts, ToolResultPart)]
            continue
        turn = ChatMessage(
            role=message.role,
            text=_joined(message.parts, TextPart),
            media=_media(message.parts, load, may_fetch=not _follows_tool(messages, index)),
            calls=tuple(map(_call, _local(message.parts, ToolCallPart))),
            reasoning=_joined(message.parts, ReasoningPart) if index > last_question else "",
        )
        chat.append(turn)
    return chat


def _is_question(message: llm.Message) -> bool:
    return message.role == "user" and any(isinstance(part, TextPart) for part in message.parts)


def _joined(parts: Sequence[Part], kind: type[TextPart | ReasoningPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, kind))


def _local(parts: Sequence[Part], kind: type[_ToolPart]) -> Iterator[_ToolPart]:
    """The parts of `kind` that belong to tools that llm ran, not to a provider's own."""
    return (part for part in parts if isinstance(part, kind) and not part.server_executed)


def _follows_tool(messages: Sequence[llm.Message], index: int) -> bool:
    """Whether a message holds the attachments of a tool: llm puts them after the tool's result."""
    follows = index > 0 and messages[index - 1].role == "tool"
    return follows and not _is_question(messages[index])


def _media(parts: Sequence[Part], load: Load, *, may_fetch: bool) -> tuple[Media, ...]:
    return tuple(
        load(part.attachment, may_fetch=may_fetch)
        for part in parts
        if isinstance(part, AttachmentPart) and part.attachment is not None
    )


def _call(part: ToolCallPart) -> PastCall:
    # In llm's log, the arguments of another provider's call may be something else than an object.
    logged: Any = part.arguments
    arguments = logged if isinstance(logged, dict) else {"_raw": logged}
    return PastCall(part.tool_call_id or "", part.name, arguments)


def _tool_result(part: ToolResultPart) -> ChatMessage:
    text = part.output if isinstance(part.output, str) else str(part.output)
    return ChatMessage(
        "tool", text or part.exception or "", call_id=part.tool_call_id or "", tool_name=part.name
    )


def _with_system(messages: list[ChatMessage], system: str | None) -> list[ChatMessage]:
    """Replaces the conversation's system prompt if this turn has another.

    With `-c -s NEW`, `prompt.messages` still contains the conversation's first system prompt.
    """
    systems = [message for message in messages if message.role == "system"]
    if not system or any(message.text == system for message in systems):
        return messages
    if not systems:
        return [ChatMessage("system", system), *messages]
    return [
        replace(message, text=system) if message is systems[0] else message for message in messages
    ]
