"""Progress of long commands: on a terminal, in a pipe, and with --quiet."""

import re
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from llm_localrun.cli.progress import show_progress
from llm_localrun.system import progress
from llm_localrun.system.progress import Progress
from tests.support.pulling import REPO, World
from tests.support.terminal import Ended, drawn_by

pytestmark = pytest.mark.pure

MB = 10**6


def pulling() -> Generator[Progress, None, str]:
    for done in range(0, 101, 3):
        yield Progress("Downloading", done * MB, 100 * MB)
    yield Progress("Writing manifest")
    return "record"


def test_nothing_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_progress(pulling(), "x") == "record"
    assert capsys.readouterr() == ("", "")


def test_what_a_step_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress.Work, "report", lambda _, each: said.append(each.what))
    show_progress(pulling(), "Qwen3:8b")
    assert {*said} == {"downloading Qwen3:8b", "Qwen3:8b: writing manifest"}


# The real command on a pseudo-terminal

LLM = (
    "from llm_localrun.system import progress; progress._DELAY_S = progress._REDRAW_S = 0.05;"
    " from llm.cli import cli; cli()"
)


def on_terminal(*arguments: str, columns: int = 80) -> Ended:
    ended = drawn_by(sys.executable, "-c", LLM, "localrun", *arguments, columns=columns)
    assert all(len(line) < columns for line in ended.drawn.lines if ": 2" in line)
    return ended


@pytest.mark.parametrize(
    ("columns", "pattern"),
    [
        (100, r"downloading Tiny-1B-GGUF:Q8_0: \d\.\d of 2\.4 MB, [\d.]+ [kM]B/s, \d s left"),
        (40, r"downloading Tiny-1B\S*\.\.\.: \d+%, \d s left"),
    ],
)
def test_download(world: World, columns: int, pattern: str) -> None:
    world.files.pause = 0.08
    ended = on_terminal("pull", f"{REPO}:Q8_0", columns=columns)
    assert ended.status == 0
    assert ended.stdout.startswith("Ready: ")
    assert any(re.fullmatch(pattern, line) for line in ended.drawn.lines), ended.drawn.lines
    # Only the table of what there was to choose from stays.
    *_, last = ended.drawn.screen.rstrip("\n").splitlines()
    assert "Q8_0" in last
    assert "chosen" in last


def test_quiet(world: World) -> None:
    world.files.pause = 0.08
    ended = on_terminal("pull", f"{REPO}:Q8_0", "--quiet")
    assert (ended.status, ended.drawn) == (0, ([], ""))
    assert ended.stdout.startswith("Ready: ")


def test_no_progress_of_a_command_in_a_pipe(world: World, tmp_path: Path) -> None:
    world.files.pause = 0.02
    said = tmp_path / "said"
    command = f"import os, sys; os.dup2(os.open({str(said)!r}, os.O_CREAT | os.O_WRONLY), 2); {LLM}"
    ended = drawn_by(sys.executable, "-c", command, "localrun", "pull", f"{REPO}:Q8_0", "--quiet")
    assert (ended.status, said.read_text(), ended.drawn) == (0, "", ([], ""))
