"""Whatever is killed at any time: no process, lock or partial file remains."""

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
import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.engine.launch import find_or_start, renew_lease
from llm_localrun.engine.saved_prompts import is_intact
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.state import (
    EnginePaths,
    EngineSettings,
    list_engines,
    list_hosts,
    list_running,
    pid_of,
)
from llm_localrun.engine.stop import stop_all
from tests.conftest import Llm
from tests.support.drive import ask, failure
from tests.support.engines import (
    ENDLESS_TEMPLATE,
    STORY,
    hosts,
    in_file,
    kill,
    patched,
    wait_until,
)

KILLS = 50


@pytest.fixture
def folder(user_path: Path) -> Path:
    return user_path / "localrun" / "engine"


def assert_nothing_remains(user: Path) -> None:
    stop_all(user / "localrun" / "engine")
    wait_until(lambda: hosts(user) == [])
    assert list_hosts(user / "localrun" / "engine") == []
    assert list((user / "localrun" / "engine").iterdir()) == []
    kept = (user / "localrun" / "prompts").iterdir()
    assert [file for file in kept if not is_intact(file)] == []


def fork(act: Callable[[], object]) -> int:
    """Calls `act` in a forked process, and returns its id.

    The process exits with 0, also if `act` raises one of our errors.
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


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_kills_at_random_points(user_path: Path, starter_model: Path, folder: Path) -> None:
    chance = random.Random(20261125)
    model = LocalChat(in_file(starter_model))
    conversation = model.conversation()

    def turn() -> None:
        conversation.prompt(STORY, max_tokens=8).text()

    for number in range(KILLS):
        client = fork(turn)
        time.sleep(chance.uniform(0, 0.4))
        if number % 3 == 0:
            kill(client)
        for paths in list_hosts(folder) if number % 3 else ():
            if number % 3 == 1:
                # Perhaps while it saves its conversations.
                kill(pid_of(paths.id), signal.SIGTERM)
                time.sleep(chance.uniform(0, 0.05))
            kill(pid_of(paths.id))
        _, status = os.waitpid(client, 0)
        assert status in (0, signal.SIGKILL)
    wait_until(lambda: len(hosts(user_path)) == len(list_hosts(folder)))
    assert model.prompt("Hi", max_tokens=2).text()
    assert_nothing_remains(user_path)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_parent_is_killed_while_a_load_hangs(
    user_path: Path, starter_model: Path, tmp_path: Path
) -> None:
    file = patched(
        starter_model, tmp_path / "hangs.gguf", "tokenizer.chat_template", ENDLESS_TEMPLATE
    )
    client = fork(lambda: ask(in_file(file), "Hi", timeout=1))
    wait_until(lambda: hosts(user_path) != [])
    kill(client)
    os.waitpid(client, 0)
    wait_until(lambda: hosts(user_path) == [])


def test_forced_unload_ends_loading_engines_and_those_with_a_damaged_state(
    user_path: Path, starter_model: Path, folder: Path, tmp_path: Path, run_llm: Llm
) -> None:
    engine, _ = find_or_start(
        EngineRequest(str(starter_model), "x", EngineSettings(512)), folder, 60
    )
    EnginePaths(folder, engine.id).state.write_text("{")
    file = patched(
        starter_model, tmp_path / "hangs.gguf", "tokenizer.chat_template", ENDLESS_TEMPLATE
    )
    messages: list[str] = []
    loading = threading.Thread(
        target=lambda: messages.append(failure(lambda: ask(in_file(file), "Hi")))
    )
    loading.start()
    wait_until(lambda: any(state.spec.path == str(file) for state in list_engines(folder)))
    names = run_llm("localrun", "unload", "--all", "--force").stdout.splitlines()
    assert sorted(names) == ["Unloaded hangs", f"Unloaded process {engine.pid}"]
    loading.join()
    assert messages[0].startswith(f"{file} was unloaded while it was loading")
    assert_nothing_remains(user_path)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file can be written to, in this process and in those that it starts."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk(user_path: Path, starter_model: Path, folder: Path) -> None:
    model = in_file(starter_model)
    with full_disk():
        message = failure(lambda: ask(model, "Hi", max_tokens=1))
        assert "File too large" in message
    cold = ask(model, "Hi", max_tokens=1, temperature=0)
    with full_disk():
        assert ask(model, "Hi", max_tokens=1, temperature=0).text == cold.text
    assert_nothing_remains(user_path)


def test_reused_process_id_is_not_an_engine(folder: Path, starter_model: Path) -> None:
    """The process that has the id now is left alone."""
    folder.mkdir(parents=True)
    paths = EnginePaths(folder, f"{os.getpid()}-00000000")
    stale: dict[str, Any] = {"id": paths.id}
    paths.state.write_text(str(stale))
    paths.lock.touch()
    assert stop_all(folder) == []
    assert list(folder.iterdir()) == []


def test_unload_during_an_answer(user_path: Path, starter_model: Path, folder: Path) -> None:
    response = LocalChat(in_file(starter_model)).prompt("Count.", logit_bias={"2": -100})
    pieces = iter(response)
    next(pieces)
    stop_all(folder)
    with pytest.raises(llm.ModelError, match="The engine ended or was unloaded"):
        list(pieces)
    assert_nothing_remains(user_path)


def test_killed_terminal(user_path: Path, starter_model: Path, folder: Path) -> None:
    import pty

    def prompt() -> None:
        ask(in_file(starter_model), "Count.", logit_bias={"2": -100}, keep_alive=0)

    client, terminal = pty.fork()
    if client == 0:
        try:
            prompt()
        finally:
            os._exit(0)
    wait_until(lambda: list_running(folder) != [])
    time.sleep(0.3)
    (engine,) = list_running(folder)
    os.close(terminal)
    os.waitpid(client, 0)
    renew_lease(engine, folder, 0)
    wait_until(lambda: hosts(user_path) == [])
    assert_nothing_remains(user_path)
