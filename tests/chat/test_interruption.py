"""Ctrl-C keeps the partial answer, continues the session and stops the engine's generation."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from llm_localrun.engine.state import list_running
from tests.conftest import Llm

LONG = ("-o", "temperature", "0", "-o", "extra", '{"ignore_eos": true}')


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
