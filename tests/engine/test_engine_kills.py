"""Whatever is killed, whenever: no process stays, no lock, no half-written file."""

import contextlib
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llm
import psutil
import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.engine import launch
from llm_localrun.engine.launch import Wanted, ensure, release
from llm_localrun.engine.saved_prompts import is_whole
from llm_localrun.engine.state import EngineSettings, Paths, alive, known, pid_of, running
from llm_localrun.engine.stop import stop_all
from tests.conftest import Llm
from tests.engine.test_engine import HANGS, in_file, patched, wait_until
from tests.engine.test_saved_prompts import STORY
from tests.support.drive import ask, failure

KILLS = 50


@pytest.fixture
def folder(user_path: Path) -> Path:
    return user_path / "localrun" / "engine"


def hosts(user: Path) -> list[int]:
    """The engines' processes that belong to this user directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_host = any("engine.host" in word for word in process.cmdline())
            if is_host and process.environ().get("LLM_USER_PATH") == str(user):
                found.append(process.pid)
    return found


def assert_nothing_stays(user: Path) -> None:
    stop_all(user / "localrun" / "engine")
    wait_until(lambda: hosts(user) == [])
    assert alive(user / "localrun" / "engine") == []
    assert list((user / "localrun" / "engine").iterdir()) == []
    kept = (user / "localrun" / "prompts").iterdir()
    assert [file for file in kept if not is_whole(file)] == []


def in_a_process(act: Callable[[], object]) -> int:
    """Does `act` in a process of its own, which has all modules already; its id.

    It ends with 0, be it with an error for people.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with contextlib.suppress(llm.ModelError):
                act()
            status = 0
        finally:
            os._exit(status)
    return pid


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_kills_at_random_points(user_path: Path, starter_model: Path, folder: Path) -> None:
    chance = random.Random(20261125)
    model = LocalChat(in_file(starter_model))
    conversation = model.conversation()

    def turn() -> None:
        conversation.prompt(STORY, max_tokens=8).text()

    for number in range(KILLS):
        client = in_a_process(turn)
        time.sleep(chance.uniform(0, 0.4))
        if number % 3 == 0:
            kill(client)
        for paths in alive(folder) if number % 3 else ():
            if number % 3 == 1:
                # While it leaves its conversations to the next one, perhaps.
                kill(pid_of(paths.id), signal.SIGTERM)
                time.sleep(chance.uniform(0, 0.05))
            kill(pid_of(paths.id))
        _, status = os.waitpid(client, 0)
        assert status in (0, signal.SIGKILL)
    wait_until(lambda: len(hosts(user_path)) == len(alive(folder)))
    assert model.prompt("Hi", max_tokens=2).text()
    assert_nothing_stays(user_path)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_parent_is_killed_while_a_load_hangs(
    user_path: Path, starter_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_DYING", 0.5)
    monkeypatch.setattr(launch, "_SLOWEST_DISK", 1e12)
    file = patched(starter_model, tmp_path / "hangs.gguf", "tokenizer.chat_template", HANGS)
    client = in_a_process(lambda: ask(in_file(file), "Hi", timeout=1))
    wait_until(lambda: hosts(user_path) != [])
    kill(client)
    os.waitpid(client, 0)
    wait_until(lambda: hosts(user_path) == [])


def test_unload_ends_what_loads_and_what_cannot_be_read(
    user_path: Path, starter_model: Path, folder: Path, tmp_path: Path, run_llm: Llm
) -> None:
    engine, _ = ensure(Wanted(str(starter_model), "x", EngineSettings(512)), folder, 60, 60)
    Paths(folder, engine.id).state.write_text("{")
    file = patched(starter_model, tmp_path / "hangs.gguf", "tokenizer.chat_template", HANGS)
    said: list[str] = []
    loading = threading.Thread(
        target=lambda: said.append(failure(lambda: ask(in_file(file), "Hi")))
    )
    loading.start()
    wait_until(lambda: any(state.spec.path == str(file) for state in known(folder)))
    names = run_llm("localrun", "unload", "--all").stdout.splitlines()
    assert sorted(names) == ["Unloaded hangs", f"Unloaded process {engine.pid}"]
    loading.join()
    assert "it was unloaded" in said[0]
    assert_nothing_stays(user_path)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file can be written to any more, here and in processes that are started."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk(user_path: Path, starter_model: Path, folder: Path) -> None:
    model = in_file(starter_model)
    with full_disk():
        said = failure(lambda: ask(model, "Hi", max_tokens=1))
        assert "File too large" in said
    cold = ask(model, "Hi", max_tokens=1, temperature=0)
    with full_disk():
        assert ask(model, "Hi", max_tokens=1, temperature=0).text == cold.text
    assert_nothing_stays(user_path)


def test_state_of_another_process_is_nobodys(folder: Path, starter_model: Path) -> None:
    """A process id that was given out anew: its owner is left alone."""
    folder.mkdir(parents=True)
    paths = Paths(folder, f"{os.getpid()}-00000000")
    stale: dict[str, Any] = {"id": paths.id}
    paths.state.write_text(str(stale))
    paths.lock.touch()
    assert stop_all(folder) == []
    assert list(folder.iterdir()) == []


def test_answer_that_is_unloaded_in_the_middle(
    user_path: Path, starter_model: Path, folder: Path
) -> None:
    response = LocalChat(in_file(starter_model)).prompt("Count.", logit_bias={"2": -100})
    pieces = iter(response)
    next(pieces)
    stop_all(folder)
    with pytest.raises(llm.ModelError, match="The engine was unloaded"):
        list(pieces)
    assert_nothing_stays(user_path)


def test_killed_terminal(user_path: Path, starter_model: Path, folder: Path) -> None:
    import pty

    def converse() -> None:
        ask(in_file(starter_model), "Count.", logit_bias={"2": -100}, keep_alive=0)

    client, terminal = pty.fork()
    if client == 0:
        try:
            converse()
        finally:
            os._exit(0)
    wait_until(lambda: running(folder) != [])
    time.sleep(0.3)
    (engine,) = running(folder)
    os.close(terminal)
    os.waitpid(client, 0)
    release(engine, folder, 0)
    wait_until(lambda: hosts(user_path) == [])
    assert_nothing_stays(user_path)
