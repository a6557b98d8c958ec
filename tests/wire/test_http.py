"""Single requests: what is sent, with which settings, and what becomes of httpx's errors."""

import asyncio
import gzip
import json
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from pytest_httpx import HTTPXMock, IteratorStream

from llm_localrun.errors import BadReply, LocalRunError, ServerUnreachable
from llm_localrun.models import ServerStatus
from llm_localrun.wire import http
from llm_localrun.wire.http import Clock, HttpRequest, Probe
from llm_localrun.wire.response import ProbeReply, ResponseHead

both = pytest.mark.parametrize("way", ["sync", "async"])

URL = "http://127.0.0.1:8000/v1/chat/completions"
SSE = "text/event-stream"


def call_to(url: str = URL, **more: Any) -> HttpRequest:
    known: dict[str, Any] = {"body": {}, "server": "The box", "start_hint": "Start it", **more}
    return HttpRequest(url=url, **known)


def received(call: HttpRequest, way: str) -> list[ResponseHead | bytes]:
    """All that comes back."""

    async def collect() -> list[ResponseHead | bytes]:
        return [piece async for piece in http.astream(call)]

    return list(http.stream(call)) if way == "sync" else asyncio.run(collect())


@both
def test_posts_json_without_a_key(httpx_mock: HTTPXMock, way: str) -> None:
    httpx_mock.add_response(stream=IteratorStream([b"one", b"two"]), headers={"Content-Type": SSE})
    body = {"model": "m", "messages": [{"role": "user", "content": "é\u2028"}], "n": 1.5}
    assert received(call_to(body=body), way) == [ResponseHead(200, SSE), b"one", b"two"]
    (request,) = httpx_mock.get_requests()
    assert (request.method, str(request.url)) == ("POST", URL)
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers
    assert json.loads(request.content) == body


@both
def test_sends_the_key(httpx_mock: HTTPXMock, way: str) -> None:
    httpx_mock.add_response()
    received(call_to(key="sk-1"), way)
    (request,) = httpx_mock.get_requests()
    assert request.headers["authorization"] == "Bearer sk-1"


@both
@pytest.mark.parametrize("status", [200, 204, 307, 404, 503])
def test_hands_on_every_status(httpx_mock: HTTPXMock, status: int, way: str) -> None:
    headers = {"Location": "http://elsewhere.example/", "Content-Type": "text/html; charset=x"}
    httpx_mock.add_response(status_code=status, headers=headers, content=b"said")
    assert received(call_to(), way) == [ResponseHead(status, "text/html; charset=x"), b"said"]
    assert len(httpx_mock.get_requests()) == 1


@both
def test_reply_without_a_type_or_a_body(httpx_mock: HTTPXMock, way: str) -> None:
    httpx_mock.add_response()
    assert received(call_to(), way) == [ResponseHead(200, "")]


@both
@pytest.mark.parametrize(
    ("read_timeout", "connect"), [(http.READ_TIMEOUT_S, 5), (30, 5), (0.5, 0.5)]
)
def test_waits_longer_for_an_answer_than_for_a_connection(
    httpx_mock: HTTPXMock, read_timeout: float, connect: float, way: str
) -> None:
    httpx_mock.add_response()
    received(call_to(read_timeout_s=read_timeout), way)
    (request,) = httpx_mock.get_requests()
    timeouts = request.extensions["timeout"]
    assert (timeouts["connect"], timeouts["read"]) == (connect, read_timeout)


