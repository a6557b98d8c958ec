"""Runs a `ChatRequest` with a model on a route: prepares it, sends it, and decodes the response.

Sync and async differ in one loop each; everything else is shared. Fitting the request to a server
is left to `servers`, to an engine to `engine.serve`; what the response says, to `wire.response`.
"""

import asyncio
import shlex
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import click
from typing_extensions import assert_never

from llm_localrun.catalogue import drop_model, locate, note_offline
from llm_localrun.chat.modelfile import request_defaults
from llm_localrun.config import Config, read_config
from llm_localrun.engine import serve
from llm_localrun.engine.memory_check import free_memory
from llm_localrun.errors import (
    LocalRunError,
    NotAllowed,
    PromptTooLong,
    ServerRefused,
    ServerUnreachable,
    UnsupportedOption,
)
from llm_localrun.files.modelfile import has_place_for_thinking
from llm_localrun.models import LocalModel, OnDisk, Route, Served
from llm_localrun.names.parse import parse_name
from llm_localrun.privacy import WHERE, is_loopback, requires_consent
from llm_localrun.servers.base import PreparedRequest, ServeRequest, open_server
from llm_localrun.tokens.estimate import least_plausible
from llm_localrun.tokens.learned import learn_from_reply
from llm_localrun.tokens.window import MIN_CONTEXT_TOKENS, Size, describe_cut_answer, too_long
from llm_localrun.wire import http
from llm_localrun.wire.events import Event, Finished
from llm_localrun.wire.request import ChatRequest, nearest_think_level
from llm_localrun.wire.response import (
    ResponseContext,
    ResponseDecoder,
    ResponseHead,
)


def stream(
    model: LocalModel, route: Route, request: ChatRequest, key: str | None
) -> Generator[Event, None, None]:
    """The events of the model's answer; closing the iterator stops it. Raises a `LocalRunError`."""
    exchange: _Exchange | None = _start(model, route, request, key)
    while exchange is not None:
        with in_use(model, exchange.prepared):
            with closing(http.stream(exchange.http_request)) as received:
                for piece in received:
                    yield from exchange.feed(piece)
            yield from exchange.close()
        exchange = exchange.next()


async def astream(
    model: LocalModel, route: Route, request: ChatRequest, key: str | None
) -> AsyncGenerator[Event, None]:
    """`stream`, for an event loop: starting an engine does not block it."""
    exchange: _Exchange | None = await asyncio.to_thread(_start, model, route, request, key)
    while exchange is not None:
        with in_use(model, exchange.prepared):
            async with aclosing(http.astream(exchange.http_request)) as received:
                async for piece in received:
                    for event in exchange.feed(piece):
                        yield event
            for event in exchange.close():
                yield event
        exchange = await asyncio.to_thread(exchange.next)


@contextmanager
def in_use(model: LocalModel, prepared: PreparedRequest) -> Iterator[None]:
    """Around an exchange: keeps the catalogue true if the server is off or lacks the model."""
    try:
        with prepared.in_use():
            yield
    except ServerRefused as error:
        # Other errors with this status are about the path.
        if error.status == HTTPStatus.NOT_FOUND and prepared.model in error.message:
            drop_model(model)
        raise
    except ServerUnreachable:
        endpoint = prepared.server.endpoint
        if is_loopback(endpoint.url) and not http.is_listening(endpoint.url):
            note_offline(endpoint)
        raise


@dataclass(slots=True)
class _Exchange:
    """A request that is ready to be sent, and the decoder of its response."""

    request: ServeRequest
    prepared: PreparedRequest
    decoder: ResponseDecoder
    has_begun: bool = False
    """Whether a part of the answer has come."""
    refusal: PromptTooLong | None = None
    """Why the request has to be sent again."""

    @property
    def http_request(self) -> http.HttpRequest:
        return self.prepared.http_request(self.request.timeout_s)

    def feed(self, piece: ResponseHead | bytes) -> Iterator[Event]:
        """The events in a piece of the response."""
        if isinstance(piece, ResponseHead) and piece.status == HTTPStatus.OK:
            self.prepared.record_prompt_evaluated()
        for event in self.decoder.feed(piece):
            self.has_begun = True
            yield event

    def close(self) -> Iterator[Event]:
        """The last events, or none if `next` returns another exchange."""
        try:
            yield from self._finish()
        except PromptTooLong as error:
            if self.has_begun or self.prepared.enlarge is None:
                raise
            self.refusal = error

    def next(self) -> "_Exchange | None":
        """The request in a larger context, if the server refused it in this one.

        Raises `PromptTooLong` if no context can hold it.
        """
        if self.refusal is None or self.prepared.enlarge is None:
            return None
        sizes = self.refusal.prompt_tokens, self.refusal.context_size
        return _exchange(self.request, self.prepared.enlarge(*sizes))

    def _finish(self) -> Iterator[Event]:
        """The last events. Learns from the token counts, and prints what the user has to know."""
        for event in self.decoder.close():
            yield event
            if isinstance(event, Finished):
                _learn(self.request, self.prepared, event)
                if note := _note(self.request, self.prepared, event):
                    click.echo(note, err=True)


