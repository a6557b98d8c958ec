"""A `LocalModel` and a `ChatRequest` to events: asks whoever `serving` finds, and decodes.

Sync and async differ in one loop each; everything else is shared.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any

import click

from llm_localrun.chat.afterwards import learn, said_of
from llm_localrun.chat.serving import Server, Wish, find
from llm_localrun.engine import launch
from llm_localrun.engine.slots import contents_for
from llm_localrun.errors import BadReply, ServerUnreachable, UnsupportedOption
from llm_localrun.files.modelfile import modelfile_of
from llm_localrun.models import LocalModel, Route
from llm_localrun.names.parse import parse_name
from llm_localrun.servers.kinds import kind_of
from llm_localrun.servers.options import body_for
from llm_localrun.system.paths import engine_folder
from llm_localrun.tokens.count import Prompt
from llm_localrun.wire import http
from llm_localrun.wire.dialects import dialect_of
from llm_localrun.wire.events import Event, Finished
from llm_localrun.wire.request import ChatRequest
from llm_localrun.wire.response import Expected, Head, Reply, decode_whole
from llm_localrun.wire.thinking import clamp


def stream(
    model: LocalModel, route: Route, request: ChatRequest, key: str | None
) -> Generator[Event, None, None]:
    """The events of `model`'s answer; closing the iterator stops it. Raises a `LocalRunError`."""
    model = model.model_copy(update={"routes": (route,)})
    exchange = _prepare(model, request, key)
    with _in_use(exchange.server):
        with closing(http.stream(exchange.call)) as received:
            for piece in received:
                yield from exchange.feed(piece)
        yield from exchange.close()


async def astream(
    model: LocalModel, route: Route, request: ChatRequest, key: str | None
) -> AsyncGenerator[Event, None]:
    """`stream`, for an event loop: an engine's start does not hold it up."""
    model = model.model_copy(update={"routes": (route,)})
    exchange = await asyncio.to_thread(_prepare, model, request, key)
    with _in_use(exchange.server):
        async with aclosing(http.astream(exchange.call)) as received:
            async for piece in received:
                for event in exchange.feed(piece):
                    yield event
        for event in exchange.close():
            yield event


def embed(
    model: LocalModel, route: Route, texts: Sequence[str], key: str | None
) -> list[tuple[float, ...]]:
    """The vectors of `texts`, in their order. Raises a `LocalRunError`."""
    model = model.model_copy(update={"routes": (route,)})
    server = find(model, Wish(modelfile_of(model).options, key))
    dialect = dialect_of(server.endpoint.kind)
    body = dialect.encode_texts(server.model, texts, {})
    call = server.call(dialect.embed_path, body, http.READ_TIMEOUT)
    with _in_use(server):
        received = list(http.stream(call))
    vectors = decode_whole(server.title, received, dialect.decode_vectors, server.key or "")
    if len(vectors) != len(texts) or len({len(vector) for vector in vectors}) != 1:
        raise BadReply(
            f"{server.title} sent {len(vectors)} vectors for {len(texts)} texts, or unequal ones",
            "Try again; if it stays so, look for a newer version of it",
        )
    return vectors


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A request that is ready to be sent."""

    model: LocalModel
    wish: Wish
    server: Server
    call: http.Call
    reply: Reply

    def feed(self, piece: Head | bytes) -> Iterator[Event]:
        """The events in a piece of the reply."""
        seated = self.server.seated
        if seated is not None and isinstance(piece, Head) and piece.status == HTTPStatus.OK:
            # llama.cpp sends it when it has evaluated the prompt.
            seated.slot.record(seated.contents)
        yield from self.reply.feed(piece)

    def close(self) -> Iterator[Event]:
        """The last events of the reply; what they teach is kept, what the user has to know said."""
        for event in self.reply.close():
            yield event
            if isinstance(event, Finished) and (prompt := self.wish.prompt):
                learn(self.model, self.server, prompt, event)
                if said := said_of(self.server, self.wish, prompt, event):
                    click.echo(said, err=True)


@contextmanager
def _in_use(server: Server) -> Iterator[None]:
    """While an engine answers: says why if it breaks off, and lets go of it afterwards."""
    seated = server.seated
    try:
        yield
    except (BadReply, ServerUnreachable) as error:
        if seated is None:
            raise
        raise launch.diagnose(error, seated.engine, engine_folder()) from None
    finally:
        if seated is not None:
            seated.slot.release()
            launch.renew_lease(seated.engine, engine_folder(), server.keep_alive)


def _prepare(model: LocalModel, request: ChatRequest, key: str | None) -> _Exchange:
    request = modelfile_of(model).applied_to(request)
    options = _settled(model, request)
    kind = model.endpoint.kind if model.endpoint else "engine"
    title = kind_of(kind).title
    if request.schema is not None and not kind_of(kind).takes_schemas:
        raise UnsupportedOption(
            f"{title} cannot hold answers to a schema",
            "Leave it out, or choose a model of another server",
        )
    dialect = dialect_of(kind)
    encode = partial(dialect.encode, kind=kind, request=request)
    body = encode(model.name, options=body_for(options, kind, title))
    wish = Wish(options, key, Prompt(request), body)
    if kind == "engine":
        visit = contents_for(request.conversation, json.dumps(body["messages"]))
        wish = replace(wish, visit=visit)
    server = find(model, wish)
    if server.options or server.model != model.name:
        wire_options = body_for({**options, **server.options}, kind, title)
        body = encode(server.model, options=wire_options)
    reply = Reply(server.title, dialect.decoder(), _expected(model, kind, request, server))
    call = server.call(dialect.chat_path, body, wish.timeout)
    return _Exchange(model, wish, server, call, reply)


def _expected(model: LocalModel, kind: str, request: ChatRequest, server: Server) -> Expected:
    # Who publishes the levels of a model's thinking knows where that ends, and takes it apart.
    may_think = model.can("thinking", if_unknown=False) and model.think_levels is None
    thinks = may_think or parse_name(model.name).thinks
    facts = {"context_size": server.context_size, "load_seconds": server.load_seconds}
    return Expected(
        facts={name: value for name, value in facts.items() if value is not None},
        limits=server.limits,
        model=server.model if kind == "lmstudio" else "",
        json=request.schema is not None or bool(request.options.get("json_object")),
        thinking=thinks and request.options.get("think") != "off",
        secret=server.key or "",
    )


def _settled(model: LocalModel, request: ChatRequest) -> dict[str, Any]:
    """The options with what depends on the model filled in. Raises `UnsupportedOption`."""
    settled = dict(request.options)
    if request.schema is not None:
        # It asks for JSON, and says which.
        settled.pop("json_object", None)
    if "think" in settled:
        level = clamp(settled["think"], model.think_levels)
        if level is None and settled["think"] != "off":
            raise UnsupportedOption(f"{model.id} cannot think", "Leave out -o think")
        settled["think"] = level or "off"
    return settled
