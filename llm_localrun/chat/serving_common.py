"""What the ways to serve have in common: what is wished for, who answers, how it is asked."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llm_localrun.engine.launch import AcquiredSlot
from llm_localrun.engine.slots import SlotContents
from llm_localrun.errors import ConfigError
from llm_localrun.models import Endpoint, LocalModel
from llm_localrun.servers.kinds import api_root, kind_of
from llm_localrun.servers.loading import Asking
from llm_localrun.tokens import learned
from llm_localrun.tokens.count import Prompt, count
from llm_localrun.tokens.window import ANSWER, UNLIMITED, Limits, Size, too_long
from llm_localrun.wire import http
from llm_localrun.wire.sse import Payload

PATIENCE = 30.0
"""Seconds in which a server that is up has told what it holds, or counted a prompt."""

NOBODY = SlotContents()
"""Who leaves nothing in an engine that another request could use."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a server is wanted for: to answer a prompt, or to embed texts if there is none.

    `body` is the request as it would be sent, of which llama.cpp's server can count the prompt;
    `visit` is what that is to an engine.
    """

    options: Mapping[str, Any]
    key: str | None
    prompt: Prompt | None = None
    body: Payload = field(default_factory=dict)
    visit: SlotContents = NOBODY

    @property
    def answer(self) -> int:
        """Tokens that are to be left free for the answer."""
        answer: int = self.options.get("max_tokens", ANSWER)
        return answer

    @property
    def timeout(self) -> float:
        """Seconds of silence after which a server counts as hung."""
        timeout: float = self.options.get("timeout", http.READ_TIMEOUT)
        return timeout


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers: an endpoint, and the seat that there is in it if it is an engine.

    `model` is what it calls the model, `context_size` the tokens that it holds as far as is known,
    `options` are to be added to the user's. `load_seconds` is set if the model was loaded for this.
    """

    endpoint: Endpoint
    key: str | None
    model: str
    context_size: int | None = None
    limits: Limits = UNLIMITED
    options: Mapping[str, Any] = field(default_factory=dict)
    load_seconds: float | None = None
    seated: AcquiredSlot | None = None
    keep_alive: float = 0.0

    @property
    def title(self) -> str:
        title = kind_of(self.endpoint.kind).title
        return title if self.endpoint.kind == "engine" else f"{title} at {self.endpoint.url}"

    def call(self, path: str, body: Payload, timeout: float) -> http.Call:
        if self.seated:
            body = {**body, "id_slot": self.seated.slot.number}
        return http.Call(
            url=api_root(self.endpoint.url, self.endpoint.kind) + path,
            body=body,
            server=self.title,
            advice=kind_of(self.endpoint.kind).advice,
            key=self.key,
            read_timeout=timeout,
        )


def asked_context(model: LocalModel, wish: Wish) -> int | None:
    """The context that the user wants; None if there is no telling. Raises `ConfigError`."""
    asked: int | str | None = wish.options.get("context_size")
    if not isinstance(asked, str):
        return asked
    if model.context_max is None:
        raise ConfigError(
            f"Nobody says how large the context of {model.id} can be",
            "Give a number of tokens as -o context_size",
        )
    return model.context_max


def size_of(prompt: Prompt, model: LocalModel, enough: int) -> Size:
    """The tokens of a prompt; estimated only if they could be more than `enough`."""
    if prompt.bound <= enough:
        return Size(prompt.bound, is_exact=False)
    return prompt.estimate(learned.known_of(model.id).factors)


def counted(server: Server, wish: Wish) -> Size | None:
    """The prompt's tokens as llama.cpp's server counts them; None if it does not tell."""
    tokens = put(count(wish.body), server, PATIENCE)
    return None if tokens is None else Size(tokens, is_exact=True)


def checked(size: Size, server: Server) -> Server:
    """The server, if so large a prompt fits. Raises `PromptTooLong`."""
    if server.context_size is None or size.fits(server.context_size):
        return server
    raise too_long(size, server.title, server.context_size, server.limits)


def put(asking: Asking[_Result], server: Server, patience: float) -> _Result | None:
    """What questions to a server come to; None if it has not answered them in `patience` seconds.

    What is wrong with it, the request itself will tell.
    """
    deadline = time.monotonic() + patience
    try:
        return http.drive(asking, server.endpoint.url, server.key, deadline)
    except (http.Refused, http.NoAnswer, http.NotHttp):
        return None
