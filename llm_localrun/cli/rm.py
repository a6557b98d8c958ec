"""`rm`, `verify` and `du`: what is on the disk, whether it is whole, and how it goes away.

They look anew first: what they say and do has to be true of the disk as it is.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.progress import shown
from llm_localrun.cli.table import show_json, show_table, size_text
from llm_localrun.config import read_config
from llm_localrun.errors import UnknownModel
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.pull.download import unfinished_files
from llm_localrun.pull.records import PullRecord, read_records
from llm_localrun.pull.remove import delete_files, forget_gone, records_of, remove
from llm_localrun.pull.verify import verify as checks_of
from llm_localrun.resolve import candidates, order_of
from llm_localrun.system.paths import models_folder, partial_folder


@dataclass(frozen=True, slots=True)
class Meant:
    """What a name on the command line means: a model, what was pulled, or both."""

    model: LocalModel | None
    records: list[PullRecord]


def meant(name: str) -> Meant:
    """The model called `name`, or pulled by it. Raises `UnknownModel`.

    Something that is to be deleted or replaced must be named without doubt, so an alias that
    several models share means none.
    """
    records = read_records(models_folder())
    models = get_catalogue(CachePolicy.REFRESH).models
    if pulled := [record for record in records if record.ref == name]:
        model = next((m for m in models if records_of(m, pulled)), None)
        return Meant(model, pulled)
    found = candidates(name, models, order_of(read_config()))
    if len(found) > 1:
        ids = ", ".join(model.id for model in found)
        raise UnknownModel(f"'{name}' can be several models", f"Name one by its id: {ids}")
    return Meant(found[0], records_of(found[0], records))


@click.command(short_help="Delete a model")
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Even if another tool has put it there")
@click.option("--unfinished", "unfinished_", is_flag=True, help="What broken pulls have left")
def rm(name: str | None, force: bool, unfinished_: bool) -> None:
    """Delete the model NAME, if llm-localrun has pulled it.

    A file that others have put there is only deleted with --force.
    """
    if (name is None) != unfinished_:
        raise click.UsageError("Give the name of a model, or --unfinished.")
    if name is None:
        _remove_unfinished_files()
        return
    what = meant(name)
    if what.model is None:
        for record in what.records:
            forget_gone(record)
        click.echo(f"Forgot {name}: no model that it brought is listed here")
        return
    freed = remove(what.model, force=force)
    told = "" if freed is None else f": {size_text(freed)} freed"
    click.echo(f"Deleted {what.model.id}{told}")
    get_catalogue(CachePolicy.REFRESH)


def _remove_unfinished_files() -> None:
    files = unfinished_files(partial_folder())
    freed = delete_files(files, partial_folder())
    click.echo(f"Deleted what broken pulls have left: {size_text(freed)} freed")


@click.command()
@click.argument("name")
@click.option("json_", "--json", is_flag=True, help="Output JSON")
@click.pass_context
def verify(ctx: click.Context, name: str, json_: bool) -> None:
    "Check the files of the model NAME, and load it"
    model = candidates(name, get_catalogue(CachePolicy.REFRESH).models, order_of(read_config()))[0]
    records = records_of(model, read_records(models_folder()))
    checks = shown(checks_of(model, records), model.name, quiet=json_)
    if json_:
        show_json([asdict(check) for check in checks])
    else:
        show_table([{"check": c.what, "": c.state, "detail": c.detail} for c in checks])
    ctx.exit(any(check.state == "failed" for check in checks))


@click.command()
@click.option("json_", "--json", is_flag=True, help="Output JSON")
def du(json_: bool) -> None:
    "Show how much of the disk models take, and whose they are"
    models = sorted(
        (model for model in get_catalogue(CachePolicy.REFRESH).models if model.path is not None),
        key=lambda model: -(model.size or 0),
    )
    records = read_records(models_folder())
    facts = [_facts(model, records) for model in models] + _unfinished_facts()
    if json_:
        show_json(facts)
    elif facts:
        total = {"size": sum(fact["size"] for fact in facts), "store": "", "pulled": False}
        show_table([_row(fact) for fact in [*facts, {**total, "name": "together"}]])
    else:
        click.echo("No model is on the disk.", err=True)


def _facts(model: LocalModel, records: Iterable[PullRecord]) -> dict[str, Any]:
    ours = records_of(model, records)
    size = ours[0].size if ours and ours[0].files else model.size or 0
    return {
        "name": model.id,
        "size": size,
        "store": model.store,
        "pulled": bool(ours),
        "path": model.path,
    }


def _unfinished_facts() -> list[dict[str, Any]]:
    size = sum(part.stat().st_size for part in unfinished_files(partial_folder()))
    if not size:
        return []
    return [
        {
            "name": "unfinished downloads (llm localrun rm --unfinished)",
            "size": size,
            "store": "localrun",
            "pulled": True,
            "path": str(partial_folder()),
        }
    ]


def _row(fact: dict[str, Any]) -> dict[str, str]:
    return {
        "model": fact["name"],
        "size": size_text(fact["size"]),
        "in": fact["store"],
        "pulled": "yes" if fact["pulled"] else "",
    }
