"""A `LocalModel` and a `ChatRequest` to events: finds who answers, asks, decodes.

Sync and async differ in one loop each; everything else is shared.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from llm_localrun import transport
from llm_localrun.catalogue import Endpoint, LocalModel
from llm_localrun.config import Config, home, read_config
from llm_localrun.dialects import dialect_of
from llm_localrun.engine import launch
from llm_localrun.engine.state import EngineState
from llm_localrun.errors import BadReply, NotAllowed, ServerUnreachable
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
    with _in_use(exchange):
        with closing(transport.stream(exchange.call)) as received:
            for piece in received:
                yield from exchange.reply.feed(piece)
        yield from exchange.reply.close()


async def astream(
    model: LocalModel, request: ChatRequest, key: str | None
) -> AsyncGenerator[Event, None]:
    """`stream`, for an event loop: an engine's start does not hold it up."""
    exchange = await asyncio.to_thread(_prepare, model, request, key)
    with _in_use(exchange):
        async with aclosing(transport.astream(exchange.call)) as received:
            async for piece in received:
                for event in exchange.reply.feed(piece):
                    yield event
        for event in exchange.reply.close():
            yield event


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A request that is ready to be sent, and the engine that answers it, if that is ours."""

    call: transport.Call
    reply: Reply
    engine: EngineState | None = None
    keep_alive: float = 0.0


@contextmanager
def _in_use(exchange: _Exchange) -> Iterator[None]:
    """While the engine answers: says why if it breaks off, and lets go of it afterwards."""
    engine = exchange.engine
    try:
        yield
    except (BadReply, ServerUnreachable) as error:
        if engine is None:
            raise
        raise launch.explain(error, engine, _engine_folder()) from None
    finally:
        if engine is not None:
            launch.release(engine, _engine_folder(), exchange.keep_alive)


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
    engine, is_new = launch.ensure(
        wanted, _engine_folder(), keep_alive, patience=options.get("timeout", _ENGINE_PATIENCE)
    )
    facts: dict[str, Any] = {"context_size": engine.spec.context_size}
    if is_new:
        facts["load_seconds"] = engine.load_seconds
    endpoint = Endpoint(name="gguf", kind="engine", url=engine.url)
    exchange = _exchange(model, endpoint, request, engine.key, facts)
    return replace(exchange, engine=engine, keep_alive=keep_alive)


def _engine_folder() -> Path:
    return home() / "engine"


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
    return _Exchange(call, Reply(server, dialect.decoder(), facts, largest_context, key or ""))
