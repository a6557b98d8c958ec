"""Show how much disk space models and builds use.

\b
Example:
  llm localrun du
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.table import Row, json_option, show, size_text
from llm_localrun.engine.installed import list_installed
from llm_localrun.gguf.files import parts_of
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.name_cache import CachePolicy
from llm_localrun.pull.download import unfinished_files
from llm_localrun.pull.records import PullRecord, bytes_on_disk, read_records
from llm_localrun.pull.remove import records_of
from llm_localrun.system.paths import builds_folder, partial_folder
from llm_localrun.system.progress import Progress, working


@click.command(help=__doc__)
@json_option
def du(as_json: bool) -> None:
    models = get_catalogue(CachePolicy.REFRESH).models
    largest_first = sorted(models, key=lambda model: -(model.size or 0))
    records = read_records()
    with working(Progress("adding up the files")):
        files = [_facts(model, model.on_disk, records) for model in largest_first if model.on_disk]
        facts = [*files, *_unfinished(), *_builds()]
    show(as_json, facts, _rows(facts), if_empty="There are no models on the disk.")


def _facts(model: LocalModel, file: OnDisk, records: Iterable[PullRecord]) -> dict[str, Any]:
    ours = records_of(model, records)
    paths = ours[0].paths if ours and ours[0].files else parts_of(Path(file.path))
    size = sum(bytes_on_disk(path.stat()) for path in paths if path.is_file())
    return {
        "name": model.id,
        "size": size,
        "store": file.store,
        "pulled": bool(ours),
        "path": file.path,
    }


def _unfinished() -> Iterator[dict[str, Any]]:
    """The facts of unfinished downloads together, if there are any."""
    size = sum(part.stat().st_size for part in unfinished_files(partial_folder()))
    if size:
        yield {
            "name": "unfinished downloads (llm localrun rm --unfinished)",
            "size": size,
            "store": "localrun",
            "pulled": True,
            "path": str(partial_folder()),
        }


def _builds() -> Iterator[dict[str, Any]]:
    """The facts of the installed builds of llama.cpp, and of what was downloaded for others."""
    partial = builds_folder() / ".partial"
    installed = {
        f"{build.name} (llm localrun engine list)": build.folder for build in list_installed()
    }
    for name, folder in {
        **installed,
        "unfinished builds (llm localrun engine install)": partial,
    }.items():
        files = (each.lstat() for each in folder.rglob("*"))
        size = sum(bytes_on_disk(found) for found in files if stat.S_ISREG(found.st_mode))
        if size:
            yield {
                "name": name,
                "size": size,
                "store": "localrun",
                "pulled": True,
                "path": str(folder),
            }


def _rows(facts: list[dict[str, Any]]) -> Iterator[Row]:
    for fact in facts:
        yield {
            "model": fact["name"],
            "size": size_text(fact["size"]),
            "in": fact["store"],
            "pulled": "yes" if fact["pulled"] else "",
        }
    if facts:
        # Several models can be run from one file.
        sizes = {os.path.realpath(fact["path"]): fact["size"] for fact in reversed(facts)}
        yield {"model": "total", "size": size_text(sum(sizes.values())), "in": "", "pulled": ""}
