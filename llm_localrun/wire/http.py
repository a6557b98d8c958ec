"""HTTP to model servers, with httpx: the only module that sends a request to one.

It knows no server's language: it sends an `HttpRequest` and returns the head and the bytes of the
response, or asks for JSON until a clock has run out. What the bytes mean is left to
`wire.response`.
"""

import errno
import json
import selectors
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from llm_localrun.errors import BadReply, ConfigError, LocalRunError, ServerUnreachable
from llm_localrun.models import ServerStatus
from llm_localrun.privacy import is_loopback
from llm_localrun.system.json_files import parse_json
from llm_localrun.wire.response import ProbeReply, ResponseHead
from llm_localrun.wire.sse import Payload

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 600.0
"""Silence after which a server counts as hung. A server may load a model of 100 GB before its first
byte."""
_LOOPBACK_CONNECT_S = 0.02
"""This machine knows within this time whether anything listens at its own addresses."""
_MIN_TIMEOUT_S = 0.001
"""A timeout of zero would make a socket non-blocking."""
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)
_MAX_TEXT = 4096
_MAX_PROBE_BYTES = 8 * 2**20
"""Of what a server says of its models: 10,000 of them take less."""
_JSON_HEADERS = {"content-type": "application/json"}
_ENCODINGS = {"accept-encoding": "gzip, deflate"}
"""httpx decodes others if it can. They, and one within another, turn a kilobyte into gigabytes: of
these, what it decodes at once has at most 64 MiB."""

