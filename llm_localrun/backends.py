"""A `LocalModel` and a `ChatRequest` to events: finds who answers, asks, decodes.

Sync and async differ in one loop each; everything else is shared.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any

from llm_localrun import transport
from llm_localrun.catalogue import Endpoint, LocalModel
from llm_localrun.config import Config, home, read_config
from llm_localrun.dialects import dialect_of
from llm_localrun.engine import launch
from llm_localrun.errors import NotAllowed
from llm_localrun.events import Event
from llm_localrun.kinds import kind_of
from llm_localrun.reply import Reply
from llm_localrun.request import ChatRequest
from llm_localrun.wire_options import body_for, wire_for

_ENGINE_PATIENCE = 60.0
"""Seconds that loading a file may take beyond what its size makes likely."""


def stream(
    model: LocalModel, request: ChatRequest, key: str | None
) -> Generator[Event, None, None]:
    """The events of `model`'s answer; closing the iterator stops it. Raises a `LocalRunError`."""
    exchange = _prepare(model, request, key)
    try:
        with closing(transport.stream(exchange.call)) as received:
            for piece in received:
                yield from exchange.reply.feed(piece)
        yield from exchange.reply.close()
    finally:
        exchange.release()


async def astream(
    model: LocalModel, request: ChatRequest, key: str | None
) -> AsyncGenerator[Event, None]:
    """`stream`, for an event loop: an engine's start does not hold it up."""
    exchange = await asyncio.to_thread(_prepare, model, request, key)
    try:
        async with aclosing(transport.astream(exchange.call)) as received:
            async for piece in received:
                for event in exchange.reply.feed(piece):
                    yield event
        for event in exchange.reply.close():
            yield event
    finally:
        exchange.release()


def _nothing() -> None:
    """What is to be done after a reply from a server that is not ours."""


@dataclass(frozen=True, slots=True)
class _Exchange:
    call: transport.Call
    reply: Reply
    release: Callable[[], None] = field(default=_nothing)


def _prepare(model: LocalModel, request: ChatRequest, key: str | None) -> _Exchange:
    config = read_config()
    if model.endpoint is None:
        return _with_engine(model, request, config)
    _check_allowed(model, config)
    facts = {"context_size": request.options.get("context_size", model.context_loaded)}
    return _exchange(model, model.endpoint, request, key, facts)


def _check_allowed(model: LocalModel, config: Config) -> None:
    if model.runs_on in ("cloud", "unknown") and model.id not in config.allow:
        where = "in a cloud" if model.runs_on == "cloud" else "nobody knows where"
        raise NotAllowed(
            f"{model.id} runs {where}, so the prompt would leave this machine",
            f'If it may, put "{model.id}" into the list "allow" in {home() / "config.json"}',
        )


def _with_engine(model: LocalModel, request: ChatRequest, config: Config) -> _Exchange:
    assert model.path is not None
    options = request.options
    keep_alive = options.get("keep_alive", config.keep_alive)
    wanted = launch.Wanted(
        path=model.path,
        name=model.name,
        context_size=options.get("context_size"),
        threads=options.get("threads", config.threads),
        gpu_layers=options.get("gpu_layers"),
    )
    folder = home() / "engine"
    engine, is_new = launch.ensure(
        wanted, folder, keep_alive, patience=options.get("timeout", _ENGINE_PATIENCE)
    )
    facts: dict[str, Any] = {"context_size": engine.spec.context_size}
    if is_new:
        facts["load_seconds"] = engine.load_seconds
    endpoint = Endpoint(name="gguf", kind="engine", url=engine.url)
    exchange = _exchange(model, endpoint, request, engine.key, facts)
    return replace(exchange, release=partial(launch.release, engine, folder, keep_alive))


def _exchange(
    model: LocalModel,
    endpoint: Endpoint,
    request: ChatRequest,
    key: str | None,
    facts: dict[str, Any],
) -> _Exchange:
    kind = kind_of(endpoint.kind)
    server = kind.title if endpoint.kind == "engine" else f"{kind.title} at {endpoint.url}"
    dialect = dialect_of(endpoint.kind)
    options = body_for(request.options, endpoint.kind, server)
    call = transport.Call(
        url=endpoint.url + dialect.chat_path,
        body=dialect.encode(model.name, request, options),
        server=server,
        advice=kind.advice,
        key=key,
        read_timeout=request.options.get("timeout", transport.READ_TIMEOUT),
    )
    can_grow = wire_for("context_size", endpoint.kind) is not None
    largest_context = (model.context_max or inf) if can_grow else 0
    return _Exchange(call, Reply(server, dialect.decoder(), facts, largest_context))
