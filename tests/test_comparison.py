"""The instrument that `benchmarks/comparison.py` is, and what it has written into its document."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks import comparison, record
from benchmarks.comparison import HEADS, LLM, NOT_MEASURED, PARTS, PLUGINS, Bench, Part
from tests.support import environment
from tests.support.outward import Guard

ROOT = Path(__file__).parents[1]
WRITTEN = (
    (ROOT / "docs" / "comparison.md").read_text("utf-8").partition("<!-- comparison -->\n\n")[2]
)
WRITTEN = WRITTEN.partition("\n\n<!-- /comparison -->")[0]
RATIO = r"\d+\.\d\d( \(\d.*\))?|over \d+ \(ended after \d+ s\)"


def cells_of(text: str) -> list[list[str]]:
    """The rows of Markdown's tables, without the lines below heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def titles(names: list[str]) -> list[str]:
    """The first cells of the tables of these parts."""
    ordered = [part for compares in HEADS for part in map(PARTS.get, names) if part]
    rows = []
    for compares in HEADS:
        chosen = [title for p in ordered if p.compares is compares for title in p.rows]
        rows += ["", *dict.fromkeys(chosen)] if chosen else []
    return rows


def test_the_document_has_the_tables_that_the_script_writes() -> None:
    rows = cells_of(WRITTEN)
    assert [row[0] for row in rows] == titles([*PARTS])
    heads = [tuple(row[1:]) for row in rows if not row[0]]
    assert heads == [*HEADS.values()]
    for row in (row for row in rows if row[0]):
        for cell in row[1:2] if len(row) == 4 else row[1:]:
            assert re.fullmatch(f"{RATIO}|{NOT_MEASURED}.{{5,}}", cell), row
        assert not all(cell.startswith(NOT_MEASURED) for cell in row[1:]), row
    said = WRITTEN.splitlines()[-1]
    assert re.match(r"Measured on \d{4}-\d\d-\d\d by `benchmarks/comparison.py` on \d+ cores", said)
    assert all(re.search(rf"\b{name} \d", said) for name in ("llm", *PLUGINS[2:], "xllamacpp"))


def test_what_cannot_be_measured_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(_: Bench) -> list[comparison.Cells]:
        raise comparison.Unavailable("there is\nno index")

    parts = {
        "one": Part(("First", "Second"), fails),
        "two": Part(
            ("Third",), lambda _: [{"ratio": "0.50", "seconds": "1 s", "beside": "2 s"}], False
        ),
    }
    monkeypatch.setattr(comparison, "PARTS", parts)
    text = comparison.table(comparison.measured(Bench(tmp_path, 1, True), [*parts]))
    missing = [f"{NOT_MEASURED}there is no index"] * 4
    assert cells_of(text) == [
        ["", *PLUGINS],
        ["First", *missing],
        ["Second", *missing],
        ["", *HEADS[False]],
        ["Third", "0.50", "1 s", "2 s"],
    ]


@pytest.mark.parametrize(
    ("rounds", "cells"),
    [
        ([(1.0, 2.0)], ("1.00 (1.00 s)", "2.00 (2.00 s)")),
        # The median of the ratios, which may come from a round that was slow as a whole.
        ([(1.0, 1.1), (4.0, 4.0), (1.0, 1.2)], ("1.00 (1.00 s)", "1.10 (1.20 s)")),
        ([(1.0, 20.0)], ("1.00 (1.00 s)", "over 20 (ended after 20 s)")),
    ],
)
def test_ratios_are_those_of_each_round(
    rounds: list[tuple[float, float]], cells: tuple[str, str]
) -> None:
    taken = [dict.fromkeys(PLUGINS, other) | {LLM: base} for base, other in rounds]
    shown = comparison._beside_llm(taken)
    assert (shown[LLM], shown["llm-ollama"]) == cells


