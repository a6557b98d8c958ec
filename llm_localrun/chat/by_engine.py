"""The engine: started by us, with a context that the prompt takes and that there is memory for."""

from contextlib import closing, suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from llm_localrun import engine_defaults
from llm_localrun.chat.serving_common import Server, Wish, asked_context, checked, counted, size_of
from llm_localrun.config import Config
from llm_localrun.engine import launch, saved_prompts
from llm_localrun.engine.memory_check import ensure_fits
from llm_localrun.engine.settings import EngineLimits, engine_settings, read_limits
from llm_localrun.engine.state import EngineSettings, EngineState, list_running
from llm_localrun.errors import BadReply, ServerUnreachable
from llm_localrun.models import Endpoint, LocalModel
from llm_localrun.system.paths import engine_folder
from llm_localrun.tokens.window import Limits, Size, grown
from llm_localrun.wire import http

_RESTORE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be run and how. `asked` is the context if the user has said so, `up` an engine
    that would do but for its context."""

    model: LocalModel
    wish: Wish
    config: Config
    settings: EngineSettings
    asked: int | None
    up: EngineState | None

    @property
    def trained(self) -> int:
        return self.model.context_max or engine_defaults.CONTEXT_SIZE

    @property
    def usual(self) -> int:
        """The context of an engine that nobody needs more of."""
        return min(self.trained, engine_defaults.CONTEXT_SIZE)

    @property
    def held(self) -> int:
        """The context that there is if nothing is done about it."""
        return self.up.spec.context_size if self.up else self.usual

    def grown_for(self, prompt: Size, held: int) -> int:
        """The context of an engine for a prompt and its answer: `held`, if they fit or the user has
        said so."""
        needed = prompt.tokens + self.wish.answer
        if self.asked is not None or needed <= held:
            return held
        return max(held, self.usual, grown(needed, self.trained))

    @property
    def keep_alive(self) -> float:
        keep_alive: float = self.wish.options.get("keep_alive", self.config.keep_alive)
        return keep_alive

    @property
    def load_grace(self) -> float:
        load_grace: float = self.wish.options.get("timeout", launch.LOAD_GRACE_S)
        return load_grace

    def server(self, engine: EngineState) -> Server:
        return Server(
            endpoint=Endpoint(name="gguf", kind="engine", url=engine.url),
            key=engine.key,
            model=self.model.name,
            context_size=engine.spec.context_size,
            keep_alive=self.keep_alive,
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """The engine that a job is to have, and the largest context that there is memory for."""

    job: _Job
    settings: EngineSettings
    bounds: EngineLimits
    affordable: float

    @property
    def context_size(self) -> int:
        assert self.settings.context_size is not None
        return self.settings.context_size

    def engine(self) -> tuple[EngineState, bool]:
        """One that is up, or a new one; and whether it is new."""
        job = self.job
        assert job.model.path is not None
        request = launch.EngineRequest(job.model.path, job.model.name, self.settings)
        return launch.find_or_start(
            request, engine_folder(), job.keep_alive, job.load_grace, self.bounds
        )

    def server(self, engine: EngineState) -> Server:
        """What `engine` will be when it has been replaced by one with the context of the plan."""
        context_size = max(engine.spec.context_size, self.context_size)
        limits = Limits(self.job.trained, self.affordable)
        return replace(self.job.server(engine), context_size=context_size, limits=limits)


def find(model: LocalModel, wish: Wish, config: Config) -> Server:
    """A slot in an engine for `model`: one that is up, if it will do, or else a new one.

    Where the bytes of a prompt do not show that it fits, the engine counts its tokens. Raises
    `PromptTooLong`, `NotEnoughMemory` and what `launch.find_or_start` raises.
    """
    assert model.on_disk is not None
    settings = engine_settings(model, model.on_disk, wish.options, config)
    job = _Job(model, wish, config, settings, asked_context(model, wish), _up(model, settings))
    context_size = job.asked or job.held
    if wish.prompt is None:
        return _seated(_planned(job, context_size))
    size = size_of(wish.prompt, model, context_size - wish.answer)
    if job.up is not None and job.grown_for(size, context_size) > context_size:
        size = counted(job.server(job.up), wish) or size
    plan = _planned(job, job.grown_for(size, context_size))
    if wish.prompt.bound < plan.context_size:
        return _seated(plan, _claim(plan, size))
    return _checked(plan, size)


def _checked(plan: _Plan, size: Size) -> Server:
    """A slot in the engine of the plan, or in one with a larger context if it counts more tokens
    than were estimated. Raises `PromptTooLong`."""
    job = plan.job
    engine, is_new = plan.engine()
    if not size.is_exact:
        size = counted(plan.server(engine), job.wish) or size
    held = engine.spec.context_size
    if (larger := job.grown_for(size, held)) > held:
        plan = _planned(job, larger)
    server = plan.server(engine)
    # What the user has settled holds in a larger engine that happens to be up, too.
    checked(size, replace(server, context_size=job.asked or server.context_size))
    return _seated(plan, _claim(plan, size), was_new=is_new)


def _claim(plan: _Plan, size: Size) -> int:
    """The tokens that a prompt and its answer may fill of a context that is shared."""
    prompt = plan.job.wish.prompt
    assert prompt is not None
    tokens = size.tokens if size.is_exact else min(size.tokens, prompt.estimate({}).tokens)
    return min(tokens + plan.job.wish.answer, plan.context_size)


def _up(model: LocalModel, settings: EngineSettings) -> EngineState | None:
    """The engine with the largest context of those that run the model's file so."""
    engines = [
        engine
        for engine in list_running(engine_folder())
        if engine.spec.path == model.path and engine.spec.settings.satisfies(settings)
    ]
    return max(engines, key=lambda engine: engine.spec.context_size, default=None)


def _planned(job: _Job, context_size: int) -> _Plan:
    """An engine with this context; with less if memory lacks, and the user has not asked for it."""
    wanted = replace(job.settings, context_size=context_size)
    bounds = read_limits(job.config)
    if job.wish.options.get("overcommit") or job.config.rpc:
        return _Plan(job, wanted, bounds, inf)
    settings, bounds = ensure_fits(job.model, wanted, bounds, may_shrink=job.asked is None)
    affordable = inf if settings == wanted else settings.context_size
    return _Plan(job, settings, bounds, affordable or inf)


def _seated(plan: _Plan, claim: int = 0, *, was_new: bool = False) -> Server:
    """A slot in the engine of the plan, which may have been started for this already."""
    visit = replace(plan.job.wish.visit, tokens=claim)
    seated = launch.acquire_slot(visit, engine_folder(), plan.engine)
    server = replace(plan.server(seated.engine), seated=seated)
    if seated.saved is not None:
        _restore(server, seated, seated.saved)
    if seated.is_new or was_new:
        return replace(server, load_seconds=seated.engine.load_seconds)
    return server


def _restore(server: Server, seated: launch.AcquiredSlot, saved: Path) -> None:
    """Restores a conversation that an earlier engine has saved.

    If that fails, llama.cpp evaluates the prompt again.
    """
    path = f"/slots/{seated.slot.number}?action=restore"
    call = server.call(path, {"filename": saved.name}, _RESTORE_TIMEOUT_S)
    try:
        if saved_prompts.is_intact(saved):
            with suppress(BadReply, ServerUnreachable), closing(http.stream(call)) as received:
                for _ in received:
                    pass
    except BaseException:
        seated.slot.release()
        raise
    # The engine holds the conversation now, and saves it again when it ends.
    saved.unlink(missing_ok=True)
