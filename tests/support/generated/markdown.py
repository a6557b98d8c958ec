"""A table of Markdown, as the generated parts have it."""

from collections.abc import Iterable


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Markdown: a table, which ends with a line break."""
    lines = (heads, ("---",) * len(heads), *rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)
