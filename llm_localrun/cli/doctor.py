"""`doctor`: asks and looks anew, and says what is not well and how to mend it."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue, read_snapshot
from llm_localrun.cli.doctor_findings import (
    Finding,
    can_run,
    of_cache,
    of_engine,
    of_memory,
    of_models,
    of_policy,
    of_servers,
    of_stores,
)
from llm_localrun.cli.table import safe_text, show_json
from llm_localrun.config import config_path, read_config
from llm_localrun.engine import builds
from llm_localrun.engine.state import list_running
from llm_localrun.errors import ConfigError
from llm_localrun.memory import machine
from llm_localrun.models import Snapshot
from llm_localrun.name_cache import CachePolicy
from llm_localrun.system.paths import engine_folder, home


@click.command()
@click.option("json_", "--json", is_flag=True, help="Output JSON")
@click.pass_context
def doctor(context: click.Context, json_: bool) -> None:
    """Look at everything, and say what is not well and how to mend it

    Ends with status 1 if no model can run.
    """
    try:
        found, any_can_run = _examined()
    except ConfigError as error:
        found, any_can_run = _without_config(error), False
    if json_:
        show_json({"can_run": any_can_run, "findings": [_as_json(finding) for finding in found]})
    else:
        _show(found)
    if not any_can_run:
        click.echo("Nothing can run.", err=True)
        context.exit(1)


def _examined() -> tuple[list[Finding], bool]:
    """Everything that is found, and whether any model can run. Raises `ConfigError`."""
    config = read_config()
    before = read_snapshot(home())
    snapshot = get_catalogue(CachePolicy.REFRESH)
    report = builds.report(engine_folder(), config.llama_server, ",".join(config.rpc))
    build = report.chosen.title if report.chosen else ""
    found = [
        *of_servers(snapshot, config),
        *of_stores(snapshot),
        *of_engine(snapshot, report, list_running(engine_folder())),
        *of_memory(snapshot, machine.physical_memory()),
        *of_cache(before, read_snapshot(home()), snapshot),
        *of_policy(snapshot, config),
    ]
    can = [m for m in snapshot.models if can_run(m, snapshot, config, build)]
    return [*found, of_models(snapshot, can)], bool(can)


def _without_config(error: ConfigError) -> list[Finding]:
    """What can be said if nobody knows where to look."""
    report = builds.report(engine_folder(), None)
    return [
        Finding("policy", f"{config_path()} cannot be used", error.message),
        *of_engine(Snapshot(), report, list_running(engine_folder())),
        *of_memory(Snapshot(), machine.physical_memory()),
    ]


def _show(found: Iterable[Finding]) -> None:
    for section, members in groupby(found, key=lambda finding: finding.section):
        click.secho(section, bold=True)
        for finding in members:
            click.echo(f"{'!' if finding.advice else ' '} {safe_text(finding.text)}")
            if finding.advice:
                click.echo(f"    {safe_text(finding.advice)}")


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "section": finding.section,
        "well": not finding.advice,
        "text": finding.text,
        "advice": finding.advice,
        **finding.facts,
    }
