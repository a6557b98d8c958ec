"""One HTTP response, from its head and its bytes to events, or to an error that says what to do.

Pure: the two loops in `chat.run` push what `wire.http` receives. Whatever a server
sends wrongly becomes an error message here. What a payload means is left to the decoders of
`wire.openai` and `wire.ollama`.
"""

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from llm_localrun.errors import (
    BadReply,
    LocalRunError,
    PromptTooLong,
    ServerRefused,
    WrongModel,
)
from llm_localrun.system.json_files import parse_json
from llm_localrun.system.progress import Progress
from llm_localrun.wire.events import (
    CUT_OFF,
    GENERATING,
    WRITING_CALL,
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCall,
)
from llm_localrun.wire.json_answer import JsonAnswer
from llm_localrun.wire.request import ToolSpec
from llm_localrun.wire.shapes import (
    CutOff,
    ErrorReported,
    Overflow,
    error_in,
    template_error_in,
    without_halves,
)
from llm_localrun.wire.sse import Framing, Malformed, Payload, WholeBody, excerpt, framing_for
from llm_localrun.wire.think_tags import NOT_EXPECTED, Thinking, ThinkTags
from llm_localrun.wire.tool_text import ToolText

_MAX_ERROR_BODY = 64 * 2**10
_MAX_MESSAGE = 2**12
"""Characters of what a server says that are shown."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The status and the Content-Type of a response."""

    status: int
    content_type: str


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """A whole reply. `payload` is its JSON, or None if it is not JSON; `text` is its beginning."""

    status: int
    payload: Any
    text: str


class Ask(Protocol):
    """Asks a server for JSON: GETs `path`, or POSTs `json` to it. None if no reply came in time."""

    def __call__(self, path: str, json: Payload | None = None) -> ProbeReply | None: ...


_Shape = TypeVar("_Shape", bound=BaseModel)


def parse_reply(shape: type[_Shape], reply: ProbeReply | None) -> _Shape | None:
    """The reply as a `shape`; None if there is none, or if it is something else."""
    if reply is None or reply.status != 200:
        return None
    try:
        return shape.model_validate(reply.payload)
    except ValidationError:
        return None


class PayloadDecoder(Protocol):
    """Decodes the payloads of one response in one wire language."""

    @property
    def model(self) -> str | None:
        """The model that answers, according to what has been decoded so far."""

    @property
    def progress(self) -> Progress | None:
        """What the server does before it answers, as it said last; None if it did not say."""

    def feed(self, payload: Payload) -> Sequence[Event]:
        """The events in `payload`. Raises like `shapes.parse_payload`."""

    def close(self) -> Iterator[Event]:
        """The events that the regular end of the response completes. Raises `shapes.CutOff`."""


@dataclass(frozen=True, slots=True)
class ResponseContext:
    """What is known of a response before it comes."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Finished` that the server need not report."""
    find_overflow: Callable[[str], Overflow | None] = lambda _message: None
    """Finds in an error's text that the request does not fit the context."""
    on_overflow: Callable[[Overflow, str], LocalRunError] | None = None
    """Makes the error for a request that does not fit, from that and from what the server says."""
    model: str = ""
    """The model that has to answer."""
    is_other_model: Callable[[str], bool] | None = None
    """Whether the name in a reply is that of another model than `model`; None to accept any."""
    is_json: bool = False
    """Whether the text has to be JSON."""
    may_be_no_json: bool = False
    """Whether that is asked for again if the text is something else."""
    other_template: str = "choose another model"
    """How to use another chat template."""
    schema: Mapping[str, Any] | None = None
    """What the JSON has to follow; None for any object."""
    thinking: Thinking = NOT_EXPECTED
    """The tags between which the text may hold thinking."""
    tools: tuple[ToolSpec, ...] = ()
    """The tools of which the text may be calls."""
    is_answered: Callable[[str, str], bool] = lambda _name, _arguments: False
    """Whether a call was answered by the last messages of the request."""
    holds_unknown: bool = False
    """Whether calls of tools that are not offered are held, because they may be asked for again."""
    secrets: Collection[str] = field(default=(), repr=False)
    """Keys and the like, which servers repeat in their errors and which must not be shown."""
    login_source: str = ""
    """Where the user has written the user and password that it is sent; "" if it is sent none."""
    key_name: str = ""
    """What `llm keys` calls its key; "" if it has none."""


_MIN_SECRET = 8
"""Characters from which on a secret is no part of other words."""
_MIN_SIGNS = 3
"""The same, of one that contains punctuation, which every text has."""


_HALF = re.compile("[\ud800-\udfff]")


