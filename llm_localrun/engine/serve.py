"""Runs a model from its file: an engine with a context that the prompt takes and memory allows.

What the engine's process does is left to `host`, finding and starting it to `launch`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from llm_localrun import engine_defaults
from llm_localrun.catalogue import drop_file
from llm_localrun.config import Config
from llm_localrun.engine import fallback, launch, saved_prompts
from llm_localrun.engine.evict import need_of
from llm_localrun.engine.launch import LOAD_GRACE_S, AcquiredSlot
from llm_localrun.engine.launch_errors import OTHER_TEMPLATE
from llm_localrun.engine.load_watch import Advance, size_of
from llm_localrun.engine.memory_check import ensure_fits
from llm_localrun.engine.saved_prompts import KeepLimits
from llm_localrun.engine.settings import LAUNCH_OPTIONS, EngineRequest, engine_request
from llm_localrun.engine.slots import Slot, SlotContents, contents_for
from llm_localrun.engine.state import EnginePaths, EngineState, list_running
from llm_localrun.errors import (
    BadModelFile,
    BadReply,
    BuildFailed,
    EngineFailed,
    LocalRunError,
    ServerRefused,
    ServerUnreachable,
)
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.models import Endpoint, LocalModel, OnDisk, ServerStatus
from llm_localrun.servers.base import ADMIN_TIMEOUT_S, NOT_SENT, PreparedRequest, ServeRequest
from llm_localrun.servers.llamacpp import LlamaCpp
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.progress import Progress, working
from llm_localrun.tokens.count import bound_of_text
from llm_localrun.tokens.window import (
    ANSWER_RESERVE_TOKENS,
    Limits,
    Size,
    round_up_context,
    too_long,
)
from llm_localrun.wire import http
from llm_localrun.wire.http import Probe
from llm_localrun.wire.request import ChatRequest
from llm_localrun.wire.response import ResponseContext

_RESTORE_TIMEOUT_S = 60.0

_FROM_USERS = {"tools", "response_format", "grammar"}
"""Parts of a body that can be the cause of an error in llama.cpp, instead of the file."""

_Counts = TypeVar("_Counts")


class EngineServer(LlamaCpp):
    """llama.cpp's server as llm-localrun starts it: one process for each file in use."""

    kind = "engine"
    title = "llama.cpp"
    start_hint = "Try again: it will restart"
    list_position = 99
    is_private = True
    is_product = False
    usual_ports = ()
    signs = ()
    key_variables = ()
    options = {
        **LlamaCpp.options,
        **dict.fromkeys((*LAUNCH_OPTIONS, "keep_alive", "overcommit"), NOT_SENT),
    }

    @property
    def label(self) -> str:
        return self.title

    @property
    def response_context(self) -> ResponseContext:
        return replace(super().response_context, other_template=OTHER_TEMPLATE)

    def __init__(self, endpoint: Endpoint, key: str | None = None) -> None:
        super().__init__(endpoint, key)
        self.timeout_s = ADMIN_TIMEOUT_S
        """How long it may take to count."""
        self.failure: ServerStatus | None = None
        """How the last questions failed; None if they did not."""

    @contextmanager
    def probe(self, timeout_s: float = ADMIN_TIMEOUT_S) -> Iterator[Probe]:
        with super().probe(min(timeout_s, self.timeout_s)) as probe:
            yield probe
        self.failure = probe.failure


def engine_server(engine: EngineState | None = None) -> EngineServer:
    """The server of an engine, or one that is not started yet."""
    endpoint = Endpoint(name="gguf", kind=EngineServer.kind, url=engine.url if engine else "")
    return EngineServer(endpoint, engine.key if engine else None)


