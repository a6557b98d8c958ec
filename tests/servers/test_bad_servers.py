"""Servers that go wrong, in all four ways: one error for people each, and nothing left behind."""

import asyncio
import itertools
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import llm
import pytest

from llm_localrun.catalogue import write_snapshot
from llm_localrun.chat.models import AsyncLocalChat, LocalChat
from llm_localrun.errors import (
    BadReply,
    LocalRunError,
    PromptTooLong,
    ServerRefused,
    ServerUnreachable,
)
from llm_localrun.models import EndpointReport, LocalModel, ServerStatus, Snapshot
from llm_localrun.name_cache import settings_stamp
from tests.conftest import Llm
from tests.fakes.http_server import (
    Request,
    StandIn,
    chunk,
    chunked,
    head,
    json_reply,
    transcript,
    whole,
)
from tests.support.drive import WAYS, ask, served
from tests.support.models import served_route

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
JSON = "application/json"

Pieces = list[bytes | float]

LINES = transcript("chat_stream")[0].body.splitlines(keepends=True)
HALLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hallo"},"finish_reason":null}]}\n\n'

LLAMA_SERVER = "llama-server"
"""As it stands at the beginning of a sentence."""

LOG = "The server's own log says more."
LISTING = "`llm localrun models` lists what it serves."
PORT = "Try again; if it happens again, check whether another program uses its port."
OWN_LOG = "Try again; the server's own log says why it stopped."
WAIT = "Check whether it is busy, or wait longer with -o timeout SECONDS."


@dataclass(frozen=True)
class Bad:
    """A server of `kind` that sends `pieces`, and the message that this must come to."""

    kind: str
    pieces: Pieces
    error: type[LocalRunError]
    problem: str
    remedy: str
    """`problem` and `remedy` are a sentence each; {url} is where the server is."""
    requests: int = 1

    def message(self, url: str) -> str:
        return f"{self.problem} {self.remedy}".replace("{url}", url)


def cut(reply: bytes) -> Pieces:
    """A reply at whose end the connection is closed, whatever length it has promised."""
    return [reply, b""]


SILENCE = 10.0


def silent(*pieces: bytes) -> Pieces:
    return [*pieces, SILENCE]


def refused(kind: str, title: str, pieces: Pieces, what: str, remedy: str = LOG) -> Bad:
    return Bad(kind, pieces, ServerRefused, f"{title} at {{url}} says: {what}.", remedy)


def nonsense(kind: str, title: str, pieces: Pieces, what: str, remedy: str = PORT) -> Bad:
    return Bad(kind, pieces, BadReply, f"{title} at {{url}} {what}.", remedy)


def overflow(prompt_tokens: int, context_size: int) -> bytes:
    """What llama-server says; Ollama puts it into a string."""
    message = (
        f"request ({prompt_tokens} tokens) exceeds the available context size"
        f" ({context_size} tokens), try increasing it"
    )
    error = {"code": 400, "message": message, "type": "exceed_context_size_error"}
    counts = {"n_prompt_tokens": prompt_tokens, "n_ctx": context_size}
    return json_reply({"error": {**error, **counts}}, 400)


BROKE_OFF = "closed the connection in the middle of its answer"
INCOMPLETE = "sent an answer that ends before it is complete"
NOT_HTTP = "sent something that is not HTTP"

