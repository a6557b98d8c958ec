"""Writes the events of an answer into llm's response: text, reasoning, tool calls and statistics.

llm logs what `ResponseRecorder` puts into `response_json`, `usage` and `resolved_model`. Getting
the events is left to `run`.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, NoReturn

import click
import llm
from click.globals import pop_context
from llm.parts import StreamEvent
from typing_extensions import assert_never

from llm_localrun.chat.interrupts import COMMANDS
from llm_localrun.chat.tools import Repeats
from llm_localrun.errors import AnswerNotJson, NoToolCall, RepeatedCall
from llm_localrun.models import LocalModel, Route, Served
from llm_localrun.system.json_files import parse_json
from llm_localrun.system.progress import quiet, tell
from llm_localrun.system.text import printable
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall

_LLM_COLUMNS = ("model", "prompt_tokens", "completion_tokens", "reasoning_tokens")
"""Fields of `Finished` that llm's log has columns for."""


class _MalformedArguments(dict[str, Any]):
    """Arguments of a tool call that are not a JSON object: `{"_raw": "the model's text"}`.

    When llm unpacks them for the tool, an exception is raised. llm sends its text to the model.
    """

    def keys(self) -> NoReturn:
        raise ValueError(f"the arguments are not a JSON object: {self['_raw']}")

    def __iter__(self) -> NoReturn:
        self.keys()


def end_line(last: Event | None, *, is_streamed: bool) -> None:
    """Ends the line that llm has begun with `last`, if a message would follow it on the same line.

    llm's commands print text to stdout, and reasoning to stderr unless it is hidden.
    """
    command = click.get_current_context(silent=True)
    if command is None or command.info_name not in COMMANDS or not is_streamed:
        return
    if not isinstance(last, TextDelta | ReasoningDelta) or last.text.endswith("\n"):
        return
    is_text = isinstance(last, TextDelta)
    is_shown = is_text or not command.params.get("hide_reasoning")
    if is_shown and (not is_text or sys.stdout.isatty()):
        quiet()
        click.echo(err=not is_text)


class ResponseRecorder:
    """Writes the events of an answer into llm's response."""

    def __init__(
        self,
        model: LocalModel,
        route: Route,
        response: llm.Response | llm.AsyncResponse,
        repeats: Repeats,
    ) -> None:
        self._model_id = model.id
        self._response = response
        self._repeats = repeats
        self._calls: list[ToolCall] = []
        """What llm is told at the end, if one of them may end the chain."""
        self._facts = {
            "quantization": model.quantization or None,
            "endpoint": route.endpoint.name if isinstance(route, Served) else "gguf",
        }
        self._started_at = time.monotonic()
        self._time_to_first_token: float | None = None
        self._last: Event | None = None

    def record(self, event: Event) -> Iterable[StreamEvent]:
        """Records `event`; yields what `execute` must yield to llm for it."""
        if self._time_to_first_token is None:
            self._time_to_first_token = time.monotonic() - self._started_at
        self._last = event
        if isinstance(event, TextDelta):
            return (StreamEvent(type="text", chunk=event.text),)
        if isinstance(event, ReasoningDelta):
            return (StreamEvent(type="reasoning", chunk=event.text),)
        return self._record(event)

    def _record(self, event: ToolCall | Finished) -> Iterator[StreamEvent]:
        if isinstance(event, ToolCall) and self._repeats.may_end_chain:
            self._calls.append(event)
        elif isinstance(event, ToolCall):
            yield from self._call(event)
        elif isinstance(event, Finished):
            self._finish(event)
            for call in self._calls:
                self._repeats.check(self._model_id, call.name, _arguments(call.arguments))
            for call in self._calls:
                yield from self._call(call)
        else:
            assert_never(event)

    @contextmanager
    def errors_below(self, *, is_streamed: bool) -> Iterator[None]:
        """Around the events: lets an error begin on a line of its own."""
        try:
            yield
        except Exception:
            end_line(self._last, is_streamed=is_streamed)
            raise

    def finish_interrupted(self) -> bool:
        """Completes the response of an interrupted answer; False if no event has arrived yet."""
        if self._time_to_first_token is None:
            return False
        self._finish(Finished(finish_reason="interrupted"))
        return True

    @contextmanager
    def failure_kept(self) -> Iterator[None]:
        """If an answer came that cannot be used: lets llm log it, then shows the error.

        llm logs nothing if `execute` raises. So `llm prompt` ends with the error when it has
        logged the answer, and `llm chat` shows it and goes on. Other programs get it raised.
        """
        try:
            yield
        except (AnswerNotJson, NoToolCall, RepeatedCall) as error:
            logged = self._response.response_json or {}
            self._response.response_json = {**logged, "error": error.message}
            command = click.get_current_context(silent=True)
            name = command.info_name if command else None
            if command and name == "prompt":
                command.call_on_close(partial(end_command, error))
            elif name == "chat":
                tell()
                tell(f"Error: {error.message}")
            else:
                raise

    def _call(self, call: ToolCall) -> Iterator[StreamEvent]:
        """llm logs a call from the events, and runs the tool because of `add_tool_call`."""
        arguments = _arguments(call.arguments)
        chunk = json.dumps(dict(arguments.items()))
        yield StreamEvent(type="tool_call_name", chunk=call.name, tool_call_id=call.id)
        yield StreamEvent(type="tool_call_args", chunk=chunk, tool_call_id=call.id)
        self._response.add_tool_call(llm.ToolCall(call.name, arguments, call.id))

    def _finish(self, finished: Finished) -> None:
        details = {
            name: count
            for name in ("cached_tokens", "reasoning_tokens")
            if (count := getattr(finished, name))
        }
        self._response.set_usage(
            input=finished.prompt_tokens, output=finished.completion_tokens, details=details or None
        )
        if finished.model:
            self._response.set_resolved_model(printable(finished.model))
        self._response.response_json = self._statistics(finished)

    def _statistics(self, finished: Finished) -> dict[str, Any]:
        """`{"finish_reason": "stop", "time_to_first_token": 0.1234, "endpoint": "ollama", …}`."""
        statistics = {
            **asdict(finished),
            "time_to_first_token": self._time_to_first_token,
            **self._facts,
        }
        return {
            name: _logged(value)
            for name, value in statistics.items()
            if value is not None and name not in _LLM_COLUMNS
        }


def _logged(value: Any) -> Any:
    """A value of the statistics as llm's log has it, from which llm prints it as it is."""
    if isinstance(value, float):
        return round(value, 4)
    return printable(value) if isinstance(value, str) else value


def end_command(error: Exception) -> NoReturn:
    """Raises `error` while click closes the context of a command, and so ends the command."""
    # click would leave the context in its stack.
    pop_context()
    raise error


def _arguments(text: str) -> dict[str, Any]:
    arguments = parse_json(text)
    return arguments if isinstance(arguments, dict) else _MalformedArguments(_raw=text)
