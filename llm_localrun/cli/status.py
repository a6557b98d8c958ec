"""Show what is available here, and what to do next.

\b
Example:
  llm localrun status
"""

from collections.abc import Iterator
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.endpoints import server_title
from llm_localrun.cli.table import count_of, json_option, show_card, show_json
from llm_localrun.config import read_config
from llm_localrun.engine.builds import choose
from llm_localrun.engine.state import list_running
from llm_localrun.errors import EngineFailed
from llm_localrun.models import LocalModel, ServerStatus, Snapshot
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import name_models
from llm_localrun.recommended.advice import PULL_STARTER, RECOMMEND
from llm_localrun.resolve import describe_unheard, order_of
from llm_localrun.servers.base import refused_login
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.program import runnable


@click.command(help=__doc__)
@json_option
def status(as_json: bool) -> None:
    snapshot = get_catalogue(CachePolicy.FRESH)
    build = _build()
    order = order_of(read_config(), snapshot)
    best = next(iter(name_models(snapshot.models, order, "chat").get("local", [])), None)
    if as_json:
        show_json(_facts(snapshot, best, build))
        return
    show_card(
        [
            ("models", [_count(snapshot)]),
            ("local", [best.id] if best else []),
            ("servers", [_servers(snapshot)]),
            ("engine", [build or "not installed"]),
            ("loaded", list(_loaded(snapshot))),
        ]
    )
    click.echo()
    steps = _next_steps(snapshot, best, build)
    show_card([(f"  {runnable(command)}", [what]) for command, what in steps])


def _facts(snapshot: Snapshot, best: LocalModel | None, build: str) -> dict[str, Any]:
    return {
        "models": len(snapshot.models),
        "models_on_servers": sum(model.served is not None for model in snapshot.models),
        "local": best.id if best else None,
        "servers": [report.endpoint.name for report in snapshot.answering_reports],
        "engine": build or None,
        "loaded_in_engine": [engine.spec.name for engine in list_running(engine_folder())],
        "loaded_on_servers": [model.id for model in snapshot.models if model.loaded],
        "next_steps": [
            {"command": runnable(command), "purpose": what}
            for command, what in _next_steps(snapshot, best, build)
        ],
    }


def _build() -> str:
    """The name and version of the build that runs GGUF files; "" if there is none."""
    config = read_config()
    try:
        return choose(engine_folder(), config.llama_server, ",".join(config.rpc)).title
    except EngineFailed:
        return ""


def _count(snapshot: Snapshot) -> str:
    models = snapshot.models
    served = sum(model.served is not None for model in models)
    if not models:
        return "none found"
    return f"{len(models)}: {served} on servers, {len(models) - served} in files only"


def _servers(snapshot: Snapshot) -> str:
    answering = ", ".join(map(server_title, snapshot.answering_reports))
    may_answer = (ServerStatus.BUSY, ServerStatus.LOADING)
    unheard = [
        each for each in snapshot.endpoints if each.status in may_answer or refused_login(each)
    ]
    return "; ".join(filter(None, [answering, describe_unheard(unheard)])) or "none answers"


def _loaded(snapshot: Snapshot) -> Iterator[str]:
    for engine in list_running(engine_folder()):
        yield f"{engine.spec.name}, in the engine"
    yield from (model.id for model in snapshot.models if model.loaded)


def _next_steps(
    snapshot: Snapshot, best: LocalModel | None, build: str
) -> Iterator[tuple[str, str]]:
    """Commands and what they do. Those that solve a problem come first."""
    for report in snapshot.endpoints:
        if report.status == ServerStatus.NEEDS_KEY and not refused_login(report):
            yield (
                f"llm keys set {report.endpoint.key_name}",
                f"store the key of {report.endpoint.name}",
            )
    if not build and any(model.on_disk for model in snapshot.models):
        yield "llm install 'llm-localrun[gguf]'", "install the engine that runs GGUF files"
    if best is None:
        yield RECOMMEND, "see which models suit this machine"
        yield PULL_STARTER, "get a small model"
    else:
        yield 'llm -m local "prompt"', "ask the best model"
        yield "llm localrun models", f"list {count_of(len(snapshot.models), 'model')}"
    yield "llm localrun doctor", "find out what is wrong, and how to fix it"
    yield "llm localrun --help", "list all commands"
