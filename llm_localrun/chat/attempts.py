"""Which requests a question takes: how it is asked first, and how it is asked again.

`-o tool_choice` and `-o tool_repair` are decided here. Pure: sending a request and showing its
answer is left to `run`, the schema of a call to `wire.call_schema`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property
from typing import Any

from llm_localrun.chat.tools import (
    answered_calls,
    has_results,
    identity,
    with_results_told,
    with_tools_recalled,
)
from llm_localrun.errors import AnswerNotJson, LocalRunError, NoToolCall, UnsupportedOption
from llm_localrun.servers.base import CallForcing, Server, is_malformed_call, refuses_tools
from llm_localrun.wire.call_schema import call_schema
from llm_localrun.wire.events import CUT_OFF
from llm_localrun.wire.request import ChatRequest, ToolSpec


class Aim(Enum):
    """What a request leaves the model to answer."""

    ANYTHING = auto()
    JSON = auto()
    """Nothing but the JSON that is wanted."""
    CALL = auto()
    """Nothing but the call of a tool."""
    SHORT_CALL = auto()
    """The same, with limits on all arguments."""
    ANOTHER_CALL = auto()
    """Anything, but only a call counts: the model has called a tool that is not offered."""
    WORDS = auto()
    """No call: the model reads what the tools have returned as text, and is offered none."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to ask a question."""

    aim: Aim
    sent: ChatRequest
    wanted: ChatRequest
    """What the answer is read as an answer to: JSON, or text that may be calls of its tools."""
    must_call: tuple[ToolSpec, ...] = ()
    """The tools of which the answer has to call one."""
    is_repair: bool = False
    """Whether it makes up for an answer that may be shown instead."""
    describes_tools: bool = False
    """Whether the model reads the tools as text, because its template has no place for them."""
    follows_refusal: bool = False
    """Whether the server has just refused the tools in another form."""

    @property
    def callable_tools(self) -> tuple[ToolSpec, ...]:
        """The tools whose calls count."""
        return self.must_call or self.wanted.tools

    @property
    def may_be_no_json(self) -> bool:
        """Whether JSON is wanted, and the server lets the model answer as it likes."""
        return wants_json(self.wanted) and not wants_json(self.sent)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer has ended of which the last part is not shown yet."""

    error: LocalRunError | None = None
    finish_reason: str = ""
    has_text: bool = False
    """Whether text of it has been shown."""
    has_called: bool = False
    again: str = ""
    """The tool of a call, found in its text, that has just been answered."""
    broken: ToolSpec | None = None
    """The tool of which it looks like a call, though it is not a valid one."""
    unknown: tuple[str, ...] = ()
    """The tools that are not offered, if it looks like calls of them."""
    is_endless: bool = False
    """Whether it repeats itself where it was not read on."""

    @property
    def is_cut(self) -> bool:
        return self.is_endless or self.finish_reason in ("length", CUT_OFF)


@dataclass(frozen=True)
class Attempts:
    """The ways to ask a question of a kind of server."""

    chat: ChatRequest
    server: type[Server]
    describes_tools: bool = False
    """As in `Attempt`."""

    @property
    def may_repair(self) -> bool:
        return bool(self.chat.options.get("tool_repair", True))

    def is_answered(self, name: str, arguments: str) -> bool:
        """Whether a call has the result that the chat ends with; `arguments` is JSON text."""
        return identity(name, arguments) in self._answered

    @cached_property
    def _answered(self) -> set[tuple[str, str]]:
        return answered_calls(self.chat.messages)

    def asks_about_unknown(self, attempt: Attempt) -> bool:
        """Whether an answer that looks like calls of tools that are not offered is asked about."""
        is_json = wants_json(self.chat) or bool(attempt.must_call)
        return self.may_repair and not is_json and not has_results(self.chat)

    def first(self) -> Attempt:
        """The question as it is asked first."""
        return replace(self._first(), describes_tools=self.describes_tools)

    def after(self, attempt: Attempt, ending: Ending) -> Attempt | None:
        """How the question is asked again; None if the answer counts."""
        if self._refuses_tools(attempt, ending):
            # With a format, the server leaves them in the text already.
            is_text = attempt.sent.calls_as_text or wants_json(attempt.sent)
            as_text = bool(self.server.text_choice) and not is_text
            sent = replace(attempt.sent, calls_as_text=as_text)
            return replace(attempt, sent=sent, describes_tools=not as_text, follows_refusal=True)
        following = self._after(attempt, ending)
        return following and replace(following, describes_tools=attempt.describes_tools)

    def _first(self) -> Attempt:
        forced = _forced_tools(self.chat)
        if forced and self.server.call_forcing is CallForcing.SCHEMA:
            return self._call(forced, Aim.CALL)
        free = _without_format(self.chat)
        if forced:
            return Attempt(Aim.ANYTHING, free, free, forced)
        # Made to answer in JSON, a model cannot call a tool: a grammar has no place for a call.
        is_either = self.server.accepts_schemas and self.chat.tools and wants_json(self.chat)
        return Attempt(Aim.ANYTHING, free if is_either else self.chat, self.chat)

    def _after(self, attempt: Attempt, ending: Ending) -> Attempt | None:
        malformed = is_malformed_call(ending.error)
        has_called = ending.has_called and not ending.again
        if has_called or not (malformed or isinstance(ending.error, AnswerNotJson | None)):
            return None
        if attempt.aim is Aim.CALL and ending.is_cut:
            short = self._call(attempt.must_call, Aim.SHORT_CALL)
            return replace(short, is_repair=attempt.is_repair)
        if attempt.aim is not Aim.ANYTHING:
            return None
        repaired = self._repaired(attempt, ending, malformed=malformed)
        if repaired and self.may_repair:
            return replace(repaired, is_repair=True)
        if ending.error and attempt.may_be_no_json and not (ending.has_text or malformed):
            return Attempt(Aim.JSON, self.chat, self.chat)
        return None

    def _repaired(self, attempt: Attempt, ending: Ending, *, malformed: bool) -> Attempt | None:
        """What makes up for an answer that looks like calls, or lacks one; None if nothing can."""
        if ending.unknown:
            return replace(attempt, aim=Aim.ANOTHER_CALL, sent=with_tools_recalled(attempt.sent))
        if not has_results(self.chat):
            called = attempt.must_call or tuple(filter(None, [ending.broken]))
            called = called or (self.chat.tools if malformed else ())
            return self._call(called, Aim.CALL) if called and self.server.accepts_schemas else None
        if not (malformed or ending.broken or ending.is_endless or ending.again):
            return None
        # Small models write the call again that was answered, and invent others: to force one
        # of them would do what nobody asked for. As text, they read the results.
        plain = with_results_told(self.chat)
        return Attempt(Aim.WORDS, plain, replace(self.chat, tools=()))

    def _refuses_tools(self, attempt: Attempt, ending: Ending) -> bool:
        """Whether the server refuses the tools, which it may take in another form."""
        if ending.has_text or attempt.describes_tools or not attempt.sent.tools:
            return False
        return refuses_tools(ending.error, has_format=wants_json(attempt.sent))

    def _call(self, tools: tuple[ToolSpec, ...], aim: Aim) -> Attempt:
        wanted = _without_format(self.chat, "tool_choice")
        schema = call_schema(tools, is_short=aim is Aim.SHORT_CALL)
        # What it says is held in any case, and an endless one can be left.
        sent = replace(wanted, schema=schema, stream=True)
        return Attempt(aim, sent, wanted, tools)


def wants_json(chat: ChatRequest) -> bool:
    """Whether the answer has to be JSON."""
    return chat.schema is not None or bool(chat.options.get("json_object"))


def settle_tools(chat: ChatRequest, server: type[Server]) -> ChatRequest:
    """The request with the tools that the model may call.

    Its option `tool_choice` is left only if a call is required now. Raises `UnsupportedOption`.
    """
    choice = chat.options.get("tool_choice", "auto")
    freely = replace(chat, options=_without(chat.options, "tool_choice"))
    if choice == "auto":
        return freely
    if choice == "none":
        return replace(freely, tools=())
    names = [tool.name for tool in chat.tools]
    if not names:
        raise UnsupportedOption(
            f"-o tool_choice {choice} needs tools, and none are offered",
            "Add them with -T NAME or --functions, or use -o tool_choice auto",
        )
    if choice != "required" and choice not in names:
        raise UnsupportedOption(
            f"-o tool_choice {choice} names no tool that is offered",
            f"Use auto, required, none, or one of {', '.join(names)}",
        )
    if server.call_forcing is CallForcing.NONE:
        raise UnsupportedOption(
            f"{server.title} cannot make a model call a tool",
            "Leave out -o tool_choice, or choose a model of another server",
        )
    # Otherwise it would call tools without end.
    return freely if has_results(chat) else chat


def no_call(model: str, tools: Sequence[ToolSpec], ending: Ending) -> NoToolCall:
    """The error for an answer without the call that `-o tool_choice` asks for."""
    names = " or ".join(tool.name for tool in tools)
    if ending.is_endless:
        why, remedy = ": its arguments did not end", "Try another model"
    elif ending.is_cut:
        why = f": the answer ended ({ending.finish_reason}) before it was complete"
        remedy = "Use a larger -o max_tokens, or a larger -o context_size"
    else:
        why, remedy = "", "Ask for it in the prompt too, or try another model"
    return NoToolCall(f"{model} made no valid call of {names}{why}", remedy)


def _forced_tools(chat: ChatRequest) -> tuple[ToolSpec, ...]:
    choice = chat.options.get("tool_choice")
    return tuple(tool for tool in chat.tools if choice in ("required", tool.name))


def _without_format(chat: ChatRequest, *more: str) -> ChatRequest:
    return replace(chat, schema=None, options=_without(chat.options, "json_object", *more))


def _without(options: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}