BAD: dict[str, Bad] = {
    ServerStatus.TIMEOUT: Bad(
        "ollama",
        silent(),
        ServerUnreachable,
        "Ollama at {url} sent nothing for 0.3 seconds.",
        WAIT,
    ),
    "hangs after its head": Bad(
        "llamacpp",
        silent(head(SSE)),
        ServerUnreachable,
        f"{LLAMA_SERVER} at {{url}} sent nothing for 0.3 seconds.",
        WAIT,
    ),
    "hangs in the middle": Bad(
        "ollama",
        silent(head(NDJSON), chunk(LINES[0])),
        ServerUnreachable,
        "Ollama at {url} sent nothing for 0.3 seconds.",
        WAIT,
    ),
    "a web page": nonsense(
        "ollama",
        "Ollama",
        [whole(b"<html>\n<title>Welcome to nginx!</title></html>\n", "text/html; charset=utf-8")],
        "sent text/html; charset=utf-8 instead of an answer:"
        " <html> <title>Welcome to nginx!</title></html>",
    ),
    "a gateway's error": refused(
        "openai",
        "OpenAI-compatible server",
        [whole(b"<html><h1>502 Bad Gateway</h1></html>", "text/html", 502)],
        "<html><h1>502 Bad Gateway</h1></html> (HTTP 502)",
    ),
    "an error without a body": refused(
        "openai", "OpenAI-compatible server", [whole(b"", "", 500)], "no reason given (HTTP 500)"
    ),
    "nothing, as JSON, from Ollama": nonsense("ollama", "Ollama", [whole(b"", JSON)], INCOMPLETE),
    "nothing, as lines": nonsense("ollama", "Ollama", [chunked([], NDJSON)], INCOMPLETE),
    "nothing, as JSON": nonsense("vllm", "vLLM", [whole(b"", JSON)], INCOMPLETE),
    "nothing, as events": nonsense("vllm", "vLLM", [chunked([], SSE)], INCOMPLETE),
    "nothing, without a type": nonsense(
        "ollama",
        "Ollama",
        [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
        "sent data without a type instead of an answer",
    ),
    "half a JSON object": nonsense(
        "ollama",
        "Ollama",
        [whole(b'{"model":"smollm2:135m","mess', JSON)],
        'sent JSON that is incomplete or damaged: {"model":"smollm2:135m","mess',
    ),
    "half a line": nonsense(
        "ollama",
        "Ollama",
        [chunked([LINES[0], b'{"model":"smoll'], NDJSON)],
        'sent JSON that is incomplete or damaged: {"model":"smoll',
    ),
    "half an event": nonsense(
        "lmstudio",
        "LM Studio",
        [chunked([HALLO, b'data: {"choices":[{"del'], SSE)],
        'sent JSON that is incomplete or damaged: {"choices":[{"del',
    ),
    "a list": nonsense(
        "ollama", "Ollama", [json_reply([1, 2])], "sent JSON that is not an object: [1, 2]"
    ),
    "another API's object": nonsense(
        "ollama", "Ollama", [json_reply({"status": "ok"})], INCOMPLETE
    ),
    "a number for a text": nonsense(
        "ollama",
        "Ollama",
        [json_reply({"message": {"role": "assistant", "content": 5}, "done": True})],
        "sent an answer whose message.content is not what its API says",
    ),
    "an object for a text": nonsense(
        "llamacpp",
        LLAMA_SERVER,
        [chunked([b'data: {"choices":[{"delta":{"content":{"text":"Hi"}}}]}\n\n'], SSE)],
        "sent an answer whose choices.0.delta.content is not what its API says",
    ),
    "an error after some lines": refused(
        "ollama",
        "Ollama",
        [transcript("midstream")[0].reply()],
        "an error was encountered while running the model: unexpected EOF",
    ),
    "an error for an answer": refused(
        "ollama",
        "Ollama",
        [transcript("midstream")[1].reply()],
        "an error was encountered while running the model: unexpected EOF (HTTP 500)",
    ),
    "an error in an event": refused(
        "llamacpp",
        LLAMA_SERVER,
        [chunked([HALLO, b'data: {"error":{"code":500,"message":"Out of memory"}}\n\n'], SSE)],
        "Out of memory",
    ),
    "an event that is an error": refused(
        "lmstudio",
        "LM Studio",
        [chunked([HALLO, b'event: error\ndata: {"error":{"message":"Crashed."}}\n\n'], SSE)],
        "Crashed",
    ),
    "an old llama-server's error": refused(
        "llamacpp",
        LLAMA_SERVER,
        [chunked([HALLO, b'error: {"code":500,"message":"Out of memory"}\n\n'], SSE)],
        "Out of memory",
    ),
    "an error in a success": refused(
        "lmstudio",
        "LM Studio",
        [json_reply({"error": "Unexpected endpoint or method. (POST /v1/chat/completions)"})],
        "Unexpected endpoint or method. (POST /v1/chat/completions)",
    ),
    "ends in a chunk": nonsense(
        "ollama", "Ollama", [head(NDJSON), chunk(LINES[0])[:-20]], BROKE_OFF, OWN_LOG
    ),
    "ends between two chunks": nonsense(
        "ollama", "Ollama", [head(NDJSON), chunk(LINES[0])], BROKE_OFF, OWN_LOG
    ),
    "ends between two events": nonsense(
        "llamacpp", LLAMA_SERVER, [head(SSE), chunk(HALLO)], BROKE_OFF, OWN_LOG
    ),
    "ends before its length": nonsense(
        "ollama",
        "Ollama",
        cut(transcript("chat_nostream")[0].reply()[:-20]),
        BROKE_OFF,
        OWN_LOG,
    ),
    "no finish_reason": nonsense(
        "llamacpp", LLAMA_SERVER, [chunked([HALLO, b"data: [DONE]\n\n"], SSE)], INCOMPLETE
    ),
    "no finish_reason, and no end": nonsense(
        "openai", "OpenAI-compatible server", [chunked([HALLO], SSE)], INCOMPLETE
    ),
    "an unknown model": refused(
        "ollama",
        "Ollama",
        [transcript("unknown_model")[0].reply()],
        "model 'nope' not found (HTTP 404)",
        LISTING,
    ),
    "an unknown model, at /v1": refused(
        "openai",
        "OpenAI-compatible server",
        [transcript("unknown_model")[6].reply()],
        "model 'nope' not found (HTTP 404)",
        LISTING,
    ),
    "is loading": refused(
        "llamacpp",
        LLAMA_SERVER,
        [json_reply({"error": {"code": 503, "message": "Loading model"}}, 503)],
        "Loading model (HTTP 503)",
        "It is loading or busy: try again in a moment.",
    ),
    "wants a key": refused(
        "llamacpp",
        LLAMA_SERVER,
        [json_reply({"error": {"code": 401, "message": "Invalid API Key"}}, 401)],
        "Invalid API Key (HTTP 401)",
        "Give its key with --key, or store it with `llm keys set localrun-llamacpp`.",
    ),
    "an overflow": Bad(
        "llamacpp",
        [overflow(9001, 8192)],
        PromptTooLong,
        "The prompt takes 9,001 tokens and llama-server at {url} holds 8,192.",
        "Shorten it, or start the server with -c 16384.",
    ),
    "an overflow at Ollama": Bad(
        "ollama",
        [transcript("context_overflow")[2].reply()],
        PromptTooLong,
        "The prompt takes 1,210 tokens and Ollama at {url} holds 256.",
        "Shorten it, or enlarge the context with -o context_size 4096.",
        # It is asked what is loaded, and is sent the prompt again with a larger context.
        requests=3,
    ),
    "another protocol": nonsense(
        "ollama", "Ollama", [b"220 box ESMTP\r\n502 5.5.2 Unknown command\r\n\r\n"], NOT_HTTP
    ),
    "noise": nonsense("vllm", "vLLM", [b"\x00\x01\xfe\xff" * 64], NOT_HTTP),
    "hangs up": nonsense("ollama", "Ollama", [], BROKE_OFF, OWN_LOG),
    "no gzip": nonsense(
        "ollama",
        "Ollama",
        [
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!"
        ],
        "sent a response that cannot be decompressed",
        "Try again.",
    ),
}


def failing(model: LocalModel, way: str, **options: float) -> LocalRunError:
    """The error that prompting `model` ends in, which llm and click both can handle."""
    with pytest.raises(LocalRunError) as caught:
        ask(model, "Hello", way, **options)
    assert isinstance(caught.value, llm.ModelError)
    assert isinstance(caught.value, click.ClickException)
    return caught.value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", BAD.values(), ids=[*BAD])
def test_bad_server(bad: Bad, way: str) -> None:
    options = {"timeout": 0.3} if SILENCE in bad.pieces else {}
    with StandIn(lambda _: bad.pieces) as server:
        error = failing(served(server.url, bad.kind), way, **options)
    assert type(error) is bad.error
    assert str(error) == error.format_message() == bad.message(server.url)
    assert len(server.requests) == bad.requests


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "title", "remedy"),
    [
        ("ollama", "Ollama", "Start it with `ollama serve`."),
        (
            "lmstudio",
            "LM Studio",
            "Start its server with `lms server start`, or in the app under Developer.",
        ),
        ("llamacpp", LLAMA_SERVER, "Start it with `llama-server -m FILE`."),
        ("vllm", "vLLM", "Start it with `vllm serve MODEL`."),
        (
            "koboldcpp",
            "KoboldCpp",
            "Start it with `koboldcpp --model FILE`.",
        ),
        (
            "openai",
            "OpenAI-compatible server",
            "Start it, or choose another model: `llm localrun models` lists them.",
        ),
    ],
)
def test_server_that_is_off(kind: str, title: str, remedy: str, way: str) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    error = failing(served(url, kind), way)
    assert type(error) is ServerUnreachable
    assert str(error) == f"{title} at {url} does not answer. {remedy}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(status: int, way: str) -> None:
    with StandIn(lambda _: [transcript("chat_nostream")[0].reply()]) as elsewhere:
        location = f"Location: {elsewhere.url}/api/chat\r\n"
        reply = f"HTTP/1.1 {status} Moved\r\n{location}Content-Length: 0\r\n\r\n".encode()
        with StandIn(lambda _: [reply]) as server:
            error = failing(served(server.url, "ollama"), way)
    assert elsewhere.requests == []
    assert len(server.requests) == 1
    assert str(error) == f"Ollama at {server.url} says: no reason given (HTTP {status}). {LOG}"


