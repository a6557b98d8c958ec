"""One HTTP reply, from its head and its bytes to events or an error that says what to do.

Pure: the two loops in `backends` push what the transport received. This is where everything that
a server can say wrongly becomes a sentence for people.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from llm_localrun.errors import AnswerCutOff, BadReply, LocalRunError, ServerRefused
from llm_localrun.tokens.window import FIXED, Limits, Size, too_long
from llm_localrun.wire.dialects import Decoder
from llm_localrun.wire.events import Event, Finished, TextDelta, ToolCall
from llm_localrun.wire.shapes import CutOff, ErrorReported, error_in
from llm_localrun.wire.sse import Framing, Malformed, Payload, WholeBody, excerpt, framing_for
from llm_localrun.wire.think_tags import ThinkTags

_MAX_ERROR_BODY = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a reply."""

    status: int
    content_type: str


@dataclass(frozen=True, slots=True)
class Question:
    """A request of discovery: GET `path`, or POST `body` there if there is one."""

    path: str
    body: Payload | None = None


class OutOfTime(Exception):
    """No more questions will be answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply to a question of discovery; `payload` is None unless it is JSON."""

    status: int
    payload: Any
    text: str


_Shape = TypeVar("_Shape", bound=BaseModel)


def read(shape: type[_Shape], answer: Answer) -> _Shape | None:
    """The answer as a `shape`; None if it is not one."""
    if answer.status != 200:
        return None
    try:
        return shape.model_validate(answer.payload)
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a reply before it comes.

    `facts` are fields of `Finished` that the server need not be asked for, `limits` are what the
    context can be made.
    `model` is who has to answer, "" if the server knows but one. `json`: the text has to be JSON.
    `thinking`: the model is known to think. `secret` is a key, which servers like to repeat and
    which must not be shown.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = FIXED
    model: str = ""
    json: bool = False
    thinking: bool = False
    secret: str = ""


class Reply:
    """Decodes one reply.

    `server` is how messages name who sent it.
    """

    def __init__(self, server: str, decoder: Decoder, expected: Expected) -> None:
        self._server = server
        self._decoder = decoder
        self._expected = expected
        self._think = ThinkTags(may_lack_opening=expected.thinking)
        self._text: list[str] = []
        self._called = False
        self._framing: Framing = WholeBody()
        self._refused: Head | None = None
        self._body = bytearray()

    def feed(self, received: Head | bytes) -> Iterator[Event]:
        """The events that `received` completes. Raises a `LocalRunError`."""
        if isinstance(received, Head):
            self._start(received)
        elif self._refused is None:
            yield from self._decoded(lambda: self._framing.feed(received))
        elif len(self._body) < _MAX_ERROR_BODY:
            self._body += received

    def close(self) -> Iterator[Event]:
        """The events at the end of the reply. Raises a `LocalRunError`."""
        if self._refused is not None:
            raise self._refusal(self._refused)
        yield from self._decoded(self._framing.close)
        try:
            for event in self._decoder.close():
                self._check_model()
                yield from self._split(event)
        except CutOff:
            raise self._bad("an answer that ends before it is complete") from None

    def _split(self, event: Event) -> Iterator[Event]:
        for part in self._think.feed(event):
            if isinstance(part, Finished):
                self._check_json(part)
                yield replace(part, **self._expected.facts)
                continue
            if isinstance(part, TextDelta) and self._expected.json:
                self._text.append(part.text)
            self._called = self._called or isinstance(part, ToolCall)
            yield part

    def _check_model(self) -> None:
        """LM Studio may answer with whichever model is loaded, and say so only in passing."""
        asked, answers = self._expected.model, self._decoder.model
        if not asked or not answers or _same_model(asked, answers):
            return
        raise ServerRefused(
            f"{self._server} answers with the model {answers} instead of {asked}",
            f"Load {asked} there first, or run the other one",
        )

    def _check_json(self, finished: Finished) -> None:
        """A limit may end JSON in the middle; a model that asks for a tool has not answered yet."""
        if not self._expected.json or self._called:
            return
        if finished.finish_reason == "stop":
            return
        try:
            json.loads("".join(self._text))
        except (ValueError, RecursionError):
            raise AnswerCutOff(
                f"The answer ended ({finished.finish_reason}) before its JSON was complete",
                "Give it room with a larger -o max_tokens, or a larger -o context_size",
            ) from None

    def _start(self, head: Head) -> None:
        framing = framing_for(head.content_type)
        if head.status >= 300 or framing is None:
            self._refused = head
        else:
            self._framing = framing

    def _decoded(self, payloads: Callable[[], Iterable[Payload]]) -> Iterator[Event]:
        try:
            for payload in payloads():
                for event in self._decoder.feed(payload):
                    self._check_model()
                    yield from self._split(event)
        except Malformed as error:
            raise self._bad(str(error)) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            raise self._bad(f"an answer whose {where} is not what its API says") from None
        except ErrorReported as error:
            raise self._reported(error) from None

    def _refusal(self, head: Head) -> LocalRunError:
        try:
            payload = json.loads(self._body)
        except (ValueError, RecursionError):
            payload = None
        error = error_in(payload) if isinstance(payload, dict) else None
        if error is not None:
            return self._reported(error, head.status)
        if head.status < 300:
            kind = head.content_type or "something without a type"
            said = excerpt(bytes(self._body))
            return self._bad(f"{kind} instead of an answer" + (f": {said}" if said else ""))
        said = excerpt(bytes(self._body))
        return self._reported(ErrorReported(said or "no reason given"), head.status)

    def _reported(self, error: ErrorReported, status: int | None = None) -> LocalRunError:
        if error.prompt_tokens is not None and error.context_size is not None:
            size = Size(error.prompt_tokens, is_exact=True)
            return too_long(size, self._server, error.context_size, self._expected.limits)
        number = f" (HTTP {status})" if status else ""
        said = self._shown(error.message).rstrip(".")
        return ServerRefused(f"{self._server} says: {said}{number}", _remedy(error.message, status))

    def _shown(self, text: str) -> str:
        secret = self._expected.secret
        return text.replace(secret, "…") if secret else text

    def _bad(self, what: str) -> BadReply:
        return BadReply(
            f"{self._server} sent {self._shown(what)}",
            "Try again; if it stays so, look whether another program has its port",
        )


