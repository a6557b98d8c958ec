"""Runs a `ChatRequest` with a model on a route: prepares it, sends it, and decodes the response.

Sync and async differ in one loop each; everything else is shared. Fitting the request to a server
is left to `servers`, to an engine to `engine.serve`; how a question is asked again to `attempts`,
what the user is told to `notes`, what the response says to `wire.response`.
"""

import shlex
import sys
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import (
    AbstractContextManager,
    aclosing,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import Any

from typing_extensions import assert_never

from llm_localrun.catalogue import (
    check_place,
    drop_model,
    drop_renamed_model,
    locate,
    note_offline,
)
from llm_localrun.chat.attempts import (
    Aim,
    Attempt,
    Attempts,
    Ending,
    no_call,
    settle_tools,
    wants_json,
)
from llm_localrun.chat.expected import response_context
from llm_localrun.chat.modelfile import request_defaults
from llm_localrun.chat.notes import (
    note,
    note_of_end,
    note_of_equal_calls,
    note_of_limits,
    note_of_repair,
    note_of_tools,
    note_without_answer,
    report_departure,
)
from llm_localrun.chat.response import end_line
from llm_localrun.chat.shown import Shown
from llm_localrun.chat.tools import (
    has_results,
    identity,
    tools_named,
    with_repeats_noted,
    with_tools_described,
)
from llm_localrun.config import Config, read_config
from llm_localrun.engine import serve
from llm_localrun.engine.memory_check import free_memory
from llm_localrun.engine.settings import given_template
from llm_localrun.errors import (
    AnswerNotJson,
    BadReply,
    BuildFailed,
    LocalRunError,
    NotAllowed,
    PromptTooLong,
    ServerRefused,
    ServerUnreachable,
    UnsupportedOption,
    WrongModel,
)
from llm_localrun.files.modelfile import has_place_for_thinking
from llm_localrun.models import Endpoint, LocalModel, OnDisk, Route, Served
from llm_localrun.names.parse import parse_name
from llm_localrun.privacy import WHERE, is_loopback, requires_consent
from llm_localrun.resolve import how_to_use
from llm_localrun.servers.base import (
    PreparedRequest,
    Server,
    ServeRequest,
    is_malformed_call,
    open_server,
    server_class,
)
from llm_localrun.system.progress import tell
from llm_localrun.system.threads import in_thread
from llm_localrun.tokens.learned import learn_from_reply
from llm_localrun.wire import http
from llm_localrun.wire.endless import EndWatch
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta, ToolCall
from llm_localrun.wire.request import ChatRequest, nearest_think_level
from llm_localrun.wire.response import ResponseDecoder, ResponseHead


def stream(
    model: LocalModel,
    route: Route,
    request: ChatRequest,
    key: str | None,
    shown: Shown | None = None,
) -> Generator[Event, None, None]:
    """The events of the model's answer; closing the iterator stops it. Raises a `LocalRunError`."""
    exchange: _Exchange | None = _start(model, route, request, key, shown)
    while exchange is not None:
        try:
            yield from _received(exchange)
            following = exchange.next()
        except KeyboardInterrupt:
            yield from exchange.kept_words()
            raise
        yield from exchange.rest()
        exchange = following


def _received(exchange: "_Exchange") -> Iterator[Event]:
    """Sends one request; its events as they come."""
    with exchange.in_use():
        with closing(http.stream(exchange.http_request)) as received:
            try:
                for piece in received:
                    yield from exchange.feed(piece)
                    if exchange.is_endless:
                        break
            except (BadReply, ServerUnreachable):
                yield from exchange.flush()
                raise
        yield from exchange.close()


async def astream(
    model: LocalModel,
    route: Route,
    request: ChatRequest,
    key: str | None,
    shown: Shown | None = None,
) -> AsyncGenerator[Event, None]:
    """`stream`, for an event loop: starting an engine does not block it."""
    start = partial(_start, model, route, request, key, shown)
    exchange: _Exchange | None = await in_thread(start, _release)
    while exchange is not None:
        with exchange.in_use():
            async with aclosing(http.astream(exchange.http_request)) as received:
                try:
                    async for piece in received:
                        for event in exchange.feed(piece):
                            yield event
                        if exchange.is_endless:
                            break
                except (BadReply, ServerUnreachable):
                    for event in exchange.flush():
                        yield event
                    raise
            for event in exchange.close():
                yield event
        following = await in_thread(exchange.next, _release)
        for event in exchange.rest():
            yield event
        exchange = following


def _release(exchange: "_Exchange | None") -> None:
    """Releases what a request holds that is not sent, because its task was cancelled."""
    if exchange is not None:
        with suppress(CancelledError), exchange.prepared.in_use():
            raise CancelledError


@contextmanager
def in_use(model: LocalModel, prepared: PreparedRequest) -> Iterator[None]:
    """Around an exchange: keeps the catalogue true if the server is off or lacks the model.

    If the model lacks what the request needs, the error says what to run instead.
    """
    server = prepared.server
    try:
        with _catalogue_kept_true(model, server.endpoint, prepared.model), prepared.in_use():
            yield
    except ServerRefused as error:
        if error.lacks:
            otherwise = "Leave out -o think. " * (error.lacks == "thinking")
            error.advise(f"{otherwise}{how_to_use(error.lacks, without=model.id)}")
        raise


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
    """A request that is ready to be sent, and what has come of its response.

    The last part of an answer is held until it is clear that the question is not asked again.
    """

    sender: "_Sender"
    attempt: Attempt
    request: ServeRequest
    prepared: PreparedRequest
    decoder: ResponseDecoder
    watch: EndWatch | None = None
    """Looks whether the answer ends, as long as it is not shown."""
    kept: "_Exchange | None" = None
    """Whose answer is shown, if asking again does not make up for it."""
    finished: list[Finished] = field(default_factory=list)
    """The ends of all answers to the question."""
    again: "Callable[[], _Exchange] | None" = None
    """Asks the question again; set at the end, if the answer does not count."""
    has_begun: bool = False
    """Whether a part of the answer has come."""
    last: Event | None = None
    """The last part of the answer, if nothing has been printed after it."""
    kinds: set[type[Event]] = field(default_factory=set)
    """What has been shown, but for text that is blank."""
    held: list[Event] = field(default_factory=list)
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    """The calls of the answer, with how often it makes each."""
    is_left: bool = False
    """Whether the answer was not read to its end."""
    error: LocalRunError | None = None
    """How the answer has ended, after what is held."""

    @property
    def http_request(self) -> http.HttpRequest:
        return self.prepared.http_request(self.request.timeout_s)

    @property
    def is_endless(self) -> bool:
        """Whether the rest of the answer need not be read."""
        is_endless = self.watch is not None and self.watch.is_endless
        return is_endless or self.decoder.has_endless_calls

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Around the exchange: its failure does not hide an answer that is kept."""
        try:
            with self._watched(), in_use(self.request.model, self.prepared):
                yield
        except BuildFailed as error:
            if self.has_begun or not error.instead:
                raise
            self._tell(error.instead)
            self.again = self._sent_again
        except LocalRunError:
            if self.kept is None:
                raise

    def _watched(self) -> AbstractContextManager[None]:
        shown, server = self.sender.shown, self.prepared.server
        if shown is None:
            return nullcontext()
        return shown.watching(partial(server.progress, self.request, self.prepared))

    def _sent_again(self) -> "_Exchange":
        return self._followed_by(self.attempt, *self.sender.prepared(self.attempt))

    def feed(self, piece: ResponseHead | bytes) -> Iterator[Event]:
        """The events in a piece of the response."""
        if isinstance(piece, ResponseHead) and piece.status == HTTPStatus.OK:
            self.prepared.record_prompt_evaluated()
        if self.error is not None:
            return
        try:
            yield from self._shown_at_once(filter(self._counts, self.decoder.feed(piece)))
            if (shown := self.sender.shown) is not None:
                shown.look(self.decoder)
        except ServerRefused as error:
            if not is_malformed_call(error):
                raise
            self.error = error

    def flush(self) -> Iterator[Event]:
        """What has come of an answer whose connection has broken, and is not shown yet."""
        yield from self._shown_at_once(self.decoder.flush())

    def close(self) -> Iterator[Event]:
        """The last events, or none if `next` or `rest` has others."""
        self.is_left = self.is_endless and self.error is None
        try:
            last = self.decoder.leave() if self.is_left else self.decoder.close()
            for event in () if self.error else filter(self._counts, last):
                self.held.append(event)
        except LocalRunError as error:
            self.error = error
        ending = self._ending()
        self.finished += [each for each in self.held if isinstance(each, Finished)]
        self.again = self._asks_again(ending)
        if self.attempt.follows_refusal and isinstance(self.error, AnswerNotJson | None):
            tools_refused[self.request.model.id] = self.attempt.describes_tools
        answers = ending.has_called or any(map(self._are_words, self.held))
        if self.again is None and (self.kept is None or answers):
            self.kept = None
            yield from self._show()

    def next(self) -> "_Exchange | None":
        """The exchange that asks again; None if the question is answered, or cannot be asked.

        Raises `PromptTooLong` if no context can hold it.
        """
        if self.again is None:
            return None
        try:
            with tools_named(self.attempt.wanted):
                following = self.again()
        except LocalRunError:
            if self.kept is None:
                raise
            return None
        self.kept = None
        return following

    def rest(self) -> Iterator[Event]:
        """The last events of the answer that is kept, if nothing has made up for it."""
        if self.kept is not None:
            yield from self.kept._show()

    def kept_words(self) -> Iterator[Event]:
        """What the answer that is kept says, if asking again is interrupted: no call of it runs."""
        held = self.kept.held if self.kept is not None else ()
        return (event for event in held if isinstance(event, TextDelta | ReasoningDelta))

    def _ending(self) -> Ending:
        events = [type(event) for event in self.held]
        reasons = [each.finish_reason for each in self.held if isinstance(each, Finished)]
        found = self.held if self.decoder.has_found_calls else ()
        calls = [each for each in found if isinstance(each, ToolCall)]
        answered = self.sender.attempts.is_answered
        again = (call.name for call in calls if answered(call.name, call.arguments))
        return Ending(
            again=next(again, ""),
            error=self.error,
            finish_reason="".join(reasons),
            has_text=TextDelta in self.kinds,
            has_called=ToolCall in self.kinds or ToolCall in events,
            broken=self.decoder.broken_call,
            unknown=self.decoder.unknown_tools,
            is_endless=self.is_endless,
        )

    def _asks_again(self, ending: Ending) -> "Callable[[], _Exchange] | None":
        """What sends the request in a larger context, if it was refused in this one, or another."""
        error, enlarge = self.error, self.prepared.enlarge
        if isinstance(error, PromptTooLong) and error.prompt_tokens and not self.has_begun:
            sizes = error.prompt_tokens, error.context_size
            if enlarge is not None:
                return lambda: self._followed_by(self.attempt, self.request, enlarge(*sizes))
            return None
        other = self.prepared.after_refusal(error) if error and not self.has_begun else None
        if other is not None:
            return lambda: self._followed_by(self.attempt, self.request, other)
        attempt = self.sender.attempts.after(self.attempt, ending)
        if attempt is None:
            return None
        self._account()
        if attempt.is_repair and self.kept is None:
            self.kept = self
            is_plain = attempt.aim is Aim.WORDS
            self._tell(note_of_repair(self.request.model.id, ending, is_plain=is_plain))
        return lambda: self._followed_by(attempt, *self.sender.prepared(attempt))

    def _followed_by(
        self, attempt: Attempt, request: ServeRequest, prepared: PreparedRequest
    ) -> "_Exchange":
        following = self.sender.exchange(attempt, request, prepared)
        following.kept, following.finished = self.kept, self.finished
        return following

    def _show(self) -> Iterator[Event]:
        """The last events. Prints what the user has to know. Raises the error at the end."""
        error, ending, must_call = self.error, self._ending(), self.attempt.must_call
        if error is None and must_call and not ending.has_called:
            error = no_call(self.request.model.id, must_call, ending)
        for event in self.held:
            shown = event
            if isinstance(event, Finished):
                self._account()
                self._tell(self._note(event))
                twice = {name: None for (name, _), count in self.calls.items() if count > 1}
                self._tell(note_of_equal_calls(self.request.model.id, twice))
                self._tell(self.decoder.note)
                if self.attempt.aim is Aim.SHORT_CALL:
                    self._tell(note_of_limits(self.request.model.id, self.held))
                shown = self._counted(event)
            self._see(event)
            yield shown
        if error is not None:
            raise error

    def _note(self, event: Finished) -> str:
        if self.is_left:
            return note_of_end(self.request.model.id)
        seen = self.request, self.prepared, event
        # That a call lacks is an error of its own.
        lacks = "" if self.attempt.must_call else note_without_answer(*seen, self.kinds)
        return lacks or note(*seen)

    def _account(self) -> None:
        """Learns from the token counts, and says that the prompt went elsewhere, if it did."""
        for event in self.held:
            if isinstance(event, Finished):
                _learn(self.request, self.prepared, event)
                report_departure(self.request.model, self.prepared, event.remote_host or "")

    def _counted(self, event: Finished) -> Finished:
        """The end of the answer, with the tokens of all answers to the question."""
        total: dict[str, Any] = {
            name: _sum(getattr(each, name) for each in self.finished) for name in _COUNTS
        }
        return replace(event, **total, tool_repair=self.attempt.is_repair or None)

    def _shown_at_once(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            self.has_begun = True
            self.held.append(event)
            if self.kept is not None and not self._are_words(event):
                continue
            self.kept, shown, self.held = None, self.held, []
            for each in shown:
                self._see(each)
                yield each

    def _are_words(self, event: Event) -> bool:
        """Whether an answer to which no tools are offered says something."""
        is_text = isinstance(event, TextDelta) and bool(event.text.strip())
        return is_text and self.attempt.aim is Aim.WORDS

    def _counts(self, event: Event) -> bool:
        """Whether it is no call that the answer has made before, or must not make."""
        if not isinstance(event, ToolCall):
            return True
        is_another = self.attempt.aim is Aim.ANOTHER_CALL
        tools = self.attempt.callable_tools if is_another else self.attempt.must_call
        if tools and event.name not in [tool.name for tool in tools]:
            return False
        call = identity(event.name, event.arguments)
        self.calls[call] = self.calls.get(call, 0) + 1
        return self.calls[call] == 1

    def _see(self, event: Event) -> None:
        self.last = event
        if self.watch is not None and self.attempt.aim not in (Aim.CALL, Aim.SHORT_CALL):
            self.watch.forget()
        if not isinstance(event, TextDelta) or event.text.strip():
            self.kinds.add(type(event))

    def _tell(self, note: str) -> None:
        if not note:
            return
        if sys.stderr.isatty() or isinstance(self.last, ReasoningDelta):
            end_line(self.last, is_streamed=self.attempt.wanted.stream)
            self.last = None
        tell(note)


tools_refused: dict[str, bool] = {}
"""The models for which tools were refused since this process began, with whether they are described
to them. Otherwise the server leaves calls in the text."""

_COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum of what was reported; None if nothing was."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _start(
    model: LocalModel, route: Route, request: ChatRequest, key: str | None, shown: Shown | None
) -> _Exchange:
    config = read_config()
    server = _server_of(route)
    chat = request_defaults(model, route).applied_to(with_repeats_noted(request))
    chat = settle_tools(chat, server)
    described = tools_refused.get(model.id)
    options = _settle_options(model, chat)
    chat = replace(chat, options=options, calls_as_text=described is False)
    describes_tools = described or not _takes_tools(model, route, chat)
    attempts = Attempts(chat, server, describes_tools)
    sender = _Sender(model, route, key, config, attempts, shown)
    first = attempts.first()
    if sys.stderr.isatty() and not has_results(chat) and (told := note_of_tools(first.wanted)):
        tell(told)
    with tools_named(first.wanted):
        return sender.exchange(first, *sender.prepared(first))


def _takes_tools(model: LocalModel, route: Route, chat: ChatRequest) -> bool:
    """Whether the chat template has a place for tools, or may have one."""
    given = chat.options.get("chat_template")
    if given is not None and isinstance(route, OnDisk):
        return "tools" in given_template(given)
    return model.can("tools", if_unknown=True)


def _server_of(route: Route) -> type[Server]:
    if isinstance(route, Served):
        return server_class(route.endpoint.kind)
    return serve.EngineServer


@dataclass(frozen=True, slots=True)
class _Sender:
    """Sends chat requests to a model on one of its routes."""

    model: LocalModel
    route: Route
    key: str | None
    config: Config
    attempts: Attempts
    shown: Shown | None

    def prepared(self, attempt: Attempt) -> tuple[ServeRequest, PreparedRequest]:
        """The request of an attempt, ready to be sent. Raises a `LocalRunError`."""
        chat = with_tools_described(attempt.sent) if attempt.describes_tools else attempt.sent
        request = ServeRequest(self.model, chat, lambda: free_memory(self.config.llama_server))
        match self.route:
            case Served():
                check_allowed(self.model, self.config, self.key)
                server = open_server(self.route.endpoint, self.key)
                # What only a later request may need is refused before the first.
                server.encode_options(self.attempts.chat.options)
                if self.attempts.chat.schema is not None and not server.accepts_schemas:
                    raise UnsupportedOption(
                        f"{server.title} cannot make answers follow a schema",
                        "Leave it out, or choose a model of another server",
                    )
                prepared = server.prepare(request, self.route)
            case OnDisk():
                prepared = serve.prepare(request, self.route, self.config)
            case _:
                assert_never(self.route)
        return request, prepared

    def exchange(
        self, attempt: Attempt, request: ServeRequest, prepared: PreparedRequest
    ) -> _Exchange:
        context = response_context(request, prepared, attempt)
        if attempt.aim is Aim.ANYTHING and self.attempts.may_repair:
            context = replace(
                context,
                is_answered=self.attempts.is_answered,
                holds_unknown=self.attempts.asks_about_unknown(attempt),
            )
        names = [tool.name for tool in attempt.callable_tools]
        decoder = prepared.server.decoder(names)
        watch = EndWatch(decoder, names) if names else None
        response = ResponseDecoder(prepared.server.label, watch or decoder, context)
        return _Exchange(self, attempt, request, prepared, response, watch)


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
    if "grammar" in options and (chat.tools or wants_json(chat)):
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
        f"Leave out -o think. {how_to_use('thinking', '-o', 'think', wanted, without=model.id)}",
    )


def _may_think(model: LocalModel) -> bool:
    """Whether the model thinks as far as its file shows, or its server, or else its name."""
    if model.can("thinking", if_unknown=False) or parse_name(model.name).thinks:
        return True
    return model.on_disk is None or has_place_for_thinking(model.on_disk)


def _learn(request: ServeRequest, prepared: PreparedRequest, finished: Finished) -> None:
    """Corrects the estimate for this model's prompts by what the server counted."""
    if finished.prompt_tokens is not None and not prepared.server.counts_prompts:
        learn_from_reply(request.model.id, request.prompt.parts, finished.prompt_tokens)
