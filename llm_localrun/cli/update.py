"""Download newer versions of models that you have pulled.

Without NAMES, update all of them.

\b
Example:
  llm localrun update
"""

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.progress import quiet_option, show_progress
from llm_localrun.cli.pulled import (
    VersionCheck,
    VersionState,
    check_version,
    find_target,
    present_records,
)
from llm_localrun.cli.table import say
from llm_localrun.errors import LocalRunError, UnknownModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.pull.records import QUANTIZED, PullRecord


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@quiet_option("Do not show progress")
@click.pass_context
def update(ctx: click.Context, /, names: tuple[str, ...], **_: bool) -> None:
    if names:
        chosen = [record for name in names for record in _records_of(name)]
    else:
        chosen = present_records()
    if not chosen:
        say("No model was pulled.", err=True)
    succeeded = [_update(check_version(record)) for record in chosen]
    get_catalogue(CachePolicy.REFRESH)
    ctx.exit(not all(succeeded))


def _records_of(name: str) -> list[PullRecord]:
    records = [record for record in find_target(name).records if record.source != QUANTIZED]
    if not records:
        raise UnknownModel(
            f"'{name}' was not pulled by llm-localrun", "Update it with the tool that downloaded it"
        )
    return records


def _update(check: VersionCheck) -> bool:
    """Downloads the newer version, if there is one. Returns False if that failed."""
    ref = check.record.shown_ref
    if check.plan is None:
        say(f"{ref}: {check.problem}", err=True)
        return False
    if check.state == VersionState.CURRENT:
        say(f"{ref}: up to date")
        return True
    try:
        show_progress(check.plan.fetch(), check.plan.title)
    except LocalRunError as error:
        say(f"{ref}: {error}", err=True)
        return False
    say(f"{ref}: {'updated' if check.state == VersionState.NEWER else 'downloaded again'}")
    return True
