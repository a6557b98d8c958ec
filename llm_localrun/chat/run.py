"""Runs a `ChatRequest` with a model on a route: prepares it, sends it, and decodes the response.

Sync and async differ in one loop each; everything else is shared. Fitting the request to a server
is left to `servers`, to an engine to `engine.serve`; what the response says, to `wire.response`.
"""

import asyncio
import shlex
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import Any

import click
from typing_extensions import assert_never

from llm_localrun.catalogue import (
    add_name,
    check_place,
    drop_model,
    drop_renamed_model,
    locate,
    note_offline,
    record_place,
)
from llm_localrun.chat.modelfile import request_defaults
from llm_localrun.chat.response import end_line
from llm_localrun.config import Config, read_config
from llm_localrun.engine import serve
from llm_localrun.engine.memory_check import free_memory
from llm_localrun.engine.settings import given_template
from llm_localrun.errors import (
    AnswerNotJson,
    BadReply,
    LocalRunError,
    NotAllowed,
    PromptTooLong,
    ServerRefused,
    ServerUnreachable,
    UnsupportedOption,
    WrongModel,
)
from llm_localrun.files.modelfile import has_place_for_thinking, thinking_in
from llm_localrun.models import Endpoint, LocalModel, OnDisk, Route, Served, TemplateThinking
from llm_localrun.names.parse import parse_name
from llm_localrun.privacy import WHERE, is_loopback, requires_consent
from llm_localrun.servers.base import (
    PreparedRequest,
    Server,
    ServeRequest,
    open_server,
    server_class,
)
from llm_localrun.system.text import printable
from llm_localrun.tokens.estimate import least_plausible
from llm_localrun.tokens.learned import learn_from_reply
from llm_localrun.tokens.window import MIN_CONTEXT_TOKENS, describe_cut_answer, explain_overflow
from llm_localrun.wire import http
from llm_localrun.wire.events import CUT_OFF, Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.request import ChatRequest, nearest_think_level
from llm_localrun.wire.response import (
    ResponseContext,
    ResponseDecoder,
    ResponseHead,
)
from llm_localrun.wire.shapes import Overflow
from llm_localrun.wire.think_tags import Renderer, Thinking, expect_thinking, read_template


def stream(
    model: LocalModel, route: Route, request: ChatRequest, key: str | None
) -> Generator[Event, None, None]:
    """The events of the model's answer; closing the iterator stops it. Raises a `LocalRunError`."""
    exchange: _Exchange | None = _start(model, route, request, key)
    while exchange is not None:
        with in_use(model, exchange.prepared):
            with closing(http.stream(exchange.http_request)) as received:
                try:
                    for piece in received:
                        yield from exchange.feed(piece)
                except (BadReply, ServerUnreachable):
                    yield from exchange.flush()
                    raise
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
                try:
                    async for piece in received:
                        for event in exchange.feed(piece):
                            yield event
                except (BadReply, ServerUnreachable):
                    for event in exchange.flush():
                        yield event
                    raise
            for event in exchange.close():
                yield event
        exchange = await asyncio.to_thread(exchange.next)


@contextmanager
def in_use(model: LocalModel, prepared: PreparedRequest) -> Iterator[None]:
    """Around an exchange: keeps the catalogue true if the server is off or lacks the model."""
    with _catalogue_kept_true(model, prepared.server.endpoint, prepared.model), prepared.in_use():
        yield


