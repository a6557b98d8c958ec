"""Errors, interruptions, prompts at the same time, and what is left behind."""

import asyncio
import inspect
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import llm
import pytest

from llm_localrun import errors
from llm_localrun.chat.models import AsyncLocalChat, LocalChat
from llm_localrun.engine.state import list_running
from llm_localrun.models import LocalModel
from tests.conftest import Llm, put_starter
from tests.fakes.http_server import Request, StandIn
from tests.fakes.lmstudio import LMStudio
from tests.support.contract import (
    STARTER,
    command,
    found,
    output,
    slow,
    turns,
)
from tests.support.drive import ask, failure
from tests.support.models import file_route
from tests.support.snapshots import point_at

# llm leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


def leaves(error: type[Exception]) -> Iterator[type[Exception]]:
    yield error
    for below in error.__subclasses__():
        yield from leaves(below)


def test_every_error_is_one_of_llm_and_of_click() -> None:
    ours = {error for error in vars(errors).values() if inspect.isclass(error)}
    assert len(ours & set(leaves(errors.LocalRunError))) > 10
    for error in leaves(errors.LocalRunError):
        assert issubclass(error, llm.ModelError)
        assert issubclass(error, click.ClickException)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "local-gemma4", "hi"),
        ("-m", "local-gemma4", "hi", "--async"),
        ("-m", "local-gemma4", "hi", "--no-stream"),
        ("chat", "-m", "local-gemma4"),
        ("embed", "-m", "local-nomic-embed-text", "-c", "hi"),
    ],
)
def test_failures_say_what_to_do(arguments: tuple[str, ...], user_path: Path) -> None:
    with StandIn(LMStudio()) as server:
        point_at(user_path, server.url)
        output("localrun", "refresh")
    done = command(*arguments, input="hi\n")
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert f"Error: LM Studio at {server.url} does not answer. Start its server" in done.stderr


def is_idle(user: Path, path: str | None) -> bool:
    engines = [
        engine for engine in list_running(user / "localrun/engine") if engine.spec.path == path
    ]
    for engine in engines:
        headers = {"Authorization": f"Bearer {engine.key}"}
        slots = httpx.get(f"{engine.url}/slots", headers=headers).json()
        if any(slot["is_processing"] for slot in slots):
            return False
    return True


def test_closing_a_response_stops_the_engine(plain: LocalModel, warm: Path) -> None:
    response = LocalChat(plain).prompt("Hi", extra_body={"ignore_eos": True})
    received = iter(response)
    next(received)
    assert not is_idle(warm, file_route(plain).path)
    received.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while not is_idle(warm, file_route(plain).path):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("arguments", [("-m", "local-gemma4", "Hi"), ("chat", "-m", "local")])
def test_interrupted_answer_is_kept(arguments: tuple[str, ...], user_path: Path) -> None:
    """Real commands with a real Ctrl-C are in tests/chat/test_interruption.py."""
    server = LMStudio(slow)

    def respond(request: Request) -> Iterator[bytes | float]:
        for count, piece in enumerate(server(request)):
            if request.path.endswith("completions") and count == 20:
                os.kill(os.getpid(), signal.SIGINT)
            yield piece

    with StandIn(respond) as box:
        point_at(user_path, box.url)
        done = command(*arguments, input="Hi\nexit\n")
    assert done.exit_code == 0, done.output
    (turn,) = turns()
    assert turn["response_json"]["finish_reason"] == "interrupted"
    assert turn["response"].startswith("word word")
    assert turn["response"] in done.stdout


def test_many_prompts_at_once_on_the_engine(plain: LocalModel) -> None:
    async def text(number: int) -> str:
        grammar = f'root ::= "answer {number}"'
        return str(await AsyncLocalChat(plain).prompt("Hi", grammar=grammar).text())

    async def all_at_once() -> list[str]:
        return list(await asyncio.gather(*map(text, range(6))))

    assert asyncio.run(all_at_once()) == [f"answer {number}" for number in range(6)]


def test_only_the_engine_keeps_anything_between_turns(plain: LocalModel) -> None:
    model = LocalChat(plain)
    assert model.local == plain
    state = dict(vars(model))
    conversation = model.conversation()
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 4}
    first = conversation.prompt("My name is Ada. " * 20, **options)
    first.text()
    second = conversation.prompt("What is my name?", **options)
    second.text()
    # Without a conversation, and after another prompt has been in between.
    model.prompt("Something else entirely", **options).text()
    reply = first.reply("What is my name?", options=options)
    assert reply.text() == second.text()
    for response in (second, reply):
        assert response.input_tokens == second.input_tokens
        assert (response.token_details or {})["cached_tokens"] >= first.input_tokens
    assert vars(model) == state


def test_output_of_the_engine_goes_to_its_log_only(
    starter_model: Path, user_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put_starter(user_path, starter_model)
    model = found(STARTER)
    ask(model, "Hi", max_tokens=2)
    failure(lambda: ask(model, "Hi", grammar="root ::= nonsense |"))
    failure(lambda: ask(model, "Hi", schema={"type": "object", "properties": {"a": {"$ref": "#"}}}))
    assert capfd.readouterr() == ("", "")
    (log,) = (user_path / "localrun/engine").glob("*.log")
    ask(model, "Hi", max_tokens=2)
    assert log.stat().st_size > 0


def test_log_does_not_keep_what_an_error_quotes(starter_model: Path, user_path: Path) -> None:
    """llama.cpp logs each error that it reports."""
    put_starter(user_path, starter_model)
    model = found(STARTER)
    ask(model, "Hi", max_tokens=2)
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^zqsecret(?=x)$"}},
    }
    failure(lambda: ask(model, "Hi", schema=schema, max_tokens=2))
    failure(lambda: ask(model, "Hi", grammar="root ::= zqsecret |"))
    (log,) = (user_path / "localrun/engine").glob("*.log")
    assert b"zqsecret" not in log.read_bytes()


def test_no_process_and_no_thread_is_left_behind(
    starter_model: Path, run_llm: Llm, user_path: Path
) -> None:
    put_starter(user_path, starter_model)
    threads = threading.active_count()
    options = ("-o", "max_tokens", "2", "-o", "keep_alive", "0")
    assert run_llm("-m", "local", "Hi", *options).returncode == 0
    folder = user_path / "localrun/engine"
    deadline = time.monotonic() + 10
    while list(folder.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert threading.active_count() == threads
