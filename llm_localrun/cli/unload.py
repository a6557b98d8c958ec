"""Unload a model, or all models, from the engine's memory.

A model that is answering is unloaded when its answer is finished. Ctrl-C stops waiting for that,
and the model stays.

\b
Example:
  llm localrun unload --all
"""

import click

from llm_localrun.cli.facts import find_model
from llm_localrun.cli.table import say
from llm_localrun.engine.state import EnginePaths, list_engines, list_hosts
from llm_localrun.engine.stop import end, name_of, occupation, stop_when_idle
from llm_localrun.errors import UnknownModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.system.paths import engine_folder


@click.command(help=__doc__)
@click.argument("name", required=False)
@click.option("--all", "all_", is_flag=True, help="Unload every model")
@click.option("--force", is_flag=True, help="Break off answers instead of waiting for them")
def unload(name: str | None, all_: bool, force: bool) -> None:
    if (name is None) != all_:
        raise click.UsageError("Give the name of a model, or --all.")
    engines = list_hosts(engine_folder()) if name is None else _engines_of(name)
    for engine in sorted(engines, key=occupation):
        # Its state, which holds the name, is removed with it.
        model = name_of(engine)
        if force:
            end(engine)
        else:
            stop_when_idle(engine, _announce)
        say(f"Unloaded {model}")
    if not engines:
        say("No model is in the engine's memory.", err=True)


def _announce(name: str, doing: str) -> None:
    say(f"{name} {doing}: waiting. Use --force to end it now.", err=True)


def _engines_of(name: str) -> list[EnginePaths]:
    """The engines that run the model `name`. Raises `UnknownModel` if there is none."""
    try:
        model = find_model(name, CachePolicy.IF_EMPTY)
    except UnknownModel:
        # It may be the name under which an engine runs a file that is gone.
        model = None
    path = model.on_disk.path if model and model.on_disk else None
    engines = list_engines(engine_folder())
    chosen = [engine for engine in engines if name == engine.spec.name or path == engine.spec.path]
    if not chosen:
        if model and model.served and model.loaded:
            raise UnknownModel(
                f"{name} is not in the engine's memory",
                f"The server at {model.served.endpoint.address} has loaded it: unload it there",
            )
        raise UnknownModel(
            f"{name} is not in the engine's memory", "`llm localrun ps` lists the models there"
        )
    return [EnginePaths(engine_folder(), engine.id) for engine in chosen]