@contextmanager
def _catalogue_kept_true(model: LocalModel, endpoint: Endpoint, name: str) -> Iterator[None]:
    try:
        yield
    except WrongModel:
        drop_renamed_model(model)
        raise
    except ServerRefused as error:
        # Other errors with this status are about the path.
        if error.status == HTTPStatus.NOT_FOUND and name in error.message:
            drop_model(model)
        raise
    except ServerUnreachable:
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
    last: Event | None = None
    """The last part of the answer, if nothing has been printed after it."""
    kinds: set[type[Event]] = field(default_factory=set)
    """What has come, but for text that is blank."""
    enforce: "Callable[[], _Exchange] | None" = None
    """Returns the request that leaves the model nothing but the JSON that is wanted."""
    is_not_json: bool = False

    @property
    def http_request(self) -> http.HttpRequest:
        return self.prepared.http_request(self.request.timeout_s)

    def feed(self, piece: ResponseHead | bytes) -> Iterator[Event]:
        """The events in a piece of the response."""
        if isinstance(piece, ResponseHead) and piece.status == HTTPStatus.OK:
            self.prepared.record_prompt_evaluated()
        yield from self._seen(self.decoder.feed(piece))

    def flush(self) -> Iterator[Event]:
        """What has come of an answer whose connection has broken, and is not shown yet."""
        yield from self._seen(self.decoder.flush())

    def close(self) -> Iterator[Event]:
        """The last events, or none if `next` returns another exchange."""
        has_text, unshown = TextDelta in self.kinds, list[Event]()
        try:
            for event in self._finish():
                if self.enforce is None:
                    yield event
                else:
                    unshown.append(event)
        except LocalRunError as error:
            if self._asks_again(error, has_text=has_text):
                return
            yield from unshown
            raise
        yield from unshown

    def _asks_again(self, error: LocalRunError, *, has_text: bool) -> bool:
        """Whether `next` may make up for the error of an answer that is not shown."""
        if isinstance(error, PromptTooLong) and error.prompt_tokens and not self.has_begun:
            self.refusal = error if self.prepared.enlarge else None
        wanted = isinstance(error, AnswerNotJson) and self.enforce is not None
        self.is_not_json = wanted and not has_text
        return self.is_not_json or self.refusal is not None

    def next(self) -> "_Exchange | None":
        """The request in a larger context, if the server refused it in this one; or for JSON alone.

        Raises `PromptTooLong` if no context can hold it.
        """
        if self.is_not_json and self.enforce is not None:
            return self.enforce()
        if self.refusal is None or self.prepared.enlarge is None:
            return None
        sizes = self.refusal.prompt_tokens, self.refusal.context_size
        return _exchange(self.request, self.prepared.enlarge(*sizes), self.request.chat)

    def _finish(self) -> Iterator[Event]:
        """The last events. Learns from the token counts, and prints what the user has to know."""
        for event in self.decoder.close():
            yield event
            if isinstance(event, Finished):
                _learn(self.request, self.prepared, event)
                report_departure(self.request.model, self.prepared, event.remote_host or "")
                seen = self.request, self.prepared, event
                self._tell(_note_without_answer(*seen, self.kinds) or _note(*seen))
                self._tell(self.decoder.note)
            self._see(event)

    def _seen(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            self._see(event)
            yield event

    def _see(self, event: Event) -> None:
        self.has_begun = True
        self.last = event
        if not isinstance(event, TextDelta) or event.text.strip():
            self.kinds.add(type(event))

    def _tell(self, note: str) -> None:
        if not note:
            return
        if sys.stderr.isatty() or isinstance(self.last, ReasoningDelta):
            end_line(self.last, is_streamed=self.request.chat.stream)
            self.last = None
        click.echo(printable(note), err=True)


def _start(model: LocalModel, route: Route, request: ChatRequest, key: str | None) -> _Exchange:
    config = read_config()
    chat = request_defaults(model, route).applied_to(request)
    chat = replace(chat, options=_settle_options(model, chat))
    sender = _Sender(model, route, key, config)
    if not (sender.server_class.json_forbids_calls and chat.tools and _wants_json(chat)):
        return sender.exchange(chat, chat)
    options = {name: value for name, value in chat.options.items() if name != "json_object"}
    exchange = sender.exchange(replace(chat, schema=None, options=options), chat)
    exchange.enforce = partial(sender.exchange, chat, chat)
    return exchange


@dataclass(frozen=True, slots=True)
class _Sender:
    """Sends chat requests to a model on one of its routes."""

    model: LocalModel
    route: Route
    key: str | None
    config: Config

    @property
    def server_class(self) -> type[Server]:
        if isinstance(self.route, Served):
            return server_class(self.route.endpoint.kind)
        return serve.EngineServer

    def exchange(self, chat: ChatRequest, wanted: ChatRequest) -> _Exchange:
        """The exchange that sends `chat` and expects what answers `wanted`."""
        request = ServeRequest(self.model, chat, lambda: free_memory(self.config.llama_server))
        match self.route:
            case Served():
                check_allowed(self.model, self.config, self.key)
                server = open_server(self.route.endpoint, self.key)
                if chat.schema is not None and not server.accepts_schemas:
                    raise UnsupportedOption(
                        f"{server.title} cannot make answers follow a schema",
                        "Leave it out, or choose a model of another server",
                    )
                prepared = server.prepare(request, self.route)
            case OnDisk():
                prepared = serve.prepare(request, self.route, self.config)
            case _:
                assert_never(self.route)
        return _exchange(request, prepared, wanted)


def _wants_json(chat: ChatRequest) -> bool:
    return chat.schema is not None or bool(chat.options.get("json_object"))


def _exchange(request: ServeRequest, prepared: PreparedRequest, wanted: ChatRequest) -> _Exchange:
    context = _response_context(request, prepared, wanted)
    tools = [tool.name for tool in request.chat.tools]
    decoder = ResponseDecoder(prepared.server.label, prepared.server.decoder(tools), context)
    return _Exchange(request, prepared, decoder)


def check_allowed(
    model: LocalModel, config: Config, key: str | None, *, reply_tells: bool = True
) -> None:
    """Raises `NotAllowed` if prompts would leave this machine and the user has not allowed that.

    `reply_tells` is as for `check_place`. Raises other errors if the server does not say.
    """
    if model.id in config.allow or model.served is None:
        return
    with _catalogue_kept_true(model, model.served.endpoint, model.name):
        model = check_place(locate(model), key, reply_tells=reply_tells)
    if requires_consent(model):
        where = WHERE[model.runs_on] + (f" ({model.remote_host})" if model.remote_host else "")
        raise NotAllowed(
            f"{model.id} runs {where}, so the prompt would leave this machine",
            f"To allow it: `llm localrun allow {shlex.quote(model.id)}`",
        )


def _settle_options(model: LocalModel, chat: ChatRequest) -> dict[str, Any]:
    """The options with what depends on the model filled in. Raises `UnsupportedOption`."""
    options = dict(chat.options)
    if "grammar" in options and (chat.tools or _wants_json(chat)):
        # llama-server ignores it beside JSON, without a word, and refuses tools (b10434, b11549).
        raise UnsupportedOption(
            "-o grammar cannot be combined with tools, a schema or -o json_object",
            "Leave out one of them",
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


def _response_context(
    request: ServeRequest, prepared: PreparedRequest, wanted: ChatRequest
) -> ResponseContext:
    server = prepared.server
    facts = {"context_size": prepared.context_size, "load_seconds": prepared.load_seconds}

    def explain(overflow: Overflow, said: str) -> LocalRunError:
        sizes = prepared.context_size, prepared.limits
        return explain_overflow(overflow, said, server.label, *sizes)

    return replace(
        server.response_context,
        facts={name: value for name, value in facts.items() if value is not None},
        on_overflow=explain,
        model=prepared.model,
        is_other_model=model_check(request.model, prepared),
        is_json=_wants_json(wanted),
        schema=wanted.schema,
        thinking=_expected_thinking(request, prepared, wanted),
        tools=wanted.tools,
    )


def model_check(model: LocalModel, prepared: PreparedRequest) -> Callable[[str], bool] | None:
    """Returns whether a name in the reply is that of another model; None if it shows nothing.

    Some servers answer with whichever model is loaded, and name it only in the reply.
    """
    server, served = prepared.server, model.served
    if server.is_private or served is None:
        return None

    def is_other_model(name: str) -> bool:
        names = (prepared.model, model.name, *served.also_named)
        if any(server.is_same_name(each, name) for each in names):
            return False
        if not server.names_models_as_listed and server.lists(prepared.model):
            add_name(model, name)
            return False
        return True

    return is_other_model


def _expected_thinking(
    request: ServeRequest, prepared: PreparedRequest, wanted: ChatRequest
) -> Thinking:
    model = request.model
    # A server that publishes the levels of a model's thinking separates thinking from the answer.
    may_think = model.can("thinking", if_unknown=False) and model.think_levels is None
    thinks = may_think or parse_name(model.name).thinks
    template, is_certain = _template_thinking(request, prepared)
    if is_certain and template is not None and template.tags:
        thinks = bool(template.opened)
    asked = (m.text for m in request.chat.messages if m.role in ("system", "user"))
    is_off = request.options.get("think") == "off"
    renderer = Renderer.LLAMA_CPP if is_certain else Renderer.UNKNOWN
    is_bound = _wants_json(wanted) or "grammar" in request.options
    if isinstance(prepared.server, serve.EngineServer) and not is_bound:
        renderer = Renderer.ENGINE
    text = "\n".join(asked)
    return expect_thinking(template, text, thinks=thinks, is_off=is_off, renderer=renderer)


def _template_thinking(
    request: ServeRequest, prepared: PreparedRequest
) -> tuple[TemplateThinking | None, bool]:
    """What the model's template shows of thinking, and whether it is the one that is used."""
    model, given = request.model, request.options.get("chat_template")
    if given is not None:
        return read_template(given_template(given)), True
    is_file = isinstance(prepared.server, serve.EngineServer)
    if model.template_thinking is not None and not is_file:
        return model.template_thinking, True
    return (thinking_in(model.on_disk) if model.on_disk else None), is_file


def _learn(request: ServeRequest, prepared: PreparedRequest, finished: Finished) -> None:
    """Corrects the estimate for this model's prompts by what the server counted."""
    if finished.prompt_tokens is not None and not prepared.server.counts_prompts:
        learn_from_reply(request.model.id, request.prompt.parts, finished.prompt_tokens)


def report_departure(model: LocalModel, prepared: PreparedRequest, remote_host: str) -> None:
    """Says that a server has passed on a prompt that was to stay, and records where to."""
    if not remote_host or requires_consent(model) or model.id in read_config().allow:
        return
    host = record_place(model, remote_host).remote_host
    note = (
        f"{prepared.server.label} passed this prompt on to {host}: {model.id} does not run on this"
        " machine any more. llm-localrun will not send it another one, unless you allow that:"
        f" `llm localrun allow {shlex.quote(model.id)}`."
    )
    click.echo(printable(note), err=True)


def _note(request: ServeRequest, prepared: PreparedRequest, finished: Finished) -> str:
    """What the user has to know about a finished answer; "" if there is nothing."""
    if _was_cut(request, prepared, finished):
        return (
            f"{prepared.server.label} read {finished.prompt_tokens:,} tokens of a prompt of about"
            f" {request.prompt.estimate({}).tokens:,}: it may have cut it. Install a newer version."
        )
    if finished.finish_reason == CUT_OFF:
        hint = prepared.server.cut_off_hint
        early = f"{prepared.server.label} ended the answer early without a reason."
        return f"{early} {hint}." if hint else early
    limit, answer = request.options.get("max_tokens"), finished.completion_tokens
    if finished.finish_reason != "length" or (limit and (answer is None or answer >= limit)):
        return ""
    is_counted = answer is not None and finished.prompt_tokens is not None
    used = (finished.prompt_tokens or 0) + (answer or 0) if is_counted else None
    return describe_cut_answer(used, prepared.context_size, prepared.limits)


def _note_without_answer(
    request: ServeRequest,
    prepared: PreparedRequest,
    finished: Finished,
    kinds: Collection[type[Event]],
) -> str:
    """What to do if the model has thought and said nothing; "" if it has answered."""
    if ReasoningDelta not in kinds or TextDelta in kinds or ToolCall in kinds:
        return ""
    ways = []
    if finished.finish_reason == "length":
        ways.append("Use a larger -o max_tokens")
    if _can_stop_thinking(request, prepared):
        ways.append("use -o think off" if ways else "Use -o think off")
    advice = ", or ".join(ways) or "Try again, or choose another model"
    return (
        f"{request.model.id} stopped while it was thinking ({finished.finish_reason}) and gave no"
        f" answer. {advice}."
    )


def _can_stop_thinking(request: ServeRequest, prepared: PreparedRequest) -> bool:
    """Whether `-o think off` would have an effect, as far as is known."""
    model = request.model
    if request.options.get("think") == "off" or "think" not in prepared.server.options:
        return False
    template = _template_thinking(request, prepared)[0]
    if model.think_levels is not None:
        return "off" in model.think_levels
    return template is None or template.has_switch


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
