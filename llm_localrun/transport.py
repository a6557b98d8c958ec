"""HTTP, with httpx: the only module that speaks it.

It knows no dialect: it sends a `Call` and hands on what comes back, as a `Head` and then bytes.
"""

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_localrun.errors import BadReply, ServerUnreachable
from llm_localrun.framing import Payload
from llm_localrun.locality import is_loopback
from llm_localrun.reply import Head

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 600.0
"""Seconds of silence. Long: a server may load a model of 100 GB before its first byte."""


@dataclass(frozen=True, slots=True)
class Call:
    """A POST of JSON.

    `server` is how messages name the receiver, `advice` is what helps if it is off.
    """

    url: str
    body: Payload
    server: str
    advice: str
    key: str | None = field(default=None, repr=False)
    read_timeout: float = READ_TIMEOUT


def stream(call: Call) -> Generator[Head | bytes, None, None]:
    """Sends `call` and yields the reply as it comes; closing the iterator closes the connection."""
    import httpx

    with (
        _translated(call),
        httpx.Client(**_settings(call)) as client,
        client.stream("POST", call.url, json=call.body, headers=_headers(call)) as response,
    ):
        yield _head(response)
        yield from response.iter_bytes()


async def astream(call: Call) -> AsyncGenerator[Head | bytes, None]:
    """`stream`, for an event loop."""
    import httpx

    with _translated(call):
        async with (
            httpx.AsyncClient(**_settings(call)) as client,
            client.stream("POST", call.url, json=call.body, headers=_headers(call)) as response,
        ):
            yield _head(response)
            async for data in response.aiter_bytes():
                yield data


def _head(response: "httpx.Response") -> Head:
    return Head(response.status_code, response.headers.get("content-type", ""))


def _headers(call: Call) -> dict[str, str]:
    return {"Authorization": f"Bearer {call.key}"} if call.key else {}


def client_settings(url: str) -> dict[str, Any]:
    """What every client for `url` has in common.

    A proxy must not see what goes to this machine, and an SSL context (57 ms to make) is only made
    where it is used. Redirects stay off: they would carry a prompt to another host.
    """
    return {"verify": url.startswith("https://"), "trust_env": not is_loopback(url)}


def _settings(call: Call) -> dict[str, Any]:
    import httpx

    timeout = httpx.Timeout(call.read_timeout, connect=min(CONNECT_TIMEOUT, call.read_timeout))
    return {"timeout": timeout, **client_settings(call.url)}


@contextmanager
def _translated(call: Call) -> Iterator[None]:
    """Turns httpx's errors into ours."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise ServerUnreachable(f"{call.server} does not answer", call.advice) from None
    except httpx.TimeoutException:
        raise ServerUnreachable(
            f"{call.server} has said nothing for {call.read_timeout:g} seconds",
            "Look whether it is busy, or wait longer with -o timeout SECONDS",
        ) from None
    except httpx.InvalidURL as error:
        raise ServerUnreachable(
            f"{call.url} is no usable address: {error}", "Mend it in config.json"
        ) from None
    except httpx.TransportError:
        raise BadReply(
            f"{call.server} broke off in the middle of its answer",
            "Try again; the server's own log says why it stopped",
        ) from None
    except httpx.DecodingError:
        raise BadReply(
            f"{call.server} sent an answer that cannot be unpacked", "Try again"
        ) from None