@both
def test_https_is_verified_and_http_makes_no_context(
    httpx_mock: HTTPXMock, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    made = []
    make = ssl.create_default_context

    def spy(*arguments: object, **settings: object) -> ssl.SSLContext:
        made.append(make(*arguments, **settings))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", spy)
    httpx_mock.add_response(is_reusable=True)
    received(call_to(), way)
    received(call_to("http://box.example:8000/v1"), way)
    assert made == []
    received(call_to("https://box.example/v1"), way)
    assert {(context.verify_mode, context.check_hostname) for context in made} == {
        (ssl.CERT_REQUIRED, True)
    }


@pytest.mark.parametrize(
    ("url", "verify", "trust_env"),
    [
        ("http://127.0.0.1:11434", False, False),
        ("http://127.8.9.10:11434", False, False),
        ("http://localhost:11434", False, False),
        ("http://LOCALHOST:11434", False, False),
        ("http://box.localhost", False, False),
        ("http://[::1]:11434", False, False),
        ("https://localhost", True, False),
        ("https://127.0.0.1:8443/path", True, False),
        ("http://192.168.1.5:1234", False, True),
        ("http://[fe80::1]:1234", False, True),
        ("http://0.0.0.0.example", False, True),
        ("http://localhost.example", False, True),
        ("http://127.0.0.1.example", False, True),
        ("https://box.example", True, True),
    ],
)
def test_settings(url: str, verify: bool, trust_env: bool) -> None:
    assert http.client_settings(url) == {"verify": verify, "trust_env": trust_env}


OFF = "The box does not answer. Start it."
SILENT = (
    "The box sent nothing for 30 seconds."
    " Check whether it is busy, or wait longer with -o timeout SECONDS."
)
BROKE_OFF = (
    "The box closed the connection in the middle of its answer."
    " Try again; the server's own log says why it stopped."
)


def failing(call: HttpRequest, way: str) -> LocalRunError:
    with pytest.raises(LocalRunError) as caught:
        received(call, way)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


@both
@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (httpx.ConnectError, ServerUnreachable, OFF),
        (httpx.ConnectTimeout, ServerUnreachable, OFF),
        (httpx.ReadTimeout, ServerUnreachable, SILENT),
        (httpx.WriteTimeout, ServerUnreachable, SILENT),
        (httpx.PoolTimeout, ServerUnreachable, SILENT),
        (httpx.ReadError, BadReply, BROKE_OFF),
        (httpx.WriteError, BadReply, BROKE_OFF),
        (httpx.CloseError, BadReply, BROKE_OFF),
        (
            httpx.DecodingError,
            BadReply,
            "The box sent a response that cannot be decompressed. Try again.",
        ),
    ],
)
def test_errors_become_ours(
    httpx_mock: HTTPXMock,
    raised: type[httpx.RequestError],
    error: type[LocalRunError],
    message: str,
    way: str,
) -> None:
    httpx_mock.add_exception(raised("unseen"))
    caught = failing(call_to(read_timeout_s=30.0), way)
    assert (type(caught), str(caught)) == (error, message)


def descendants(error: type[Exception]) -> Iterator[type[Exception]]:
    for child in error.__subclasses__():
        yield child
        yield from descendants(child)


@both
@pytest.mark.parametrize("raised", [*descendants(httpx.TransportError), httpx.DecodingError])
def test_no_error_of_httpx_gets_through(
    httpx_mock: HTTPXMock, raised: type[httpx.RequestError], way: str
) -> None:
    httpx_mock.add_exception(raised("unseen"))
    failing(call_to(), way)


@both
@pytest.mark.parametrize(
    "reason",
    [
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate",
        "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)",
    ],
)
def test_why_tls_failed_is_told(httpx_mock: HTTPXMock, reason: str, way: str) -> None:
    httpx_mock.add_exception(httpx.ConnectError(reason))
    caught = failing(call_to("https://box.example/v1"), way)
    assert type(caught) is ServerUnreachable
    assert reason.partition("] ")[2].partition(" (")[0] in str(caught)


@both
@pytest.mark.parametrize(
    "url",
    ["http://box:port", "http://bücher..x", "http://\x00", "http://", "http://[::1", "http://xn--"],
)
def test_address_that_is_none(url: str, way: str) -> None:
    caught = failing(call_to(url), way)
    assert type(caught) is ServerUnreachable
    assert "is not a usable address" in str(caught)
    assert str(caught).endswith(" Fix it in config.json.")


class Watched(IteratorStream):
    """A reply that knows whether it has been closed."""

    closed = False

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