class _Halves:
    """Joins a character whose surrogates come in two deltas; one that comes alone is U+FFFD."""

    def __init__(self) -> None:
        self._half: TextDelta | ReasoningDelta | None = None

    def feed(self, event: Event) -> Iterable[Event]:
        if isinstance(event, TextDelta | ReasoningDelta):
            is_whole = self._half is None and not _HALF.search(event.text)
            return (event,) if is_whole else self._joined(event)
        return self._joined(event)

    def _joined(self, event: Event) -> Iterator[Event]:
        half, self._half = self._half, None
        if half is not None and type(half) is type(event):
            event = replace(event, text=half.text + event.text)
        elif half is not None:
            yield replace(half, text=without_halves(half.text))
        if isinstance(event, TextDelta | ReasoningDelta):
            whole = event.text
            if "\ud800" <= whole[-1] <= "\udbff":
                self._half, whole = replace(event, text=whole[-1]), whole[:-1]
            event = replace(event, text=without_halves(whole))
            if not whole:
                return
        elif isinstance(event, ToolCall):
            event = replace(event, arguments=without_halves(event.arguments))
        yield event


class ResponseDecoder:
    """Decodes one response. Messages call its sender `server`."""

    def __init__(self, server: str, decoder: PayloadDecoder, context: ResponseContext) -> None:
        self._server = server
        self._decoder = decoder
        self._context = context
        self._think = ThinkTags(context.thinking)
        self._halves = _Halves()
        self._tool_text = ToolText(
            context.tools, context.is_answered, holds_unknown=context.holds_unknown
        )
        self._json: JsonAnswer | None = None
        if context.is_json:
            self._json = JsonAnswer(context.schema, may_be_other=context.may_be_no_json)
        self._words: list[str] = []
        """The text, if it may be calls or the JSON that is wanted."""
        self.has_found_calls = False
        """At the end: whether the calls were in the text, and the server did not find them."""
        self._accepted: str | None = None
        """The name in the reply that has been accepted as that of the model."""
        self._has_begun = False
        """Whether a part of the answer has come, which may be held."""
        self._framing: Framing = WholeBody()
        self._refused: ResponseHead | None = None
        self._body = bytearray()

    @property
    def progress(self) -> Progress | None:
        """What the server does, as it said last or as what it sends shows; None if nothing does."""
        said = self._decoder.progress
        return GENERATING if self._has_begun and said is not WRITING_CALL else said

    @property
    def note(self) -> str:
        """At the end: what the user has to know about the answer; "" for nothing."""
        return self._json.note if self._json else ""

    @property
    def broken_call(self) -> ToolSpec | None:
        """At the end: the tool that the answer looks like a call of, though it is no valid one."""
        # If any object is an answer, a call that is not valid is one.
        is_any_object = self._context.is_json and self._context.schema is None
        return None if is_any_object else self._tool_text.broken

    @property
    def unknown_tools(self) -> tuple[str, ...]:
        """At the end: the tools that are not offered, if the answer is nothing but calls."""
        return self._tool_text.unknown

    @property
    def has_endless_calls(self) -> bool:
        """Whether the text is so many calls that the rest need not be read."""
        return self._tool_text.is_endless

    def feed(self, received: ResponseHead | bytes) -> Iterator[Event]:
        """The events that `received` completes. Raises a `LocalRunError`."""
        if isinstance(received, ResponseHead):
            self._start(received)
        elif self._refused is None:
            return self._decoded(lambda: self._framing.feed(received))
        else:
            self._body += received[:_MAX_ERROR_BODY]
            if len(self._body) >= _MAX_ERROR_BODY:
                # It may never end.
                raise self._refusal(self._refused)
        return iter(())

    def close(self) -> Iterator[Event]:
        """The events at the end of the response. Raises a `LocalRunError`."""
        if self._refused is not None:
            raise self._refusal(self._refused)
        yield from self._decoded(self._framing.close)
        try:
            for event in self._decoder.close():
                self._check_model()
                yield from self._split(event)
        except CutOff:
            yield from self.flush()
            raise self._bad("an answer that ends before it is complete") from None

    def leave(self) -> Iterator[Event]:
        """The events at the end of an answer that is not read further. Raises `AnswerNotJson`."""
        end = Finished(CUT_OFF)
        for part in self._thought(end):
            if part is not end:
                yield from self._passed(self._tool_text.feed(part))
        known = replace(end, **self._context.facts)
        yield from self._passed(chain(self._tool_text.leave(), [known]))

    def flush(self) -> Iterator[Event]:
        """What is held back of an answer that ends here, before it is complete."""
        for part in self._thought(Finished(CUT_OFF)):
            if not isinstance(part, Finished):
                yield from self._passed(self._tool_text.feed(part))
        yield from self._passed(self._tool_text.flush())
        if self._json:
            yield from self._json.flush()

    def _split(self, event: Event) -> Iterator[Event]:
        for part in self._thought(event):
            is_end = isinstance(part, Finished)
            known = replace(part, **self._context.facts) if is_end else part
            if self._json and self._context.tools and isinstance(part, TextDelta):
                self._words.append(part.text)
            if is_end and self._json and self._json.names_all_of("".join(self._words)):
                yield from self._passed(self._tool_text.flush())
            found = self._tool_text.feed(known)
            yield from self._passed(self._noticed(found) if is_end else found)

    def _noticed(self, found: Iterable[Event]) -> Iterator[Event]:
        for event in found:
            self.has_found_calls = self.has_found_calls or isinstance(event, ToolCall)
            yield event

    def _thought(self, event: Event) -> Iterable[Event]:
        return chain.from_iterable(map(self._think.feed, self._halves.feed(event)))

    def _passed(self, parts: Iterable[Event]) -> Iterable[Event]:
        return chain.from_iterable(map(self._json.feed, parts)) if self._json else parts

    def _check_model(self) -> None:
        """Some servers answer with whichever model is loaded, and name it only in the response."""
        answers, is_other = self._decoder.model, self._context.is_other_model
        if answers == self._accepted or is_other is None:
            return
        if answers and is_other(answers):
            raise WrongModel(
                f"{self._server} answers with the model {answers} instead of {self._context.model}",
                f"Have it serve {self._context.model}, or run the other one:"
                " `llm localrun models` lists it",
            )
        self._accepted = answers

    def _start(self, head: ResponseHead) -> None:
        framing = framing_for(head.content_type)
        if head.status >= 300 or framing is None:
            self._refused = head
        else:
            self._framing = framing

    def _decoded(self, payloads: Callable[[], Iterable[Payload]]) -> Iterator[Event]:
        try:
            for payload in payloads():
                events = self._decoder.feed(payload)
                self._check_model()
                for event in events:
                    self._has_begun = True
                    yield from self._split(event)
            return
        except Malformed as error:
            failure: LocalRunError = self._bad(str(error))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            failure = self._bad(f"an answer whose {where} is not what its API says")
        except ErrorReported as error:
            failure = self._reported(error)
        yield from self.flush()
        raise failure

    def _refusal(self, head: ResponseHead) -> LocalRunError:
        payload = parse_json(self._body)
        error = error_in(payload) if isinstance(payload, dict) else None
        said = excerpt(bytes(self._body))
        if error is None and head.status < 300:
            kind = head.content_type or "data without a type"
            return self._bad(f"{kind} instead of an answer" + (f": {said}" if said else ""))
        if error is None and isinstance(payload, dict) and isinstance(payload.get("detail"), str):
            # FastAPI's own errors.
            error = ErrorReported(payload["detail"])
        error = error or ErrorReported(said or "no reason given")
        return self._reported(error, head.status)

    def _reported(self, error: ErrorReported, status: int | None = None) -> LocalRunError:
        message = self._without_secrets(error.message)
        if reason := template_error_in(message)[:_MAX_MESSAGE]:
            return ServerRefused(
                f"The model's chat template refuses these messages: {reason}",
                f"Begin a new conversation, or {self._context.other_template}",
            )
        number = f"HTTP {status}" if status else ""
        message = " ".join(message[:_MAX_MESSAGE].rstrip(".").split())
        if _INTERNAL.match(message):
            return self._failed_internally(message, status, number)
        said = f"{self._server} says: {message}" + (f" ({number})" if number else "")
        if overflow := error.overflow or self._context.find_overflow(error.message):
            if self._context.on_overflow:
                return self._context.on_overflow(overflow, said)
            return PromptTooLong(said, "Shorten it, or use a larger context")
        refused = ServerRefused(said, _remedy(error.message, status, self._context))
        refused.status = status
        said = f" {' '.join(error.message.lower().split())}"
        refused.lacks = next((what for words, what in _LACKS.items() if words in said), "")
        return refused

    def _failed_internally(self, message: str, status: int | None, number: str) -> ServerRefused:
        """The error for a name from C++, which says nothing to a user."""
        is_memory = "bad_alloc" in message
        failed = ServerRefused(
            f"{self._server} failed internally ({', '.join(filter(None, (message, number)))})",
            "It got no more memory: free some, or use a smaller context or model"
            if is_memory
            else "The model's file may be damaged, or too new for it: download the file again, or"
            f" install a newer version of {self._server}",
        )
        failed.status = status
        lasting = f"{self._server} fails internally with it: {message}"
        return failed.with_load_problem("" if is_memory else lasting)

    def _without_secrets(self, text: str) -> str:
        """`text` without secrets; short ones may be parts of other words, which stay."""
        for secret in self._context.secrets:
            if len(secret) < _MIN_SIGNS and not secret.isalnum():
                continue
            edge = r"\b" if len(secret) < _MIN_SECRET and secret.isalnum() else ""
            text = re.sub(f"{edge}{re.escape(secret)}{edge}", "…", text, flags=re.IGNORECASE)
        return text

    def _bad(self, what: str) -> BadReply:
        return BadReply(
            f"{self._server} sent {self._without_secrets(what)}",
            "Try again; if it happens again, check whether another program uses its port",
        )


