"""What a terminal shows of a request besides its answer, and that nothing else ever shows it."""

import asyncio
import contextlib
import io
import json
import re
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import llm
import pytest

from llm_localrun.engine import slots
from llm_localrun.engine.slots import SlotContents
from llm_localrun.engine.state import EnginePaths, list_running
from llm_localrun.engine_defaults import SLOTS
from llm_localrun.errors import ServerRefused
from llm_localrun.servers.openai_compatible import OpenAICompatible
from llm_localrun.system.progress import Progress
from tests.conftest import CONFIG, Llm, configure
from tests.fakes.http_server import Request, StandIn, head, json_reply, not_found
from tests.fakes.http_server import chunk as chunk_of
from tests.fakes.llama_server import llama_server
from tests.fakes.openai_compatible import listing
from tests.fakes.vllm import vllm
from tests.support.contract import STARTER
from tests.support.drawn import lines_on, works_in
from tests.support.engines import wait_until
from tests.support.replies import chunk
from tests.support.terminal import dialog, written_to_terminal

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
OFFERED = ["-T", "llm_version"]
THINKS = {"reasoning": "Hm"}, SILENCE, {"reasoning": "m."}, HI
UNFINISHED = {"content": "I will"}, SILENCE, {"content": " look."}
FINISHED = {"content": "One.\n"}, SILENCE, {"content": "Two."}
CASES: dict[str, tuple[list[Any], list[str], list[str], list[str]]] = {
    # What comes, with which options; what the line says, and what stands there at the end.
    "silence": (LATE, [], [WAITING], ["Hi."]),
    "reading": ([{**chunk(), "prompt_progress": PROGRESS}, *LATE], [], [READING], ["Hi."]),
    "only the beginning": ([chunk(role="assistant"), *LATE], [], [WAITING], ["Hi."]),
    "JSON is checked": (says(*HELD), [*OFFERED, "--schema", "a int"], [GENERATING], ['{"a": 1}']),
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
    shown = written_to_terminal("-m", MODEL, "Hi", *options, *more)
    assert works_in(shown) == drawn
    assert lines_on(shown) == [*lines, ""]
    assert "\x1b" not in shown


def test_split_anywhere(slow: Callable[..., Slow]) -> None:
    slow(CASES["reading"][0], piece_size=7)
    shown = written_to_terminal("-m", MODEL, "Hi")
    assert (works_in(shown), lines_on(shown)) == ([READING], ["Hi.", ""])


def test_answer_that_is_not_streamed(slow: Callable[..., Slow], user_path: Path) -> None:
    """Nothing says what the server does meanwhile."""
    slow(LATE)
    shown = written_to_terminal("-m", MODEL, "Hi", "--no-stream")
    assert works_in(shown) == [WAITING]
    assert lines_on(shown) == ["Hi.", ""]


@pytest.mark.parametrize("columns", [20, 60])
def test_narrow_terminal(
    columns: int, slow: Callable[..., Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    slow(CASES["reading"][0])
    shown = written_to_terminal("-m", MODEL, "Hi")
    assert lines_on(shown) == ["Hi.", ""]
    assert max(map(len, shown.split("\r"))) < columns
    assert re.match(r"reading( the prompt)?: [\dN]", works_in(shown)[0])


# llm puts a space between the texts of two turns.
TURNS = [
    says({"content": "I will look."}, {"tool_calls": CALLS["choices"][0]["delta"]["tool_calls"]}),
    [SILENCE, *says({"content": "It is new."})],
]


@pytest.mark.parametrize("more", [[], ["--async"]], ids=["sync", "async"])
def test_turn_after_a_text(more: list[str], slow: Callable[..., Slow]) -> None:
    """The line begins on a line of its own, and the text that stands there stays."""
    slow(*TURNS)
    shown = written_to_terminal("-m", MODEL, "Hi", *OFFERED, *more)
    assert works_in(shown) == [WAITING]
    assert lines_on(shown) == ["I will look.", " It is new.", ""]


def test_turn_after_calls_that_llm_shows(slow: Callable[..., Slow]) -> None:
    """What llm prints of them ends its line."""
    slow(*TURNS)
    shown = written_to_terminal("-m", MODEL, "Hi", *OFFERED, "--td")
    assert works_in(shown)[-1] == WAITING
    lines = lines_on(re.sub("\x1b.*?m", "", shown))
    version = lines[2]
    assert lines == ["I will look.", "Tool call: llm_version({})", version, "", " It is new.", ""]


def test_call_that_is_written_after_a_text(slow: Callable[..., Slow]) -> None:
    slow([chunk(content="I will look."), CALLS, SILENCE, chunk("tool_calls")], TURNS[1])
    shown = written_to_terminal("-m", MODEL, "Hi", *OFFERED)
    assert works_in(shown) == ["writing a tool call, N s", WAITING]
    assert lines_on(shown) == ["I will look.", " It is new.", ""]


def test_chat(slow: Callable[..., Slow]) -> None:
    slow(LATE, says(HI), LATE)
    answers = ["One\n", "Two\n", "Three\n", "exit\n"]
    status, shown = dialog("chat", "-m", MODEL, question="> ", answers=answers)
    lines = lines_on(shown)
    assert status == 0
    turns = shown.split("> ")[-len(answers) :]
    assert [works_in(turn) for turn in turns] == [[WAITING], [], [WAITING], []]
    asked = lines.index("> One")
    assert lines[asked:] == ["> One", "Hi.", "> Two", "Hi.", "> Three", "Hi.", "> exit", ""]


def test_chat_whose_texts_are_not_typed(slow: Callable[..., Slow]) -> None:
    """Nothing ends the line in which llm has asked for a text."""
    slow(LATE, says(HI))
    shown = written_to_terminal("chat", "-m", MODEL, typed="One\nTwo\nexit\n")
    assert works_in(shown) == [WAITING]
    lines = lines_on(shown)
    assert lines[lines.index(">") :] == [">", "Hi.", "> Hi.", ">"]


@pytest.mark.parametrize("more", [[], ["--async"]], ids=["sync", "async"])
def test_ctrl_c(more: list[str], slow: Callable[..., Slow]) -> None:
    slow([60.0])
    status, shown = dialog("-m", MODEL, "Hi", *more, question=" s", answers=["\x03"])
    assert works_in(shown.replace("^C", "")) == [WAITING]
    assert "waiting" not in "".join(lines_on(shown))
    assert status != 0


def test_request_that_is_asked_again(slow: Callable[..., Slow]) -> None:
    """Its time goes on: the user has waited for the whole of it."""
    broken = '{"name": "llm_version", "arguments": {"of": 1'
    server = slow([SILENCE, *says({"content": broken})], LATE)
    shown = written_to_terminal("-m", MODEL, "Hi", *OFFERED)
    assert len(server.bodies) == 2
    assert works_in(shown)[-1] == WAITING
    seconds = [int(each) for each in re.findall(r"answer, (\d+) s", shown)]
    assert seconds == sorted(seconds)
    assert seconds[-1] >= 2 * int(SILENCE)
    assert lines_on(shown)[-2:] == [broken, ""]


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_embedding(is_interrupted: bool, user_path: Path) -> None:
    """A line that llm does not draw itself, and that Ctrl-C removes as well."""
    models = listing({"id": "nomic-embed-text-v1.5"})
    reply = json_reply({"data": [{"index": 0, "embedding": [0.5]}]})

    def embeds(request: Request) -> list[bytes | float]:
        if request.path == "/v1/models":
            return [json_reply(models)]
        is_asked = request.path == "/v1/embeddings"
        return [SILENCE, 60.0 * is_interrupted, reply] if is_asked else [not_found(request.path)]

    with StandIn(embeds) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        command = "embed", "-m", "local/box/nomic-embed-text-v1.5", "-c", "Hi"
        answers = ["\x03"] * is_interrupted
        status, shown = dialog(*command, question=" s", answers=answers)
    assert works_in(shown.replace("^C", "")) == ["embedding, N s"]
    assert bool(status) is is_interrupted
    assert "embedding" not in "".join(lines_on(shown))


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def at_terminal() -> Iterator[Terminal]:
    """A fixture cannot do it: pytest replaces what it has set."""
    with contextlib.redirect_stderr(Terminal()) as terminal:
        yield terminal


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Those in which the server says besides the response what it does, until that is over."""
    begun: list[threading.Thread] = []

    def progress(*_: object) -> Iterator[Progress]:
        begun.append(threading.current_thread())
        is_over = _[-1]
        assert isinstance(is_over, threading.Event)
        while not is_over.wait(0.05):
            yield Progress("waiting for 2 other prompts")

    monkeypatch.setattr(OpenAICompatible, "progress", progress)
    return begun


def prompt_in(command: str) -> Generator[str, None, None]:
    """The texts of an answer, as `command` of llm's gets them."""
    model = llm.get_model(MODEL)
    with click.Context(click.Command(command), info_name=command):
        yield from model.prompt("Hi")


CRASH = {"error": {"message": "crashed"}}
READS = {**chunk(), "prompt_progress": PROGRESS}
OTHERS = "waiting for N other prompts, N s"
ENDS: dict[str, tuple[list[Any], list[str], int]] = {
    # What comes; what the line says, and how many threads ask.
    "answer": (LATE, [OTHERS], 1),
    "error": ([SILENCE, CRASH], [OTHERS], 1),
    "quick answer": (says(HI), [], 0),
    "quick error": ([CRASH], [], 0),
    "it says so itself": ([SILENCE, READS, 2 * SILENCE, *says(HI)], [OTHERS, READING], 1),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_a_server_says_besides(
    case: str, slow: Callable[..., Slow], threads: list[threading.Thread]
) -> None:
    payloads, drawn, count = ENDS[case]
    slow(payloads)
    with at_terminal() as terminal, contextlib.suppress(ServerRefused):
        assert list(prompt_in("prompt")) == ["Hi."]
    for thread in threads:
        thread.join(5)
    assert len(threads) == count
    assert not any(thread.is_alive() for thread in threads)
    assert [text for text in works_in(terminal.getvalue()) if text != WAITING] == drawn


def test_answer_that_is_left(slow: Callable[..., Slow], threads: list[threading.Thread]) -> None:
    slow([SILENCE, chunk(content="Hi."), 30.0])
    with at_terminal() as terminal, contextlib.closing(prompt_in("prompt")) as answer:
        assert next(answer) == "Hi."
    (thread,) = threads
    thread.join(5)
    assert not thread.is_alive()
    assert lines_on(terminal.getvalue()) == [""]


@pytest.mark.parametrize("name", ["", "box"])
def test_other_programs(
    name: str, slow: Callable[..., Slow], threads: list[threading.Thread]
) -> None:
    """What they have on the terminal is not known."""
    says = slow(LATE)
    with at_terminal() as terminal:
        answer = prompt_in(name) if name else llm.get_model(MODEL).prompt("Hi")
        assert list(answer) == ["Hi."]
    assert (terminal.getvalue(), threads, len(says.bodies)) == ("", [], 1)


def test_many_prompts_at_once(slow: Callable[..., Slow]) -> None:
    slow(LATE)
    model = llm.get_async_model(MODEL)

    async def ask_all() -> list[str]:
        return await asyncio.gather(*(model.prompt("Hi").text() for _ in range(64)))

    with at_terminal() as terminal:
        assert asyncio.run(ask_all()) == ["Hi."] * 64
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("more", [[], ["--async"], ["--no-stream"], ["-R"]])
def test_nothing_in_a_pipe(more: list[str], slow: Callable[..., Slow], run_llm: Llm) -> None:
    payloads = [READS, SILENCE, *says({"content": "One.\n"}, SILENCE, {"content": "Two."})]
    slow(payloads)
    done = run_llm("-m", MODEL, "Hi", *more)
    assert (done.returncode, done.stdout, done.stderr) == (0, "One.\nTwo.\n", "")


def test_note_stands_on_a_line_of_its_own(slow: Callable[..., Slow]) -> None:
    slow([SILENCE, chunk("tool_calls")])
    shown = written_to_terminal("-m", MODEL, "Hi")
    assert works_in(shown)[:1] == [WAITING]
    assert lines_on(shown)[0].startswith("vLLM at http://127.0.0.1:")


LONG = "The keeper climbed the stairs of the tower and wrote down what he saw. " * 100


@pytest.mark.parametrize("more", [[], ["--async"], ["--schema", "a int"]])
def test_engine_reads_a_long_prompt(more: list[str], warm: Path, run_llm: Llm) -> None:
    prompt = f"{more} {LONG}"
    limit = ["-o", "max_tokens", "2", "-o", "temperature", "0"]
    shown = written_to_terminal("-m", "local", prompt, *limit, *more)
    drawn = [text for text in works_in(shown) if text.startswith("reading")]
    assert drawn
    assert all(re.fullmatch("reading the prompt: N of N tokens, N s( left)?", d) for d in drawn)
    totals = set(re.findall(r"of ([\d,]+) tokens", shown))
    turn = json.loads(run_llm("logs", "--json", "-n", "1").stdout)[0]
    assert totals == {f"{turn['input_tokens']:,}"}
    assert lines_on(shown)[0] == turn["response"].partition("\n")[0].rstrip()


@pytest.mark.parametrize("is_async", [False, True])
def test_prompt_that_waits_for_others(is_async: bool, warm: Path) -> None:
    """The engine says so itself, in another thread than the one that draws or asks."""
    assert llm.get_model(STARTER).prompt("Hi", max_tokens=1).text()
    folder = warm / "localrun" / "engine"
    (engine,) = list_running(folder)
    with (
        contextlib.ExitStack() as others,
        at_terminal() as terminal,
        ThreadPoolExecutor() as threads,
    ):
        for _ in range(SLOTS):
            slot = slots.acquire(EnginePaths(folder, engine.id), SlotContents(), False, 1)
            assert slot is not None
            others.enter_context(slot.held())
        answer = threads.submit(engine_answer, is_async)
        try:
            wait_until(lambda: f"waiting for {SLOTS} other prompts" in terminal.getvalue())
        finally:
            others.close()
        assert answer.result()
    assert lines_on(terminal.getvalue()) == [""]


def engine_answer(is_async: bool) -> str:
    with click.Context(click.Command("prompt"), info_name="prompt"):
        if not is_async:
            return llm.get_model(STARTER).prompt("Hi", max_tokens=1).text()
        model = llm.get_async_model(STARTER)

        async def answer() -> str:
            return await model.prompt("Hi", max_tokens=1).text()

        return asyncio.run(answer())


def test_body_of_a_pipe_is_as_before(
    user_path: Path, run_llm: Llm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only somebody at a terminal wants to see the prompt being read."""
    monkeypatch.setenv("NO_COLOR", "1")
    with StandIn(llama_server()) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        run_llm("-m", "local/box/gemma-3-4b-it-Q4_K_M.gguf", "Hi")
        written_to_terminal("-m", "local/box/gemma-3-4b-it-Q4_K_M.gguf", "Hi")
        written_to_terminal("-m", "local/box/gemma-3-4b-it-Q4_K_M.gguf", "Hi", "--no-stream")
    chats = [each.body for each in server.requests if each.path == "/v1/chat/completions"]
    assert [body.pop("return_progress", None) for body in chats] == [None, True, None]
    assert chats[0] == chats[1]
