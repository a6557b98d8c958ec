"""Tools in a `ChatRequest`: notices calls that repeat, and describes tools in plain text. Pure.

A model may make the same call again and again. It is told so at the third result, and a fourth call
is an error. A chat template may have no place for tools: then the system message describes them,
and earlier calls and results become text. Finding calls in the text of an answer is left to
`wire.tool_text`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from llm_localrun.errors import PromptTooLong, RepeatedCall
from llm_localrun.system.text import printable, printable_json
from llm_localrun.tokens.count import Prompt
from llm_localrun.wire.request import ChatMessage, ChatRequest, PastCall, ToolSpec

_TOLD_AT = 3
"""The result at which the model is told that it repeats itself. Its next such call is an error."""
_NOTE = (
    f"\n\n[You have made this call {_TOLD_AT} times with the same arguments, and its result was the"
    " same each time. Do not make it again: answer with what you know, or make another call.]"
)
_MAX_ARGUMENTS = 200
"""Characters of the arguments that an error shows."""

# A description that is a JSON object like a call is taken for one and repeated.
_DESCRIPTION = """\
You can use these tools:

{}

To use a tool, answer with nothing but one JSON object, the name of the tool and its arguments:
{{"name": "TOOL", "arguments": {{"ARGUMENT": "VALUE"}}}}
You then get its result. If no tool helps, answer in words."""

_RETURNED = "The tool {} returned:"
_RESULT = "The result of {}:"
_ANSWER = "Use {} to answer my question, in a sentence or more."
"""With these words, Qwen 2.5 Coder 0.5B answers most often with what the tools returned."""
_RECALLED = "If one of the tools above helps, call it. Otherwise answer in words."
"""With names in it, small models write the first of them, or the invented one again."""


@dataclass(slots=True)
class _Run:
    """How often in a row a call has had the same result."""

    result: object = None
    count: int = 0


@dataclass(slots=True)
class Repeats:
    """The calls since the last question that have had the same result each time."""

    _runs: dict[tuple[str, str], _Run] = field(default_factory=dict)
    told_at: set[int] = field(default_factory=set)
    """Indexes of the messages that hold the third equal result of a call."""

    def check(self, model: str, name: str, arguments: Mapping[str, Any]) -> None:
        """Raises `RepeatedCall` if the model was told not to make this call again."""
        run = self._runs.get(_identity_of(name, arguments), _Run())
        if run.count < _TOLD_AT:
            return
        shown = printable_json(dict(arguments.items()))
        shown = shown if len(shown) <= _MAX_ARGUMENTS else f"{shown[:_MAX_ARGUMENTS]}…"
        raise RepeatedCall(
            f"{model} is in a loop: it has called {printable(name)} with {shown}"
            f" {run.count + 1} times, and the result was the same each time",
            "Ask in another way, leave out that tool, or choose another model",
        )

    @property
    def may_end_chain(self) -> bool:
        """Whether `check` may raise."""
        return any(run.count >= _TOLD_AT for run in self._runs.values())

    def add_turn(self, results: Mapping[tuple[str, str], Sequence[tuple[int, object]]]) -> None:
        """Counts the calls of one turn with their results, each with the index of its message.

        Equal calls in one turn count once: the model made them before it saw a result.
        """
        for call, found in results.items():
            run = self._runs.setdefault(call, _Run())
            first = found[0][1]
            is_one = all(result == first for _, result in found)
            same = is_one and run.result == first
            run.result, run.count = first, (run.count + 1 if same else int(is_one))
            if run.count == _TOLD_AT:
                self.told_at.add(found[-1][0])


def repeats_in(messages: Sequence[ChatMessage]) -> Repeats:
    """What repeats itself since the last question in `messages`."""
    repeats = Repeats()
    for index in range(_last_question(messages) + 1, len(messages)):
        calls = messages[index].calls
        if calls:
            repeats.add_turn(_results(calls, messages, index + 1))
    return repeats


def has_results(chat: ChatRequest) -> bool:
    """Whether tools have answered since the last question."""
    return any(m.role == "tool" for m in chat.messages[_last_question(chat.messages) + 1 :])


def answered_calls(messages: Sequence[ChatMessage]) -> set[tuple[str, str]]:
    """The calls, as `identity` has them, whose results are the last messages."""
    for index in range(len(messages) - 1, _last_question(messages), -1):
        if calls := messages[index].calls:
            return {*_results(calls, messages, index + 1)}
    return set()


def with_repeats_noted(chat: ChatRequest) -> ChatRequest:
    """The request, in which the third equal result of a call says so."""
    told_at = repeats_in(chat.messages).told_at
    if not told_at:
        return chat
    messages = (
        replace(m, text=m.text + _NOTE) if i in told_at else m for i, m in enumerate(chat.messages)
    )
    return replace(chat, messages=tuple(messages))


def naming_tools(error: PromptTooLong, chat: ChatRequest) -> PromptTooLong:
    """The error for a prompt that does not fit, which says so if most of it is tools."""
    prompt, tools = Prompt(chat), Prompt(replace(chat, messages=()))
    if 2 * sum(map(len, tools.texts)) <= sum(map(len, prompt.texts)):
        return error
    count = f"{len(chat.tools)} tools" if len(chat.tools) > 1 else "tool"
    remedy = error.remedy.removeprefix("Shorten it, or ")
    named = PromptTooLong(
        f"{error.problem}; most of it is its {count}",
        f"Offer fewer tools, or {remedy[0].lower()}{remedy[1:]}",
    )
    named.prompt_tokens, named.context_size = error.prompt_tokens, error.context_size
    return named


@contextmanager
def tools_named(chat: ChatRequest) -> Iterator[None]:
    """Makes the errors for a prompt that does not fit those of `naming_tools`."""
    try:
        yield
    except PromptTooLong as error:
        raise naming_tools(error, chat) from None


def with_tools_described(chat: ChatRequest) -> ChatRequest:
    """The request for a template that has no place for tools, in which it needs none."""
    messages = [*_without_calls(chat.messages)]
    if chat.tools:
        text = _DESCRIPTION.format("\n".join(map(_described, chat.tools)))
        if messages and messages[0].role == "system":
            first = messages.pop(0)
            text = f"{first.text}\n\n{text}"
        messages.insert(0, ChatMessage("system", text))
    return replace(chat, messages=tuple(messages), tools=())


def with_results_told(chat: ChatRequest) -> ChatRequest:
    """The request for an answer in words from what the tools have returned, without tools."""
    *before, last = _without_calls(chat.messages, _RESULT)
    if last.role != "user":
        before, last = [*before, last], ChatMessage("user", "")
    asked = _ANSWER.format("it" if chat.messages[-2].calls else "them")
    last = replace(last, text=f"{last.text}\n\n{asked}".lstrip())
    return replace(chat, messages=(*before, last), tools=(), calls_as_text=False)


def with_tools_recalled(chat: ChatRequest) -> ChatRequest:
    """The request in which the last question asks for one of the tools that are offered."""
    messages = [*chat.messages]
    index = _last_question(messages)
    asked = messages.pop(index) if index >= 0 else ChatMessage("user", "")
    asked = replace(asked, text=f"{asked.text}\n\n{_RECALLED}".lstrip())
    messages.insert(index if index >= 0 else len(messages), asked)
    return replace(chat, messages=tuple(messages))


def _last_question(messages: Sequence[ChatMessage]) -> int:
    """The index of the last message of the user; -1 if there is none.

    Media without a text after the result of a tool are the tool's.
    """
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        is_tools = index > 0 and messages[index - 1].role == "tool" and not message.text
        if message.role == "user" and not is_tools:
            return index
    return -1


def _results(
    calls: Sequence[PastCall], messages: Sequence[ChatMessage], start: int
) -> dict[tuple[str, str], list[tuple[int, object]]]:
    """The results of one turn's calls, which follow in `messages` from `start` on."""
    end = start
    while end < len(messages) and messages[end].role == "tool":
        end += 1
    # Media of which no result says whose they are.
    media = messages[end].media if messages[end : end + 1] and not messages[end].text else ()
    by_id = {(messages[i].call_id, messages[i].tool_name): i for i in range(start, end)}
    found: dict[tuple[str, str], list[tuple[int, object]]] = {}
    for call in calls:
        index = by_id.get((call.id, call.name))
        if index is not None:
            value = (_json_value(messages[index].text), media)
            found.setdefault(_identity_of(call.name, call.arguments), []).append((index, value))
    return found


