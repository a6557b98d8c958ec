"""Prints the output of commands: tables and cards for people, JSON for programs.

What is printed is left to the commands and to `facts`.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from llm_localrun.system.program import runnable
from llm_localrun.system.progress import cleared
from llm_localrun.system.text import printable, printable_json

_GAP = "  "
_MIN_FIRST_WIDTH = 20
_MAX_NAMES = 3
"""Names in a line of text; `--json` lists all of them."""

Row = Mapping[str, str]
"""The cells of a table's row, by the heading of their column."""

json_option = click.option("--json", "as_json", is_flag=True, help="Output JSON")


def show(
    as_json: bool,
    facts: Iterable[Any],
    rows: Iterable[Row],
    *,
    optional: Sequence[str] = (),
    if_empty: str = "",
) -> None:
    """Prints `facts` as a JSON array, or `rows` as a table.

    Without rows, prints `if_empty` on stderr. `optional` is as in `show_table`.
    """
    if as_json:
        show_json([*facts])
    elif table := [*rows]:
        show_table(table, optional)
    else:
        say(if_empty, err=True)


def pick(value: object, names: str) -> dict[str, Any]:
    """The attributes of `value` that JSON shows; `names` has spaces between them."""
    return {name: getattr(value, name) for name in names.split()}


def show_json(value: Any) -> None:
    """Prints `value` as JSON."""
    _echo(printable_json(value, indent=2))


def say(*lines: str, err: bool = False) -> None:
    """Prints lines of text, which may hold names and texts from outside, and commands of llm."""
    for line in lines:
        _echo(printable(runnable(line)), err=err)


def _echo(text: str, *, err: bool = False) -> None:
    with cleared():
        click.echo(text, err=err)


def terminal_width() -> int | None:
    """Columns of the terminal, or the value of COLUMNS; None if stdout is not a terminal."""
    return shutil.get_terminal_size((0, 0)).columns or None


def show_table(
    rows: Sequence[Row],
    optional: Sequence[str] = (),
    *,
    err: bool = False,
    may_break_first: bool = False,
) -> None:
    """Prints a table. All rows have the same keys, which are the headings of the columns.

    Leaves out columns without values. On a narrow terminal it also leaves out columns in
    `optional`, the last one first. Cells are never cut or wrapped: a cell of the first column that
    is too wide gets a line of its own, so that it can be copied; with `may_break_first`, before an
    optional column is left out.
    """
    rows = [{name: printable(cell) for name, cell in row.items()} for row in rows]
    width = terminal_width()
    columns = _columns_that_fit(rows, optional, width, may_break_first)
    first, *others = columns
    widths = {name: _width_of(rows, name) for name in columns}
    if width is not None:
        available = width - sum(len(_GAP) + widths[name] for name in others)
        widths[first] = min(widths[first], max(available, _MIN_FIRST_WIDTH))
    numeric = {name for name in others if all(row[name][:1].isdigit() for row in rows if row[name])}
    heads = _line({name: name for name in columns}, widths, numeric)
    _echo(click.style(heads, bold=True), err=err)
    for row in rows:
        is_too_wide = len(row[first]) > widths[first]
        if is_too_wide:
            _echo(row[first], err=err)
        _echo(_line({**row, first: ""} if is_too_wide else row, widths, numeric), err=err)


def show_card(entries: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Prints labels with their lines next to them, and leaves out labels without lines."""
    filled = [(label, [*map(printable, lines)]) for label, lines in entries if any(lines)]
    width = max(len(label) for label, _ in filled)
    for label, lines in filled:
        first, *others = lines
        _echo(f"{click.style(label.ljust(width), bold=True)}{_GAP}{first}")
        for line in others:
            _echo(f"{'':{width}}{_GAP}{line}")


def show_notes(notes: Sequence[str]) -> None:
    """Prints lines below a table on stderr, if the output is a terminal."""
    if notes and terminal_width() is not None:
        say("", *notes, err=True)


def _columns_that_fit(
    rows: Sequence[Row], optional: Sequence[str], width: int | None, may_break_first: bool
) -> list[str]:
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    first = _width_of(rows, columns[0])
    saved = max(0, first - _MIN_FIRST_WIDTH) if may_break_first else 0
    for name in reversed(optional):
        needed = sum(_width_of(rows, column) + len(_GAP) for column in columns) - len(_GAP) - saved
        if width is None or needed <= width:
            break
        if name in columns:
            columns.remove(name)
    return columns


def _width_of(rows: Sequence[Row], name: str) -> int:
    return max(len(name), *(len(row[name]) for row in rows))


def _line(row: Row, widths: Mapping[str, int], numeric: set[str]) -> str:
    """The cells of `row`, aligned in their columns; numbers are aligned to the right."""
    cells = (
        row[name].rjust(width) if name in numeric else row[name].ljust(width)
        for name, width in widths.items()
    )
    return _GAP.join(cells).rstrip()


def count_of(count: int, noun: str) -> str:
    """A number with its noun: 1 model, 2 models."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_few(names: Sequence[str]) -> str:
    """The first of `names`, and the number of the others: a, b, c, 4 more."""
    more = [f"{len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
    return ", ".join([*names[:_MAX_NAMES], *more])


def size_text(size: int | None) -> str:
    """Bytes in decimal units: 98 MB, 4.7 GB, 18 GB; "" for None."""
    return _unit_text(size, " MB", " GB")


def count_text(count: int | None) -> str:
    """A number of parameters: 135M, 8.2B, 70B; "" for None."""
    return _unit_text(count, "M", "B")


def _unit_text(number: int | None, millions: str, billions: str) -> str:
    """`number` in one of these units, with two or three digits."""
    if number is None:
        return ""
    if number < 999.5e6:
        return f"{number / 1e6:.0f}{millions}"
    decimals = 1 if number < 9.95e9 else 0
    return f"{number / 1e9:.{decimals}f}{billions}"


def tokens_text(tokens: int | None) -> str:
    """A number of tokens: 8k, 128k, 1M; "" for None."""
    if tokens is None:
        return ""
    if tokens < 1024:
        return str(tokens)
    return f"{tokens / 1024:.0f}k" if tokens < 2**20 else f"{tokens / 2**20:.0f}M"


def seconds_text(seconds: float) -> str:
    """A duration: 45s, 5m, 2h."""
    if seconds == float("inf"):
        return "never"
    if seconds < 60:
        return f"{max(0.0, seconds):.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 3600 else f"{seconds / 3600:.0f}h"
