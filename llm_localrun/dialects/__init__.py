"""The wire languages: a `ChatRequest` to a JSON body, a server's payloads to events.

No dialect does any I/O. A decoder is fed whole JSON payloads, however they were framed, so a
reply that was not streamed is a stream of one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from llm_localrun.dialects import ollama, openai
from llm_localrun.events import Event
from llm_localrun.framing import Payload
from llm_localrun.request import ChatRequest


class Decoder(Protocol):
    """Decodes the payloads of one reply."""

    def feed(self, payload: Payload) -> Iterator[Event]:
        """The events in `payload`.

        Raises `wire.ErrorReported` if it holds the server's error, and pydantic's
        `ValidationError` if it is not of the dialect.
        """

    def close(self) -> Iterator[Event]:
        """The events that the reply's regular end completes. Raises `wire.CutOff`."""


class Encode(Protocol):
    """Makes the JSON body of a request; `options` is the part of it that carries options."""

    def __call__(self, model: str, request: ChatRequest, options: dict[str, Any]) -> Payload: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """One wire language."""

    chat_path: str
    encode: Encode
    decoder: type[Decoder]


OLLAMA = Dialect("/api/chat", ollama.encode, ollama.Decoder)
OPENAI = Dialect("/v1/chat/completions", openai.encode, openai.Decoder)


def dialect_of(kind: str) -> Dialect:
    """The language in which a server of `kind` is spoken to."""
    return OLLAMA if kind == "ollama" else OPENAI
