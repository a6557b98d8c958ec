"""Check for newer versions of the models that you have pulled.

\b
Example:
  llm localrun outdated
"""

import click

from llm_localrun.cli.pulled import VersionState, check_version, present_records
from llm_localrun.cli.table import json_option, show


@click.command(help=__doc__)
@json_option
@click.pass_context
def outdated(ctx: click.Context, as_json: bool) -> None:
    checks = [check_version(record) for record in present_records()]
    behind = [check for check in checks if check.state != VersionState.CURRENT]
    show(
        as_json,
        ({"ref": c.record.shown_ref, "state": c.state, "problem": c.problem} for c in checks),
        ({"pulled": c.record.shown_ref, "state": c.state, "": c.problem} for c in behind),
        if_empty="No pulled model is out of date.",
    )
    ctx.exit(any(check.state == VersionState.FAILED for check in checks))
