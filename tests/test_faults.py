"""The instrument that `benchmarks/faults.py` is: a handful of trials of each group, and what it
must not overlook."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.faults import engine, headers, names, servers, special
from tests.support.faults.command import Home
from tests.support.faults.engine import problem_of
from tests.support.faults.report import table, tenth
from tests.support.faults.trial import GB, Result, Trial
from tests.support.hostile_files import hostile_files
from tests.support.odd_names import unprintable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


def chosen(trials: Iterator[Trial], *kinds: str) -> list[Trial]:
    """The first trial of each kind."""
    by_kind: dict[str, Trial] = {}
    for trial in trials:
        by_kind.setdefault(trial.kind, trial)
    return [by_kind[kind] for kind in kinds]


Choose = Callable[[Path], Sequence[Trial]]

FEW: dict[str, tuple[Choose, int]] = {
    headers.HEADERS: (lambda _: [*headers.trials(GB, 300)], 300),
    headers.SCANS: (lambda _: chosen(headers.scan_trials(GB), "empty keys", "a long array"), 2),
    engine.GROUP: (
        lambda starter: chosen(engine.trials(starter, GB), "cut files", "tokenizer's model name"),
        2,
    ),
    servers.GROUP: (lambda _: chosen(servers.trials(GB, 0.1), "cut anywhere", "odd values"), 8),
    special.GROUP: (
        lambda starter: chosen(
            special.trials(starter, GB), f"noise as {special.MODEL}", f"noise as {special.SCANNED}"
        ),
        2,
    ),
    names.GROUP: (
        lambda starter: chosen(names.trials(starter, GB, names.COMMANDS[:2]), "formats"),
        2,
    ),
}
"""Trials that take little time, and their number."""


@pytest.mark.parametrize("group", FEW)
def test_a_few_of_each_group(group: str, starter_model: Path) -> None:
    choose, count = FEW[group]
    trials = choose(starter_model)
    result = sum((trial.run() for trial in trials), Result(0))
    assert {trial.group for trial in trials} == {group}
    assert (result.tried, result.bad) == (count, ())
    assert result.peak > 0 or group == engine.GROUP


def test_ten_files_of_each_kind() -> None:
    kinds = [hostile.kind for hostile in hostile_files()]
    assert len(kinds) >= 200
    assert {kinds.count(kind) for kind in kinds if "layers" not in kind} >= {10}
    assert min(kinds.count(kind) for kind in kinds) >= 10


def test_memory_that_a_command_takes_ends_it() -> None:
    with Home(200_000_000) as home:
        ran = home.run(["-c", "x = bytearray(300_000_000); import time; time.sleep(60)"])
    assert ran.stopped
    assert problem_of(ran).startswith("stopped after ")
    assert ran.own_peak > 200_000_000


CHILD = """
import subprocess, sys
code = "x = bytearray(100_000_000)\\nprint(flush=True)\\nwhile True: pass"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print("an answer")
import time; time.sleep(0.3)
"""
"""Leaves a process behind that computes, as an engine may."""


def test_process_that_outlives_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.faults.command._SETTLE_S", 0.0)
    with Home(GB) as home:
        ran = home.run(["-c", CHILD])
        assert problem_of(ran) == ""
        assert ran.engine_peak > 100_000_000 > ran.own_peak
        (left,) = home.processes()
        assert home.unrest().startswith("the engine goes on computing, with 1")
    assert not home.path.exists()
    assert not Path("/proc", str(left), "environ").exists() or not home.processes()


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise ValueError", "a traceback: "),
        ("import os; os._exit(3)", "status 3: "),
        ("import sys; sys.exit('Error: a\\nb')", "not one error: "),
        ("import sys; sys.exit('Error: a.')", ""),
        ("pass", "no answer and no error"),
        ("print(1)", ""),
    ],
)
def test_ends_of_commands(code: str, problem: str) -> None:
    with Home(GB) as home:
        found = problem_of(home.run(["-c", code]))
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_output_to_a_terminal_is_kept_as_it_is() -> None:
    with Home(GB) as home:
        ran = home.run(["-c", r"print('a\x1b[2Jb\n' * 5000, end='')"], terminal=True)
    assert ran.stdout == b"a\x1b[2Jb\n" * 5000


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\x1b[2J", "U+001B"),
        ("a\u202eb", "U+202E"),
        ("ok\nFORGED: ok", "a line"),
        ("ok\rFORGED: ok", "a line"),
        ("plain \U0001f980\n", ""),
        (r"a\x1b[2J", ""),
    ],
)
def test_what_a_terminal_may_not_get(text: str, found: str) -> None:
    assert unprintable(text).startswith(found)
    assert bool(unprintable(text)) == bool(found)


def test_table() -> None:
    results = {"files": Result(1000, ("a: b",), 2_000_000_000, 1.25)}
    assert [*table(results)][-1] == "| files | 1,000 | 999 | 2,000 MB | 1.2 s |"


def test_a_tenth_has_each_kind_of_files(starter_model: Path) -> None:
    trials = [*engine.trials(starter_model, GB)]
    assert {trial.kind for trial in tenth(trials)} == {trial.kind for trial in trials}