def test_first_round_fills_caches() -> None:
    order: list[str] = []

    def way(name: str) -> int:
        order.append(name)
        return len(order)

    rounds = comparison._in_turn(2, {name: partial(way, name) for name in "ab"})
    assert rounds == [{"a": 3, "b": 4}, {"a": 5, "b": 6}]
    assert "".join(order) == "ababab"


def test_own_ratio_is_that_of_each_round() -> None:
    cells = comparison._own([(2.0, 1.0), (9.0, 3.0), (4.0, 1.0)], "no files")
    assert cells == {"ratio": "3.00", "seconds": "4.00 s", "beside": "no files, 1.00 s"}


def test_a_command_that_was_ended_does_not_run_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "users" / "logs").mkdir(parents=True)
    bench, ran, ended = Bench(tmp_path, 1, True), [], set[str]()
    monkeypatch.setattr(Bench, "pythons", dict.fromkeys(PLUGINS, "python"))

    def seconds(*given: object) -> float:
        ran.append(given)
        (tmp_path / "users" / "new" / "found").touch(exist_ok=False)
        return [1.0, comparison._BOUND_S][len(ran) > 1]

    monkeypatch.setattr(comparison, "_seconds", seconds)
    took = [comparison._at_first(bench, LLM, ["models"], {}, ended) for _ in range(4)]
    assert (took, len(ran)) == ([1.0, *[comparison._BOUND_S] * 3], 2)


def run_script(*flags: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.comparison", "--quick", *flags],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_runs_without_a_network(user_path: Path, starter_model: Path) -> None:
    """What needs the index says so; the rest is measured."""
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull}
    text = run_script("--only", "commands,engine", **nowhere)
    rows = {row[0]: row[1:] for row in cells_of(text) if row[0]}
    assert [*rows] == [*PARTS["commands"].rows, *PARTS["engine"].rows]
    for title in PARTS["commands"].rows:
        assert all(cell.startswith(f"{NOT_MEASURED}the package index: ") for cell in rows[title])
    for title in PARTS["engine"].rows:
        assert re.fullmatch(RATIO, rows[title][0])
    assert re.search(r"the load was \d+\.\d before, and \d+\.\d after", text)


def test_measures_all_plugins_in_environments_of_their_own(user_path: Path, guard: Guard) -> None:
    with guard.lifted(), environment.original():
        text = run_script("--only", "commands,stream,files")
    if "the package index" in text:
        pytest.skip(f"needs the package index: {text.splitlines()[2]}")
    rows = [row for row in cells_of(text) if row[0]]
    ratios = [len([cell for cell in row if re.fullmatch(RATIO, cell)]) for row in rows]
    assert ratios == [4, 4, 4, 3, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--only", "nothing"], "there is no part nothing: commands, "),
        (["--write", "--quick"], "--write needs a whole run"),
        (["--write", "--only", "files"], "--write needs a whole run"),
    ],
)
def test_wrong_flags(
    flags: list[str],
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["comparison", *flags])
    with pytest.raises(SystemExit):
        comparison.main()
    assert error in capsys.readouterr().err


@pytest.mark.parametrize("anyway", [False, True])
def test_a_busy_machine_is_refused(
    anyway: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(sys, "argv", ["comparison", "--write", *["--anyway"] * anyway])
    assert comparison._options(load=2.0).write
    if anyway:
        assert comparison._options(load=2.1).write
        return
    with pytest.raises(SystemExit):
        comparison._options(load=2.1)
    assert "the load is 2.1, more than 0.5 of each core: wait until" in capsys.readouterr().err


def test_only_what_stands_between_the_marks_is_written(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# A\n\n<!-- x -->\n\nold\n\n<!-- /x -->\n\nB\n")
    record.write(document, "x", r"new \1")
    assert document.read_text() == "# A\n\n<!-- x -->\n\nnew \\1\n\n<!-- /x -->\n\nB\n"
    with pytest.raises(ValueError, match="there are 0 places for y"):
        record.write(document, "y", "new")
