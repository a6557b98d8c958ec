"""`outdated` and `update`: whether there is something newer of what was pulled, and getting it.

Nobody is asked for that unless one of these commands is run.
"""

from dataclasses import dataclass
from typing import Literal

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.progress import shown
from llm_localrun.cli.rm import meant
from llm_localrun.cli.table import show_json, show_table
from llm_localrun.errors import LocalRunError, UnknownModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.pull.plan import PullPlan, plan_pull
from llm_localrun.pull.records import QUANTIZED, PullRecord, read_records
from llm_localrun.pull.refs import parse_ref
from llm_localrun.system.paths import models_folder

_State = Literal["newer", "up to date", "cannot be told", "failed"]


@dataclass(frozen=True, slots=True)
class _News:
    """What whoever has a model says of it now."""

    record: PullRecord
    state: _State
    plan: PullPlan | None = None
    problem: str = ""


@click.command()
@click.option("json_", "--json", is_flag=True, help="Output JSON, complete")
@click.pass_context
def outdated(ctx: click.Context, json_: bool) -> None:
    "Ask whether there is something newer of what was pulled"
    news = [_news(record) for record in _pulled()]
    if json_:
        show_json([{"ref": n.record.ref, "state": n.state, "problem": n.problem} for n in news])
    elif rows := [_row(each) for each in news if each.state != "up to date"]:
        show_table(rows)
    else:
        click.echo("Everything that was pulled is up to date.", err=True)
    ctx.exit(any(each.state == "failed" for each in news))


@click.command(short_help="Get what is newer of what was pulled")
@click.argument("names", nargs=-1)
@click.option("--quiet", is_flag=True, help="Do not show how far it is")
@click.pass_context
def update(ctx: click.Context, names: tuple[str, ...], quiet: bool) -> None:
    "Get what is newer of the models NAMES, or of all that were pulled"
    chosen = [record for name in names for record in _pulled_as(name)] if names else _pulled()
    if not chosen:
        click.echo("Nothing was pulled.", err=True)
    failed = False
    for record in chosen:
        failed |= not _update(_news(record), quiet)
    get_catalogue(CachePolicy.REFRESH)
    ctx.exit(failed)


def _pulled() -> list[PullRecord]:
    """What was pulled and is still there: the user may have deleted a file by hand."""
    folder = models_folder()
    records = (record for record in read_records(folder) if record.source != QUANTIZED)
    return [record for record in records if all(path.exists() for path in record.paths(folder))]


def _pulled_as(name: str) -> list[PullRecord]:
    records = [record for record in meant(name).records if record.source != QUANTIZED]
    if not records:
        raise UnknownModel(
            f"'{name}' was not pulled by llm-localrun",
            "Whoever has pulled it can get what is newer",
        )
    return records


def _update(news: _News, quiet: bool) -> bool:
    """Whether the model is as new as it can be now."""
    ref = news.record.ref
    if news.plan is None:
        click.echo(f"{ref}: {news.problem}", err=True)
        return False
    if news.state == "up to date":
        click.echo(f"{ref}: up to date")
        return True
    try:
        shown(news.plan.fetch(), news.plan.title, quiet=quiet)
    except LocalRunError as error:
        click.echo(f"{ref}: {error}", err=True)
        return False
    click.echo(f"{ref}: updated" if news.state == "newer" else f"{ref}: pulled again")
    return True


def _news(record: PullRecord) -> _News:
    try:
        planned = plan_pull(parse_ref(record.ref))
    except LocalRunError as error:
        return _News(record, "failed", problem=str(error))
    is_newer = planned.differs_from(record)
    if is_newer is None:
        return _News(record, "cannot be told", planned, "`llm localrun update` pulls it again")
    return _News(record, "newer" if is_newer else "up to date", planned)


def _row(news: _News) -> dict[str, str]:
    return {"pulled": news.record.ref, "state": news.state, "": news.problem}
