"""`unload` and `rm` wait for answers that are running, and `--force` does not wait."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.engine import slots
from llm_localrun.engine.launch import find_or_start
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.slots import SlotContents
from llm_localrun.engine.state import EnginePaths, EngineSettings, list_engines, list_running
from llm_localrun.engine.stop import stop_all, stop_when_idle
from llm_localrun.system.locks import is_locked
from tests.conftest import CONFIG, configure, put_starter
from tests.support.drive import ask, failure
from tests.support.engines import (
    ENDLESS_TEMPLATE,
    SHORT_ANSWER,
    hosts,
    in_file,
    patched,
    wait_until,
)


@pytest.fixture
def folder(user_path: Path) -> Iterator[Path]:
    configure(user_path, **CONFIG)
    yield user_path / "localrun" / "engine"
    stop_all(user_path / "localrun" / "engine")
    wait_until(lambda: hosts(user_path) == [])


@contextmanager
def answering(model: Path) -> Iterator[Iterator[str]]:
    """An answer that has begun, and that takes as long as the test lets it."""
    response = LocalChat(in_file(model)).prompt("Count.", temperature=0, max_tokens=20)
    pieces = iter(response)
    next(pieces)
    yield pieces
    with contextlib.suppress(Exception):
        list(pieces)


class Command:
    """`llm localrun …` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llm", "localrun", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """The next line on stderr."""
        assert self._process.stderr is not None
        return self._process.stderr.readline()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """The exit status, and the rest of stdout and stderr."""
        stdout, stderr = self._process.communicate(timeout=60)
        return self._process.returncode, stdout, stderr


class Job:
    """A function that runs in a thread."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._results: list[object] = []
        self._thread = threading.Thread(target=lambda: self._results.append(act()))
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> object:
        self._thread.join(60)
        (result,) = self._results
        return result


def waits(name: str, doing: str = "is answering") -> str:
    return f"{name} {doing}: waiting. Use --force to end it now.\n"


@pytest.mark.parametrize("by_name", [False, True])
def test_unload_waits_for_the_answer(folder: Path, starter_model: Path, by_name: bool) -> None:
    with answering(starter_model) as pieces:
        (engine,) = list_running(folder)
        command = Command("unload", engine.spec.name if by_name else "--all")
        assert command.line() == waits(engine.spec.name)
        wait_until(lambda: is_locked(EnginePaths(folder, engine.id).ending))
        # A request that comes now waits although slots are free, and is answered by a new engine.
        later = Job(lambda: ask(in_file(starter_model), "Hi", **SHORT_ANSWER).text)
        assert command.is_running
        assert list(pieces)
        assert command.end() == (0, f"Unloaded {engine.spec.name}\n", "")
    assert later.result()
    (new,) = list_running(folder)
    assert new.id != engine.id


def test_request_waits_while_an_unload_waits(folder: Path, starter_model: Path) -> None:
    with answering(starter_model) as pieces:
        (engine,) = list_running(folder)
        paths = EnginePaths(folder, engine.id)
        unload = Job(lambda: stop_when_idle(paths, lambda *_: None))
        wait_until(lambda: is_locked(paths.ending))
        with pytest.raises(TimeoutError):
            slots.acquire(paths, SlotContents(), is_saved=False, timeout=0.2)
        assert unload.is_running
        list(pieces)
        unload.result()
    assert not paths.lock.exists()
    assert slots.acquire(paths, SlotContents(), is_saved=False, timeout=0.2) is None


