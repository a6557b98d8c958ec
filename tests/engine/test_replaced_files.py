"""An engine answers with the files that are there now, and says what has become of them."""

import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_localrun.engine import launch
from llm_localrun.engine.launch import is_current
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.state import EngineSettings, list_running
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.models import OnDisk
from tests.support.drive import ask, failure
from tests.support.engines import beginning_answers_with, in_file
from tests.support.trees import gguf


def put_in_place(other: Path, path: Path) -> None:
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    other.replace(path)


def write_over(other: Path, path: Path) -> None:
    modified = path.stat().st_mtime_ns
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(0, modified))


def remove(_other: Path, path: Path) -> None:
    path.unlink()


CHANGES = [put_in_place, write_over]
"""Both leave path, size and time as they are."""


@pytest.mark.parametrize("change", CHANGES)
def test_model_that_is_replaced(
    user_path: Path, starter_model: Path, tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    file = Path(shutil.copy(starter_model, tmp_path / "m.gguf"))
    other = beginning_answers_with(starter_model, tmp_path / "other.gguf", "Aye, ")
    folder = user_path / "localrun" / "engine"

    def answers() -> tuple[int | None, str]:
        outcome = ask(in_file(file), "Hi", max_tokens=1, temperature=0)
        (engine,) = list_running(folder)
        return outcome.input, engine.id

    first = answers()
    assert answers() == first
    change(other, file)
    tokens, engine = answers()
    assert engine != first[1]
    assert tokens != first[0]


PARTS = ["m-00001-of-00002", "m-00002-of-00002", "projector", "adapter", "draft"]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("change", [*CHANGES, remove])
def test_each_file_that_an_engine_loads_counts(
    tmp_path: Path, name: str, change: Callable[[Path, Path], None]
) -> None:
    paths = [gguf(tmp_path / f"{part}.gguf") for part in PARTS]
    projector, adapter, draft = map(str, paths[2:])
    settings = EngineSettings(projector=projector, lora=adapter, draft_model=draft)
    request = EngineRequest(str(paths[0]), "m", settings)
    before = launch._make_spec(request)
    assert launch._make_spec(request) == before
    assert is_current(before)
    change(gguf(tmp_path / "other"), tmp_path / f"{name}.gguf")
    assert not is_current(before)
    if paths[0].exists():
        assert not before.satisfies(launch._make_spec(request))


@pytest.mark.parametrize("change", CHANGES)
def test_record_of_a_failed_load(
    tmp_path: Path, user_path: Path, change: Callable[[Path, Path], None]
) -> None:
    file = gguf(tmp_path / "m.gguf")
    FailedLoads().add(str(file), "it is bad")
    route = OnDisk(path=str(file))
    assert FailedLoads().problem_of(route) == "it is bad"
    change(gguf(tmp_path / "other"), file)
    assert FailedLoads().problem_of(route) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="Windows does not cut off a file in use")
def test_file_that_is_cut_off_during_an_answer(
    user_path: Path, starter_model: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(starter_model, tmp_path / "m.gguf"))
    model = in_file(file)
    ask(model, "Hi", max_tokens=1)
    cutter = threading.Timer(0.3, os.truncate, (file, 40_000_000))
    cutter.start()
    message = failure(lambda: ask(model, "Count to a thousand, slowly. " * 60))
    cutter.join()
    assert message.startswith(
        f"The engine ended while it ran {file}: meanwhile its file was cut off, from 98,362,432 to"
        " 40,000,000 bytes; Bus error. Try again: it will restart."
    )
