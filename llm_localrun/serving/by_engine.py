"""The engine: started by us, with a context that the prompt takes and that there is memory for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from llm_localrun.catalogue import Endpoint, LocalModel
from llm_localrun.config import Config, engine_folder
from llm_localrun.context import Limits, Size, grown
from llm_localrun.engine import launch
from llm_localrun.engine.launch import DEFAULT_CONTEXT_SIZE
from llm_localrun.engine.state import EngineSettings, EngineState, running
from llm_localrun.errors import LocalRunError, UnsupportedOption
from llm_localrun.serving.admission import admitted
from llm_localrun.serving.common import Server, Wish, asked_context, checked, counted, size_of

_PATIENCE = 60.0
"""Seconds that loading a file may take beyond what its size makes likely."""
_UNQUANTIZED = ("f32", "f16", "bf16")


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be run, how, and with which context if the user has said so."""

    model: LocalModel
    wish: Wish
    config: Config
    asked: int | None

    @property
    def trained(self) -> int:
        return self.model.context_max or DEFAULT_CONTEXT_SIZE

    @property
    def usual(self) -> int:
        """The context of an engine that nobody needs more of."""
        return min(self.trained, DEFAULT_CONTEXT_SIZE)

    def room_for(self, tokens: int) -> int:
        """The context of an engine for so many tokens, of prompt and answer together."""
        return max(self.usual, grown(tokens, self.trained))

    @property
    def keep_alive(self) -> float:
        keep_alive: float = self.wish.options.get("keep_alive", self.config.keep_alive)
        return keep_alive

    def settings(self, context_size: int | None) -> EngineSettings:
        options = self.wish.options
        return EngineSettings(
            context_size=context_size,
            threads=options.get("threads", self.config.threads),
            gpu_layers=options.get("gpu_layers"),
            kv_cache_type=options.get("kv_cache_type"),
            flash_attention=options.get("flash_attention"),
            embedding=self.model.purpose == "embedding",
            projector=self.model.projector,
            lora=_file(options.get("lora")),
            draft_model=_file(options.get("draft_model")),
        )


def find(model: LocalModel, wish: Wish, config: Config) -> Server:
    """An engine for `model`: one that is up, if it will do, or else a new one.

    Where the bytes of a prompt do not show that it fits, the engine counts its tokens. Raises
    `PromptTooLong`, `NotEnoughMemory` and what `launch.ensure` raises.
    """
    _check_cache(wish.options)
    order = _Order(model, wish, config, asked_context(model, wish))
    if wish.prompt is None:
        return _started(order, order.asked)
    size = size_of(wish.prompt, model, (order.asked or order.usual) - wish.answer)
    context_size = order.asked
    if context_size is None:
        size, context_size = _grown(order, size)
    server = _started(order, context_size)
    try:
        return _with_room(order, server, size)
    except LocalRunError:
        assert server.engine is not None
        launch.release(server.engine, engine_folder(), server.keep_alive)
        raise


def _check_cache(options: Mapping[str, Any]) -> None:
    kind = options.get("kv_cache_type")
    if options.get("flash_attention") is False and kind not in (None, *_UNQUANTIZED):
        raise UnsupportedOption(
            f"The engine keeps a context as {kind} only with flash attention",
            "Leave out -o flash_attention, or -o kv_cache_type",
        )


def _grown(order: _Order, size: Size) -> tuple[Size, int | None]:
    """The prompt's size, counted by an engine that is up if it is not sure that the prompt fits
    into it; and the context to start one with, None if the usual one will do."""
    wish, up = order.wish, _up(order.model)
    enough = up.spec.context_size if up else order.usual
    if up is not None and size.tokens + wish.answer > enough:
        size = counted(_server(order, up), wish) or size
    needed = size.tokens + wish.answer
    return size, order.room_for(needed) if needed > enough else None


def _with_room(order: _Order, server: Server, size: Size) -> Server:
    """The engine, or one with a larger context if it has counted more than was estimated."""
    wish, context_size = order.wish, server.context_size
    assert wish.prompt is not None
    assert context_size is not None
    if wish.prompt.bound < context_size:
        return server
    if not size.is_exact:
        size = counted(server, wish) or size
    larger = min(order.room_for(size.tokens + wish.answer), server.limits.largest)
    if order.asked is None and larger > context_size:
        server = _started(order, int(larger))
    return checked(size, server)


def _up(model: LocalModel) -> EngineState | None:
    """The engine with the largest context that runs the model's file now."""
    engines = [each for each in running(engine_folder()) if each.spec.path == model.path]
    return max(engines, key=lambda engine: engine.spec.context_size, default=None)


def _started(order: _Order, context_size: int | None) -> Server:
    """An engine with this context, or any if it is None; with less if memory lacks for more."""
    model, options = order.model, order.wish.options
    assert model.path is not None
    wanted = settings = order.settings(context_size)
    if not options.get("overcommit"):
        settings = admitted(model, wanted, order.usual, may_shrink=order.asked is None)
    engine, is_new = launch.ensure(
        launch.Wanted(model.path, model.name, settings),
        engine_folder(),
        order.keep_alive,
        patience=options.get("timeout", _PATIENCE),
    )
    affordable = inf if settings == wanted else engine.spec.context_size
    server = replace(_server(order, engine), limits=Limits(order.trained, affordable))
    return replace(server, load_seconds=engine.load_seconds) if is_new else server


def _server(order: _Order, engine: EngineState) -> Server:
    return Server(
        endpoint=Endpoint(name="gguf", kind="engine", url=engine.url),
        key=engine.key,
        model=order.model.name,
        context_size=engine.spec.context_size,
        engine=engine,
        keep_alive=order.keep_alive,
    )


def _file(path: str | None) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""