def test_idle_engines_are_unloaded_first(folder: Path, starter_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "another.gguf"
    other.hardlink_to(starter_model)
    with answering(starter_model) as pieces:
        ask(in_file(other), "Hi", **SHORT_ANSWER)
        command = Command("unload", "--all")
        assert command.line() == waits(starter_model.stem)
        assert [engine.spec.name for engine in list_running(folder)] == [starter_model.stem]
        list(pieces)
        assert command.end() == (0, f"Unloaded another\nUnloaded {starter_model.stem}\n", "")


def test_two_unloads_at_once(folder: Path, starter_model: Path) -> None:
    with answering(starter_model) as pieces:
        commands = [Command("unload", "--all"), Command("unload", "--all")]
        for command in commands:
            assert command.line() == waits(starter_model.stem)
        list(pieces)
        for command in commands:
            assert command.end() == (0, f"Unloaded {starter_model.stem}\n", "")
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupted_unload_leaves_the_engine(folder: Path, starter_model: Path) -> None:
    with answering(starter_model) as pieces:
        (engine,) = list_running(folder)
        command = Command("unload", "--all")
        assert command.line() == waits(starter_model.stem)
        command.interrupt()
        status, stdout, _ = command.end()
        assert (status, stdout) == (1, "")
        assert ask(in_file(starter_model), "Hi", **SHORT_ANSWER).text
        assert list(pieces)
    assert list_running(folder) == [engine]


def test_forced_unload_breaks_the_answer_off(folder: Path, starter_model: Path) -> None:
    response = LocalChat(in_file(starter_model)).prompt("Count.", logit_bias={"2": -100})
    pieces = iter(response)
    next(pieces)
    done = Command("unload", "--all", "--force").end()
    assert done == (0, f"Unloaded {starter_model.stem}\n", "")
    assert "The engine ended or was unloaded while it ran" in failure(lambda: list(pieces))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_unload_waits_for_a_load(folder: Path, starter_model: Path, tmp_path: Path) -> None:
    hangs = tmp_path / "hangs.gguf"
    patched(starter_model, hangs, "tokenizer.chat_template", ENDLESS_TEMPLATE)
    prompt = Job(lambda: failure(lambda: ask(in_file(hangs), "Hi")))
    wait_until(lambda: list_engines(folder) != [])
    for target in ("--all", "hangs"):
        command = Command("unload", target)
        assert command.line() == waits("hangs", "is starting for another command")
        command.interrupt()
        assert command.end()[:2] == (1, "")
        assert prompt.is_running
    assert Command("unload", "hangs", "--force").end() == (0, "Unloaded hangs\n", "")
    assert "was unloaded while it was loading" in str(prompt.result())


def test_engine_that_was_just_loaded_waits_for_its_request(
    folder: Path, starter_model: Path
) -> None:
    request = EngineRequest(str(starter_model), "x", EngineSettings(512))
    engine, _ = find_or_start(request, folder, keep_alive=60)
    paths = EnginePaths(folder, engine.id)
    said: list[tuple[str, str]] = []
    unload = Job(lambda: stop_when_idle(paths, lambda *what: said.append(what)))
    wait_until(lambda: said != [])
    slot = slots.acquire(paths, SlotContents(), is_saved=False, timeout=10)
    assert slot is not None
    wait_until(lambda: is_locked(paths.ending))
    assert unload.is_running
    slot.release()
    unload.result()
    assert said == [("x", "is starting for another command")]
    assert list_engines(folder) == []


def test_request_that_never_comes(
    folder: Path, starter_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_localrun.engine.stop._FIRST_REQUEST_S", 0.2)
    request = EngineRequest(str(starter_model), "x", EngineSettings(512))
    engine, _ = find_or_start(request, folder, keep_alive=60)
    stop_when_idle(EnginePaths(folder, engine.id), lambda *_: None)
    assert list_engines(folder) == []


def test_rm_waits_for_the_answer(folder: Path, user_path: Path, starter_model: Path) -> None:
    file = put_starter(user_path, starter_model)
    name = starter_model.stem
    with answering(file) as pieces:
        command = Command("rm", f"local/gguf/{name}", "--force")
        assert command.line() == (
            f"{name} is answering: waiting. `llm localrun unload --force {name}` ends it now.\n"
        )
        assert file.exists()
        assert list(pieces)
        assert command.end() == (0, f"Deleted local/gguf/{name}: 98 MB freed\n", "")
    assert not file.exists()
    assert os.path.lexists(starter_model)
