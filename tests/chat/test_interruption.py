"""Ctrl-C keeps the partial answer, continues the session and stops the engine's generation."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_localrun.chat.models import AsyncLocalChat
from llm_localrun.engine import launch, slots
from llm_localrun.engine.state import EnginePaths, EngineState, list_running
from llm_localrun.engine_defaults import SLOTS
from tests.conftest import CONFIG, Llm, configure, put_starter
from tests.fakes.http_server import Request, StandIn
from tests.fakes.vllm import vllm
from tests.support.engines import hosts, in_file, stand_in, wait_until

LONG = ("-o", "temperature", "0", "-o", "extra_body", '{"ignore_eos": true}')


@contextmanager
def llm_process(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "llm", *arguments],
        env=environment,
        stdin=subprocess.PIPE if arguments[0] == "chat" else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_some(process: "subprocess.Popen[bytes]", length: int) -> bytes:
    assert process.stdout is not None
    data = b""
    while len(data) < length and (more := process.stdout.read(length - len(data))):
        data += more
    return data


def interrupt(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)


def is_idle(user: Path) -> bool:
    (engine,) = list_running(user / "localrun" / "engine")
    headers = {"Authorization": f"Bearer {engine.key}"}
    slots = httpx.get(f"{engine.url}/slots", headers=headers).json()
    return not any(slot["is_processing"] for slot in slots)


def test_prompt_keeps_and_logs_the_partial_answer(warm: Path, run_llm: Llm) -> None:
    with llm_process("-m", "local", "Count to a thousand.", *LONG) as process:
        begun = read_some(process, 20)
        interrupt(process)
        rest, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, b"")
    (turn,) = json.loads(run_llm("logs", "--json", "-n", "1").stdout)
    assert f"{turn['response']}\n".encode() == begun + rest
    assert turn["response_json"]["finish_reason"] == "interrupted"


def test_engine_stops_generating_at_once(warm: Path, run_llm: Llm) -> None:
    run_llm("-m", "local", "Hello", "-o", "max_tokens", "1")
    with llm_process("-m", "local", "Count to a thousand.", *LONG) as process:
        read_some(process, 20)
        assert not is_idle(warm)
        interrupt(process)
        deadline = time.monotonic() + 5
        while not is_idle(warm):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        # It goes on writing the log and ending: the engine was free before that.
        process.communicate(timeout=20)


def test_chat_continues(warm: Path, run_llm: Llm) -> None:
    with llm_process("chat", "-m", "local", *LONG) as process:
        assert process.stdin is not None
        process.stdin.write(b"Count to a thousand.\n")
        process.stdin.flush()
        read_some(process, 330)
        interrupt(process)
        process.stdin.write(b"Hello again.\n")
        process.stdin.flush()
        read_some(process, 40)
        interrupt(process)
        _, errors = process.communicate(b"exit\n", timeout=20)
    assert (process.returncode, errors) == (0, b"")
    turns = json.loads(run_llm("logs", "--json", "-n", "2").stdout)
    assert [turn["prompt"] for turn in turns] == ["Count to a thousand.", "Hello again."]
    assert {turn["response_json"]["finish_reason"] for turn in turns} == {"interrupted"}


def test_async_prompt_ends_without_a_traceback(warm: Path) -> None:
    with llm_process("-m", "local", "--async", "Count to a thousand.", *LONG) as process:
        read_some(process, 20)
        interrupt(process)
        _, errors = process.communicate(timeout=20)
    assert b"Traceback" not in errors
    deadline = time.monotonic() + 5
    while not is_idle(warm):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_interrupted_start_leaves_no_engine(warm: Path, tmp_path: Path) -> None:
    folder = warm / "localrun" / "engine"
    before = {engine.id for engine in list_running(folder)}
    with llm_process("-m", "local", "Hello", "-o", "threads", "2") as process:
        while not list(folder.glob("*.starting")):
            assert process.poll() is None
            time.sleep(0.005)
        interrupt(process)
        process.communicate(timeout=20)
    assert {engine.id for engine in list_running(folder)} <= before


both_ways = pytest.mark.parametrize("more", [(), ("--async",)], ids=["sync", "async"])


@pytest.mark.skipif(sys.platform == "win32", reason="the fake llama-server is a script")
@both_ways
def test_endless_load_is_ended(
    user_path: Path, starter_model: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    put_starter(user_path, starter_model)
    program = stand_in(tmp_path / "llama-server", "os.environ['STAND_IN_LOAD'] = 'silent'")
    configure(user_path, **{**CONFIG, "llama_server": str(program)})
    with llm_process("-m", "local", "Hello", "-o", "timeout", "3600", *more) as process:
        logs = (user_path / "localrun" / "engine").glob
        wait_until(lambda: any("load_tensors" in log.read_text() for log in logs("*.log")), 60)
        assert process.poll() is None
        interrupt(process)
        _, errors = process.communicate(timeout=60)
    assert errors.strip() == b"Aborted!"
    wait_until(lambda: hosts(user_path) == [])
    assert not (user_path / "localrun" / "failed-loads.json").exists()


@both_ways
@pytest.mark.parametrize("path", ["/tokenize", "/v1/chat/completions"])
def test_server_that_hangs_is_left(user_path: Path, path: str, more: tuple[str, ...]) -> None:
    """Before it gets the prompt, and afterwards."""

    def respond(request: Request) -> Iterator[bytes | float]:
        return iter([3600.0] if request.path == path else vllm()(request))

    with StandIn(respond) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        model, prompt = "local/box/Qwen/Qwen3-8B", "word " * 9000
        with llm_process("-m", model, prompt, *more) as process:
            wait_until(lambda: path in [each.path for each in server.requests], 60)
            interrupt(process)
            _, errors = process.communicate(timeout=20)
    assert errors.strip() == b"Aborted!"


def test_cancelled_task_gives_its_slot_back(
    user_path: Path, starter_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the slot, and its thread gets it later."""
    model, folder = AsyncLocalChat(in_file(starter_model)), user_path / "localrun" / "engine"
    wait, renew = launch._wait_for_slot, launch.renew_lease
    waits, renewed = threading.Event(), list[str]()

    def waited(*arguments: Any, **more: Any) -> slots.Slot | None:
        waits.set()
        return wait(*arguments, **more)

    def renewing(engine: EngineState, *arguments: Any) -> None:
        renew(engine, *arguments)
        renewed.append(engine.id)

    async def ask() -> str:
        return await model.prompt("Hi", max_tokens=1).text()

    async def cancel() -> None:
        task = asyncio.create_task(ask())
        await asyncio.to_thread(waits.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    (engine,) = list_running(folder)
    paths = EnginePaths(folder, engine.id)
    monkeypatch.setattr(launch, "_wait_for_slot", waited)
    monkeypatch.setattr(launch, "renew_lease", renewing)
    held = slots.acquire_free(paths)
    asyncio.run(cancel())
    assert (len(held), renewed) == (SLOTS, [])
    for slot in held:
        slot.release()
    wait_until(lambda: renewed == [engine.id])
    assert not slots.are_in_use(paths)
    assert not any(slots._read(paths.slot(number)).tokens for number in range(SLOTS))
