"""HTTP, with httpx: the only module that speaks it.

It knows no dialect: it sends a `Call` and hands on what comes back, as a `Head` and then bytes.
"""

import errno
import json
import selectors
import socket
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from llm_localrun.errors import BadReply, ConfigError, LocalRunError, ServerUnreachable
from llm_localrun.privacy import is_loopback
from llm_localrun.wire.response import Answer, Head, OutOfTime, Question
from llm_localrun.wire.sse import MAX_PAYLOAD_BYTES, Payload

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 600.0
"""Seconds of silence. Long: a server may load a model of 100 GB before its first byte."""
_AT_ONCE = 0.02
"""Seconds in which this machine surely knows what listens at its own addresses."""
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)
_MAX_TEXT = 4096
_IS_JSON = {"Content-Type": "application/json"}

_Result = TypeVar("_Result")
_Client = TypeVar("_Client")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that carries JSON, or nothing if its body is empty.

    `server` is how messages name the receiver, `advice` is what helps if it is off.
    """

    url: str
    body: Payload
    server: str
    advice: str
    key: str | None = field(default=None, repr=False)
    read_timeout: float = READ_TIMEOUT
    method: str = "POST"


def stream(call: Call) -> Generator[Head | bytes, None, None]:
    """Sends `call` and yields the reply as it comes; closing the iterator closes the connection."""
    import httpx

    with (
        _translated(call),
        _client(call, httpx.Client) as client,
        client.stream(**_request(call)) as response,
    ):
        yield _head(response)
        yield from response.iter_bytes()


async def astream(call: Call) -> AsyncGenerator[Head | bytes, None]:
    """`stream`, for an event loop."""
    import httpx

    with _translated(call):
        async with (
            _client(call, httpx.AsyncClient) as client,
            client.stream(**_request(call)) as response,
        ):
            yield _head(response)
            async for data in response.aiter_bytes():
                yield data


class Refused(Exception):
    """Nothing listens there."""


class NoAnswer(Exception):
    """Something listens there and did not answer in time."""


class NotHttp(Exception):
    """What answered there does not speak HTTP as it should."""


def drive(
    questions: Generator[Question, Answer, _Result], url: str, key: str | None, deadline: float
) -> _Result:
    """Answers `questions`, which are put to the server at `url`; returns what they come to.

    After `deadline`, on the monotonic clock, they are thrown `OutOfTime`. Raises `Refused`,
    `NoAnswer` and `NotHttp`.
    """
    _knock(url, deadline)
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(headers=headers, **client_settings(url)) as client:
            question = next(questions)
            while True:
                question = _answer(questions, client, url, question, deadline)
    except StopIteration as stop:
        result: _Result = stop.value
        return result
    except OutOfTime:
        raise NoAnswer from None
    except httpx.ConnectError:
        raise Refused from None
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError):
        # Other than a server's fault, a key or a proxy that cannot be used: running says so.
        raise NotHttp from None


def is_listening(url: str) -> bool:
    """Whether anything accepts connections at `url`; says so at once if it is on this machine."""
    try:
        _knock(url, time.monotonic() + CONNECT_TIMEOUT)
    except (Refused, NoAnswer):
        return False
    return True


def refusing(urls: Iterable[str]) -> set[str]:
    """Those of `urls` where nothing listens: found out all at once, as far as that takes no time.

    So it does for addresses of this machine, except on Windows, which tries for two seconds.
    """
    refused = set()
    with selectors.DefaultSelector() as selector, ExitStack() as sockets:
        for url in urls:
            if (address := _own_address(url)) is None:
                continue
            knock = sockets.enter_context(socket.socket(address[0]))
            knock.setblocking(False)
            if knock.connect_ex(address[1]) in _UNDER_WAY:
                selector.register(knock, selectors.EVENT_WRITE, (url, knock))
            else:
                refused.add(url)
        deadline = time.monotonic() + _AT_ONCE
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for ready, _ in selector.select(left):
                url, knock = ready.data
                if knock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    refused.add(url)
                selector.unregister(knock)
    return refused


def _own_address(url: str) -> tuple[socket.AddressFamily, tuple[str, int]] | None:
    """Family and address for a socket, if `url` gives an address of this machine in numbers."""
    try:
        parts = urlsplit(url)
        address = ip_address(parts.hostname or "")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    return (family, (str(address), port)) if address.is_loopback else None


def _knock(url: str, deadline: float) -> None:
    """Whether anything listens, told without importing httpx: mostly nothing does."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), _left(deadline)).close()
    except TimeoutError:
        raise NoAnswer from None
    except (OSError, ValueError):
        raise Refused from None


def _answer(
    questions: Generator[Question, Answer, Any],
    client: "httpx.Client",
    url: str,
    question: Question,
    deadline: float,
) -> Question:
    """The next question after an answer to this one."""
    import httpx

    try:
        answer = _fetch(client, url, question, deadline)
    except httpx.TimeoutException:
        return questions.throw(OutOfTime())
    return questions.send(answer)


