"""Show what is available here, and what to do next.

\b
Example:
  llm localrun status
"""

import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.endpoints import STATUS, server_title
from llm_localrun.cli.llm_settings import default_model
from llm_localrun.cli.next_steps import MachineState, Step, next_steps
from llm_localrun.cli.table import json_option, say, show_card, show_json
from llm_localrun.config import read_config
from llm_localrun.engine import builds, hardware
from llm_localrun.engine.state import list_running
from llm_localrun.models import EndpointReport, ServerStatus, Snapshot
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import name_models
from llm_localrun.resolve import describe_unheard, order_of
from llm_localrun.servers.base import refused_login
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.program import runnable

_MAY_ANSWER = (ServerStatus.BUSY, ServerStatus.LOADING, ServerStatus.NEEDS_KEY)


@click.command(help=__doc__)
@json_option
def status(as_json: bool) -> None:
    state = _gather()
    if as_json:
        show_json(_facts(state))
        return
    show_card(
        [
            ("models", [_count(state.snapshot)]),
            ("local", [_best(state)]),
            ("servers", [_servers(state.snapshot)]),
            ("engine", [_engine(state.builds)]),
            ("loaded", [*_loaded(state.snapshot)]),
        ]
    )
    click.echo()
    _show_steps(next_steps(state))


def _gather() -> MachineState:
    config, snapshot = read_config(), get_catalogue(CachePolicy.FRESH)
    order = order_of(config, snapshot)
    best = next(iter(name_models(snapshot.models, order, "chat").get("local", [])), None)
    return MachineState(
        snapshot,
        builds.report(engine_folder(), config.llama_server, ",".join(config.rpc)),
        hardware.detect(),
        best,
        obstacle=order.obstacle(best) if best else "",
        allowed=frozenset(config.allow),
        default=default_model(),
    )


def _facts(state: MachineState) -> dict[str, Any]:
    snapshot, build = state.snapshot, state.builds.chosen
    return {
        "models": len(snapshot.models),
        "models_on_servers": sum(model.served is not None for model in snapshot.models),
        "local": state.best.id if state.best else None,
        "servers": [report.endpoint.name for report in snapshot.answering_reports],
        "engine": build.title if build else None,
        "loaded_in_engine": [engine.spec.name for engine in list_running(engine_folder())],
        "loaded_on_servers": [model.id for model in snapshot.models if model.loaded],
        "next_steps": [
            {"command": runnable(command), "purpose": what} for command, what in next_steps(state)
        ],
    }


def _count(snapshot: Snapshot) -> str:
    models = snapshot.models
    served = sum(model.served is not None for model in models)
    if not models:
        return "none found"
    return f"{len(models)}: {served} on servers, {len(models) - served} in files only"


def _best(state: MachineState) -> str:
    """The model that `local` means, and why it cannot run now."""
    if state.best is None:
        return ""
    refused = "not allowed yet" if state.needs_consent else ""
    why = state.obstacle or refused
    return f"{state.best.id} ({why})" if why else state.best.id


def _servers(snapshot: Snapshot) -> str:
    unheard = [each for each in snapshot.endpoints if each.status in _MAY_ANSWER]
    found = [*map(server_title, snapshot.answering_reports), *map(_unheard, unheard)]
    return ", ".join(found) or "none answers"


def _unheard(report: EndpointReport) -> str:
    """A server that has not listed its models, and why."""
    if report.is_unheard:
        return f"{report.endpoint.address} {STATUS[report.status]}"
    if refused_login(report):
        return describe_unheard([report])
    return f"{server_title(report)} {STATUS[report.status]}"


def _engine(report: builds.BuildReport) -> str:
    if report.chosen is not None:
        return report.chosen.title
    return "cannot be used" if report.builds else "not installed"


def _loaded(snapshot: Snapshot) -> Iterator[str]:
    for engine in list_running(engine_folder()):
        yield f"{engine.spec.name}, in the engine"
    yield from (model.id for model in snapshot.models if model.loaded)


def _show_steps(steps: Sequence[Step]) -> None:
    """Prints a step a line, or if that is too wide for the terminal, its purpose below it."""
    rows = [(f"  {runnable(command)}", what) for command, what in steps]
    width = max(len(command) for command, _ in rows) + 2 + max(len(what) for _, what in rows)
    if width <= shutil.get_terminal_size((width, 0)).columns:
        show_card([(command, [what]) for command, what in rows])
        return
    for command, what in rows:
        say(command, f"      {what}")