_Client = TypeVar("_Client")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request with a JSON body, or with none if `body` is empty.

    Messages call the server `server`; `start_hint` is what helps if it is off, `slow_hint` if it is
    slow.
    """

    url: str
    body: Payload
    server: str
    start_hint: str
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """In lower case, and in addition to its own."""
    read_timeout_s: float = READ_TIMEOUT_S
    method: str = "POST"
    slow_hint: str = "Check whether it is busy, or wait longer with -o timeout SECONDS"


def stream(request: HttpRequest) -> Generator[ResponseHead | bytes, None, None]:
    """Sends `request` and yields the response as it arrives: its head, then bytes.

    Closing the iterator closes the connection. Raises a `LocalRunError`.
    """
    import httpx

    with (
        _translate_errors(request),
        _client(request, httpx.Client) as client,
        client.stream(**_arguments(request)) as response,
    ):
        yield _head(response)
        _check_encoding(response)
        yield from response.iter_bytes()


async def astream(request: HttpRequest) -> AsyncGenerator[ResponseHead | bytes, None]:
    """`stream`, for an event loop."""
    import httpx

    with _translate_errors(request):
        async with (
            _client(request, httpx.AsyncClient) as client,
            client.stream(**_arguments(request)) as response,
        ):
            yield _head(response)
            _check_encoding(response)
            async for data in response.aiter_bytes():
                yield data


class Clock:
    """The seconds that a server may still take. They pass only while a reply is waited for.

    So imports, the start of a thread and what this process does between two questions are not
    charged to the server.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._sent_at: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around a request and its reply."""
        sent_at = self._sent_at = time.monotonic()
        try:
            yield
        finally:
            # In this order, another thread that reads the clock never sees the time twice.
            self._sent_at = None
            self._left -= time.monotonic() - sent_at

    def stop(self) -> None:
        """Leaves no time for further questions."""
        self._left = -inf

    def left(self) -> float:
        """Negative if the server takes longer than it may."""
        sent_at = self._sent_at
        return self._left - (0.0 if sent_at is None else time.monotonic() - sent_at)

    def is_overdue(self) -> bool:
        """Whether a reply is waited for that should have come by now."""
        return self._sent_at is not None and self.left() < 0


class Probe:
    """Asks one server for JSON until its clock has run out.

    `ask` is the callable that the readers of servers receive. It returns None where there is no
    reply; `failure` then says why.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        clock: Clock,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`headers` are as in `HttpRequest`."""
        self._url = url
        self._headers = {**headers, **_ENCODINGS, **_authorization(key)}
        self._clock = clock
        self._client: httpx.Client | None = None
        self.failure: ServerStatus | None = None

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()

    def ask(self, path: str, json: Payload | None = None) -> ProbeReply | None:
        """GETs `path`, or POSTs `json` to it. None if no reply came in time."""
        try:
            self._connect()
            return self._fetch(path, json)
        except _NoReplyError as error:
            self.failure = error.status
            return None

    def _connect(self) -> None:
        if self._client is not None:
            return
        # Usually nothing listens: this check does not import httpx.
        with self._clock.running():
            _try_connecting(self._url, self._clock.left())
        import httpx

        try:
            self._client = httpx.Client(headers=self._headers, **client_settings(self._url))
        except (ImportError, ValueError, httpx.InvalidURL):
            # A key or a proxy that cannot be used: running the model says so.
            raise _NoReplyError(ServerStatus.UNRECOGNIZED) from None

    def _fetch(self, path: str, body: Payload | None) -> ProbeReply:
        import httpx

        try:
            with self._clock.running():
                return self._read(path, body)
        except httpx.ConnectTimeout:
            raise _NoReplyError(_status_of_timeout(self._url)) from None
        except httpx.TimeoutException:
            raise _NoReplyError(ServerStatus.BUSY) from None
        except httpx.ConnectError:
            raise _NoReplyError(ServerStatus.OFFLINE) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            raise _NoReplyError(ServerStatus.UNRECOGNIZED) from None

    def _read(self, path: str, body: Payload | None) -> ProbeReply:
        assert self._client is not None
        if self._clock.left() < 0:
            raise _NoReplyError(ServerStatus.BUSY)
        request = self._client.stream(
            "GET" if body is None else "POST",
            self._url + path,
            content=None if body is None else encode_json(body),
            headers=None if body is None else _JSON_HEADERS,
            timeout=max(_MIN_TIMEOUT_S, self._clock.left()),
        )
        received, is_late = bytearray(), False
        with request as response:
            _check_encoding(response)
            for data in response.iter_bytes():
                # What came while this process was not scheduled is not too late.
                if is_late:
                    raise _NoReplyError(ServerStatus.BUSY)
                received += data
                if len(received) > _MAX_PROBE_BYTES:
                    raise _NoReplyError(ServerStatus.UNRECOGNIZED)
                is_late = self._clock.left() < 0
        text = received[:_MAX_TEXT].decode("utf-8", "replace")
        return ProbeReply(response.status_code, parse_json(received), text)


class _NoReplyError(Exception):
    """A server has not replied; `status` says how it failed."""

    def __init__(self, status: ServerStatus) -> None:
        super().__init__(status)
        self.status = status


def is_listening(url: str) -> bool:
    """Whether anything accepts connections at `url`, at once or when it has the time."""
    try:
        _try_connecting(url, CONNECT_TIMEOUT_S)
    except _NoReplyError as error:
        return error.status is ServerStatus.BUSY
    return True


def find_offline(urls: Iterable[str]) -> set[str]:
    """The URLs of `urls` at which nothing listens, as far as this is known at once.

    All addresses of this machine are tried at the same time. Windows answers only after two
    seconds, so there nothing is found.
    """
    offline = set()
    with selectors.DefaultSelector() as selector, ExitStack() as sockets:
        for url in urls:
            if (address := _loopback_address(url)) is None:
                continue
            try:
                attempt = sockets.enter_context(socket.socket(address[0]))
            except OSError:
                # A machine without IPv6.
                offline.add(url)
                continue
            attempt.setblocking(False)
            if attempt.connect_ex(address[1]) in _IN_PROGRESS:
                selector.register(attempt, selectors.EVENT_WRITE, (url, attempt))
            else:
                offline.add(url)
        deadline = time.monotonic() + _LOOPBACK_CONNECT_S
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for ready, _ in selector.select(left):
                url, attempt = ready.data
                if attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    offline.add(url)
                selector.unregister(attempt)
    return offline


def _loopback_address(url: str) -> tuple[socket.AddressFamily, tuple[str, int]] | None:
    """Family and address for a socket, if `url` gives an address of this machine in numbers."""
    try:
        host, port = _host_and_port(url)
        address = ip_address(host)
    except ValueError:
        return None
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    return (family, (str(address), port)) if address.is_loopback else None


def _host_and_port(url: str) -> tuple[str, int]:
    """Where a socket connects to. Raises ValueError if `url` is not a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _try_connecting(url: str, seconds: float) -> None:
    """Raises `_NoReplyError` if nothing accepts a connection at `url` within `seconds`."""
    try:
        socket.create_connection(_host_and_port(url), max(_MIN_TIMEOUT_S, seconds)).close()
    except TimeoutError:
        raise _NoReplyError(_status_of_timeout(url)) from None
    except (OSError, ValueError):
        raise _NoReplyError(ServerStatus.OFFLINE) from None


