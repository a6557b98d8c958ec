"""`llm localrun` alone: how things stand, in a few lines, and what to do next."""

from collections.abc import Iterator

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.endpoints import key_alias
from llm_localrun.cli.table import count_of, show_card
from llm_localrun.config import read_config
from llm_localrun.engine.builds import choose
from llm_localrun.engine.state import EngineState, list_running
from llm_localrun.errors import EngineFailed
from llm_localrun.models import LocalModel, ServerStatus, Snapshot
from llm_localrun.names.aliases import ordered
from llm_localrun.resolve import order_of
from llm_localrun.servers.kinds import kind_of
from llm_localrun.system.paths import engine_folder


def show_status() -> None:
    """Asks nobody whom `models` would not ask."""
    snapshot = get_catalogue()
    engines = list_running(engine_folder())
    build = _build()
    chat = [model for model in snapshot.models if model.purpose == "chat"]
    best = next(iter(ordered(chat, order_of(read_config()))), None)
    show_card(
        [
            ("models", [_count(snapshot)]),
            ("local is", [best.id] if best else []),
            ("servers", [_servers(snapshot)]),
            ("engine", [build or "not installed"]),
            ("loaded", list(_loaded(snapshot, engines))),
        ]
    )
    click.echo()
    show_card([(f"  {command}", [what]) for command, what in _next_steps(snapshot, best, build)])


def _build() -> str:
    """What would run GGUF files, with its version; "" if nothing would."""
    config = read_config()
    try:
        return choose(engine_folder(), config.llama_server, ",".join(config.rpc)).title
    except EngineFailed:
        return ""


def _count(snapshot: Snapshot) -> str:
    models = snapshot.models
    served = sum(model.endpoint is not None for model in models)
    if not models:
        return "none was found"
    return f"{len(models)}: {served} at servers, {len(models) - served} in files alone"


def _servers(snapshot: Snapshot) -> str:
    answering = [
        f"{kind_of(report.endpoint.kind).title} {report.version}".strip()
        for report in snapshot.endpoints
        if report.status == ServerStatus.ANSWERS
    ]
    return ", ".join(answering) or "none answers"


def _loaded(snapshot: Snapshot, engines: list[EngineState]) -> Iterator[str]:
    yield from (f"{engine.spec.name}, in the engine" for engine in engines)
    yield from (model.id for model in snapshot.models if model.loaded)


def _next_steps(
    snapshot: Snapshot, best: LocalModel | None, build: str
) -> Iterator[tuple[str, str]]:
    """Commands, and what they do: first what is missing, then what can be done."""
    for report in snapshot.endpoints:
        if report.status == ServerStatus.NEEDS_KEY:
            yield f"llm keys set {key_alias(report)}", f"{report.endpoint.name} wants a key"
    if not build and any(model.path is not None for model in snapshot.models):
        yield "llm install 'llm-localrun[gguf]'", "the engine that runs files"
    if best is None:
        yield "llm localrun pull starter", "a small model to begin with"
    else:
        yield 'llm -m local "prompt"', "ask the best model"
        yield "llm localrun models", f"list {count_of(len(snapshot.models), 'model')}"
    yield "llm localrun doctor", "what was looked for, and what is not well"
    yield "llm localrun --help", "all commands"
