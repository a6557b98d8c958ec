"""How the commands show things: aligned tables for people, JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
from tabulate import tabulate


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(rows: Sequence[Mapping[str, str]], *, err: bool = False) -> None:
    """Rows of equal keys, which head the columns; columns without any value are left out."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    table = tabulate(
        [[row[name] for name in columns] for row in rows],
        headers=[click.style(name, bold=True) for name in columns],
        tablefmt="plain",
        disable_numparse=True,
    )
    click.echo(table, err=err)


def size_text(size: int | None) -> str:
    """Bytes as disks count them: 98 MB, 4.7 GB."""
    if size is None:
        return ""
    if size < 1e9:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.1f} GB" if size < 1e11 else f"{size / 1e9:.0f} GB"


def tokens_text(tokens: int | None) -> str:
    """Tokens as people say them: 8k, 128k, 1M."""
    if tokens is None:
        return ""
    if tokens < 1024:
        return str(tokens)
    return f"{tokens / 1024:.0f}k" if tokens < 2**20 else f"{tokens / 2**20:.0f}M"


def seconds_text(seconds: float) -> str:
    """A time from now: 45s, 5m, 2h."""
    if seconds == float("inf"):
        return "never"
    if seconds < 60:
        return f"{max(0.0, seconds):.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 3600 else f"{seconds / 3600:.0f}h"
