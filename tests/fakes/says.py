"""What the model of a fake says, and OpenAI's encoding of it."""

import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.fakes.http_server import chunk, head

Json = dict[str, Any]
Pieces = Iterator[bytes | float]
ReasoningIn = Literal["reasoning_content", "reasoning", "think", "unopened think"]

_TOKEN = 4
"""Characters of a token of these models."""


@dataclass(frozen=True)
class Call:
    """A tool call of a model; a string of arguments is sent as it is."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The arguments, as compact as LM Studio writes them."""
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(self.arguments, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Says:
    """What a model says to one request."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    fails_after: int | None = None
    """How many chunks are streamed before it fails; unstreamed, it fails at once."""
    failure: str = "The model has crashed without additional information. (Exit code: 6)"
    pause: float = 0.0
    """Seconds before each chunk."""

    @property
    def tokens(self) -> int:
        of_calls = sum(count_tokens(call.name) + count_tokens(call.text) for call in self.calls)
        return count_tokens(self.reasoning) + count_tokens(self.text) + of_calls

    def fields(self, reasoning_in: ReasoningIn) -> dict[str, str]:
        """The fields of the message; reasoning arrives in one of three ways (docs, seen)."""
        if not self.reasoning:
            return {"content": self.text}
        if reasoning_in in ("reasoning_content", "reasoning"):
            return {reasoning_in: self.reasoning, "content": self.text}
        opening = "<think>" if reasoning_in == "think" else ""
        return {"content": f"{opening}{self.reasoning}</think>{self.text}"}


def in_turn(*replies: Says) -> Callable[[Json], Says]:
    """Says each of `replies` once, whatever the requests are."""
    waiting = deque(replies)
    return lambda _body: waiting.popleft()


def count_tokens(text: str) -> int:
    return -(-len(text) // _TOKEN)


class Completion:
    """A reply to a chat request, as OpenAI's servers encode it.

    `ids` are the numbers for its id and for those of its calls.
    """

    def __init__(
        self,
        model: str,
        says: Says,
        reasoning_in: ReasoningIn,
        ids: Iterator[int],
        prompt_tokens: int,
    ) -> None:
        self._fields = says.fields(reasoning_in)
        self._says = says
        self._call_ids = [str(next(ids)) for _ in says.calls]
        self._finish_reason = "tool_calls" if says.calls else "stop"
        self._head = {
            "id": f"chatcmpl-{next(ids)}",
            "created": 1763900000,
            "model": model,
            "system_fingerprint": model,
        }
        self._usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": says.tokens,
            "total_tokens": prompt_tokens + says.tokens,
            "completion_tokens_details": {"reasoning_tokens": count_tokens(says.reasoning)},
        }

    def whole(self) -> Json:
        """The reply in one piece. Where there are only calls, there is no content (docs)."""
        message: Json = {"role": "assistant", **self._fields}
        if self._says.calls:
            message = {name: text for name, text in message.items() if text}
            message["tool_calls"] = [
                {"id": id_, "type": "function", "function": _function(call, call.text)}
                for call, id_ in zip(self._says.calls, self._call_ids, strict=True)
            ]
        choice = {"message": message, "finish_reason": self._finish_reason}
        return self._object("chat.completion", [choice], usage=self._usage)

    def streamed(self, with_usage: bool) -> Pieces:
        """Server-sent events; a failure is one, too, in a reply that succeeds (seen)."""
        yield head("text/event-stream")
        for delta in itertools.islice(self._deltas(), self._says.fails_after):
            if self._says.pause:
                yield float(self._says.pause)
            yield self._chunk(delta, None)
        if self._says.fails_after is None:
            yield self._chunk({}, self._finish_reason)
            if with_usage:
                yield _event(self._object("chat.completion.chunk", [], usage=self._usage))
            yield chunk(b"data: [DONE]\n\n")
        else:
            failure = {"message": self._says.failure, "type": "internal_error"}
            yield _event({"error": failure}, b"event: error\n")
        yield b"0\r\n\r\n"

    def _object(self, kind: str, choices: list[Json], **more: Any) -> Json:
        usual = {"index": 0, "logprobs": None}
        return {
            **self._head,
            "object": kind,
            "choices": [{**usual, **choice} for choice in choices],
            **more,
        }

    def _chunk(self, delta: Json, finish_reason: str | None) -> bytes:
        choice = {"delta": delta, "finish_reason": finish_reason}
        return _event(self._object("chat.completion.chunk", [choice]))

    def _deltas(self) -> Iterator[Json]:
        """Each delta of a text has the role (seen)."""
        for name, text in self._fields.items():
            for start in range(0, len(text), _TOKEN):
                yield {"role": "assistant", name: text[start : start + _TOKEN]}
        for index, (call, id_) in enumerate(zip(self._says.calls, self._call_ids, strict=True)):
            for fragment in _fragments(call, id_):
                yield {"tool_calls": [{"index": index, **fragment}]}


def _fragments(call: Call, id_: str) -> Iterator[Json]:
    """Docs: tool use, streaming. Only the first fragment has id, type and name."""
    yield {"id": id_, "type": "function", "function": _function(call, "")}
    for piece in re.findall(r"\w[\w ]*|\W+", call.text):
        yield {"function": {"arguments": piece}}


def _function(call: Call, arguments: str) -> Json:
    return {"name": call.name, "arguments": arguments}


def _event(payload: Json, before: bytes = b"") -> bytes:
    return chunk(before + f"data: {json.dumps(payload)}\n\n".encode())
