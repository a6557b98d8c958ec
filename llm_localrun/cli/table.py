"""How the commands show things: aligned tables for people, JSON for programs."""

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import click

_GAP = "  "
_LEAST_FOR_FIRST = 20
_MOST_NAMES = 3
"""So many are named in a line; `--json` has them all."""

Row = Mapping[str, str]


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def terminal_width() -> int | None:
    """Columns of the terminal, or what COLUMNS says; None where the output is no terminal's."""
    return shutil.get_terminal_size((0, 0)).columns or None


def show_table(rows: Sequence[Row], extra: Sequence[str] = (), *, err: bool = False) -> None:
    """Rows of equal keys, which head the columns.

    Columns without any value are left out, and of those in `extra` the last ones for which the
    terminal has no room. Nothing is cut or wrapped: what is in the first column is there to be
    copied, so where it is too wide it has a line of its own.
    """
    width = terminal_width()
    columns = _columns_that_fit(rows, extra, width)
    first, *others = columns
    widths = {name: _width_of(rows, name) for name in columns}
    if width is not None:
        room = width - sum(len(_GAP) + widths[name] for name in others)
        widths[first] = min(widths[first], max(room, _LEAST_FOR_FIRST))
    numeric = {name for name in others if all(row[name][:1].isdigit() for row in rows if row[name])}
    heads = _line({name: name for name in columns}, widths, numeric)
    click.echo(click.style(heads, bold=True), err=err)
    for row in ({name: safe_text(row[name]) for name in columns} for row in rows):
        is_too_wide = len(row[first]) > widths[first]
        if is_too_wide:
            click.echo(row[first], err=err)
        click.echo(_line({**row, first: ""} if is_too_wide else row, widths, numeric), err=err)


def show_card(entries: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Labels, each with the lines that belong to it beside it; those without any are left out."""
    filled = [(label, [*map(safe_text, lines)]) for label, lines in entries if any(lines)]
    width = max(len(label) for label, _ in filled)
    for label, lines in filled:
        first, *others = lines
        click.echo(f"{click.style(label.ljust(width), bold=True)}{_GAP}{first}")
        for line in others:
            click.echo(f"{'':{width}}{_GAP}{line}")


def show_notes(notes: Sequence[str]) -> None:
    """Lines below a table, for people: programs are to find nothing but its rows."""
    if notes and terminal_width() is not None:
        click.echo("\n" + "\n".join(notes), err=True)


def _columns_that_fit(rows: Sequence[Row], extra: Sequence[str], width: int | None) -> list[str]:
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    for name in reversed(extra):
        needed = sum(_width_of(rows, column) + len(_GAP) for column in columns) - len(_GAP)
        if width is None or needed <= width:
            break
        if name in columns:
            columns.remove(name)
    return columns


def _width_of(rows: Sequence[Row], name: str) -> int:
    return max(len(name), *(len(row[name]) for row in rows))


def _line(row: Row, widths: Mapping[str, int], numeric: set[str]) -> str:
    """The cells of `row` under each other's, numbers by their last digits."""
    cells = (
        row[name].rjust(width) if name in numeric else row[name].ljust(width)
        for name, width in widths.items()
    )
    return _GAP.join(cells).rstrip()


def safe_text(text: str) -> str:
    """`text` without what would move the cursor or colour the terminal: servers name models."""
    return "".join(character if character.isprintable() else "?" for character in text)


def count_of(count: int, what: str) -> str:
    """1 model, 2 models."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def some_of(names: Sequence[str]) -> str:
    """The first of `names`, and how many more there are."""
    more = [f"{len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join([*names[:_MOST_NAMES], *more])


def size_text(size: int | None) -> str:
    """Bytes as disks count them: 98 MB, 4.7 GB, 18 GB."""
    if size is None:
        return ""
    if size < 999.5e6:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.1f} GB" if size < 9.95e9 else f"{size / 1e9:.0f} GB"


def count_text(count: int | None) -> str:
    """Weights as people count them: 135M, 8.2B, 70B."""
    if count is None:
        return ""
    if count < 999.5e6:
        return f"{count / 1e6:.0f}M"
    return f"{count / 1e9:.1f}B" if count < 9.95e9 else f"{count / 1e9:.0f}B"


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
