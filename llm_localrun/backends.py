"""A `LocalModel` and a `ChatRequest` to events: finds who answers, asks, decodes.

Sync and async differ in one loop each; everything else is shared.
"""

import asyncio
import json
import shlex
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from math import inf
from pathlib import Path
from typing import Any

from llm_localrun import transport
from llm_localrun.catalogue import Endpoint, LocalModel
from llm_localrun.config import Config, engine_folder, read_config
from llm_localrun.dialects import dialect_of
from llm_localrun.discovery import located
from llm_localrun.engine import launch, prompts
from llm_localrun.engine.seats import Visit, visit_of
from llm_localrun.engine.state import NGRAM, EngineSettings
from llm_localrun.errors import (
    BadReply,
    ConfigError,
    NotAllowed,
    ServerUnreachable,
    UnsupportedOption,
)
from llm_localrun.events import Event
from llm_localrun.kinds import api_root, kind_of
from llm_localrun.locality import WHERE, needs_leave
from llm_localrun.model_names import parse_name
from llm_localrun.modelfile import chat_template_of, modelfile_of
from llm_localrun.reply import Expected, Head, Reply, decode_whole
from llm_localrun.request import ChatRequest
from llm_localrun.thinking import clamp
from llm_localrun.wire_options import body_for, wire_for

_ENGINE_PATIENCE = 60.0
"""Seconds that loading a file may take beyond what its size makes likely."""
_RESTORE_TIMEOUT = 60.0
_NOBODY = Visit()


def stream(
    model: LocalModel, request: ChatRequest, key: str | None
) -> Generator[Event, None, None]:
    """The events of `model`'s answer; closing the iterator stops it. Raises a `LocalRunError`."""
    exchange = _prepare(model, request, key)
    with _in_use(exchange.server):
        with closing(transport.stream(exchange.call)) as received:
            for piece in received:
                yield from exchange.feed(piece)
        yield from exchange.reply.close()


async def astream(
    model: LocalModel, request: ChatRequest, key: str | None
) -> AsyncGenerator[Event, None]:
    """`stream`, for an event loop: an engine's start does not hold it up."""
    exchange = await asyncio.to_thread(_prepare, model, request, key)
    with _in_use(exchange.server):
        async with aclosing(transport.astream(exchange.call)) as received:
            async for piece in received:
                for event in exchange.feed(piece):
                    yield event
        for event in exchange.reply.close():
            yield event


def embed(model: LocalModel, texts: Sequence[str], key: str | None) -> list[tuple[float, ...]]:
    """The vectors of `texts`, in their order. Raises a `LocalRunError`."""
    server = _server_for(model, modelfile_of(model).options, key, _NOBODY)
    dialect = dialect_of(server.endpoint.kind)
    body = dialect.encode_texts(model.name, texts, {})
    call = server.call(dialect.embed_path, body, transport.READ_TIMEOUT)
    with _in_use(server):
        received = list(transport.stream(call))
    vectors = decode_whole(server.title, received, dialect.decode_vectors, server.key or "")
    if len(vectors) != len(texts) or len({len(vector) for vector in vectors}) != 1:
        raise BadReply(
            f"{server.title} sent {len(vectors)} vectors for {len(texts)} texts, or unequal ones",
            "Try again; if it stays so, look for a newer version of it",
        )
    return vectors


@dataclass(frozen=True, slots=True)
class _Server:
    """Who answers: an endpoint, and the seat in an engine if that is one."""

    endpoint: Endpoint
    key: str | None
    facts: Mapping[str, Any]
    seated: launch.Seated | None = None
    keep_alive: float = 0.0

    @property
    def title(self) -> str:
        title = kind_of(self.endpoint.kind).title
        return title if self.seated else f"{title} at {self.endpoint.url}"

    def call(self, path: str, body: dict[str, Any], timeout: float) -> transport.Call:
        if self.seated:
            body = {**body, "id_slot": self.seated.seat.number}
        return transport.Call(
            url=api_root(self.endpoint.url, self.endpoint.kind) + path,
            body=body,
            server=self.title,
            advice=kind_of(self.endpoint.kind).advice,
            key=self.key,
            read_timeout=timeout,
        )


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A request that is ready to be sent."""

    server: _Server
    visit: Visit
    call: transport.Call
    reply: Reply

    def feed(self, piece: Head | bytes) -> Iterator[Event]:
        """The events in a piece of the reply."""
        seated = self.server.seated
        if seated is not None and isinstance(piece, Head) and piece.status == HTTPStatus.OK:
            # llama.cpp sends it when it has evaluated the prompt.
            seated.seat.note(self.visit)
        yield from self.reply.feed(piece)


@contextmanager
def _in_use(server: _Server) -> Iterator[None]:
    """While an engine answers: says why if it breaks off, and lets go of it afterwards."""
    seated = server.seated
    try:
        yield
    except (BadReply, ServerUnreachable) as error:
        if seated is None:
            raise
        raise launch.explain(error, seated.engine, engine_folder()) from None
    finally:
        if seated is not None:
            seated.seat.leave()
            launch.release(seated.engine, engine_folder(), server.keep_alive)


def _prepare(model: LocalModel, request: ChatRequest, key: str | None) -> _Exchange:
    request = modelfile_of(model).applied_to(request)
    options = _settled(model, request.options)
    if request.schema is not None:
        # It asks for JSON, and says which.
        options.pop("json_object", None)
    kind = model.endpoint.kind if model.endpoint else "engine"
    if request.schema is not None and not kind_of(kind).takes_schemas:
        raise UnsupportedOption(
            f"{kind_of(kind).title} cannot hold answers to a schema",
            "Leave it out, or choose a model of another server",
        )
    wire_options = body_for(options, kind, kind_of(kind).title)
    dialect = dialect_of(kind)
    body = dialect.encode(model.name, kind, request, wire_options)
    visit = (
        visit_of(request.conversation, json.dumps(body["messages"]))
        if kind == "engine"
        else _NOBODY
    )
    server = _server_for(model, options, key, visit)
    timeout = options.get("timeout", transport.READ_TIMEOUT)
    call = server.call(dialect.chat_path, body, timeout)
    reply = Reply(server.title, dialect.decoder(), _expected(model, kind, request, server))
    return _Exchange(server, visit, call, reply)


def _expected(model: LocalModel, kind: str, request: ChatRequest, server: _Server) -> Expected:
    can_grow = wire_for("context_size", kind) is not None
    # Who publishes the levels of a model's thinking knows where that ends, and takes it apart.
    may_think = model.can("thinking", if_unknown=False) and model.think_levels is None
    thinks = may_think or parse_name(model.name).thinks
    return Expected(
        facts=server.facts,
        largest_context=(model.context_max or inf) if can_grow else 0,
        model=model.name if kind == "lmstudio" else "",
        json=request.schema is not None or bool(request.options.get("json_object")),
        thinking=thinks and request.options.get("think") != "off",
        secret=server.key or "",
    )


def _settled(model: LocalModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with what depends on the model filled in. Raises a `LocalRunError`."""
    settled = dict(options)
    if options.get("context_size") == "max":
        if model.context_max is None:
            raise ConfigError(
                f"nobody says how large the context of {model.id} can be",
                "Give a number of tokens as -o context_size",
            )
        settled["context_size"] = model.context_max
    if "think" in options:
        level = clamp(options["think"], model.think_levels)
        if level is None and options["think"] != "off":
            raise UnsupportedOption(f"{model.id} cannot think", "Leave out -o think")
        settled["think"] = level or "off"
    return settled


