"""Measures one model: sends requests whose prompts and answers have a wanted length.

It sends what a chat sends, and reads it as a chat does, but shows nothing and writes to no log.
What the times mean is left to `summary`, the order of the measurements to `run`.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from typing_extensions import assert_never

from llm_localrun.bench.plan import BenchSetting, Subject
from llm_localrun.bench.prompts import Counted, PromptWriter
from llm_localrun.bench.summary import BenchRun, Clock, Doubt, TimedAnswer
from llm_localrun.chat.expected import model_check
from llm_localrun.chat.run import check_allowed, in_use
from llm_localrun.config import Config
from llm_localrun.engine import serve
from llm_localrun.engine.evict import resident
from llm_localrun.engine.launch import renew_lease
from llm_localrun.engine.memory_check import free_memory
from llm_localrun.engine.state import EngineState, list_running
from llm_localrun.engine.stop import stop_if_idle
from llm_localrun.errors import BadReply, BenchFailed, EngineFailed, LocalRunError
from llm_localrun.models import OnDisk, Served
from llm_localrun.servers.base import PreparedRequest, Server, ServeRequest, open_with_stored_key
from llm_localrun.servers.openai_compatible import OpenAICompatible
from llm_localrun.system.paths import engine_folder
from llm_localrun.tokens.window import Size
from llm_localrun.wire import http
from llm_localrun.wire.events import Event, Finished, ReasoningDelta, TextDelta
from llm_localrun.wire.request import ChatMessage, ChatRequest
from llm_localrun.wire.response import ResponseDecoder, ResponseHead

_KEEP_S = 600.0
"""How long an engine stays loaded while other models are measured."""
_LOAD_S = 0.5
"""A server that says how long it took to load a model says so of one in memory, too: less."""
_MAX_LOADS = 3
_WARM_UP_TOKENS = 16
_PATIENCE = 10
"""How many times the usual time an answer may take."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class _CountedRequest(ServeRequest):
    """A request whose size is known, so that it claims no more of a context than it takes."""

    size: Size

    def size_unless_below(self, tokens: int) -> Size:
        return self.size


