"""`llm localrun stats`: what it prints, which models it names, and what it leaves alone."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.charts.model import LineChart
from llm_localrun.cli import stats as command
from llm_localrun.stats.log import History
from tests.conftest import Invoke, Llm, one_error
from tests.support.contract import STARTER
from tests.support.llm_log import run, write_log
from tests.support.many_models import put

A, B = "local/gguf/Vendor-Model-8B-Instruct-Q4_K_M", "local/ollama/qwen3:8b"
DAY = 86_400


def some_runs(model: str = A, count: int = 20, **changes: Any) -> Iterator[dict[str, Any]]:
    now = time.time()
    for number in range(count):
        yield run(now - 3 * DAY + 60 * number, model, **changes)


@pytest.fixture
def two_models(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [*some_runs(), *some_runs(B, 5, endpoint="ollama", generation_tokens_per_second=9.0)]
    write_log(user_path, rows)
    return user_path


def test_table(two_models: Path, invoke: Invoke) -> None:
    result = invoke("localrun", "stats")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "model                 at      runs  cached  first  prompt/s  gen/s  trend",
        A,
        "                      gguf      20      0%   0.50       200     20  ████████████",
        B,
        "                      ollama     5      0%   0.50       200    9.0  █████",
    ]
    assert all(len(line) <= 80 for line in (result.stdout + result.stderr).splitlines())


def test_wide_table_has_everything(
    two_models: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    heading, first, _ = invoke("localrun", "stats").stdout.splitlines()
    assert " ".join(heading.split()) == (
        "model at runs in out cached first p90 prompt/s gen/s used trend"
    )
    assert first.split()[2:5] == ["20", "12.0k", "2.0k"]
    assert "3d" in first


def test_trend() -> None:
    speeds = (1.0, 8.0, 4.0, 16.0)
    assert command.sparkline(speeds, "utf-8") == "▁▅▃█"
    assert command.sparkline(speeds, "ascii") == "_=-#"
    assert command.sparkline(speeds, "unheard-of") == "_=-#"
    assert command.sparkline((5.0,), "utf-8") == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (99_949, "99.9k"),
        (99_960, "100k"),
        (999_400, "999k"),
        (999_600, "1.0M"),
        (4_100_000_000, "4.1G"),
        (10**13, "10000G"),
    ],
)
def test_short_numbers(count: int, text: str) -> None:
    assert command._short(count) == text


@pytest.mark.parametrize(
    ("names", "models"),
    [
        ((), {A, B}),
        ((A,), {A}),
        ((A.upper(),), {A}),
        (("local/ollama/*",), {B}),
        (("QWEN3*",), {B}),
        (("*",), {A, B}),
        ((A, "qwen3:?b"), {A, B}),
        (("mine",), {B}),
        (("qwen3:8b",), {B}),
        (("Ollama/qwen3:8b",), {B}),
        (("gguf/Vendor-Model-8B-Instruct-Q4_K_M",), {A}),
    ],
)
def test_names(two_models: Path, invoke: Invoke, names: tuple[str, ...], models: set[str]) -> None:
    """No server and no file has these models any more."""
    (two_models / "aliases.json").write_text(json.dumps({"mine": B}))
    found = json.loads(invoke("localrun", "stats", *names, "--json").stdout)
    assert {each["model"] for each in found} == models


def test_an_alias_means_what_it_means_elsewhere(
    user_path: Path, still_there: None, invoke: Invoke
) -> None:
    put(user_path)
    meant = json.loads(invoke("localrun", "which", "local-qwen3-8b", "--json").stdout)[0]["id"]
    write_log(user_path, [*some_runs(), *some_runs(meant, 3)])
    (found,) = json.loads(invoke("localrun", "stats", "local-qwen3-8b", "--json").stdout)
    assert (found["model"], found["runs"]) == (meant, 3)


def test_a_name_that_nothing_has(two_models: Path, invoke: Invoke) -> None:
    for arguments, lately in ([], ""), (["--days", "7"], " in the last 7 days"):
        result = invoke("localrun", "stats", "local-nothing", *arguments)
        assert f"llm's log has no run of local-nothing{lately}. See" in one_error(result)


def test_a_pattern_that_nothing_matches(two_models: Path, invoke: Invoke) -> None:
    result = invoke("localrun", "stats", "nothing*", "--days", "7")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "llm's log has no run of nothing* in the last 7 days.\n"


def test_days(two_models: Path, invoke: Invoke) -> None:
    write_log(two_models, [run(time.time(), B, endpoint="ollama")])
    found = json.loads(invoke("localrun", "stats", "--days", "2", "--json").stdout)
    assert [(each["model"], each["runs"]) for each in found] == [(B, 1)]
    assert len(json.loads(invoke("localrun", "stats", "--days", "99999999", "--json").stdout)) == 2


@pytest.mark.parametrize("days", ["0", "-1", "x", "1.5"])
def test_days_that_are_no_number(invoke: Invoke, days: str) -> None:
    assert invoke("localrun", "stats", "--days", days).exit_code == 2


def test_nothing_logged(user_path: Path, invoke: Invoke) -> None:
    result = invoke("localrun", "stats")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "llm's log has no run of a local model.\n"
    assert invoke("localrun", "stats", "--json").stdout == "[]\n"
    assert not (user_path / "logs.db").exists()


def test_logging_is_off(two_models: Path, invoke: Invoke) -> None:
    (two_models / "logs-off").touch()
    assert "`llm logs on` turns it on" in invoke("localrun", "stats").stderr.replace("\n", " ")


def test_a_log_that_cannot_be_read(user_path: Path, invoke: Invoke) -> None:
    (user_path / "logs.db").write_bytes(b"not a database" * 100)
    result = invoke("localrun", "stats")
    assert result.exit_code == 1
    assert "cannot be read" in one_error(result)


def test_a_damaged_log_is_named(
    two_models: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "read_history", lambda *_: History(unread_rows=1200))
    assert "up to 1,200 of its rows" in invoke("localrun", "stats").stderr


def test_a_model_that_has_become_slower(
    user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    slow: dict[str, Any] = {"generation_tokens_per_second": 8.0, "context_size": 32768}
    write_log(user_path, some_runs())
    now = time.time()
    write_log(user_path, [run(now + 60 * number, A, **slow) for number in range(5)])
    said = invoke("localrun", "stats").stdout.partition("\n\n")[2]
    assert said == (
        f"{A} at gguf is slower than it was: the last 5 runs generated 8.0 tokens/s, 0.40 of the"
        " 20 before with prompts of a similar length. What differs: context: 32768, was 8192.\n"
        "See which models are in memory with `llm localrun ps`, and look for problems with"
        " `llm localrun doctor`.\n"
    )
    (found,) = json.loads(invoke("localrun", "stats", "--json").stdout)
    assert found["slowdown"] == {
        "measure": "generation",
        "now": 8.0,
        "before": 20.0,
        "last_runs": 5,
        "share": 0.4,
        "changes": ["context: 32768, was 8192"],
    }


def test_days_do_not_hide_a_slowdown(user_path: Path, invoke: Invoke) -> None:
    write_log(user_path, some_runs())
    now = time.time()
    for number in range(5):
        write_log(user_path, [run(now + 60 * number, A, generation_tokens_per_second=8.0)])
    (found,) = json.loads(invoke("localrun", "stats", "--days", "2", "--json").stdout)
    assert (found["runs"], found["sampled_runs"], found["slowdown"]["share"]) == (5, 5, 0.4)


def test_speeds_by_our_clock_are_marked(
    user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    silent: dict[str, Any] = {
        "prompt_tokens_per_second": None,
        "generation_tokens_per_second": None,
    }
    write_log(user_path, (row | {"duration_ms": 10_500} for row in some_runs(**silent)))
    result = invoke("localrun", "stats")
    assert "  ~1200     ~9.9  " in result.stdout
    assert all(len(line) <= 80 for line in (result.stdout + result.stderr).splitlines())
    assert "~: by llm's clock" in result.stderr
    (found,) = json.loads(invoke("localrun", "stats", "--json").stdout)
    assert found["prompt_speed_by_llm"]
    assert found["generation_speed_by_llm"]


def test_names_with_odd_characters_are_printable(user_path: Path, invoke: Invoke) -> None:
    write_log(user_path, [run(time.time(), "local/x/\x1b[31m", endpoint="\x1b]0;")])
    for arguments in ([], ["--json"]):
        assert "\x1b" not in invoke("localrun", "stats", *arguments).stdout


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """What is written instead of pictures."""
    found: list[tuple[str, Path]] = []
    monkeypatch.setattr(command, "check_plot_path", lambda _: None)
    monkeypatch.setattr(command, "save_chart", lambda svg, path: found.append((svg, path)))
    return found


def test_plot(
    user_path: Path, invoke: Invoke, saved: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    charts: list[LineChart] = []

    def draw(title: str, panels: list[LineChart], footnote: str = "") -> str:
        charts.extend(panels)
        return "<svg/>"

    monkeypatch.setattr(command, "lines_svg", draw)
    for number in range(9):
        write_log(user_path, some_runs(f"local/gguf/m{number}", 200 - 10 * number))
    assert invoke("localrun", "stats", "--plot", "speed.svg").exit_code == 0
    assert saved == [("<svg/>", Path("speed.svg"))]
    assert [chart.unit for chart in charts] == ["tokens/s"] * 2
    for chart in charts:
        assert [line.label for line in chart.series] == [f"local/gguf/m{n}" for n in range(6)]
        assert {len(line.points) for line in chart.series} == {60}


def test_a_time_that_is_still_to_come_is_not_plotted(
    user_path: Path, invoke: Invoke, tmp_path: Path
) -> None:
    path = tmp_path / "speed.svg"
    write_log(user_path, [*some_runs(), run(250_000_000_000.0, A)])
    assert invoke("localrun", "stats", "--plot", str(path)).exit_code == 0
    assert "<svg" in path.read_text(encoding="utf-8")


def test_nothing_to_plot(user_path: Path, invoke: Invoke, saved: list[Any]) -> None:
    result = invoke("localrun", "stats", "--plot", "speed.svg")
    assert (result.exit_code, saved) == (1, [])
    assert "speed.svg was not written" in result.stderr


def test_real_runs(warm: Path, run_llm: Llm, invoke: Invoke) -> None:
    """What the engine really logs; nothing is left beside the log."""
    before = {path.name for path in warm.iterdir()}
    assert run_llm("-m", STARTER, "-o", "max_tokens", "20", "Tell a long story.").returncode == 0
    (found,) = json.loads(invoke("localrun", "stats", STARTER, "--json").stdout)
    assert found["runs"] >= 1
    assert found["endpoint"] == "gguf"
    assert found["generation_tokens_per_second"] > 0
    assert found["time_to_first_token"] > 0
    assert {path.name for path in warm.iterdir()} - before <= {"logs.db"}