# The real command

FRANCE = "The capital of France is Paris."


def put_model(user: Path, model: LocalModel) -> None:
    """Makes `model` one that was found a moment ago."""
    now = time.time()
    report = EndpointReport(
        endpoint=served_route(model).endpoint,
        status=ServerStatus.ANSWERS,
        asked_at=now,
        models=(model,),
    )
    snapshot = Snapshot(taken_at=now, stamp=settings_stamp([]), endpoints=(report,))
    write_snapshot(user / "localrun", snapshot)


def runs(run_llm: Llm, model: LocalModel) -> list["subprocess.CompletedProcess[str]"]:
    """A chat of two turns, a prompt and an asynchronous prompt."""
    return [
        run_llm("chat", "-m", model.id, input="Hello\nAgain\nexit\n"),
        run_llm("-m", model.id, "Hello"),
        run_llm("-m", model.id, "Hello", "--async"),
    ]


@pytest.mark.parametrize("name", ["an error after some lines", "a web page"])
def test_command_logs_what_was_answered_and_nothing_else(
    user_path: Path, run_llm: Llm, name: str
) -> None:
    bad = BAD[name]
    good: Pieces = [transcript("chat_stream")[0].reply()]
    replies = itertools.chain([good], itertools.repeat(bad.pieces))
    with StandIn(lambda _: next(replies)) as server:
        model = served(server.url, bad.kind)
        put_model(user_path, model)
        chat, *prompts = runs(run_llm, model)
    for done in (chat, *prompts):
        assert (done.returncode, done.stderr) == (1, f"Error: {bad.message(server.url)}\n")
    assert FRANCE in chat.stdout
    (turn,) = json.loads(run_llm("logs", "--json").stdout)
    assert (turn["prompt"], turn["response"]) == ("Hello", FRANCE)


