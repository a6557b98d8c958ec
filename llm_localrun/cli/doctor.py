"""Check everything, and say how to fix what is wrong.

Ends with exit status 1 if no model can run.

\b
Example:
  llm localrun doctor
"""

import textwrap
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue, read_snapshot
from llm_localrun.cli import doctor_findings as findings
from llm_localrun.cli.table import json_option, say, show_json, terminal_width
from llm_localrun.config import read_config
from llm_localrun.engine import builds, hardware
from llm_localrun.engine.state import list_running
from llm_localrun.errors import ConfigError
from llm_localrun.memory import machine
from llm_localrun.models import Snapshot
from llm_localrun.name_cache import CachePolicy
from llm_localrun.system.paths import engine_folder, home
from llm_localrun.system.program import runnable
from llm_localrun.system.text import printable


@click.command(help=__doc__)
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    try:
        found, any_can_run = _examine()
    except ConfigError as error:
        found, any_can_run = _examine_without_config(error), False
    if as_json:
        show_json(
            {"can_run": any_can_run, "findings": [finding_facts(finding) for finding in found]}
        )
    else:
        _show(found)
    if not any_can_run:
        say("No model can run.", err=True)
        context.exit(1)


def _examine() -> tuple[list[findings.Finding], bool]:
    """All findings, and whether any model can run. Raises `ConfigError`."""
    config = read_config()
    before = read_snapshot(home())
    snapshot = get_catalogue(CachePolicy.REFRESH)
    report = builds.report(engine_folder(), config.llama_server, ",".join(config.rpc))
    engines = list_running(engine_folder())
    rpc = findings.ask_unused(config.rpc, engines)
    refused = [*findings.folder_findings(engine_folder())]
    is_ready = not refused and report.chosen is not None and not any(e.problem for e in rpc)
    build = report.chosen.title if report.chosen and is_ready else ""
    found = [
        *findings.server_findings(snapshot, config),
        *findings.store_findings(snapshot),
        *findings.problem_findings(snapshot),
        *refused,
        *findings.engine_findings(snapshot, report, engines),
        *findings.hardware_findings(report, hardware.detect()),
        *findings.rpc_findings(report, rpc, engines),
        findings.memory_finding(snapshot, machine.physical_memory()),
        findings.cache_finding(before, read_snapshot(home()), snapshot),
        *findings.policy_findings(snapshot, config),
    ]
    runnable = [m for m in snapshot.models if findings.can_run(m, snapshot, config, build)]
    needs_rpc = bool(rpc) and not is_ready and not refused
    found.append(findings.model_finding(snapshot, runnable, needs_rpc=needs_rpc))
    return found, bool(runnable)


def _examine_without_config(error: ConfigError) -> list[findings.Finding]:
    """Findings that do not depend on the configuration, which is not valid."""
    report = builds.report(engine_folder(), None)
    return [
        findings.Finding("policy", "the configuration is not valid", error.message),
        *findings.engine_findings(Snapshot(), report, list_running(engine_folder())),
        findings.memory_finding(Snapshot(), machine.physical_memory()),
    ]


def _show(found: Iterable[findings.Finding]) -> None:
    for section, members in groupby(found, key=lambda finding: finding.section):
        click.secho(section, bold=True)
        for finding in members:
            _show_text(finding.text, "! " if finding.advice else "  ")
            if finding.advice:
                _show_text(finding.advice, "    ")


def _show_text(text: str, first_indent: str) -> None:
    """Prints `text`, wrapped to the width of the terminal. Long paths are not broken."""
    text, indent = printable(runnable(text)), " " * len(first_indent)
    width = terminal_width() or len(indent) + len(text)
    wrapper = textwrap.TextWrapper(
        max(width, len(indent) + 20),
        initial_indent=first_indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    click.echo(wrapper.fill(text))


def finding_facts(finding: findings.Finding) -> dict[str, Any]:
    return {
        "section": finding.section,
        "well": not finding.advice,
        "text": finding.text,
        "advice": runnable(finding.advice),
        **finding.facts,
    }