@dataclass(frozen=True, kw_only=True)
class _SlotRequest(PreparedRequest):
    """A request that has a slot in an engine."""

    acquired: AcquiredSlot
    job: "_Job"

    def record_prompt_evaluated(self) -> None:
        # llama.cpp (b11549) sends the head when it has removed from the slot what the prompt does
        # not begin with, before it evaluates the rest. If the command is killed meanwhile, the
        # conversation continues in this slot with the part that was evaluated.
        self.acquired.slot.record(self.acquired.contents)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Says why the engine ended early, if it did, and gives the slot back."""
        engine, before = self.acquired.engine, self.acquired.before
        try:
            with self._slot_released():
                yield
        except (BadReply, ServerUnreachable) as error:
            raise self.job.diagnosed(error, engine, before) from None
        except KeyboardInterrupt:
            if failed := launch.end_if_stuck(engine, engine_folder(), before):
                self.job.record_failure(failed)
            raise
        except ServerRefused as error:
            launch.empty_log(engine, engine_folder())
            found = launch.explain_refusal(error, engine)
            if found is not error or not _FROM_USERS & self.body.keys():
                self.job.record_failure(found)
            raise found from None
        self.job.forget_failure()

    @contextmanager
    def _slot_released(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.acquired.slot.release()
            launch.renew_lease(self.acquired.engine, engine_folder(), self.job.keep_alive_s)


@dataclass(frozen=True, slots=True)
class _Job:
    """What to run, and in which engine."""

    model: LocalModel
    request: EngineRequest
    """Without a context size."""
    options: Mapping[str, Any]
    config: Config
    asked_context_size: int | None = None
    answer_tokens: int = ANSWER_RESERVE_TOKENS

    @property
    def running(self) -> EngineState | None:
        """The engine with the largest context of those that run this file with these settings."""
        engines = [
            engine
            for engine in list_running(engine_folder())
            if engine.spec.runs(self.request.path, self.request.settings)
            and launch.is_current(engine.spec)
        ]
        return max(engines, key=lambda engine: engine.spec.context_size, default=None)

    @property
    def trained_context_size(self) -> int:
        return self.model.context_max or engine_defaults.CONTEXT_SIZE

    @property
    def default_context_size(self) -> int:
        return min(self.trained_context_size, engine_defaults.CONTEXT_SIZE)

    def context_size_for(self, prompt: Size, available: int) -> int:
        """The context for a prompt and its answer: `available`, if they fit or the user set it."""
        needed = prompt.tokens + self.answer_tokens
        if self.asked_context_size is not None or needed <= available:
            return available
        return max(
            available,
            self.default_context_size,
            round_up_context(needed, self.trained_context_size),
        )

    @property
    def may_overcommit(self) -> bool:
        """Whether the memory is not checked: RPC servers have an unknown amount of it."""
        return bool(self.options.get("overcommit") or self.config.rpc)

    @property
    def keep_alive_s(self) -> float:
        return float(self.options.get("keep_alive", self.config.keep_alive))

    @property
    def timeout_s(self) -> float:
        """Silence after which the engine counts as hung."""
        return float(self.options.get("timeout", http.READ_TIMEOUT_S))

    def diagnosed(
        self, error: LocalRunError, engine: EngineState, before: Advance
    ) -> LocalRunError:
        """What `launch.diagnose` makes of the error of a request, recorded."""
        failed = launch.diagnose(error, engine, engine_folder(), before)
        if not fallback.settle(failed, self.request, engine_folder()):
            self.record_failure(failed)
        return failed

    def record_failure(self, error: LocalRunError) -> None:
        """Lets a name that means this file mean another one, if it cannot be run.

        Not if the user gave a template, which may be the cause.
        """
        path = self.request.path
        if error.load_problem and not self.options.get("chat_template"):
            FailedLoads().add(path, error.load_problem, self._manifest)
        elif not Path(path).exists():
            drop_file(path)

    def forget_failure(self) -> None:
        FailedLoads().remove(self.request.path, self._manifest)
        fallback.confirm(self.request)

    @property
    def _manifest(self) -> str:
        """Ollama's manifest, if the template is its own: other tags have the same file."""
        route = self.model.on_disk
        return route.manifest if route and self.request.settings.chat_template else ""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The engine for a job, and the largest context that there is memory for."""

    job: _Job
    request: EngineRequest
    affordable: float

    @property
    def context_size(self) -> int:
        return self.request.settings.context_size or self.job.default_context_size

    def find_or_start(self) -> tuple[EngineState, bool]:
        """An engine, and whether it is new."""
        job = self.job
        grace_s: float = job.options.get("timeout", LOAD_GRACE_S)
        try:
            found = launch.find_or_start(self.request, engine_folder(), job.keep_alive_s, grace_s)
        except (BadModelFile, EngineFailed) as error:
            failed = fallback.settle(error, self.request, engine_folder())
            if failed is None:
                job.record_failure(error)
                raise
        else:
            return found
        return self._after(failed).find_or_start()

    def _after(self, failed: BuildFailed) -> "_Plan":
        """The plan for the build that comes after the one that failed. Says so.

        Raises `NotEnoughMemory` if the model needs the memory of a GPU.
        """
        fallback.tell(failed)
        if self.job.may_overcommit:
            return self
        return replace(self, request=ensure_fits(self.job.model, self.request, may_shrink=False))


def prepare(request: ServeRequest, route: OnDisk, config: Config) -> PreparedRequest:
    """The request with a slot in an engine: in a running one if that satisfies it, else a new one.

    Where the bytes of a prompt do not show that it fits, the engine counts its tokens. Raises
    `PromptTooLong`, `NotEnoughMemory` and what `launch.find_or_start` raises.
    """
    model = request.model
    engine = engine_request(model, route, request.options, config)
    asked = request.context_size
    limits = Limits(model.context_max or inf)
    engine_server().check_answer(request, asked or model.context_max, limits)
    job = _Job(model, engine, request.options, config, asked, request.answer_tokens)
    body = engine_server().encode(model.name, request.chat)
    available_engine = job.running
    available = available_engine.spec.context_size if available_engine else job.default_context_size
    context_size = asked or available
    size = request.size_unless_below(context_size - request.answer_tokens)
    if available_engine is not None and job.context_size_for(size, context_size) > context_size:
        size = _counted(job, available_engine, lambda each: each.count_tokens(body)) or size
    plan = _plan(job, job.context_size_for(size, context_size))
    contents = contents_for(request.chat.conversation, _prompt_text(request.chat))
    was_new = False
    if request.prompt.bound >= plan.context_size:
        plan, size, was_new = _grow_after_counting(plan, size, body)
    tokens = _claimed_tokens(request, size, plan)
    prepared = _with_slot(plan, body, replace(contents, tokens=tokens))
    if was_new and prepared.load_seconds is None:
        return replace(prepared, load_seconds=prepared.acquired.engine.load_seconds)
    return prepared


def prepare_texts(
    model: LocalModel,
    route: OnDisk,
    texts: Sequence[str],
    options: Mapping[str, Any],
    config: Config,
) -> PreparedRequest:
    """The request that embeds `texts`, with a slot in an engine.

    The engine counts the texts whose bytes do not show that they fit. Raises `TextTooLong` for the
    first that no context can hold, and other `LocalRunError`s.
    """
    job = _Job(model, engine_request(model, route, options, config), options, config)
    running = job.running
    plan = _plan(job, running.spec.context_size if running else job.default_context_size)
    server, path = engine_server(), EngineServer.embed_path
    body = server.encode_texts(model.name, texts)
    if any(bound_of_text(text) > plan.context_size for text in texts):
        engine, _ = plan.find_or_start()
        available = engine.spec.context_size
        counts = _counted(job, engine, lambda each: each.count_texts(model.name, texts, available))
        if max(counts) > available:
            plan = _plan(job, round_up_context(max(counts), job.trained_context_size))
        limits = Limits(job.trained_context_size, plan.affordable)
        context_size = max(available, plan.context_size)
        PreparedRequest(server, path, body, model.name, context_size, limits).check_texts(counts)
    return replace(_with_slot(plan, body, SlotContents()), path=path)


def _counted(job: _Job, engine: EngineState, count: Callable[[EngineServer], _Counts]) -> _Counts:
    """What an engine counts. Raises `EngineFailed` if it ended, or prepared the text endlessly."""
    server, before = engine_server(engine), launch.advance_of(engine, engine_folder())
    server.timeout_s = min(ADMIN_TIMEOUT_S, job.timeout_s)
    with working(Progress("counting the tokens")):
        counts = count(server)
    if server.failure is not None:
        silence = ServerUnreachable(f"{server.title} did not count the prompt", server.start_hint)
        if (failed := job.diagnosed(silence, engine, before)) is not silence:
            raise failed
    return counts


def _grow_after_counting(
    plan: _Plan, size: Size, body: Mapping[str, Any]
) -> tuple[_Plan, Size, bool]:
    """The plan, with a larger context if the engine counts more tokens than were estimated.

    Also the counted size, and whether an engine was started for this. Raises `PromptTooLong`.
    """
    job = plan.job
    engine, is_new = plan.find_or_start()
    if not size.is_exact:
        size = _counted(job, engine, lambda each: each.count_tokens(dict(body))) or size
    available = engine.spec.context_size
    if (larger := job.context_size_for(size, available)) > available:
        plan = _plan(job, larger)
    # What the user sets holds in a larger engine that happens to run, too.
    context_size = job.asked_context_size or max(available, plan.context_size)
    limits = Limits(job.trained_context_size, plan.affordable)
    if not size.may_fit(context_size):
        raise too_long(size, EngineServer.title, context_size, limits)
    return plan, size, is_new


def _claimed_tokens(request: ServeRequest, size: Size, plan: _Plan) -> int:
    """The tokens that a prompt and its answer may fill of a context that is shared."""
    tokens = size.tokens
    if not size.is_exact:
        tokens = min(tokens, request.prompt.estimate({}).tokens)
    return min(tokens + request.answer_tokens, plan.context_size)


def _prompt_text(chat: ChatRequest) -> str:
    """The prompt as one text: prompts with a common beginning become texts that have one too."""
    turns = (
        (
            message.role,
            message.text,
            message.reasoning,
            [(call.name, json.dumps(dict(call.arguments))) for call in message.calls],
            [media.base64 for media in message.media],
        )
        for message in chat.messages
    )
    # Templates show tools before the conversation: questions with the same tools begin alike.
    tools = (
        (tool.name, tool.description, json.dumps(dict(tool.parameters))) for tool in chat.tools
    )
    return "\n".join(map(repr, chain(tools, turns)))


def _plan(job: _Job, context_size: int) -> _Plan:
    """An engine with this context; with less if memory is short and the user did not set it."""
    wanted = job.request.with_context(context_size)
    if job.may_overcommit:
        return _Plan(job, wanted, inf)
    request = ensure_fits(job.model, wanted, may_shrink=job.asked_context_size is None)
    affordable = inf if request.settings == wanted.settings else request.settings.context_size
    return _Plan(job, request, affordable or inf)


def _with_slot(plan: _Plan, body: Mapping[str, Any], contents: SlotContents) -> _SlotRequest:
    """The request with a slot in the engine of the plan, which may be running already."""
    job = plan.job
    acquired = launch.acquire_slot(contents, engine_folder(), plan.find_or_start)
    server = engine_server(acquired.engine)
    with _released_on_error(acquired.slot):
        _prepare_slot(server, acquired, plan)
    return _SlotRequest(
        server,
        EngineServer.chat_path,
        {**body, "id_slot": acquired.slot.number},
        job.model.name,
        acquired.engine.spec.context_size,
        Limits(job.trained_context_size, plan.affordable),
        acquired.engine.load_seconds if acquired.is_new else None,
        acquired=acquired,
        job=job,
    )


@contextmanager
def _released_on_error(slot: Slot) -> Iterator[None]:
    try:
        yield
    except BaseException:
        slot.release()
        raise


def _prepare_slot(server: EngineServer, acquired: AcquiredSlot, plan: _Plan) -> None:
    """Displaces other conversations, and restores this one if it was saved.

    If either fails, a prompt is evaluated again.
    """
    engine, slot = acquired.engine, acquired.slot
    paths = EnginePaths(engine_folder(), engine.id)
    token_bytes = need_of(engine.spec).context / engine.spec.context_size
    limits = KeepLimits(plan.request.limits.prompt_bytes, token_bytes)
    with working(Progress("saving other conversations")):
        saved_prompts.make_way(paths, engine, slot, acquired.contents, limits)
    if (saved := acquired.saved) is None:
        return
    path = f"/slots/{slot.number}?action=restore"
    body = {"filename": saved.name, "id_slot": slot.number}
    request = server.http_request("POST", path, body, min(_RESTORE_TIMEOUT_S, plan.job.timeout_s))
    # How much of it llama.cpp has read is not known.
    with working(Progress("restoring the conversation", size_of(saved))):
        if saved_prompts.is_intact(saved, engine.id):
            with suppress(BadReply, ServerUnreachable), closing(http.stream(request)) as received:
                for _ in received:
                    pass
    # The engine has it now, and saves more when it is displaced.
    saved.unlink(missing_ok=True)