class Target:
    """A model that is measured."""

    def __init__(self, subject: Subject, settings: Sequence[BenchSetting], config: Config) -> None:
        self.subject = subject
        self.reloads = 0
        """How often it was no longer loaded when its turn came."""
        self.stopping = threading.Event()
        self._config = subject.config(config)
        self._context_size = max(map(subject.context_size, settings), default=0)
        self._writer = PromptWriter(time.time_ns())
        self._cached: dict[BenchSetting, int] = {}
        """Tokens of the prompts that are in the cache, by what was seen when warming up."""
        self._before = {engine.id for engine in _engines(subject)}
        self._head = 0
        """Tokens of the template that come before the words of a prompt."""
        self._whole: dict[BenchSetting, float] = {}
        """Where answers are not streamed: the seconds that one takes at most."""
        self._prepared: PreparedRequest | None = None
        """The last request, whose server counts tokens."""

    def check_allowed(self) -> None:
        """Raises `NotAllowed` if prompts would leave this machine without consent."""
        served = self.subject.model.served
        if isinstance(self.subject.route, Served) and served is not None:
            check_allowed(self.subject.model, self._config, self._server().key)

    def warm_up(self, setting: BenchSetting) -> float:
        """Runs a setting without counting it. Returns the seconds that it will take."""
        if self._prepared is None:
            # It loads the model, and from then on the server counts the tokens of prompts.
            self._ask([self._writer.write([], 0, self._count)], 1)
        short = replace(setting, generate=min(setting.generate, _WARM_UP_TOKENS))
        began = time.perf_counter()
        run = self._run(short, setting)
        took = time.perf_counter() - began
        steps = [(a.last - a.first) / (a.generated - 1) for a in run.answers if a.generated > 1]
        seconds = took + (setting.generate - short.generate) * max(steps, default=0.0)
        if self._server().times_answers and run.generation_clock is Clock.SERVER:
            self._whole[setting] = seconds
        return seconds

    def measure(self, setting: BenchSetting) -> BenchRun:
        """Runs a setting. A run for which the model had to be loaded does not count.

        Raises `BenchFailed` if it is loaded each time.
        """
        for _ in range(_MAX_LOADS):
            run = self._run(setting, setting)
            if not run.was_loaded:
                return run
            self.reloads += 1
        raise BenchFailed(
            f"{self.subject.label} had to be loaded for each of {_MAX_LOADS} runs in a row",
            "Measure it alone, or free memory",
        )

    def processes(self) -> list[int]:
        """The processes of the engines that run the model."""
        return [pid for engine in _engines(self.subject) for pid in (engine.pid, engine.server_pid)]

    def release(self) -> None:
        """Ends the engine that was started for this. Others unload when they would have."""
        for engine in _engines(self.subject):
            if engine.id in self._before:
                renew_lease(engine, engine_folder(), self._config.keep_alive)
            else:
                stop_if_idle(engine, engine_folder())

    def _run(self, setting: BenchSetting, learned_as: BenchSetting) -> BenchRun:
        """Sends the prompts of a setting at once, each after its own beginning.

        Then the same for answers, with prompts that are as short as possible.
        """
        words = max(0, setting.depth - self._head)
        streams = range(setting.concurrency)
        beginnings = [self._writer.beginning(setting.depth, each)[:words] for each in streams]
        tokens = setting.depth + self._cached.get(learned_as, 0) + setting.prompt
        long = [self._writer.write(each, tokens, self._count) for each in beginnings]
        before = [self._writer.write_beginning(each, self._count) for each in beginnings if each]
        prompts, _ = self._ask(long, 1, before)
        short = [self._writer.write(each, 0, self._count) for each in beginnings]
        # Reading a stream would take time from a server that computes on all cores.
        whole_s = self._whole.get(learned_as)
        answers, engine = self._ask(short, setting.generate, before, whole_s)
        run = BenchRun(setting, tuple(prompts), tuple(answers), self._memory(engine))
        cached = min(prompt.cached_tokens or 0 for prompt in prompts)
        if not before:
            # The next prompt is longer by what comes from the cache: the template.
            self._cached[learned_as] = cached
        elif Doubt.DEPTH not in run.doubts:
            self._head = max(0, cached - words)
        return run

    def _ask(
        self,
        prompts: Sequence[Counted],
        generate: int,
        before: Sequence[Counted] = (),
        whole_s: float | None = None,
    ) -> tuple[list[TimedAnswer], EngineState | None]:
        """The answers to requests at once, and the engine that gave them, if one did.

        What comes `before` each is sent first, so that the server's cache holds it. They are
        streamed, unless they take `whole_s`.
        """
        self._stop_other_builds()
        with ExitStack() as held:
            sent = []
            for prompt in prompts:
                chat = self._chat(prompt.text, generate, may_cache=bool(before), whole_s=whole_s)
                request, prepared = self._prepare(chat, prompt)
                held.enter_context(in_use(request.model, prepared))
                sent.append((request, prepared))
            self._check_build(engine := self._engine(prepared))
            # The slots of the engine stay acquired, so that nothing is displaced in between.
            first = [
                (request, self._prepare_before(prepared, counted))
                for (request, prepared), counted in zip(sent, before, strict=False)
            ]
            for pairs in filter(None, (first, sent)):
                answers = _at_once([partial(self._answer, *pair) for pair in pairs], self.stopping)
        for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            if answer.prompt_tokens is not None:
                # Some servers leave out what came from the cache, and do not say how much.
                if not before or answer.cached_tokens is not None:
                    self._writer.learn(prompt.text, answer.prompt_tokens)
            elif prompt.is_exact:
                # The server has counted it, and does not repeat that.
                answers[index] = replace(answer, prompt_tokens=prompt.tokens)
        return answers, engine

    def _prepare_before(self, prepared: PreparedRequest, before: Counted) -> PreparedRequest:
        """The request for the beginning of a prompt, to where `prepared` will be sent."""
        chat = self._chat(before.text, 1, may_cache=True)
        if isinstance(prepared.server, serve.EngineServer):
            body = prepared.server.encode(prepared.model, chat)
            return replace(prepared, body={**body, "id_slot": prepared.body["id_slot"]})
        _, prepared_before = self._prepare(chat, before)
        return prepared_before

    def _engine(self, prepared: PreparedRequest) -> EngineState | None:
        url = prepared.server.endpoint.url
        return next((each for each in _engines(self.subject) if each.url == url), None)

    def _prepare(self, chat: ChatRequest, prompt: Counted) -> tuple[ServeRequest, PreparedRequest]:
        model, route = self.subject.model, self.subject.route
        request = _CountedRequest(
            model,
            chat,
            partial(free_memory, self._config.llama_server),
            size=Size(prompt.tokens, is_exact=prompt.is_exact),
        )
        match route:
            case Served():
                prepared = self._server().prepare(request, route)
            case OnDisk():
                prepared = serve.prepare(request, route, self._config)
            case _:
                assert_never(route)
        self._prepared = prepared
        return request, prepared

    def _server(self) -> Server:
        route = self.subject.route
        if isinstance(route, Served):
            return open_with_stored_key(route.endpoint)
        return serve.engine_server()

    def _chat(
        self, text: str, generate: int, may_cache: bool, whole_s: float | None = None
    ) -> ChatRequest:
        server = type(self._server())
        options = {
            "temperature": 0.0,
            "max_tokens": generate,
            "extra_body": {**server.measured, **({} if may_cache else server.without_cache)},
        }
        if whole_s is not None:
            # The server says nothing meanwhile.
            options["timeout"] = max(http.READ_TIMEOUT_S, _PATIENCE * whole_s)
        if isinstance(self.subject.route, OnDisk):
            keep_s = self._config.keep_alive
            options["keep_alive"] = keep_s if keep_s < 0 else max(keep_s, _KEEP_S)
            options["context_size"] = self._context_size
        known = {name: value for name, value in options.items() if name in server.options}
        streams = server.streams and whole_s is None
        return ChatRequest((ChatMessage("user", text),), known, stream=streams)

    def _count(self, text: str) -> int | None:
        """The tokens of a prompt with this text; None if the server does not count."""
        prepared = self._prepared
        if prepared is None or not isinstance(prepared.server, OpenAICompatible):
            return None
        body = {**prepared.body, "messages": [{"role": "user", "content": text}]}
        size = prepared.server.count_tokens(body)
        return size.tokens if size and size.is_exact else None

    def _answer(self, request: ServeRequest, prepared: PreparedRequest) -> TimedAnswer:
        """Sends a request. Raises a `LocalRunError`."""
        server = prepared.server
        context = replace(
            server.response_context,
            model=prepared.model,
            is_other_model=model_check(request.model, prepared),
        )
        decoder = ResponseDecoder(server.label, server.decoder(()), context)
        events: list[tuple[float, Event]] = []
        began = time.perf_counter()
        with closing(http.stream(prepared.http_request(request.timeout_s))) as received:
            for piece in received:
                if isinstance(piece, ResponseHead) and piece.status == HTTPStatus.OK:
                    prepared.record_prompt_evaluated()
                events += [(time.perf_counter(), event) for event in decoder.feed(piece)]
                if self.stopping.is_set():
                    raise KeyboardInterrupt
        events += [(time.perf_counter(), event) for event in decoder.close()]
        times = [at for at, event in events if isinstance(event, TextDelta | ReasoningDelta)]
        ends = [(at, event) for at, event in events if isinstance(event, Finished)]
        if not ends:
            raise BadReply(f"{server.label} did not end its answer", "Try again")
        ended, end = ends[0]
        # A first token such as <think> shows nothing: then the end tells when it came.
        return _answer_of(began, times or [ended], end, prepared.load_seconds)

    def _memory(self, engine: EngineState | None) -> int | None:
        if engine is not None:
            return resident(engine.server_pid)
        return self._server().memory_of(self.subject.model)

    def _stop_other_builds(self) -> None:
        """Ends an engine of another build: one engine runs a file."""
        build = self.subject.build
        for engine in _engines(self.subject) if build else ():
            if build and engine.build_path != build.path:
                stop_if_idle(engine, engine_folder())

    def _check_build(self, engine: EngineState | None) -> None:
        build = self.subject.build
        if build is not None and engine is not None and engine.build_path != build.path:
            raise EngineFailed(
                f"{engine.build} runs {self.subject.model.name} instead of {build.name}",
                "`llm localrun engine list` says why",
            )