def _start(model: LocalModel, route: Route, request: ChatRequest, key: str | None) -> _Exchange:
    config = read_config()
    chat = request_defaults(model, route).applied_to(request)
    chat = replace(chat, options=_settle_options(model, chat))
    serve_request = ServeRequest(model, chat, lambda: free_memory(config.llama_server))
    match route:
        case Served():
            check_allowed(model, config)
            server = open_server(route.endpoint, key)
            if chat.schema is not None and not server.accepts_schemas:
                raise UnsupportedOption(
                    f"{server.title} cannot make answers follow a schema",
                    "Leave it out, or choose a model of another server",
                )
            prepared = server.prepare(serve_request, route)
        case OnDisk():
            prepared = serve.prepare(serve_request, route, config)
        case _:
            assert_never(route)
    return _exchange(serve_request, prepared)


def _exchange(request: ServeRequest, prepared: PreparedRequest) -> _Exchange:
    context = _response_context(request, prepared)
    decoder = ResponseDecoder(prepared.server.label, prepared.server.decoder(), context)
    return _Exchange(request, prepared, decoder)


def check_allowed(model: LocalModel, config: Config) -> None:
    """Raises `NotAllowed` if prompts would leave this machine and the user has not allowed that."""
    if model.id in config.allow:
        return
    model = locate(model)
    if requires_consent(model):
        where = WHERE[model.runs_on] + (f" ({model.remote_host})" if model.remote_host else "")
        raise NotAllowed(
            f"{model.id} runs {where}, so the prompt would leave this machine",
            f"To allow it: `llm localrun allow {shlex.quote(model.id)}`",
        )


def _settle_options(model: LocalModel, chat: ChatRequest) -> dict[str, Any]:
    """The options with what depends on the model filled in. Raises `UnsupportedOption`."""
    options = dict(chat.options)
    if "grammar" in options and (chat.schema is not None or options.get("json_object")):
        # llama-server ignores the grammar then, without a word (b10434, b11549).
        raise UnsupportedOption(
            "-o grammar cannot be combined with a schema or -o json_object", "Leave out one of them"
        )
    if chat.schema is not None:
        # A schema asks for JSON already.
        options.pop("json_object", None)
    if "think" in options:
        options["think"] = _settle_thinking(model, options["think"])
    return options


def _settle_thinking(model: LocalModel, wanted: str) -> str:
    """The value of `-o think` nearest to `wanted` that the model has.

    Raises `UnsupportedOption` if the model cannot think at all.
    """
    level = nearest_think_level(wanted, model.think_levels)
    if wanted == "off":
        return level or "off"
    if level is not None and _may_think(model):
        return level
    why = "" if level is None else ": its chat template has no place for it"
    raise UnsupportedOption(
        f"{model.id} cannot think{why}",
        "Leave out -o think, or choose a model that thinks:"
        " `llm localrun models` shows `think` in the column can",
    )


def _may_think(model: LocalModel) -> bool:
    """Whether the model thinks as far as its file shows, or its server, or else its name."""
    if model.can("thinking", if_unknown=False) or parse_name(model.name).thinks:
        return True
    return model.on_disk is None or has_place_for_thinking(model.on_disk)


def _response_context(request: ServeRequest, prepared: PreparedRequest) -> ResponseContext:
    model, server = request.model, prepared.server
    # A server that publishes the levels of a model's thinking separates thinking from the answer.
    may_think = model.can("thinking", if_unknown=False) and model.think_levels is None
    thinks = may_think or parse_name(model.name).thinks
    facts = {"context_size": prepared.context_size, "load_seconds": prepared.load_seconds}

    def explain_overflow(prompt_tokens: int, context_size: int) -> LocalRunError:
        size = Size(prompt_tokens, is_exact=True)
        return too_long(size, server.label, context_size, prepared.limits)

    return replace(
        server.response_context,
        facts={name: value for name, value in facts.items() if value is not None},
        on_overflow=explain_overflow,
        model=prepared.model if server.names_wrong_model else "",
        is_json=request.chat.schema is not None or bool(request.options.get("json_object")),
        may_think=thinks and request.options.get("think") != "off",
    )


def _learn(request: ServeRequest, prepared: PreparedRequest, finished: Finished) -> None:
    """Corrects the estimate for this model's prompts by what the server counted."""
    if finished.prompt_tokens is not None and not prepared.server.counts_prompts:
        learn_from_reply(request.model.id, request.prompt.parts, finished.prompt_tokens)


def _note(request: ServeRequest, prepared: PreparedRequest, finished: Finished) -> str:
    """What the user has to know about a finished answer; "" if there is nothing."""
    if _was_cut(request, prepared, finished):
        return (
            f"{prepared.server.label} read {finished.prompt_tokens:,} tokens of a prompt of about"
            f" {request.prompt.estimate({}).tokens:,}: it may have cut it. Install a newer version."
        )
    limit, answer = request.options.get("max_tokens"), finished.completion_tokens
    if finished.finish_reason != "length" or (limit and (answer is None or answer >= limit)):
        return ""
    is_counted = answer is not None and finished.prompt_tokens is not None
    used = (finished.prompt_tokens or 0) + (answer or 0) if is_counted else None
    return describe_cut_answer(used, prepared.context_size, prepared.limits)


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
