"""Check the files of a model, and load it.

\b
Example:
  llm localrun verify local
"""

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.facts import find_model
from llm_localrun.cli.progress import show_progress
from llm_localrun.cli.table import json_option, pick, show
from llm_localrun.name_cache import CachePolicy
from llm_localrun.pull.records import read_records
from llm_localrun.pull.remove import records_of
from llm_localrun.pull.verify import verify as checks_of


@click.command(help=__doc__)
@click.argument("name")
@json_option
@click.pass_context
def verify(ctx: click.Context, name: str, as_json: bool) -> None:
    models, records = get_catalogue(CachePolicy.REFRESH).models, read_records()
    pulled = [record for record in records if record.ref == name]
    model = next((m for m in models if records_of(m, pulled)), None) or find_model(name)
    checks = show_progress(checks_of(model, records_of(model, records)), model.name)
    show(
        as_json,
        (pick(check, "what state detail") for check in checks),
        ({"result": c.state, "check": c.what, "detail": c.detail} for c in checks),
    )
    ctx.exit(any(check.state == "failed" for check in checks))
