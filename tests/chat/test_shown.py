"""What a terminal shows of a request besides its answer, and that nothing else ever shows it."""

import asyncio
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import llm
import pytest

from llm_localrun.servers.openai_compatible import OpenAICompatible
from llm_localrun.system.progress import Progress
from tests.conftest import CONFIG, Llm, configure, put_starter, stop_engines
from tests.fakes.http_server import Request, StandIn, head, transcript
from tests.fakes.http_server import chunk as chunk_of
from tests.fakes.vllm import vllm
from tests.support.drive import served
from tests.support.replies import chunk
from tests.support.drawn import lines_on, works_in
from tests.support.terminal import dialog, on_terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")

MODEL = "local/box/Qwen/Qwen3-8B"
SILENCE = 2.2
"""Seconds after which a line is shown, on a busy machine too."""
WAITING = "waiting for the answer, N s"
GENERATING = "generating, N s"
PROGRESS = {"total": 6000, "cache": 24, "processed": 2560, "time_ms": 9000}
READING = "reading the prompt: N of N tokens, N s"
CALL = {"name": "llm_version", "arguments": "{}"}
CALLS = chunk(tool_calls=[{"index": 0, "id": "1", "type": "function", "function": CALL}])


class Slow:
    """vLLM whose model says the payloads of each turn, with pauses where numbers stand."""

    def __init__(self, *turns: list[Any], piece_size: int = 0) -> None:
        self.turns = list(turns)
        self.rest = vllm()
        self.bodies: list[Any] = []

    def __call__(self, request: Request) -> Iterator[bytes | float]:
        if request.path != self.rest.chat_path:
            return iter(self.rest(request))
        self.bodies.append(request.body)
        return self._answer(self.turns[(len(self.bodies) - 1) % len(self.turns)])

    def _answer(self, payloads: list[Any]) -> Iterator[bytes | float]:
        yield head("text/event-stream")
        for payload in payloads:
            is_pause = isinstance(payload, float)
            yield payload if is_pause else chunk_of(b"data: %s\n\n" % json.dumps(payload).encode())
        yield chunk_of(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@pytest.fixture
def slow(user_path: Path) -> Iterator[Callable[..., Slow]]:
    """Starts the server of `MODEL`."""
    servers: list[StandIn] = []

    def start(*turns: list[Any], piece_size: int = 0) -> Slow:
        says = Slow(*turns)
        server = StandIn(says, piece_size=piece_size)
        servers.append(server.__enter__())
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        return says

    yield start
    for server in servers:
        server.__exit__()


def says(*deltas: Any, end: str = "stop") -> list[Any]:
    return [*(d if isinstance(d, float) else chunk(**d) for d in deltas), chunk(end)]


HI = {"content": "Hi."}
LATE = [SILENCE, *says(HI)]
HELD = {"content": '{"a": '}, SILENCE, {"content": "1}"}
THINKS = {"reasoning": "Hm"}, SILENCE, {"reasoning": "m."}, HI
UNFINISHED = {"content": "I will"}, SILENCE, {"content": " look."}
FINISHED = {"content": "One.\n"}, SILENCE, {"content": "Two."}
CASES: dict[str, tuple[list[Any], list[str], list[str], list[str]]] = {
    # What comes, with which options; what the line says, and what stands there at the end.
    "silence": (LATE, [], [WAITING], ["Hi."]),
    "reading": ([{**chunk(), "prompt_progress": PROGRESS}, *LATE], [], [READING], ["Hi."]),
    "only the beginning": ([chunk(role="assistant"), *LATE], [], [WAITING], ["Hi."]),
    "JSON is checked": (says(*HELD), ["--schema", "a int"], [GENERATING], ['{"a": 1}']),
    "thinking": (says(*THINKS), [], [], ["Hmm.", "Hi."]),
    "hidden thinking": (says(*THINKS), ["-R"], ["thinking, N s"], ["Hi."]),
    "in a line": (says(*UNFINISHED), [], [], ["I will look."]),
    "after a line": (says(*FINISHED), [], [GENERATING], ["One.", "Two."]),
    "nothing to wait for": (says(HI), [], [], ["Hi."]),
}


@pytest.mark.parametrize("more", [[], ["--async"]], ids=["sync", "async"])
@pytest.mark.parametrize("case", CASES)
def test_on_a_terminal(case: str, more: list[str], slow: Callable[..., Slow]) -> None:
    payloads, options, drawn, lines = CASES[case]
    slow(payloads)
    shown = on_terminal("-m", MODEL, "Hi", *options, *more)
    assert works_in(shown) == drawn
    assert lines_on(shown) == [*lines, ""]
    assert "\x1b" not in shown


def test_split_anywhere(slow: Callable[..., Slow]) -> None:
    slow(CASES["reading"][0], piece_size=7)
    shown = on_terminal("-m", MODEL, "Hi")
    assert (works_in(shown), lines_on(shown)) == ([READING], ["Hi.", ""])


def test_answer_that_is_not_streamed(slow: Callable[..., Slow], user_path: Path) -> None:
    """Nothing says what the server does meanwhile."""
    slow(LATE)
    shown = on_terminal("-m", MODEL, "Hi", "--no-stream")
    assert works_in(shown) == [WAITING]
    assert lines_on(shown) == ["Hi.", ""]


@pytest.mark.parametrize("columns", [20, 60])
def test_narrow_terminal(
    columns: int, slow: Callable[..., Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    slow(CASES["reading"][0])
    shown = on_terminal("-m", MODEL, "Hi")
    assert lines_on(shown) == ["Hi.", ""]
    assert max(map(len, shown.split("\r"))) < columns
    assert "N s" in works_in(shown)[0]


TURNS = [
    says({"content": "I will look."}, {"tool_calls": CALLS["choices"][0]["delta"]["tool_calls"]}),
    [SILENCE, *says({"content": "It is new."})],
]


@pytest.mark.parametrize("more", [[], ["--async"]], ids=["sync", "async"])
def test_turn_after_a_text(more: list[str], slow: Callable[..., Slow]) -> None:
    """The line begins on a line of its own, and the text that stands there stays."""
    slow(*TURNS)
    shown = on_terminal("-m", MODEL, "Hi", "-T", "llm_version", *more)
    assert works_in(shown) == [WAITING]
    assert lines_on(shown) == ["I will look.", "It is new.", ""]


def test_turn_after_calls_that_llm_shows(slow: Callable[..., Slow]) -> None:
    """What llm prints of them ends its line."""
    slow(*TURNS)
    lines = lines_on(on_terminal("-m", MODEL, "Hi", "-T", "llm_version", "--td"))
    assert lines[:2] == ["I will look.", "\x1b[33m\x1b[1mTool call: llm_version({})"]
    assert lines[-2:] == ["It is new.", ""]
    assert lines.count("") == 3


def test_call_that_is_written_after_a_text(slow: Callable[..., Slow]) -> None:
    slow([chunk(content="I will look."), CALLS, SILENCE, chunk("tool_calls")], TURNS[1])
    shown = on_terminal("-m", MODEL, "Hi", "-T", "llm_version")
    assert works_in(shown) == ["writing a tool call, N s", WAITING]
    assert lines_on(shown) == ["I will look.", "It is new.", ""]


def test_chat(slow: Callable[..., Slow]) -> None:
    slow(LATE, says(HI), LATE)
    shown = on_terminal("chat", "-m", MODEL, typed="Hi\nHi\nHi\n")
    assert works_in(shown).count(WAITING) == 2
    assert [line for line in lines_on(shown) if line.endswith("Hi.")] == ["> Hi.", "> Hi.", "> Hi."]