def _engines(subject: Subject) -> list[EngineState]:
    """The engines that run the file of a subject."""
    route = subject.route
    if not isinstance(route, OnDisk):
        return []
    return [each for each in list_running(engine_folder()) if each.spec.path == route.path]


def _answer_of(
    began: float, times: Sequence[float], end: Finished, load_seconds: float | None
) -> TimedAnswer:
    return TimedAnswer(
        began=began,
        first=times[0],
        last=times[-1],
        prompt_tokens=end.prompt_tokens,
        cached_tokens=end.cached_tokens,
        generated=end.completion_tokens or len(times),
        prompt_rate=end.prompt_tokens_per_second,
        generation_rate=end.generation_tokens_per_second,
        was_loaded=load_seconds is not None or (end.load_seconds or 0.0) > _LOAD_S,
    )


def _at_once(calls: Sequence[Callable[[], _Result]], stopping: threading.Event) -> list[_Result]:
    """The results of calls that run at the same time. Raises the first error of any.

    The threads are daemons: one that waits for a server does not keep the process when the user
    interrupts it.
    """
    if len(calls) == 1:
        return [calls[0]()]
    results: dict[int, _Result] = {}
    errors: list[BaseException] = []

    def call(index: int) -> None:
        try:
            results[index] = calls[index]()
        except (LocalRunError, KeyboardInterrupt) as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=[i], daemon=True) for i in range(len(calls))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        stopping.set()
        with suppress(KeyboardInterrupt):
            for thread in threads:
                thread.join(1.0)
        raise
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(calls))]
