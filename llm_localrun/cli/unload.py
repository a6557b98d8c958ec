"""Unload a model, or all models, from memory."""

import click

from llm_localrun.cli.facts import find_model
from llm_localrun.engine.state import EngineState, list_running
from llm_localrun.engine.stop import stop, stop_all
from llm_localrun.errors import UnknownModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.system.paths import engine_folder


@click.command(help=__doc__)
@click.argument("name", required=False)
@click.option("--all", "all_", is_flag=True, help="Unload every model")
def unload(name: str | None, all_: bool) -> None:
    if (name is None) != all_:
        raise click.UsageError("Give the name of a model, or --all.")
    if name is None:
        names = stop_all(engine_folder())
    else:
        engines = _engines_of(name)
        names = [engine.spec.name for engine in engines]
        for engine in engines:
            stop(engine, engine_folder())
    for each in names:
        click.echo(f"Unloaded {each}")
    if not names:
        click.echo("No model is loaded.", err=True)


def _engines_of(name: str) -> list[EngineState]:
    """The engines that run the model `name`. Raises `UnknownModel` if there is none."""
    try:
        file = find_model(name, CachePolicy.IF_EMPTY).on_disk
    except UnknownModel:
        # It may be the name under which an engine runs a file that is gone.
        file = None
    path = file.path if file else None
    engines = list_running(engine_folder())
    chosen = [engine for engine in engines if name == engine.spec.name or path == engine.spec.path]
    if not chosen:
        raise UnknownModel(f"{name} is not loaded", "`llm localrun ps` lists the loaded models")
    return chosen