_Decoded = TypeVar("_Decoded")


@dataclass(slots=True)
class _ValueDecoder(Generic[_Decoded]):
    """A decoder of responses whose payloads are values, not events."""

    decode: Callable[[Payload], _Decoded]
    values: list[_Decoded] = field(default_factory=list)
    model: str | None = None
    progress: Progress | None = None

    def feed(self, payload: Payload) -> Sequence[Event]:
        self.values.append(self.decode(payload))
        named = payload.get("model")
        self.model = named if isinstance(named, str) else self.model
        return ()

    def close(self) -> Iterator[Event]:
        if not self.values:
            raise CutOff
        return iter(())


def decode_each(
    server: str,
    received: Iterable[ResponseHead | bytes],
    decode: Callable[[Payload], _Decoded],
    context: ResponseContext,
) -> Iterator[_Decoded]:
    """What `decode` makes of each payload of a response, as it comes. Raises a `LocalRunError`."""
    values = _ValueDecoder(decode)
    response = ResponseDecoder(server, values, context)
    count = 0
    for piece in received:
        list(response.feed(piece))
        yield from values.values[count:]
        count = len(values.values)
    list(response.close())
    yield from values.values[count:]


def decode_whole(
    server: str,
    received: Iterable[ResponseHead | bytes],
    decode: Callable[[Payload], _Decoded],
    context: ResponseContext,
) -> _Decoded:
    """What `decode` makes of a response that is one JSON object. Raises a `LocalRunError`."""
    return list(decode_each(server, received, decode, context))[-1]


