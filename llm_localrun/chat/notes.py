"""What the user is told about an answer on stderr, besides errors.

Printing it below what is already shown is left to `run`.
"""

import json
import shlex
from collections.abc import Collection, Iterable

from llm_localrun.catalogue import record_place
from llm_localrun.chat.attempts import Ending
from llm_localrun.chat.expected import template_thinking
from llm_localrun.config import read_config
from llm_localrun.models import LocalModel
from llm_localrun.privacy import requires_consent
from llm_localrun.servers.base import PreparedRequest, ServeRequest, is_malformed_call
from llm_localrun.system.json_files import parse_json
from llm_localrun.system.program import runnable
from llm_localrun.system.progress import tell
from llm_localrun.tokens.estimate import least_plausible
from llm_localrun.tokens.window import MIN_CONTEXT_TOKENS, describe_cut_answer
from llm_localrun.wire.call_schema import SHORT_LIST, SHORT_TEXT, reached_limit
from llm_localrun.wire.events import CUT_OFF, Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.request import ChatRequest
from llm_localrun.wire.shapes import function_tool


def report_departure(model: LocalModel, prepared: PreparedRequest, remote_host: str) -> None:
    """Says that a server has passed on a prompt that was to stay, and records where to."""
    if not remote_host or requires_consent(model) or model.id in read_config().allow:
        return
    host = record_place(model, remote_host).remote_host
    note = (
        f"{prepared.server.label} passed this prompt on to {host}: {model.id} does not run on this"
        " machine any more. llm-localrun will not send it another one, unless you allow that:"
        f" `llm localrun allow {shlex.quote(model.id)}`."
    )
    tell(runnable(note))


def note(request: ServeRequest, prepared: PreparedRequest, finished: Finished) -> str:
    """What the user has to know about a finished answer; "" if there is nothing."""
    if _was_cut(request, prepared, finished):
        return (
            f"{prepared.server.label} read {finished.prompt_tokens:,} tokens of a prompt of about"
            f" {request.prompt.estimate({}).tokens:,}: it may have cut it. Install a newer version."
        )
    if finished.finish_reason == CUT_OFF:
        hint = prepared.server.cut_off_hint
        early = f"{prepared.server.label} ended the answer early without a reason."
        return f"{early} {hint}." if hint else early
    limit, answer = request.options.get("max_tokens"), finished.completion_tokens
    if finished.finish_reason != "length" or (limit and (answer is None or answer >= limit)):
        return ""
    is_counted = answer is not None and finished.prompt_tokens is not None
    used = (finished.prompt_tokens or 0) + (answer or 0) if is_counted else None
    return describe_cut_answer(used, prepared.context_size, prepared.limits)


def note_without_answer(
    request: ServeRequest,
    prepared: PreparedRequest,
    finished: Finished,
    kinds: Collection[type[Event]],
) -> str:
    """What to do if the model has thought and said nothing; "" if it has answered."""
    if finished.finish_reason == "tool_calls" and ToolCall not in kinds:
        # mlx_lm 0.32.2 and TabbyAPI drop what they cannot read.
        return (
            f"{prepared.server.label} reports a tool call, but sent none: it may not have been able"
            f" to read what {request.model.id} wrote. Try again, or choose another model."
        )
    if ReasoningDelta not in kinds or TextDelta in kinds or ToolCall in kinds:
        return ""
    ways = []
    if finished.finish_reason == "length":
        ways.append("Use a larger -o max_tokens")
    if _can_stop_thinking(request, prepared):
        ways.append("use -o think off" if ways else "Use -o think off")
    advice = ", or ".join(ways) or "Try again, or choose another model"
    return (
        f"{request.model.id} stopped while it was thinking ({finished.finish_reason}) and gave no"
        f" answer. {advice}."
    )


def _can_stop_thinking(request: ServeRequest, prepared: PreparedRequest) -> bool:
    """Whether `-o think off` would have an effect, as far as is known."""
    model = request.model
    if request.options.get("think") == "off" or "think" not in prepared.server.options:
        return False
    template = template_thinking(request, prepared)[0]
    if model.think_levels is not None:
        return "off" in model.think_levels
    return template is None or template.has_switch


_MANY_TOOLS = 20_000
"""Bytes of JSON from which on tools take a slow machine a minute."""
_BYTES_PER_TOKEN = 3.5
"""Of tools: 226 tokens for 800 bytes, with Qwen's tokens."""


def note_of_tools(chat: ChatRequest) -> str:
    """What the user has to know before the model reads many tools; "" for a few."""
    size = sum(len(json.dumps(function_tool(tool))) for tool in chat.tools)
    if size < _MANY_TOOLS:
        return ""
    return (
        f"The {len(chat.tools)} tools take about {size / _BYTES_PER_TOKEN:,.0f} tokens of the"
        " prompt, which the model has to read first. Offer fewer for a quicker answer."
    )


def note_of_repair(model: str, ending: Ending, *, is_plain: bool) -> str:
    """What the user has to know if a model is asked once more; `is_plain`: for words, not calls."""
    wrote = f"wrote a call of {ending.broken.name}" if ending.broken else "wrote a call"
    if ending.again:
        wrote = f"made the same call of {ending.again} again"
    elif ending.unknown:
        verb = "is" if len(ending.unknown) == 1 else "are"
        wrote = f"wrote a call of {' and '.join(ending.unknown)}, which {verb} not offered"
    elif is_plain:
        wrote = f"{wrote} instead of an answer"
    elif ending.is_endless:
        wrote = f"{wrote} and did not come to an end"
    elif is_malformed_call(ending.error):
        wrote = "wrote a call that the server could not read"
    elif ending.broken:
        wrote = f"{wrote} that is not valid"
    else:
        wrote = "did not make the call that it had to"
    return f"{model} {wrote}; it was asked once more{', without tools' if is_plain else ''}."


def note_of_end(model: str) -> str:
    """What the user has to know if an answer was not read to its end."""
    return f"{model} did not come to an end: its answer was cut."


def note_of_equal_calls(model: str, names: Collection[str]) -> str:
    """What the user has to know if calls were left out; "" if none were."""
    if not names:
        return ""
    return f"{model} made the same call of {' and '.join(names)} more than once: it counts once."


def note_of_limits(model: str, events: Iterable[Event]) -> str:
    """What the user has to know if limits have ended arguments; "" if they have not."""
    calls = [event for event in events if isinstance(event, ToolCall)]
    names = [call.name for call in calls if reached_limit(parse_json(call.arguments))]
    if not names:
        return ""
    return (
        f"{model} did not end the arguments of {names[0]}: they were cut to {SHORT_TEXT} characters"
        f" in each text, and {SHORT_LIST} items in each list."
    )


def _was_cut(request: ServeRequest, prepared: PreparedRequest, finished: Finished) -> bool:
    """Whether the server read fewer tokens than the prompt can have.

    A server that leaves out cached tokens, as Ollama did before 0.30, mostly reports few; so only a
    report that fills a good part of the context counts.
    """
    tokens = finished.prompt_tokens
    if tokens is None or prepared.server.counts_prompts:
        return False
    return (
        (prepared.context_size or MIN_CONTEXT_TOKENS) // 8
        < tokens
        < least_plausible(request.prompt.parts)
    )
