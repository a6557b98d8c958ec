"""The base of all fakes of servers: real sockets, and bytes that a real server has sent.

`transcript` reads what was recorded. `StandIn` answers each request with the pieces that a function
yields: slowly, with pauses, split anywhere, or cut off in the middle.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
DATA = Path(__file__).parents[1] / "data"

_EXCHANGE = re.compile(
    rb"^>>> (?P<method>[A-Z]+) (?P<path>\S+)\n(?:>>> (?P<request>[^\n]*)\n)?---\n"
    rb"(?P<head>HTTP/1\.1 .*?)\r\n\r\n(?P<body>.*?)(?=^>>> [A-Z]+ /|\Z)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Exchange:
    """A recorded request and its reply."""

    method: str
    path: str
    request: Any
    status: int
    content_type: str
    body: bytes

    @property
    def is_streamed(self) -> bool:
        return "ndjson" in self.content_type

    def reply(self) -> bytes:
        """The bytes of the reply, with every line a chunk if it was streamed."""
        lines = self.body.splitlines(keepends=True)
        return chunked(lines, self.content_type) if self.is_streamed else self._whole()

    def _whole(self) -> bytes:
        return whole(self.body, self.content_type, self.status)


def transcript(name: str, server: str = "ollama-0.32.15") -> list[Exchange]:
    """The exchanges recorded in `name`."""
    text = (TRANSCRIPTS / server / f"{name}.txt").read_bytes()
    return [_exchange(match) for match in _EXCHANGE.finditer(text)]


def _parsed(request: bytes | None) -> Any:
    """A recorded request; a client may have sent what is no JSON, and then it is a text."""
    try:
        return json.loads(request) if request else None
    except ValueError:
        return (request or b"").decode()


def _exchange(match: "re.Match[bytes]") -> Exchange:
    status_line, *lines = match["head"].decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    length = headers.get("Content-Length")
    body = match["body"]
    return Exchange(
        method=match["method"].decode(),
        path=match["path"].decode(),
        request=_parsed(match["request"]),
        status=int(status_line.split()[1]),
        content_type=headers.get("Content-Type", ""),
        body=body[: int(length)] if length else body.rstrip(b"\n") + b"\n",
    )


def whole(body: bytes, content_type: str = "application/json", status: int = 200) -> bytes:
    """A reply with a length."""
    head = f"HTTP/1.1 {status} Status\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def text(body: str, status: int = 200, content_type: str = "text/plain") -> bytes:
    """A reply that is a text."""
    return whole(body.encode(), content_type, status)


def not_found(_path: str) -> bytes:
    """What servers written in Go say to a path that they do not know."""
    return text("404 page not found", 404)


def json_reply(value: Any, status: int = 200) -> bytes:
    """A reply that is a JSON value."""
    return whole(json.dumps(value).encode(), status=status)


def head(content_type: str, status: int = 200) -> bytes:
    """The head of a chunked reply."""
    return (
        f"HTTP/1.1 {status} Status\r\nContent-Type: {content_type}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def chunked(pieces: Iterable[bytes], content_type: str) -> bytes:
    """A whole chunked reply."""
    return head(content_type) + b"".join(map(chunk, pieces)) + b"0\r\n\r\n"


def events(*payloads: Any) -> bytes:
    """A whole reply of server-sent events, ended as OpenAI's servers do."""
    lines = [f"data: {json.dumps(payload)}\n\n".encode() for payload in payloads]
    return chunked([*lines, b"data: [DONE]\n\n"], "text/event-stream")


Respond = Callable[[Request], Iterable[bytes | float]]
"""The pieces of the reply to a request; a number is a pause in seconds. At the end the connection
is closed."""


@dataclass
class StandIn:
    """A server on a port of its own, for as long as its `with` block lasts."""

    respond: Respond
    requests: list[Request] = field(default_factory=list)
    closed_early: threading.Event = field(default_factory=threading.Event)
    """Set when a client goes away before it has got its whole reply."""
    port: int = 0
    host: str = "127.0.0.1"
    """`::1` listens by IPv6 alone."""
    delay: float = 0.0
    """Seconds from a request to the first byte of its reply."""
    piece_size: int = 0
    """The most bytes that are sent at once; 0 sends each piece whole."""

    def __enter__(self) -> "StandIn":
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._socket = socket.create_server((self.host, self.port), family=family)
        self.port = self._socket.getsockname()[1]
        self._stopping = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        # Closing alone does not wake a thread that is in accept.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as incoming:
            while (request := _read_request(incoming)) is not None:
                self.requests.append(request)
                self._stopping.wait(self.delay)
                if not self._send(connection, self.respond(request)):
                    return

    def _send(self, connection: socket.socket, pieces: Iterable[bytes | float]) -> bool:
        """Whether the connection can stay open: the reply says where it ends."""
        sent = b""
        try:
            for piece in pieces:
                if isinstance(piece, float):
                    self._pause(connection, piece)
                else:
                    for part in _split(piece, self.piece_size):
                        connection.sendall(part)
                    sent = piece
        except OSError:
            self.closed_early.set()
            return False
        return sent.endswith(b"0\r\n\r\n") or b"Content-Length" in sent

    def _pause(self, connection: socket.socket, seconds: float) -> None:
        """Waits; raises OSError when the client goes away meanwhile."""
        connection.settimeout(0.01)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stopping.is_set():
            try:
                if not connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionAbortedError
            except TimeoutError:
                continue
        connection.settimeout(None)


def _split(piece: bytes, size: int) -> list[bytes]:
    """`piece` in parts of `size` bytes, or as it is if that is 0."""
    return [piece[at : at + size] for at in range(0, len(piece), size)] if size else [piece]


def _read_request(incoming: Any) -> Request | None:
    try:
        line = incoming.readline()
        if not line.strip():
            return None
        method, path, _ = line.decode().split(" ", 2)
        headers = dict(_headers(incoming))
        body = incoming.read(int(headers.get("content-length", 0)))
    except OSError:
        return None
    return Request(method, path, headers, json.loads(body) if body else None)


def _headers(incoming: Any) -> Iterator[tuple[str, str]]:
    while (line := incoming.readline().strip()) != b"":
        name, _, value = line.decode().partition(":")
        yield name.lower(), value.strip()


def get(respond: Respond, path: str, key: str | None = None, body: Any = None) -> bytes:
    """The reply to one request, without a socket."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    method = "GET" if body is None else "POST"
    pieces = respond(Request(method, path, headers, body))
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def parsed(reply: bytes) -> tuple[int, Any, str]:
    """Status, JSON if it is any, and text of a reply."""
    head, _, body = reply.partition(b"\r\n\r\n")
    if b"chunked" in head:
        body = b"".join(body.split(b"\r\n")[1::2])
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    return int(head.split()[1]), value, body.decode()
