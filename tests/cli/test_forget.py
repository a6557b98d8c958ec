"""`llm localrun forget`, and what a file that was run by its path is called."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_localrun.catalogue import model_at
from llm_localrun.files.named import remembered
from tests.conftest import CONFIG, Invoke, Llm, configure, one_error
from tests.support.trees import gguf


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, in no store."""
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder


def known_ids(invoke: Invoke) -> list[str]:
    lines = invoke("localrun", "models", "--json").stdout
    return [line.split('"')[3] for line in lines.splitlines() if line.startswith('    "id"')]


@pytest.mark.parametrize(
    "spelling", ["{path}", "m.gguf", "./m.gguf", "../disk/m.gguf", "link.gguf"]
)
@pytest.mark.parametrize("exists", [True, False])
def test_forget(disk: Path, invoke: Invoke, spelling: str, exists: bool) -> None:
    path = gguf(disk / "m.gguf")
    (disk / "link.gguf").symlink_to("m.gguf")
    model_at(path)
    assert known_ids(invoke) == ["local/gguf/m"]
    if not exists:
        path.unlink()
    done = invoke("localrun", "forget", spelling.format(path=path))
    assert (done.exit_code, done.output) == (0, f"Forgot {path}\n")
    assert remembered() == []
    assert known_ids(invoke) == []
    assert path.exists() == exists


def test_forget_with_a_tilde(tmp_path: Path, invoke: Invoke) -> None:
    path = gguf(tmp_path / "home" / "m.gguf")
    model_at(path)
    assert invoke("localrun", "forget", "~/m.gguf").output == f"Forgot {path}\n"


def test_forget_a_file_that_a_store_has(disk: Path, user_path: Path, invoke: Invoke) -> None:
    path = gguf(disk / "m.gguf")
    model_at(path)
    configure(user_path, **CONFIG, folders=[str(disk)])
    assert invoke("localrun", "refresh").exit_code == 0
    done = invoke("localrun", "forget", "m.gguf")
    assert done.output == (
        f"Forgot {path}, which stays listed because it is in the store folders\n"
    )
    assert remembered() == []
    assert known_ids(invoke) == ["local/gguf/m"]


@pytest.mark.parametrize(
    ("known", "remedy"),
    [([], "No file is."), (["other.gguf", "model.gguf"], "Nearest: {disk}/model.gguf")],
)
def test_forget_an_unknown_path(disk: Path, invoke: Invoke, known: list[str], remedy: str) -> None:
    for name in known:
        model_at(gguf(disk / name))
    error = one_error(invoke("localrun", "forget", "./modell.gguf"))
    problem = "./modell.gguf is not remembered as a file that was run by its path. "
    assert error.startswith(problem + remedy.format(disk=disk))
    assert len(remembered()) == len(known)


def test_file_that_was_run_by_its_path_takes_no_general_name(
    disk: Path, starter_model: Path, run_llm: Llm
) -> None:
    """With the real command: its id, its path and its specific names run it."""
    path = disk / "Qwen3-8B-Q4_K_M.gguf"
    path.hardlink_to(starter_model)
    options = ("hi", "-o", "max_tokens", "1")
    for name in (f"./{path.name}", "local/gguf/Qwen3-8B-Q4_K_M", "local-qwen3-8b-q4-k-m"):
        assert run_llm("-m", name, *options).returncode == 0
    for name in ("local", "local-qwen"):
        done = run_llm("-m", name, *options)
        assert done.returncode == 1
        assert f"No local model is called '{name}'. Nearest: local" in done.stderr
    assert "\nlocal " not in run_llm("localrun").stdout
    path.rename(path.with_name("gone.gguf"))
    assert run_llm("localrun", "forget", str(path)).returncode == 0
    shutil.rmtree(disk)
    assert "none found" in run_llm("localrun").stdout