def _status_of_timeout(url: str) -> ServerStatus:
    """What it means that a connection was neither accepted nor refused in time.

    This machine refuses at once what nothing listens to, except that Windows takes two seconds. So
    a server is there, and its queue of connections is full.
    """
    is_queue_full = is_loopback(url) and sys.platform != "win32"
    return ServerStatus.BUSY if is_queue_full else ServerStatus.TIMEOUT


def _head(response: "httpx.Response") -> ResponseHead:
    return ResponseHead(response.status_code, response.headers.get("content-type", ""))


def _check_encoding(response: "httpx.Response") -> None:
    """Raises httpx's DecodingError for a body that was not to be sent."""
    import httpx

    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "deflate"):
        raise httpx.DecodingError(f"it is encoded as {encoding}")


def _arguments(request: HttpRequest) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.url,
        "content": encode_json(request.body) if request.body else None,
        "headers": {
            **request.headers,
            **_JSON_HEADERS,
            **_ENCODINGS,
            **_authorization(request.key),
        },
    }


def _authorization(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def encode_json(body: Payload) -> bytes:
    """A body as JSON. Lone surrogates, which UTF-8 cannot carry, become `?`."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def client_settings(url: str) -> dict[str, Any]:
    """What every httpx client for `url` has in common.

    A proxy must not see what goes to this machine, and an SSL context (57 ms to make) is only made
    where it is used. Redirects stay off: they would carry a prompt to another host.
    """
    return {"verify": url.startswith("https://"), "trust_env": not is_loopback(url)}


def _client(request: HttpRequest, make: Callable[..., _Client]) -> _Client:
    """A client for `request`. Raises a `LocalRunError` for what only the user can fix."""
    import httpx

    if request.key and not (request.key.isascii() and request.key.isprintable()):
        raise ConfigError(
            f"The key for {request.server} has characters that HTTP cannot carry",
            "Store it again with `llm keys set`, or give another with --key",
        )
    connect_s = min(CONNECT_TIMEOUT_S, request.read_timeout_s)
    timeout = httpx.Timeout(request.read_timeout_s, connect=connect_s)
    try:
        return make(timeout=timeout, **client_settings(request.url))
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        # httpx quotes the part of the address that it cannot read, and that may be a password.
        is_unreadable = isinstance(error, httpx.InvalidURL)
        reason = "its address is not valid" if is_unreadable else str(error)
        raise ServerUnreachable(
            f"The proxy for {request.server} cannot be used: {reason}",
            "Correct ALL_PROXY, HTTP_PROXY and HTTPS_PROXY, or set NO_PROXY for this host",
        ) from None


@contextmanager
def _translate_errors(request: HttpRequest) -> Iterator[None]:
    """Turns httpx's errors into ours."""
    import httpx

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise _translate(error, request) from None


def _translate(error: Exception, request: HttpRequest) -> LocalRunError:
    """What an error of httpx's means, and what to do."""
    import httpx

    server = request.server
    if isinstance(error, httpx.ConnectError) and "SSL" in str(error):
        return ServerUnreachable(
            f"TLS verification failed for {server}: {error}",
            "Fix its certificate, or its address in config.json",
        )
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ServerUnreachable(f"{server} does not answer", request.start_hint)
    if isinstance(error, httpx.TimeoutException):
        return ServerUnreachable(
            f"{server} sent nothing for {request.read_timeout_s:g} seconds",
            request.slow_hint,
        )
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | UnicodeError):
        return ServerUnreachable(f"{request.url} is not a usable address", "Fix it in config.json")
    if isinstance(error, httpx.ProxyError):
        return ServerUnreachable(
            f"The proxy for {server} failed: {error}", "Fix it, or set NO_PROXY for this host"
        )
    return _bad_response(error, server)


def _bad_response(error: Exception, server: str) -> BadReply:
    import httpx

    if isinstance(error, httpx.DecodingError):
        return BadReply(f"{server} sent a response that cannot be decompressed", "Try again")
    if isinstance(error, httpx.RemoteProtocolError) and not _was_closed(error):
        return BadReply(
            f"{server} sent something that is not HTTP",
            "Try again; if it happens again, check whether another program uses its port",
        )
    return BadReply(
        f"{server} closed the connection in the middle of its answer",
        "Try again; the server's own log says why it stopped",
    )


def _was_closed(error: Exception) -> bool:
    """Only the message of httpcore (1.0) distinguishes a closed connection from nonsense."""
    return any(words in str(error) for words in ("disconnected", "peer closed"))
