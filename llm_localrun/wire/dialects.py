"""The wire languages: a `ChatRequest` to a JSON body, a server's payloads to events.

No dialect does any I/O. A decoder is fed whole JSON payloads, however they were framed, so a
reply that was not streamed is a stream of one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llm_localrun.wire import ollama, openai
from llm_localrun.wire.events import Event
from llm_localrun.wire.request import ChatRequest
from llm_localrun.wire.sse import Payload


class Decoder(Protocol):
    """Decodes the payloads of one reply."""

    @property
    def model(self) -> str | None:
        """Who answers, by what has come so far."""

    def feed(self, payload: Payload) -> Iterator[Event]:
        """The events in `payload`.

        Raises `wire.ErrorReported` if it holds the server's error, and pydantic's
        `ValidationError` if it is not of the dialect.
        """

    def close(self) -> Iterator[Event]:
        """The events that the reply's regular end completes. Raises `wire.CutOff`."""


class Encode(Protocol):
    """Makes the JSON body of a request; `options` is the part of it that carries options."""

    def __call__(
        self, model: str, kind: str, request: ChatRequest, options: dict[str, Any]
    ) -> Payload: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """One wire language."""

    chat_path: str
    encode: Encode
    decoder: Callable[[], Decoder]
    embed_path: str
    encode_texts: Callable[[str, Sequence[str], dict[str, Any]], Payload]
    decode_vectors: Callable[[Payload], list[tuple[float, ...]]]


OLLAMA = Dialect(
    chat_path="/api/chat",
    encode=ollama.encode,
    decoder=ollama.Decoder,
    embed_path="/api/embed",
    encode_texts=ollama.encode_texts,
    decode_vectors=ollama.decode_vectors,
)
OPENAI = Dialect(
    chat_path="/v1/chat/completions",
    encode=openai.encode,
    decoder=openai.Decoder,
    embed_path="/v1/embeddings",
    encode_texts=openai.encode_texts,
    decode_vectors=openai.decode_vectors,
)


def dialect_of(kind: str) -> Dialect:
    """The language in which a server of `kind` is spoken to."""
    return OLLAMA if kind == "ollama" else OPENAI
