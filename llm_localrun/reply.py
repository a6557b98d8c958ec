"""One HTTP reply, from its head and its bytes to events or an error that says what to do.

Pure: the two loops in `backends` push what the transport received. This is where everything that
a server can say wrongly becomes a sentence for people.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from llm_localrun.dialects import Decoder
from llm_localrun.dialects.wire import CutOff, ErrorReported, error_in
from llm_localrun.errors import BadReply, LocalRunError, PromptTooLong, ServerRefused
from llm_localrun.events import Event, Finished
from llm_localrun.framing import Framing, Malformed, Payload, WholeBody, excerpt, framing_for

_MAX_ERROR_BODY = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a reply."""

    status: int
    content_type: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply to a question of discovery; `payload` is None unless it is a JSON object."""

    status: int
    payload: Payload | None
    text: str


class Reply:
    """Decodes one reply.

    `server` is how messages name who sent it; `facts` are fields of `Finished` that are known
    without asking it; `largest_context` is what -o context_size can make of its context, in
    tokens: 0 if it cannot be set from here. `secret` is a key, which servers like to repeat and
    which must not be shown.
    """

    def __init__(
        self,
        server: str,
        decoder: Decoder,
        facts: Mapping[str, Any],
        largest_context: float,
        secret: str = "",
    ) -> None:
        self._server = server
        self._secret = secret
        self._largest_context = largest_context
        self._decoder = decoder
        self._facts = facts
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
                yield replace(event, **self._facts) if isinstance(event, Finished) else event
        except CutOff:
            raise self._bad("an answer that ends before it is complete") from None

    def _start(self, head: Head) -> None:
        framing = framing_for(head.content_type)
        if head.status >= 300 or framing is None:
            self._refused = head
        else:
            self._framing = framing

    def _decoded(self, payloads: Callable[[], Iterable[Payload]]) -> Iterator[Event]:
        try:
            for payload in payloads():
                yield from self._decoder.feed(payload)
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
            return PromptTooLong(
                f"The prompt takes {error.prompt_tokens:,} tokens and {self._server} holds"
                f" {error.context_size:,}",
                _ways_out(error.prompt_tokens, self._largest_context),
            )
        number = f" (HTTP {status})" if status else ""
        remedy = _REMEDIES.get(status or 0, "Look into the server's own log for more")
        said = self._shown(error.message).rstrip(".")
        return ServerRefused(f"{self._server} says: {said}{number}", remedy)

    def _shown(self, text: str) -> str:
        return text.replace(self._secret, "…") if self._secret else text

    def _bad(self, what: str) -> BadReply:
        return BadReply(
            f"{self._server} sent {self._shown(what)}",
            "Try again; if it stays so, look whether another program has its port",
        )


_REMEDIES = {
    401: "Give its key with --key, or store it with `llm keys set`",
    403: "Give its key with --key, or store it with `llm keys set`",
    404: "`llm localrun models` lists what it serves",
    503: "It is loading or busy: try again in a moment",
}


def _ways_out(prompt_tokens: int, largest_context: float) -> str:
    """What to do with a prompt that does not fit."""
    size = 4096
    while size < prompt_tokens + 1024:
        size *= 2
    if prompt_tokens + 1024 <= largest_context:
        size = int(min(size, largest_context))
        return f"Shorten it, or give room with -o context_size {size}"
    if largest_context:
        return f"Shorten it: the model was trained for {largest_context:,} tokens"
    return "Shorten it, or start the server with a larger context"