@both
def test_closing_early_closes_the_reply(httpx_mock: HTTPXMock, way: str) -> None:
    stream = Watched([b"one", b"two"])
    httpx_mock.add_response(stream=stream)

    async def take_two() -> None:
        pieces = http.astream(call_to())
        await anext(pieces)
        await anext(pieces)
        assert not stream.closed
        await pieces.aclose()

    if way == "sync":
        pieces = http.stream(call_to())
        next(pieces)
        next(pieces)
        assert not stream.closed
        pieces.close()
    else:
        asyncio.run(take_two())
    assert stream.closed


# Probes


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of a socket that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


Asked = tuple[list[ProbeReply | None], ServerStatus | None]


def ask(*paths: str, url: str, key: str | None = None, seconds: float = 5.0) -> Asked:
    """The replies of the server at `url`, and why the last one is missing."""
    with Probe(url, key, Clock(seconds)) as probe:
        return [probe.ask(path) for path in paths], probe.failure


@pytest.mark.parametrize("key", [None, "sk-1"])
def test_probe_asks_one_path_after_another(
    httpx_mock: HTTPXMock, listening: str, key: str | None
) -> None:
    httpx_mock.add_response(url=f"{listening}/v1/models", json={"data": []})
    httpx_mock.add_response(url=f"{listening}/", text="Ollama is running", status_code=404)
    replies, failure = ask("/v1/models", "/", url=listening, key=key)
    assert failure is None
    assert replies == [
        ProbeReply(200, {"data": []}, '{"data":[]}'),
        ProbeReply(404, None, "Ollama is running"),
    ]
    for request in httpx_mock.get_requests():
        assert request.method == "GET"
        assert request.headers.get("authorization") == (f"Bearer {key}" if key else None)


def test_probe_posts_json(httpx_mock: HTTPXMock, listening: str) -> None:
    httpx_mock.add_response(json={})
    with Probe(listening, None, Clock(5)) as probe:
        assert probe.ask("/api/show", {"model": "m"}) == ProbeReply(200, {}, "{}")
    (request,) = httpx_mock.get_requests()
    assert (request.method, json.loads(request.content)) == ("POST", {"model": "m"})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b'{"data":', '{"data":'),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}" * 2),
        (b"[" * 100_000, "[" * 4096),
        (b"x" * 5000, "x" * 4096),
    ],
)
def test_reply_that_is_not_json(
    httpx_mock: HTTPXMock, listening: str, content: bytes, text: str
) -> None:
    httpx_mock.add_response(content=content)
    assert ask("/", url=listening) == ([ProbeReply(200, None, text)], None)


@pytest.mark.parametrize(
    ("raised", "failure"),
    [
        (httpx.ConnectError, ServerStatus.OFFLINE),
        # On this machine, a connection waits only in the queue of a server.
        (httpx.ConnectTimeout, ServerStatus.BUSY),
        (httpx.ReadTimeout, ServerStatus.BUSY),
        (httpx.WriteTimeout, ServerStatus.BUSY),
        (httpx.PoolTimeout, ServerStatus.BUSY),
        (httpx.ReadError, ServerStatus.UNRECOGNIZED),
        (httpx.RemoteProtocolError, ServerStatus.UNRECOGNIZED),
        (httpx.LocalProtocolError, ServerStatus.UNRECOGNIZED),
        (httpx.DecodingError, ServerStatus.UNRECOGNIZED),
        (httpx.UnsupportedProtocol, ServerStatus.UNRECOGNIZED),
        (httpx.ProxyError, ServerStatus.UNRECOGNIZED),
    ],
)
def test_probe_without_a_reply(
    httpx_mock: HTTPXMock,
    listening: str,
    raised: type[httpx.RequestError],
    failure: ServerStatus,
) -> None:
    httpx_mock.add_exception(raised("unseen"))
    assert ask("/", url=listening) == ([None], failure)


def endless() -> Iterator[bytes]:
    while True:
        yield b" " * 2**20


def slow() -> Iterator[bytes]:
    while True:
        time.sleep(0.02)
        yield b" "


