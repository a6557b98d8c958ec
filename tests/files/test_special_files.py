"""FIFOs, sockets and devices where a file of a model is expected: refused, and never opened."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun.chat.attachments import load_attachment
from llm_localrun.engine.settings import given_template
from llm_localrun.errors import LocalRunError
from llm_localrun.files import scan
from llm_localrun.files.named import open_file
from llm_localrun.gguf.files import opened
from llm_localrun.memory.footprint import footprint_of_files
from llm_localrun.models import ScannedFile, Snapshot
from llm_localrun.pull.download import sha256_of
from llm_localrun.system.atomic import open_regular
from tests.support.special_files import NOT_REGULAR
from tests.support.trees import MIB, gguf, projector


@pytest.fixture(params=NOT_REGULAR)
def special(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Makes such a file."""

    def make(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        NOT_REGULAR[request.param](path)
        return path

    return make


@pytest.fixture(autouse=True)
def never_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No file that is not a regular one, or a folder, is opened by the code that is tested."""
    wrong: list[str] = []
    real = os.open

    def recording(path: Any, *args: Any, **kwargs: Any) -> int:
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            wrong.append(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", recording)
    yield
    assert wrong == []


READERS: dict[str, Callable[[Path], Any]] = {
    "a model": open_file,
    "a header": lambda path: opened(path).__enter__(),
    "a file to read": open_regular,
    "a file to check": sha256_of,
    "a chat template": lambda path: given_template(str(path)),
    "an attachment": lambda path: load_attachment(llm.Attachment(path=str(path)), ["image/png"]),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_reading_it_is_an_error(
    read: Callable[[Path], Any], special: Callable[[Path], Path], tmp_path: Path
) -> None:
    with pytest.raises((LocalRunError, OSError), match="not a regular file"):
        read(special(tmp_path / "m.gguf"))


def test_its_memory_is_unknown(special: Callable[[Path], Path], tmp_path: Path) -> None:
    path = special(tmp_path / "m.gguf")
    assert footprint_of_files(str(path)) is None


def test_file_that_takes_the_place_of_another_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a FIFO that nobody writes to would wait."""
    path = gguf(tmp_path / "m.gguf")
    regular = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.undo()
    with monkeypatch.context() as context:
        context.setattr(os, "stat", lambda _: regular)
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)


# Scans.


def scanned(folder: Path) -> dict[str, ScannedFile]:
    files = scan([str(folder)], Snapshot()).files
    return {os.path.relpath(entry.path, folder): entry for entry in files}


def test_it_is_no_file_of_a_folder(special: Callable[[Path], Path], tmp_path: Path) -> None:
    special(tmp_path / "m.gguf")
    gguf(tmp_path / "whole.gguf")
    assert [*scanned(tmp_path)] == ["whole.gguf"]


def test_it_is_no_part_of_a_split_file(special: Callable[[Path], Path], tmp_path: Path) -> None:
    first = gguf(tmp_path / "m-00001-of-00002.gguf")
    second = special(tmp_path / "m-00002-of-00002.gguf")
    (entry,) = scanned(tmp_path).values()
    assert (entry.model, entry.reason) == (None, "part 2 of 2 is missing")
    with pytest.raises(LocalRunError, match=f"{second.name} is not a regular file"):
        open_file(first)


def test_it_is_no_projector(special: Callable[[Path], Path], tmp_path: Path) -> None:
    gguf(tmp_path / "m.gguf")
    special(tmp_path / "mmproj-m.gguf")
    (entry,) = scanned(tmp_path).values()
    assert entry.model is not None and entry.model.on_disk is not None
    assert (entry.model.on_disk.projector, entry.model.problem) == ("", "")
    assert open_file(tmp_path / "m.gguf").model is not None


def test_one_that_replaces_a_file_after_the_scan(
    special: Callable[[Path], Path], tmp_path: Path
) -> None:
    model, seeing = gguf(tmp_path / "m.gguf", size=2 * MIB), projector(tmp_path / "mmproj-m.gguf")
    before = scan([str(tmp_path)], Snapshot())
    for path in (model, seeing):
        path.unlink()
        special(path)
    assert scan([str(tmp_path)], before).files == ()
