"""Errors and notes begin on a line of their own on a terminal, and nowhere else."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONFIG, Llm, configure
from tests.fakes.http_server import Request, StandIn, chunked, events, head
from tests.fakes.http_server import chunk as chunk_of
from tests.fakes.ollama import Ollama
from tests.fakes.vllm import vllm
from tests.support.replies import chunk
from tests.support.terminal import on_terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")

MODEL = "local/box/Qwen/Qwen3-8B"
CRASH = {"error": {"message": "crashed"}}


class Saying:
    """vLLM whose model says `payloads` to each prompt."""

    def __init__(self, *payloads: Any) -> None:
        self.payloads = payloads
        self.rest = vllm()

    def __call__(self, request: Request) -> Iterator[bytes]:
        is_chat = request.path == self.rest.chat_path
        return iter([events(*self.payloads)]) if is_chat else self.rest(request)


def configured(user: Path, server: StandIn) -> None:
    configure(user, **CONFIG, endpoints=[{"name": "box", "url": server.url}])


ERROR = "says: crashed. The server's own log says more.\n"
DELTAS: dict[str, tuple[list[dict[str, str]], str, str]] = {
    # What comes, and what stands before the error: with the reasoning, and without it.
    "text": ([{"content": "and"}], "and\n", "and\n"),
    "text that ends its line": ([{"content": "and\n"}], "and\n", "and\n"),
    "reasoning": ([{"reasoning": "Hm."}], "Hm.\n", ""),
    "reasoning and text": ([{"reasoning": "Hm."}, {"content": "and"}], "Hm.\nand\n", "and\n"),
    "nothing": ([], "", ""),
}


@pytest.mark.parametrize("more", [[], ["--async"]], ids=["sync", "async"])
@pytest.mark.parametrize("case", DELTAS)
def test_error_on_a_terminal(case: str, more: list[str], user_path: Path) -> None:
    deltas, before, without = DELTAS[case]
    with StandIn(Saying(*(chunk(**delta) for delta in deltas), CRASH)) as server:
        configured(user_path, server)
        error = f"Error: vLLM at {server.url} {ERROR}"
        assert on_terminal("-m", MODEL, "Hi", *more) == before + error
        assert on_terminal("-m", MODEL, "Hi", "-R", *more) == without + error
        assert on_terminal("-m", MODEL, "Hi", "--no-stream", *more) == error


def test_error_in_a_chat(user_path: Path) -> None:
    with StandIn(Saying(chunk(content="and"), CRASH)) as server:
        configured(user_path, server)
        shown = on_terminal("chat", "-m", MODEL, typed="Hi\n")
        assert shown.endswith(f"> and\nError: vLLM at {server.url} {ERROR}")


def test_error_away_from_a_terminal(user_path: Path, run_llm: Llm) -> None:
    """What is piped on is what the model wrote."""
    with StandIn(Saying(chunk(content="and"), CRASH)) as server:
        configured(user_path, server)
        done = run_llm("-m", MODEL, "Hi")
        assert (done.returncode, done.stdout) == (1, "and")
        assert done.stderr == f"Error: vLLM at {server.url} {ERROR}"
        shown = on_terminal("-m", MODEL, "Hi", stderr=subprocess.DEVNULL)
        assert shown == "and\n"


PIECES = ["These ", "are ", "five ", "pieces ", "of text"]


@pytest.mark.parametrize("breaks", [False, True], ids=["error", "broken connection"])
@pytest.mark.parametrize("more", [[], ["--schema", "x int"]], ids=["thinks", "JSON"])
def test_text_that_was_held_stands_before_the_error(
    more: list[str], breaks: bool, user_path: Path
) -> None:
    """It may have been thinking, which a closing tag shows, or prose around JSON."""
    rest = Ollama(has=["smollm2:135m"], capabilities=("completion", "thinking"))
    said = [{"message": {"content": piece}, "done": False} for piece in PIECES]
    lines = [json.dumps(line).encode() + b"\n" for line in (*said, {"error": "boom"})]
    media = "application/x-ndjson"
    cut = head(media) + b"".join(map(chunk_of, lines[:-1]))

    def respond(request: Request) -> Iterator[bytes]:
        if request.path != "/api/chat":
            return rest(request)
        return iter([cut if breaks else chunked(lines, media)])

    why = "closed the connection in the middle of its answer" if breaks else "says: boom"
    with StandIn(respond) as server:
        configured(user_path, server)
        for way in ([], ["--async"]):
            shown = on_terminal("-m", "local/box/smollm2:135m", "Hi", *more, *way)
            error = f"Error: Ollama at {server.url} {why}. "
            assert shown.startswith(f"{''.join(PIECES)}\n{error}")
        piped = on_terminal("-m", "local/box/smollm2:135m", "Hi", *more, stderr=subprocess.DEVNULL)
    assert piped == f"{''.join(PIECES)}\n"


STOPPED = f"{MODEL} stopped while it was thinking"
MAX_TOKENS = "Use a larger -o max_tokens, or use -o think off."
NOTES: list[tuple[list[dict[str, str]], str, str]] = [
    ([{"reasoning": "Hm"}], "length", f"{STOPPED} (length) and gave no answer. {MAX_TOKENS}\n"),
    (
        [{"content": "<think>Hm"}],
        "length",
        f"{STOPPED} (length) and gave no answer. {MAX_TOKENS}\n",
    ),
    (
        [{"content": "[THINK]Hm"}],
        "stop",
        f"{STOPPED} (stop) and gave no answer. Use -o think off.\n",
    ),
    (
        [{"reasoning": "Hm"}, {"content": "\n"}],
        "stop",
        f"{STOPPED} (stop) and gave no answer. Use -o think off.\n",
    ),
    ([{"content": "<think>Hm</think>Hi"}], "stop", ""),
    ([{"content": "Hi"}], "stop", ""),
    ([{"content": ""}], "stop", ""),
]


@pytest.mark.parametrize("more", [[], ["--async"], ["--no-stream"], ["--async", "--no-stream"]])
@pytest.mark.parametrize(("deltas", "finish_reason", "note"), NOTES)
def test_answer_that_ends_within_its_thinking(
    deltas: list[dict[str, str]],
    finish_reason: str,
    note: str,
    more: list[str],
    user_path: Path,
    run_llm: Llm,
) -> None:
    """It is said also where the thinking is hidden."""
    said = Saying(*(chunk(**delta) for delta in deltas), chunk(finish_reason))
    with StandIn(said) as server:
        configured(user_path, server)
        done = run_llm("-m", MODEL, "Hi", "-R", "-o", "max_tokens", "1", *more)
    assert (done.returncode, done.stderr) == (0, note)
    assert done.stdout.strip() == ("" if note or not deltas[0].get("content") else "Hi")


def test_advice_is_what_may_help(user_path: Path, run_llm: Llm) -> None:
    with StandIn(Saying(chunk(reasoning="Hm"), chunk("stop"))) as server:
        configured(user_path, server)
        done = run_llm("-m", MODEL, "Hi", "-R", "-o", "think", "off")
    assert (
        done.stderr == f"{STOPPED} (stop) and gave no answer. Try again, or choose another model.\n"
    )


@pytest.mark.parametrize(("hidden", "shown"), [([], "Hm\n"), (["-R"], "")])
def test_note_on_a_terminal(hidden: list[str], shown: str, user_path: Path) -> None:
    with StandIn(Saying(chunk(reasoning="Hm"), chunk("stop"))) as server:
        configured(user_path, server)
        terminal = on_terminal("-m", MODEL, "Hi", *hidden)
    assert terminal == f"{shown}{STOPPED} (stop) and gave no answer. Use -o think off.\n\n"


def test_log_holds_what_came(user_path: Path, run_llm: Llm) -> None:
    with StandIn(Saying(chunk(content="Hi"), chunk("length"))) as server:
        configured(user_path, server)
        shown = on_terminal("-m", MODEL, "Hi")
    assert shown.startswith("Hi\nThe answer ")
    (turn,) = json.loads(run_llm("logs", "--json", "-n", "1").stdout)
    assert turn["response"] == "Hi"
