"""Writes a reply's events into llm's response: text, reasoning, tool calls, usage and facts."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NoReturn

import llm
from llm.parts import StreamEvent
from typing_extensions import assert_never

from llm_localrun.models import LocalModel
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall


class _MalformedArguments(dict[str, Any]):
    """Arguments of a tool call that are no JSON object.

    llm unpacks them into the tool's own; that fails, and the model is told why.
    """

    def keys(self) -> NoReturn:
        raise ValueError(f"the arguments are not a JSON object: {self['_raw']}")

    def __iter__(self) -> NoReturn:
        self.keys()


class Recorder:
    """Writes a reply's events into llm's response."""

    def __init__(self, local: LocalModel, response: llm.Response | llm.AsyncResponse) -> None:
        self._local = local
        self._response = response
        self._begun = time.monotonic()
        self._time_to_first_token: float | None = None

    def record(self, event: Event) -> Iterator[StreamEvent]:
        """What llm is to be handed for `event`."""
        if self._time_to_first_token is None:
            self._time_to_first_token = time.monotonic() - self._begun
        if isinstance(event, TextDelta):
            yield StreamEvent(type="text", chunk=event.text)
        elif isinstance(event, ReasoningDelta):
            yield StreamEvent(type="reasoning", chunk=event.text)
        elif isinstance(event, ToolCall):
            yield from self._call(event)
        elif isinstance(event, Finished):
            self._finish(event)
        else:
            assert_never(event)

    def keep_what_has_come(self) -> bool:
        """Ends an interrupted answer in good order; False if nothing of it has come."""
        if self._time_to_first_token is None:
            return False
        self._finish(Finished(finish_reason="interrupted"))
        return True

    def _call(self, call: ToolCall) -> Iterator[StreamEvent]:
        """The events record the call; adding it is what makes llm run the tool."""
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
            self._response.set_resolved_model(finished.model)
        self._response.response_json = self._facts(finished)

    def _facts(self, finished: Finished) -> dict[str, Any]:
        endpoint = self._local.endpoint
        facts = {
            **asdict(finished),
            "time_to_first_token": self._time_to_first_token,
            "quantization": self._local.quantization or None,
            "endpoint": endpoint.name if endpoint else "gguf",
        }
        for counted in ("model", "prompt_tokens", "completion_tokens", "reasoning_tokens"):
            # llm keeps these in columns of its own.
            del facts[counted]
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in facts.items()
            if value is not None
        }


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else _MalformedArguments(_raw=text)