def _fetch(client: "httpx.Client", url: str, question: Question, deadline: float) -> Answer:
    import httpx

    if time.monotonic() > deadline:
        raise httpx.ReadTimeout("too late")
    body = bytearray()
    method = "GET" if question.body is None else "POST"
    content = None if question.body is None else _json(question.body)
    headers = None if content is None else _IS_JSON
    timeout = _left(deadline)
    request = client.stream(
        method, url + question.path, content=content, headers=headers, timeout=timeout
    )
    with request as response:
        for data in response.iter_bytes():
            body += data
            if len(body) > MAX_PAYLOAD_BYTES or time.monotonic() > deadline:
                raise httpx.ReadTimeout("too much, or too late")
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        payload = None
    text = body[:_MAX_TEXT].decode("utf-8", "replace")
    return Answer(response.status_code, payload, text)


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _head(response: "httpx.Response") -> Head:
    return Head(response.status_code, response.headers.get("content-type", ""))


def _request(call: Call) -> dict[str, Any]:
    authorization = {"Authorization": f"Bearer {call.key}"} if call.key else {}
    headers = {**_IS_JSON, **authorization}
    content = _json(call.body) if call.body else None
    return {"method": call.method, "url": call.url, "content": content, "headers": headers}


def _json(body: Payload) -> bytes:
    """A body as JSON; halves of surrogate pairs, which UTF-8 does not have, become `?`."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def client_settings(url: str) -> dict[str, Any]:
    """What every client for `url` has in common.

    A proxy must not see what goes to this machine, and an SSL context (57 ms to make) is only made
    where it is used. Redirects stay off: they would carry a prompt to another host.
    """
    return {"verify": url.startswith("https://"), "trust_env": not is_loopback(url)}


def _client(call: Call, make: Callable[..., _Client]) -> _Client:
    """A client for `call`. Raises a `LocalRunError` for what only the user can mend."""
    import httpx

    if call.key and not (call.key.isascii() and call.key.isprintable()):
        raise ConfigError(
            f"The key for {call.server} has characters that HTTP cannot carry",
            "Store it again with `llm keys set`, or give another with --key",
        )
    try:
        host = httpx.URL(call.url).host
    except (httpx.InvalidURL, ValueError):
        host = ""
    if not host:
        raise ServerUnreachable(f"{call.url} is no usable address", "Mend it in config.json")
    timeout = httpx.Timeout(call.read_timeout, connect=min(CONNECT_TIMEOUT, call.read_timeout))
    try:
        return make(timeout=timeout, **client_settings(call.url))
    except (ImportError, ValueError) as error:
        raise ServerUnreachable(
            f"The proxy for {call.server} cannot be used: {error}",
            "Set ALL_PROXY, HTTP_PROXY and HTTPS_PROXY right, or NO_PROXY for this host",
        ) from None


@contextmanager
def _translated(call: Call) -> Iterator[None]:
    """Turns httpx's errors into ours."""
    import httpx

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _for_people(error, call) from None


def _for_people(error: Exception, call: Call) -> LocalRunError:
    """What an error of httpx's means, and what to do."""
    return _unreachable(error, call) or _broken_off(error, call)


def _unreachable(error: Exception, call: Call) -> ServerUnreachable | None:
    import httpx

    if isinstance(error, httpx.ConnectError) and "SSL" in str(error):
        problem = f"{call.server} cannot be spoken to safely: {error}"
        remedy = "Mend its certificate, or its address in config.json"
    elif isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        problem, remedy = f"{call.server} does not answer", call.advice
    elif isinstance(error, httpx.TimeoutException):
        problem = f"{call.server} has said nothing for {call.read_timeout:g} seconds"
        remedy = "Look whether it is busy, or wait longer with -o timeout SECONDS"
    elif isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        problem, remedy = f"{call.url} is no usable address", "Mend it in config.json"
    elif isinstance(error, httpx.ProxyError):
        problem = f"The proxy for {call.server} failed: {error}"
        remedy = "Mend it, or set NO_PROXY for this host"
    else:
        return None
    return ServerUnreachable(problem, remedy)


def _broken_off(error: Exception, call: Call) -> BadReply:
    import httpx

    if isinstance(error, httpx.DecodingError):
        return BadReply(f"{call.server} sent an answer that cannot be unpacked", "Try again")
    if isinstance(error, httpx.RemoteProtocolError) and not _hung_up(error):
        return BadReply(
            f"{call.server} sent something that is not HTTP",
            "Try again; if it stays so, look whether another program has its port",
        )
    return BadReply(
        f"{call.server} broke off in the middle of its answer",
        "Try again; the server's own log says why it stopped",
    )


def _hung_up(error: Exception) -> bool:
    """httpcore tells a connection that was closed from nonsense by its words only (1.0)."""
    return any(words in str(error) for words in ("disconnected", "peer closed"))