@pytest.mark.parametrize(
    ("pieces", "seconds", "failure"),
    [(endless, 60.0, ServerStatus.UNRECOGNIZED), (slow, 0.2, ServerStatus.BUSY)],
)
def test_reply_without_an_end(
    httpx_mock: HTTPXMock,
    listening: str,
    pieces: Callable[[], Iterator[bytes]],
    seconds: float,
    failure: ServerStatus,
) -> None:
    httpx_mock.add_response(stream=IteratorStream(pieces()))
    assert ask("/", url=listening, seconds=seconds) == ([None], failure)


ENCODED: dict[str, tuple[Callable[[bytes], bytes], bool]] = {
    "gzip": (gzip.compress, True),
    "deflate": (zlib.compress, True),
    "gzip, gzip": (lambda body: gzip.compress(gzip.compress(body)), False),
    "gzip, deflate": (lambda body: zlib.compress(gzip.compress(body)), False),
    "br": (lambda body: body, False),
    "zstd": (lambda body: body, False),
}
"""A compressed body, and whether it may come: one in another turns a kilobyte into gigabytes."""


@both
@pytest.mark.parametrize("encoding", ENCODED)
def test_compressed_bodies(httpx_mock: HTTPXMock, encoding: str, way: str) -> None:
    compress, is_read = ENCODED[encoding]
    body = json.dumps({"a": 1}).encode()
    headers = {"content-type": "application/json", "content-encoding": encoding}
    httpx_mock.add_response(stream=IteratorStream([compress(body)]), headers=headers)
    if is_read:
        assert received(call_to(), way)[1:] == [body]
    else:
        with pytest.raises(BadReply, match="sent a response that cannot be decompressed"):
            received(call_to(), way)
    assert httpx_mock.get_requests()[0].headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("encoding", ENCODED)
def test_compressed_lists(httpx_mock: HTTPXMock, listening: str, encoding: str) -> None:
    compress, is_read = ENCODED[encoding]
    headers = {"content-type": "application/json", "content-encoding": encoding}
    httpx_mock.add_response(stream=IteratorStream([compress(b"{}")]), headers=headers)
    (reply,), failure = ask("/", url=listening)
    assert (reply is not None) is is_read
    assert failure is (None if is_read else ServerStatus.UNRECOGNIZED)


@pytest.mark.parametrize("seconds", [-1.0, 0.2])
def test_probe_ends_when_its_clock_has_run_out(listening: str, seconds: float) -> None:
    replies, failure = ask("/", "/v1/models", url=listening, seconds=seconds)
    assert (replies, failure) == ([None, None], ServerStatus.BUSY)


def test_clock_runs_only_while_a_reply_is_waited_for() -> None:
    clock = Clock(0.05)
    time.sleep(0.1)
    assert clock.left() == 0.05
    with clock.running():
        time.sleep(0.1)
        assert clock.left() < 0
        assert clock.is_overdue()
    assert not clock.is_overdue()
    assert clock.left() < 0


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert ask("/", url=f"http://127.0.0.1:{port}") == ([None], ServerStatus.OFFLINE)


@pytest.mark.parametrize("url", ["http://[::1", "http://box:port"])
def test_address_that_cannot_be_asked(url: str) -> None:
    assert ask("/", url=url, seconds=0.5) == ([None], ServerStatus.OFFLINE)


@pytest.mark.parametrize("key", ["sk-schlüssel", "sk-“quoted”"])
def test_key_that_cannot_be_sent(listening: str, key: str) -> None:
    replies, failure = ask("/", url=listening, key=key, seconds=0.5)
    assert (replies, failure) == ([None], ServerStatus.UNRECOGNIZED)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://127.0.0.1:9"])
def test_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())
    replies, failure = ask("/", url="http://box.example:8000")
    assert (replies, failure) == ([None], ServerStatus.UNRECOGNIZED)


@both
def test_text_that_utf8_does_not_have(httpx_mock: HTTPXMock, way: str) -> None:
    httpx_mock.add_response(json={})
    received(call_to(body={"content": "caf\u00e9 \ud83d \u2028"}), way)
    (request,) = httpx_mock.get_requests()
    assert json.loads(request.content) == {"content": "caf\u00e9 ? \u2028"}