_Decoded = TypeVar("_Decoded")


@dataclass(slots=True)
class _Whole(Generic[_Decoded]):
    """A decoder of replies that hold one value and no events."""

    decode: Callable[[Payload], _Decoded]
    decoded: _Decoded | None = None
    model: str | None = None

    def feed(self, payload: Payload) -> Iterator[Event]:
        self.decoded = self.decode(payload)
        return iter(())

    def close(self) -> Iterator[Event]:
        if self.decoded is None:
            raise CutOff
        return iter(())


def decode_whole(
    server: str,
    received: Iterable[Head | bytes],
    decode: Callable[[Payload], _Decoded],
    secret: str,
) -> _Decoded:
    """What `decode` makes of a reply that is one JSON object. Raises a `LocalRunError`."""
    whole = _Whole(decode)
    reply = Reply(server, whole, Expected(secret=secret))
    for piece in received:
        list(reply.feed(piece))
    list(reply.close())
    assert whole.decoded is not None
    return whole.decoded


@dataclass(slots=True)
class _Lines(Generic[_Decoded]):
    """A decoder of replies whose payloads are values of their own, and no events."""

    decode: Callable[[Payload], _Decoded]
    decoded: list[_Decoded] = field(default_factory=list)
    model: str | None = None

    def feed(self, payload: Payload) -> Iterator[Event]:
        self.decoded.append(self.decode(payload))
        return iter(())

    def close(self) -> Iterator[Event]:
        return iter(())

    def take(self) -> list[_Decoded]:
        taken, self.decoded = self.decoded, []
        return taken


def decode_lines(
    server: str,
    received: Iterable[Head | bytes],
    decode: Callable[[Payload], _Decoded],
    secret: str,
) -> Iterator[_Decoded]:
    """What `decode` makes of each payload of a reply, as it comes. Raises a `LocalRunError`."""
    lines = _Lines(decode)
    reply = Reply(server, lines, Expected(secret=secret))
    for piece in received:
        list(reply.feed(piece))
        yield from lines.take()
    list(reply.close())
    yield from lines.take()


def _remedy(message: str, status: int | None) -> str:
    """What helps against an error, by its text, which tells more than its number."""
    for words, remedy in _REMEDIES_BY_TEXT.items():
        if words in f" {' '.join(message.lower().split())}":
            return remedy
    return _REMEDIES.get(status or 0, "Look into the server's own log for more")


_REMEDIES_BY_TEXT = {
    # Not the json_schema of a complaint about response_format.
    " schema": "Simplify the schema: objects, lists, strings, numbers and enums work everywhere",
    "grammar": "Mend the grammar: llama.cpp's own folder grammars/ shows how it is written",
    "does not support tools": "Choose another model: `llm models --tools` lists those that do",
    "does not support thinking": "Leave out -o think, or choose a model that thinks",
    "image input is not supported": "Choose a model that can see",
    "audio input is not supported": "Choose a model that can hear",
    "pull model manifest": "Check the name at https://ollama.com/library, and the network",
    "failed to load image": "Look whether the file is a whole PNG, JPEG, WebP or GIF",
    "input length exceeds": "Split the text, or choose a model with a larger context",
    "is too large to process": "Split the text, or choose a model with a larger context",
    "larger than the max context": "Split the text, or choose a model with a larger context",
    "context size has been exceeded": "Other prompts fill it at the same time: try again later",
}

_REMEDIES = {
    401: "Give its key with --key, or store it with `llm keys set`",
    403: "Give its key with --key, or store it with `llm keys set`",
    404: "`llm localrun models` lists what it serves",
    503: "It is loading or busy: try again in a moment",
}


def _same_model(asked: str, answers: str) -> bool:
    """Whether two names of LM Studio's mean one model: `KEY@VARIANT` and `KEY:2` are of KEY."""
    return re.split(r"[@:]", asked.lower())[0] == re.split(r"[@:]", answers.lower())[0]
