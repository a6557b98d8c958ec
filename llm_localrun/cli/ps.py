"""`ps` and `unload`: the engines that are up."""

import time
from dataclasses import asdict
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.table import seconds_text, show_json, show_table, size_text, tokens_text
from llm_localrun.config import read_config
from llm_localrun.engine.evict import resident
from llm_localrun.engine.state import EnginePaths, EngineState, list_running, read_lease
from llm_localrun.engine.stop import stop, stop_all
from llm_localrun.errors import UnknownModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.resolve import candidates, order_of
from llm_localrun.system.paths import engine_folder


@click.command()
@click.option("json_", "--json", is_flag=True, help="Output JSON")
def ps(json_: bool) -> None:
    "List the models that the engine holds in memory"
    engines = [_facts(engine) for engine in list_running(engine_folder())]
    if json_:
        show_json(engines)
    elif engines:
        show_table([_row(engine) for engine in engines])
    else:
        click.echo("No model is loaded.", err=True)


@click.command()
@click.argument("name", required=False)
@click.option("all_", "--all", is_flag=True, help="Unload every model")
def unload(name: str | None, all_: bool) -> None:
    "Take the model NAME, or all, out of memory"
    if (name is None) != all_:
        raise click.UsageError("Give the name of a model, or --all.")
    names = stop_all(engine_folder()) if name is None else _stop(name)
    for each in names:
        click.echo(f"Unloaded {each}")
    if not names:
        click.echo("No model is loaded.", err=True)


def _stop(name: str) -> list[str]:
    chosen = _engines_of(name, list_running(engine_folder()))
    for engine in chosen:
        stop(engine, engine_folder())
    return [engine.spec.name for engine in chosen]


def _engines_of(name: str, engines: list[EngineState]) -> list[EngineState]:
    paths = {model.path for model in _meant(name)}
    chosen = [engine for engine in engines if engine.spec.path in paths or engine.spec.name == name]
    if not chosen:
        raise UnknownModel(f"{name} is not loaded", "`llm localrun ps` lists what is")
    return chosen


def _meant(name: str) -> list[Any]:
    try:
        return candidates(
            name, get_catalogue(CachePolicy.IF_EMPTY).models, order_of(read_config())
        )[:1]
    except UnknownModel:
        return []


def _facts(engine: EngineState) -> dict[str, Any]:
    until = read_lease(EnginePaths(engine_folder(), engine.id))
    left = None if until is None else max(0.0, until - time.time())
    return {
        "name": engine.spec.name,
        "path": engine.spec.path,
        "pid": engine.pid,
        "memory": resident(engine.server_pid),
        **asdict(engine.spec.settings),
        "build": engine.build,
        "url": engine.url,
        "started_at": engine.started_at,
        "seconds_left": None if left == float("inf") else left,
    }


def _row(facts: dict[str, Any]) -> dict[str, str]:
    left = facts["seconds_left"]
    return {
        "name": facts["name"],
        "memory": size_text(facts["memory"]),
        "context": tokens_text(facts["context_size"]),
        "unloads in": "never" if left is None else seconds_text(left),
        "up": seconds_text(time.time() - facts["started_at"]),
        "pid": str(facts["pid"]),
    }