def identity(name: str, arguments: str) -> tuple[str, str]:
    """What two calls have in common if they are the same; `arguments` is JSON text."""
    return name, _json_value(arguments)


def _identity_of(name: str, arguments: Mapping[str, Any]) -> tuple[str, str]:
    return identity(name, json.dumps(dict(arguments.items())))


def _json_value(text: str) -> str:
    """The same text for all JSON texts of one value; `text` itself if it is not JSON."""
    try:
        return json.dumps(json.loads(text, parse_float=_number), sort_keys=True)
    except (ValueError, RecursionError):
        return text


def _number(digits: str) -> float:
    number = float(digits)
    return int(number) if number.is_integer() else number


def _without_calls(
    messages: Sequence[ChatMessage], heading: str = _RETURNED
) -> Iterator[ChatMessage]:
    """The messages, in which calls are the text of an answer, and results one of the user."""
    results: ChatMessage | None = None
    for message in messages:
        if message.role == "tool":
            text = f"{heading.format(message.tool_name)}\n{message.text}"
            text = f"{results.text}\n\n{text}" if results else text
            results = ChatMessage("user", text)
            continue
        if results is not None and message.role == "user":
            # Many templates refuse two turns of the user in a row.
            text = f"{results.text}\n\n{message.text}" if message.text else results.text
            yield replace(message, text=text)
        else:
            yield from (results,) if results is not None else ()
            yield _with_calls_as_text(message)
        results = None
    if results is not None:
        yield results


def _with_calls_as_text(message: ChatMessage) -> ChatMessage:
    if not message.calls:
        return message
    calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in message.calls]
    text = json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)
    return replace(message, text=f"{message.text}\n{text}" if message.text else text, calls=())


def _described(tool: ToolSpec) -> str:
    schema = json.dumps(dict(tool.parameters), ensure_ascii=False)
    about = f"{tool.description}\n" if tool.description else ""
    return f'<tool name="{tool.name}">\n{about}Schema of its arguments: {schema}\n</tool>'
