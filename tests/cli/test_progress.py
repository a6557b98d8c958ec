"""Progress of long commands: on a terminal, in a pipe, and with --quiet."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Generator

import pytest

from llm_localrun.cli.progress import _ProgressBar, bar_text, show_progress
from llm_localrun.system.progress import Progress
from tests.support.pulling import REPO, World

pytestmark = pytest.mark.pure

MB, GB = 10**6, 10**9


@pytest.mark.parametrize(
    ("progress", "rate", "text"),
    [
        (Progress("Downloading", 0, 4 * GB), 0.0, f"[{'-' * 24}]   0%  0 MB of 4.0 GB"),
        (
            Progress("Downloading", GB, 4 * GB),
            35e6,
            f"[{'#' * 6}{'-' * 18}]  25%  1.0 GB of 4.0 GB  35 MB/s  1m left",
        ),
        (
            Progress("Downloading", 3990 * MB, 4 * GB),
            1e6,
            f"[{'#' * 23}-]  99%  4.0 GB of 4.0 GB  1 MB/s  10s left",
        ),
        (Progress("Downloading", 4 * GB, 4 * GB), 0.0, f"[{'#' * 24}] 100%  4.0 GB of 4.0 GB"),
        (Progress("Downloading", 5 * MB), 1e6, "Downloading, 5 MB"),
        (
            Progress("Measuring", 256, 1024, "tokens"),
            8.0,
            f"Measuring  [{'#' * 6}{'-' * 18}]  25%  256 of 1024 tokens  8 tokens/s  2m left",
        ),
        (
            Progress("Checking the file", GB, 4 * GB),
            0.0,
            f"Checking the file  [{'#' * 6}{'-' * 18}]  25%  1.0 GB of 4.0 GB",
        ),
        (Progress("Waiting for another pull"), 0.0, "Waiting for another pull"),
    ],
)
def test_bar(progress: Progress, rate: float, text: str) -> None:
    assert bar_text(progress, rate) == text


def test_a_new_step_is_drawn_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The one after it may be minutes away."""
    bar = _ProgressBar("x", clock=lambda: 1.0)
    for what in ("Unpacking", "Trying it"):
        bar.show(Progress(what))
        assert capsys.readouterr().err.rstrip().endswith(f"x  {what}")
        bar.show(Progress(what, 1))
        assert capsys.readouterr().err == ""


def test_rate_is_an_average_over_the_last_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """The 100 MB that were only checked do not count."""
    times = iter(range(0, 1000))
    bar = _ProgressBar("x", clock=lambda: float(next(times)) / 2)
    for done in range(0, 101, 10):
        bar.show(Progress("Checking the unfinished file", done * MB, GB))
    for done in range(100, 300, 2):
        bar.show(Progress("Downloading", done * MB, GB))
    bar.end()
    assert capsys.readouterr().err.rstrip().endswith("29%  298 MB of 1.0 GB  2 MB/s  6m left")


def pulling() -> Generator[Progress, None, str]:
    for done in range(0, 101, 3):
        yield Progress("Downloading", done * MB, 100 * MB)
    yield Progress("Writing manifest")
    return "record"


def test_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_progress(pulling(), "x") == "record"
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        "x: downloading, 0 MB of 100 MB (0%)",
        "x: downloading, 12 MB of 100 MB (12%)",
    ]
    assert lines[-1] == "x: writing manifest"
    assert len(lines) == 11


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_progress(pulling(), "x", quiet=True) == "record"
    assert capsys.readouterr() == ("", "")


def test_terminal(world: World) -> None:
    """The real command on a pseudo-terminal: no line is wider than it."""
    world.files.pause = 0.03
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100"}
    command = [sys.executable, "-m", "llm", "localrun", "pull", f"{REPO}:Q8_0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        said = b"".join(_read(leader)).decode()
        assert process.stdout is not None
        assert process.stdout.read().startswith(b"Ready: ")
    drawn = re.split("[\r\n]+", said)
    assert all(len(line) < 100 for line in drawn)
    bars = [line for line in drawn if "%" in line]
    assert len(bars) > 3
    moving = r"\[#+-+\] +\d+%  \d MB of 2 MB  \d+ MB/s  \ds left"
    assert any(re.search(moving, bar) for bar in bars)
    assert bars[-1].startswith(f"Tiny-1B-GGUF:Q8_0  [{'#' * 24}] 100%")


def _read(descriptor: int) -> Generator[bytes, None, None]:
    try:
        while data := os.read(descriptor, 4096):
            yield data
    except OSError:
        # Linux raises this when the other end is closed.
        pass
    finally:
        os.close(descriptor)
