"""Progress of long commands: on a terminal, in a pipe, and with --quiet."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Generator

import pytest

from llm_localrun.cli.progress import show_progress
from llm_localrun.system.progress import Progress
from tests.support.pulling import REPO, World

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
