"""Delete a model.

If another tool has put the model NAME there, --force is needed.

\b
Example:
  llm localrun rm local-smollm2
"""

import shlex

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.pulled import find_target
from llm_localrun.cli.table import say, size_text
from llm_localrun.name_cache import CachePolicy
from llm_localrun.pull.download import unfinished_files
from llm_localrun.pull.remove import delete_files, remove, remove_unlisted
from llm_localrun.system.paths import partial_folder


@click.command(help=__doc__)
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Delete it even if another tool has put it there")
@click.option(
    "--unfinished", "only_unfinished", is_flag=True, help="Delete unfinished downloads instead"
)
def rm(name: str | None, force: bool, only_unfinished: bool) -> None:
    if (name is None) != only_unfinished:
        raise click.UsageError("Give the name of a model, or --unfinished.")
    if name is not None:
        _remove(name, force)
        return
    freed = delete_files(unfinished_files(partial_folder()), partial_folder())
    say(f"Deleted unfinished downloads: {size_text(freed)} freed")


def _remove(name: str, force: bool) -> None:
    target = find_target(name)
    if target.model is None:
        for record in target.records:
            remove_unlisted(record)
        say(f"Forgot {name}: no model of it is listed")
        return
    freed = remove(target.model, _announce, force=force)
    amount = "" if freed is None else f": {size_text(freed)} freed"
    say(f"Deleted {target.model.id}{amount}")
    get_catalogue(CachePolicy.REFRESH)


def _announce(name: str, doing: str) -> None:
    command = f"llm localrun unload --force {shlex.quote(name)}"
    say(f"{name} {doing}: waiting. `{command}` ends it now.", err=True)