def _remedy(message: str, status: int | None, context: ResponseContext) -> str:
    """What to do about an error: its text says more than its number."""
    for words, remedy in _REMEDIES_BY_TEXT.items():
        if words in f" {' '.join(message.lower().split())}":
            return remedy
    if context.login_source and status in (401, 403):
        return f"Correct the user and password in {context.login_source}"
    if status in (401, 403):
        name = f" {shlex.quote(context.key_name)}" if context.key_name else ""
        return f"Give its key with --key, or store it with `llm keys set{name}`"
    return _REMEDIES.get(status or 0, "The server's own log says more")


_INTERNAL = re.compile(
    r"std::|_Map_base|(?:unordered_)?(?:map|vector|array|deque|bitset|basic_string|string)(?:::|$)"
    r"|sto(?:i|l|ll|ul|ull|f|d|ld)$"
    r"|invalid (?:sto\w+ argument|(?:unordered_map|map|vector|string) )"
    r"|bad[_ ](?:alloc|array|cast|function|optional|variant|any)|_M_range_check"
)
"""Errors that C++'s library throws (libstdc++, libc++, Microsoft's): their names are no reasons."""

_BLIND = ("image input is not supported", "does not support image", "at most 0 image")
_DEAF = ("audio input is not supported", "does not support audio", "at most 0 audio")
_NO_MEDIA = (
    "Choose a model that can see or hear what you attach: `llm localrun recommend --for vision`"
)
_LACKS = {
    "does not support tools": "tools",
    "does not support thinking": "thinking",
    **dict.fromkeys(_BLIND, "vision"),
    **dict.fromkeys(_DEAF, "audio"),
}
"""The capabilities that models lack, by words of errors."""
_REMEDIES_BY_TEXT = {
    # Not the json_schema of a complaint about response_format.
    " schema": "Simplify the schema: objects, lists, strings, numbers and enums work everywhere",
    "grammar": "Fix the grammar: llama.cpp's folder grammars/ has examples",
    "does not support tools": "Choose a model that calls tools",
    "output that does not match": "The model's tool call is incomplete: try again, or use a larger"
    " -o max_tokens",
    "does not support thinking": "Leave out -o think, or choose a model that thinks",
    **dict.fromkeys(_BLIND, "Choose a model that can see"),
    **dict.fromkeys(_DEAF, "Choose a model that can hear"),
    "not a multimodal model": _NO_MEDIA,
    "only 'text' content type": _NO_MEDIA,
    "pull model manifest": "Check the name at https://ollama.com/library, and the network",
    "failed to load image": "Check that the file is a complete PNG, JPEG, WebP or GIF",
    "context size has been exceeded": "Other prompts fill it at the moment: try again later",
}

_REMEDIES = {
    404: "`llm localrun models` lists what it serves",
    503: "It is loading or busy: try again in a moment",
}
