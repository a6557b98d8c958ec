"""The instrument that `benchmarks/tools.py` is: what counts as a valid call, and what does not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tools
from benchmarks.tools import Tap, Trial, try_prompt
from llm_localrun.chat.models import LocalChat
from tests.fakes.says import Call, Says
from tests.support import six_tools
from tests.support.contract import saying
from tests.support.six_tools import Question

PARIS = Call("get_weather", {"city": "Paris"})
BOTH = Question("What is the weather in Paris and in Rome?", ("get_weather", "get_weather"))

TRIALS: dict[str, tuple[tuple[Call, ...], list[str], str, tuple[bool, bool, bool]]] = {
    "both": ((PARIS, Call("get_weather", {"city": "Rome"})), ["get_weather"] * 2, "", (True,) * 3),
    "one of two": ((PARIS,), ["get_weather"], "", (True, True, False)),
    "another tool": ((Call("current_time"),), ["current_time"], "", (True, False, False)),
    "nothing": ((), [], "no call", (False,) * 3),
    "no such tool": ((Call("compare"),), [], "failed: compare {}", (False,) * 3),
    "no argument": ((Call("get_weather"),), [], "'city' is a required", (False,) * 3),
    "a bad argument": (
        (PARIS, Call("set_light", {"room": "attic", "state": "on"})),
        ["get_weather"],
        "'attic' is not one of",
        (False,) * 3,
    ),
    "an unknown argument": (
        (Call("get_weather", {"city": "Rome", "day": 1}),),
        [],
        "unexpected keyword argument 'day'",
        (False,) * 3,
    ),
}
"""The first answer, what of it runs, what is said of it, and whether it is valid, right, whole."""


@pytest.mark.parametrize("case", TRIALS)
def test_what_counts(case: str, user_path: Path) -> None:
    calls, executed, problem, counts = TRIALS[case]
    with saying("ollama", Says(calls=calls), Says("Warm.")) as (model, _):
        trial = try_prompt(LocalChat(model), BOTH, {})
    assert trial.executed == executed
    assert problem in trial.problem
    assert bool(problem) == bool(trial.problem)
    assert (trial.is_valid, trial.is_right, trial.has_all) == counts
    assert trial.answers == len(trial.texts) == (2 if calls else 1)
    assert not trial.is_repaired


def test_chain_without_end_is_an_error(user_path: Path) -> None:
    calls = [Says(calls=(Call("get_weather", {"city": str(n)}),)) for n in range(5)]
    with saying("ollama", *calls) as (model, _):
        trial = try_prompt(LocalChat(model), BOTH, {})
    assert len(trial.executed) == 4
    assert "Chain limit" in trial.problem


def test_answer_without_end_is_an_error(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "MAX_TOKENS", 10)
    with saying("lmstudio", Says("word " * 100)) as (model, _):
        trial = try_prompt(LocalChat(model), BOTH, {})
    assert trial.problem == "an answer did not end within 10 tokens"


CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'


@pytest.mark.parametrize(
    ("sent", "got", "has_calls", "outcome"),
    [
        (["Hi {"], "Hi {", False, tools._SAME),
        (["Hi {"], "Hi ", False, tools._CHANGED),
        ([CALL], "", True, tools._OWN),
        ([f"```json\n{CALL}\n```"], "", True, tools._OWN),
        ([f"For example: {CALL}"], "", True, tools._FALSE),
        (["{}"], "", True, tools._FALSE),
        ([CALL[:-3], CALL], "", True, tools._REPAIRED),
        ([CALL.replace("get", "see"), CALL], "", True, tools._ANOTHER),
    ],
)
def test_outcomes(
    sent: list[str], got: str, has_calls: bool, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tap, "texts", sent)
    bodies: list[Mapping[str, Any]] = [{}] * len(sent)
    if outcome == tools._REPAIRED:
        bodies[-1] = {"response_format": {}}
    assert tools._outcome(got, has_calls, Tap(bodies=bodies)) == outcome


def test_table_is_written_between_the_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "tools.md"
    monkeypatch.setattr(tools, "RECORD", record)
    tools.write("new")
    assert record.read_text() == "<!-- tool-calls -->\n\nnew\n\n<!-- /tool-calls -->\n"
    record.write_text("# Tools\n\n<!-- tool-calls -->\n\nold\n\n<!-- /tool-calls -->\n\nEnd.\n")
    tools.write(r"\1 newer")
    text = record.read_text()
    assert text == "# Tools\n\n<!-- tool-calls -->\n\n\\1 newer\n\n<!-- /tool-calls -->\n\nEnd.\n"


def test_row() -> None:
    trials = [
        Trial("a", ("x",), executed=["x"], answers=2, texts=["", "", ""], seconds=1.0),
        Trial("b", ("x", "y"), executed=["y"], failed=["x: no"], answers=2, texts=["", ""]),
        Trial("c", ("x", "y"), executed=["x", "y"], answers=2, texts=["", ""], error="endless"),
        Trial("d", ("x",), answers=1, texts=[""]),
    ]
    row = tools._row("coder", "auto", "temperature 0", trials)
    assert row == "| coder | auto | temperature 0 | 4 | 2 | 2 | 1 of 2 | 1 | 1 | 1 | 1 | 0.0 |"


def test_forty_prompts_with_six_tools() -> None:
    names = {tool.name for tool in six_tools.tools()}
    questions = six_tools.questions()
    assert (len(questions), len(names)) == (40, 6)
    assert {name for each in questions for name in each.expected} == names
    assert len(tools.QUESTIONS.read_text("utf-8").splitlines()) == 40
