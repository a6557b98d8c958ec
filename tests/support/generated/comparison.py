"""The table in README.md that repeats rows of docs/comparison.md, where they are measured."""

import re

from tests.support.generated.markdown import table
from tests.support.repository import ROOT

COMPARED_ROWS = {
    "`llm --version`": "`llm --version`",
    "`llm models`": "`llm models`",
    "`llm logs`": "`llm logs`",
    "`llm models`, the first time, its server's port hangs": "`llm models`, a server hangs",
    "CPU time of a streamed chunk, OpenAI's language": "CPU per chunk, OpenAI's API",
    "CPU time of a streamed chunk, Ollama's language": "CPU per chunk, Ollama's API",
}
"""Rows of docs/comparison.md that README.md repeats, and how it calls them."""
_TIME = re.compile(r"\((ended after )?([\d.]+ (?:s|µs))\)$")


def compared_table() -> str:
    """Markdown: rows of the first table of docs/comparison.md, and when and on what they are."""
    text = (ROOT / "docs" / "comparison.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    heads, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    cells = {title: [_time_of(cell) for cell in row] for title, *row in rows}
    shown = [(short, *cells[title]) for title, short in COMPARED_ROWS.items()]
    (measured,) = re.findall(r"^(Measured on \S+) by .*? on (.*?), Python", text, re.MULTILINE)
    return f"{table(tuple(heads), shown)}\n{measured[0]}: {measured[1]}.\n"


def _time_of(cell: str) -> str:
    """The time in a cell that has a ratio and a time; a dash where nothing was measured."""
    found = _TIME.search(cell)
    return f"{'over ' if found[1] else ''}{found[2]}" if found else "-"