def test_command_when_the_server_is_off(user_path: Path, run_llm: Llm) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    model = served(url, "ollama")
    put_model(user_path, model)
    for done in runs(run_llm, model):
        assert (done.returncode, done.stderr) == (
            1,
            f"Error: Ollama at {url} does not answer. Start it with `ollama serve`.\n",
        )
    assert json.loads(run_llm("logs", "--json").stdout) == []


# Leaving early

SOON = 0.5
"""Seconds within which a server has to notice that the client has gone."""
BEGUN = silent(head(NDJSON), chunk(LINES[0]))


@pytest.mark.parametrize("iterate", [iter, llm.Response.stream_events])
def test_closing_a_response_hangs_up(iterate: Callable[[llm.Response], Any]) -> None:
    with StandIn(lambda _: BEGUN) as server:
        response = LocalChat(served(server.url, "ollama")).prompt("Hello")
        received = iterate(response)
        next(received)
        assert not server.closed_early.is_set()
        received.close()
        assert server.closed_early.wait(SOON)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "pieces",
    [silent(), silent(head(NDJSON)), BEGUN],
    ids=["before the head", "before the text", "in the text"],
)
def test_cancelling_a_task_hangs_up(pieces: Pieces, stream: bool) -> None:
    async def cancel(server: StandIn) -> None:
        response = AsyncLocalChat(served(server.url, "ollama")).prompt("Hello", stream=stream)
        task = asyncio.create_task(response.text())
        while not server.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not server.closed_early.is_set()
        task.cancel()
        assert await asyncio.to_thread(server.closed_early.wait, SOON)
        with pytest.raises(asyncio.CancelledError):
            await task

    with StandIn(lambda _: pieces) as server:
        asyncio.run(cancel(server))