def _server_for(
    model: LocalModel, options: Mapping[str, Any], key: str | None, visit: Visit
) -> _Server:
    """Who runs `model`; takes a seat for `visit` in an engine, or starts one, if need be."""
    config = read_config()
    if model.endpoint is None:
        return _engine_for(model, options, config, visit)
    _check_allowed(model, config)
    context_size = options.get("context_size", model.context_loaded)
    return _Server(model.endpoint, key, {"context_size": context_size})


def _check_allowed(model: LocalModel, config: Config) -> None:
    """Raises `NotAllowed` if prompts would go where the user has not said that they may."""
    if model.id in config.allow:
        return
    model = located(model)
    if needs_leave(model):
        where = WHERE[model.runs_on] + (f" ({model.elsewhere})" if model.elsewhere else "")
        raise NotAllowed(
            f"{model.id} runs {where}, so the prompt would leave this machine",
            f"If it may: `llm localrun allow {shlex.quote(model.id)}`",
        )


def _engine_for(
    model: LocalModel, options: Mapping[str, Any], config: Config, visit: Visit
) -> _Server:
    keep_alive = options.get("keep_alive", config.keep_alive)
    find = partial(
        launch.ensure,
        _wanted(model, options, config),
        engine_folder(),
        keep_alive,
        patience=options.get("timeout", _ENGINE_PATIENCE),
        bounds=launch.bounds_of(config),
    )
    seated = launch.seat(visit, engine_folder(), find)
    engine = seated.engine
    facts: dict[str, Any] = {"context_size": engine.spec.context_size}
    if seated.is_new:
        facts["load_seconds"] = engine.load_seconds
    endpoint = Endpoint(name="gguf", kind="engine", url=engine.url)
    server = _Server(endpoint, engine.key, facts, seated, keep_alive)
    if seated.left is not None:
        _restore(server, seated, seated.left)
    return server


def _wanted(model: LocalModel, options: Mapping[str, Any], config: Config) -> launch.Wanted:
    assert model.path is not None
    settings = EngineSettings(
        context_size=options.get("context_size"),
        threads=options.get("threads", config.threads),
        gpu_layers=options.get("gpu_layers"),
        kv_cache_type=options.get("kv_cache_type"),
        flash_attention=options.get("flash_attention"),
        embedding=model.purpose == "embedding",
        projector=model.projector,
        lora=_file(options.get("lora")) or modelfile_of(model).adapter,
        draft_model=_draft_model(options.get("draft_model")),
        chat_template=chat_template_of(model),
        rpc=",".join(config.rpc),
    )
    return launch.Wanted(model.path, model.name, settings)


def _restore(server: _Server, seated: launch.Seated, left: Path) -> None:
    """Has llama.cpp take up what an earlier engine has left; without it, it evaluates anew."""
    path = f"/slots/{seated.seat.number}?action=restore"
    call = server.call(path, {"filename": left.name}, _RESTORE_TIMEOUT)
    try:
        if prompts.is_whole(left):
            with suppress(BadReply, ServerUnreachable), closing(transport.stream(call)) as received:
                for _ in received:
                    pass
    except BaseException:
        seated.seat.leave()
        raise
    # The engine has it now, and leaves more when it ends.
    left.unlink(missing_ok=True)


def _draft_model(given: str | None) -> str:
    return NGRAM if given == NGRAM else _file(given)


def _file(path: str | None) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""
