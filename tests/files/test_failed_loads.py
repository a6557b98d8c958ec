"""The record of files that llama.cpp could not load."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.models import OnDisk
from llm_localrun.name_cache import NameCache, read_names, write_names
from tests.support.trees import MIB, gguf

REASON = "unknown model architecture: 'lamma'"
PROBLEM = f"llama.cpp cannot load it: {REASON}"


@pytest.fixture
def records(user_path: Path) -> Path:
    return user_path / "localrun" / "failed-loads.json"


def problem_of(path: Path) -> str:
    return FailedLoads().problem_of(OnDisk(path=str(path)))


def fail(path: Path) -> None:
    FailedLoads().add(str(path), PROBLEM)


def test_file_that_failed_to_load_until_a_load_succeeds(tmp_path: Path, records: Path) -> None:
    one, two = (gguf(tmp_path / name) for name in ("one.gguf", "two.gguf"))
    assert problem_of(one) == ""
    fail(one)
    fail(two)
    assert (problem_of(one), problem_of(two)) == (PROBLEM, PROBLEM)
    FailedLoads().remove(str(one))
    assert (problem_of(one), problem_of(two)) == ("", PROBLEM)
    assert records.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("change", ["size", "time", "second part", "gone"])
def test_file_that_has_changed_since_is_believed_to_load(tmp_path: Path, change: str) -> None:
    first, second = (gguf(tmp_path / f"m-0000{number}-of-00002.gguf") for number in (1, 2))
    fail(first)
    assert problem_of(first) == PROBLEM
    match change:
        case "size":
            gguf(first, size=3 * MIB)
        case "time":
            os.utime(first, (1e9, 4e9))
        case "second part":
            os.utime(second, (1e9, 4e9))
        case _:
            second.unlink()
    assert problem_of(first) == ""


def test_problem_that_the_scan_has_found_comes_first(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")
    fail(path)
    route = OnDisk(path=str(path), problem="it is cut off")
    assert FailedLoads().problem_of(route) == "it is cut off"


def test_template_of_a_tag_that_failed(tmp_path: Path) -> None:
    """Other tags of Ollama's have the same file, with templates of their own."""
    path = str(gguf(tmp_path / "blob"))
    evil, good, plain = (OnDisk(path=path, manifest=name) for name in ("evil", "good", ""))
    FailedLoads().add(path, PROBLEM, "evil")
    problems = [FailedLoads().problem_of(route) for route in (evil, good, plain)]
    assert problems == [PROBLEM, "", ""]
    FailedLoads().remove(path, "good")
    assert FailedLoads().problem_of(evil) == PROBLEM
    FailedLoads().remove(path, "evil")
    assert FailedLoads().problem_of(evil) == ""


def test_names_are_made_again_after_a_change(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")
    write_names(NameCache(1.0, "", False, True, []))
    FailedLoads().remove(str(path))
    assert read_names() is not None
    fail(path)
    assert read_names() is None
    write_names(NameCache(1.0, "", False, True, []))
    FailedLoads().remove(str(path))
    assert read_names() is None


def test_number_of_records_is_limited(tmp_path: Path, records: Path) -> None:
    paths = [gguf(tmp_path / f"{number}.gguf") for number in range(105)]
    for path in paths:
        fail(path)
    fail(paths[10])
    kept = json.loads(records.read_text())
    assert [*kept] == [str(path) for path in (*paths[5:10], *paths[11:], paths[10])]


def test_file_that_is_gone_is_not_recorded(tmp_path: Path, records: Path) -> None:
    fail(tmp_path / "gone.gguf")
    assert not records.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"PATH": 7}', '{"PATH": {"size": []}}'])
def test_damaged_records_are_ignored(tmp_path: Path, records: Path, content: Any) -> None:
    path = gguf(tmp_path / "m.gguf")
    records.write_text(content.replace("PATH", str(path)))
    assert problem_of(path) == ""
    fail(path)
    assert problem_of(path) == PROBLEM


def test_records_that_cannot_be_written(tmp_path: Path, records: Path) -> None:
    records.mkdir()
    fail(path := gguf(tmp_path / "m.gguf"))
    assert problem_of(path) == ""