def test_closing_asynchronous_events_hangs_up() -> None:
    async def close(server: StandIn) -> None:
        response: Any = AsyncLocalChat(served(server.url, "ollama")).prompt("Hello")
        events = response.astream_events()
        await anext(events)
        assert not server.closed_early.is_set()
        await events.aclose()
        assert await asyncio.to_thread(server.closed_early.wait, SOON)

    with StandIn(lambda _: BEGUN) as server:
        asyncio.run(close(server))


# Many at once

PAUSE = 0.5


def echo(request: Request) -> Iterator[bytes | float]:
    """Says the prompt word by word, with a pause in the middle."""
    words = request.body["messages"][0]["content"].split()
    yield head(NDJSON)
    for index, word in enumerate(words):
        yield chunk(json.dumps({"message": {"content": f"{word} "}}).encode() + b"\n")
        if index == len(words) // 2:
            yield PAUSE
    yield chunk(b'{"message": {"content": ""}, "done": true}\n')
    yield chunk(b"")


async def longest_wait() -> float:
    """The longest time, until it is cancelled, for which the loop does not come round."""
    longest, last = 0.0, time.monotonic()
    try:
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
    except asyncio.CancelledError:
        return longest


def test_many_prompts_at_once_do_not_mix_and_do_not_block() -> None:
    prompts = [" ".join(f"{n}-{word}" for word in range(n, n + 8)) for n in range(20)]

    async def ask_all(url: str) -> tuple[list[str], float]:
        model = AsyncLocalChat(served(url, "ollama"))
        watch = asyncio.create_task(longest_wait())
        texts = await asyncio.gather(*(model.prompt(prompt).text() for prompt in prompts))
        watch.cancel()
        return texts, await watch

    with StandIn(echo) as server:
        begun = time.monotonic()
        texts, waited = asyncio.run(ask_all(server.url))
    assert [text.rstrip() for text in texts] == prompts
    assert waited < PAUSE
    assert time.monotonic() - begun < len(prompts) * PAUSE / 2
