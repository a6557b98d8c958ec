"""The CPU time of a streamed answer per chunk, beside bare httpx and json, in one run.

    .venv/bin/python benchmarks/stream.py [--chunks N] [--rounds N]

Another process serves answers of N chunks as llama-server sends them. Each way reads each kind of
answer in turn; the figures are the least of the rounds in microseconds of this process's CPU time,
without what a short answer takes. "llm's own part" is what llm does with each piece of text.
"""

import argparse
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from multiprocessing.connection import Connection
from typing import Any

import httpx
import llm
from llm.parts import StreamEvent

from llm_localrun.chat.models import LocalChat
from llm_localrun.models import Endpoint, LocalModel, Served

WORDS = ("The", " fox", " jumps", " over", " a", " lazy", " dog", ",", " and", " sleeps", ".", "\n")
FIELDS = {"text": "content", "thinking": "reasoning_content"}
"""The kinds of answers, and the field of a chunk that has the piece."""
OLLAMA = "ollama"
SHORT = 10
"""Chunks of the short answer."""

Way = Callable[[str, int], str]
"""Reads the answer of a URL, of so many chunks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as user, server() as port:
        os.environ |= {"LLM_USER_PATH": user, "HOME": user}
        print(f"µs of CPU time per chunk, of {options.chunks:,} chunks")
        for kind in FIELDS:
            _measure(f"http://127.0.0.1:{port}/{kind}", kind, options)


def _measure(url: str, kind: str, options: argparse.Namespace) -> None:
    ways: dict[str, Way] = {"bare": _bare, "ours": _ours, "tools": _with_tools, "llm": _llm_alone}
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(options.rounds):
        for name, way in ways.items():
            took = _cpu(way, url, options.chunks) - _cpu(way, url, SHORT)
            least[name] = min(least[name], took / (options.chunks - SHORT) * 1e6)
    bare = least["bare"]
    print(f"  {kind}: bare httpx and json {bare:.1f}")
    for name, title in (("ours", "this plugin"), ("tools", "the same, with a tool offered")):
        print(f"    {title} {least[name]:.1f}, {least[name] / bare:.2f} of bare")
    print(f"    llm's own part, which comes in addition, {least['llm']:.1f}")


def _cpu(way: Way, url: str, chunks: int) -> float:
    begun = time.process_time()
    answer = way(f"{url}/{chunks}/0", chunks)
    took = time.process_time() - begun
    assert answer.startswith("".join(_words(chunks)))
    return took


def _words(chunks: int) -> Iterator[str]:
    return islice(cycle(WORDS), chunks)


def _bare(url: str, _chunks: int) -> str:
    """What a client needs at least: lines, and JSON."""
    pieces: list[str] = []
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", f"{url}/v1/chat/completions", json=body) as response,
    ):
        for line in response.iter_lines():
            if line.startswith("data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"]
                pieces.append(delta.get("content") or delta.get("reasoning_content") or "")
    return "".join(pieces)


def _ours(url: str, _chunks: int) -> str:
    return "".join(event.chunk for event in _received(url))


def _with_tools(url: str, _chunks: int) -> str:
    tool = llm.Tool(name="count", implementation=len)
    return "".join(event.chunk for event in _received(url, tools=[tool]))


def _received(url: str, **given: Any) -> Iterator[StreamEvent]:
    served = Served(endpoint=Endpoint(name="llamacpp", kind="llamacpp", url=url))
    model = LocalChat(LocalModel(id="local/llamacpp/m", name="m", routes=(served,)))
    response = model.prompt("Hello", **given)
    return model.execute(response.prompt, True, response, None)


class _Nothing(llm.Model):
    """A model that yields what a server would send, without a server."""

    model_id = "nothing"
    can_stream = True

    def execute(self, prompt: llm.Prompt, *_: object, **__: object) -> Iterator[StreamEvent]:
        for word in _words(int(prompt.prompt or 0)):
            yield StreamEvent(type="text", chunk=word)


def _llm_alone(_url: str, chunks: int) -> str:
    return "".join(_Nothing().prompt(str(chunks)))


@contextmanager
def server() -> Iterator[int]:
    """A process that answers any POST with a stream; its port."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers a POST to /KIND/CHUNKS/PAUSE/… with a stream, which ends PAUSE seconds late.

    KIND is one of FIELDS, or OLLAMA. For llm-lmstudio, a model is loaded.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.endswith("/api/v0/models/m"):
            self._send(b'{"id": "m", "state": "loaded"}')
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/api/show"):
            self._send(b'{"capabilities": ["completion"]}')
            return
        self.close_connection = True
        _, kind, chunks, pause, *_ = self.path.split("/")
        if kind == OLLAMA:
            reply = _reply(_lines(int(chunks)), "application/x-ndjson")
        else:
            reply = _reply(_events(FIELDS[kind], int(chunks)), "text/event-stream")
        self.wfile.write(reply[: len(reply) // 2])
        time.sleep(float(pause))
        self.wfile.write(reply[len(reply) // 2 :])

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def _serve(told: Connection) -> None:
    # A benchmark may have another handler.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with _Server(("127.0.0.1", 0), _Handler) as listening:
        told.send(listening.server_port)
        listening.serve_forever()


def _lines(chunks: int) -> Iterator[bytes]:
    """An answer in Ollama's language."""
    common = {"model": "m", "created_at": "2026-11-29T12:00:00.123456789Z"}
    for word in (*_words(chunks), "Yes."):
        message = {"role": "assistant", "content": word}
        yield json.dumps({**common, "message": message, "done": False}).encode() + b"\n"
    counts = {"done_reason": "stop", "prompt_eval_count": 5, "eval_count": chunks + 1}
    message = {"role": "assistant", "content": ""}
    yield json.dumps({**common, "message": message, "done": True, **counts}).encode() + b"\n"


def _events(field: str, chunks: int) -> list[bytes]:
    """An answer in OpenAI's language."""
    deltas: list[dict[str, str | None]] = [{"role": "assistant", "content": None}]
    deltas += [{field: word} for word in _words(chunks)]
    deltas += [{"content": "Yes."}]
    return [*(_event(delta) for delta in deltas), _event({}, "stop"), b"data: [DONE]\n\n"]


def _reply(pieces: Iterable[bytes], content_type: str) -> bytes:
    """A whole chunked reply, with each piece in a chunk of its own."""
    body = [*pieces, b""]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"".join(b"%x\r\n%s\r\n" % (len(data), data) for data in body)


def _event(delta: dict[str, str | None], finish_reason: str | None = None) -> bytes:
    chunk = {
        "choices": [{"finish_reason": finish_reason, "index": 0, "delta": delta}],
        "created": 1790000000,
        "id": "chatcmpl-Xm1RkV9Lq3TzB7cYw5NfHs2PjDg8KaUe",
        "model": "m",
        "system_fingerprint": "b11549-0a1b2c3d4",
        "object": "chat.completion.chunk",
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


if __name__ == "__main__":
    main()
