"""A file that has nothing to read yet, although the system calls it a regular file."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_localrun.engine.settings import given_template
from llm_localrun.errors import LocalRunError
from llm_localrun.files.ollama_manifest import read_manifest
from llm_localrun.gguf.header import read_summary
from llm_localrun.system.atomic import open_regular, read_regular
from llm_localrun.system.json_files import read_text


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As /proc/kmsg, but a FIFO, because reading that one takes what it has from others."""
    path = tmp_path / "store/manifests/host/name/model/tag"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    monkeypatch.setattr("llm_localrun.system.atomic._check_regular", lambda *_: None)
    held = os.open(path, os.O_RDWR)
    yield path
    os.close(held)


@pytest.mark.parametrize("buffering", [0, -1])
def test_file_that_has_nothing_to_read_yet(silent: Path, buffering: int) -> None:
    """That is an error, and no wait."""
    with open_regular(silent, buffering=buffering) as file, pytest.raises(BlockingIOError):
        read_summary(file)
    with pytest.raises(BlockingIOError):
        read_regular(silent)
    assert read_text(silent) == ""
    assert read_manifest(silent) is None
    with pytest.raises(LocalRunError, match=r"tag cannot be read: Resource temporarily unavailab"):
        given_template(str(silent))
