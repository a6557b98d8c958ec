"""What benchmarks share that write their figures into a document: where from, and where to."""

import os
import platform
import re
from collections.abc import Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def where(script: str, packages: Iterable[str], load: float, after: float | None = None) -> str:
    """When, with what and on what `script` measured. A package may come with its version.

    `load` is that of the machine before, and `after` the one after, to which `script` contributed.
    """
    loads = f"{load:.1f}"
    if after is not None:
        loads += f" before, and {after:.1f} after, with its own work"
    versions = (each if " " in each else f"{each} {version(each)}" for each in packages)
    return (
        f"Measured on {date.today().isoformat()} by `benchmarks/{script}` on {os.cpu_count()}"
        f" cores of {platform.machine()} with {psutil.virtual_memory().total / 1e9:.0f} GB,"
        f" {platform.system()} {platform.release().split('-')[0]}, Python"
        f" {platform.python_version()}, {', '.join(versions)}; the load was {loads}."
    )


def between(text: str, name: str, lines: str) -> str:
    """`text` with `lines` between `<!-- NAME -->` and `<!-- /NAME -->`, which it must have."""
    marked = re.compile(rf"(?<=<!-- {name} -->\n\n).*(?=\n\n<!-- /{name} -->)", re.DOTALL)
    changed, count = marked.subn(lambda _: lines, text)
    if count != 1:
        raise ValueError(f"there are {count} places for {name}")
    return changed


def write(document: Path, name: str, lines: str) -> None:
    """Puts `lines` between the marks in `document`."""
    text = between(document.read_text("utf-8"), name, lines)
    document.write_text(text, "utf-8")
