"""GET of large files: in pieces, from any byte on, with redirects that are looked at first.

Beside `transport`, which speaks to model servers and follows no redirect. Knows nothing of what
it fetches; resuming, checking and writing are `download`'s business.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llm_localrun import __version__
from llm_localrun.errors import PullFailed
from llm_localrun.pull.safety import origin, redirected
from llm_localrun.wire.http import client_settings

if TYPE_CHECKING:
    import httpx

_CONNECT_TIMEOUT, _READ_TIMEOUT = 10.0, 60.0
"""Seconds of silence."""
_MOST_REDIRECTS = 10
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_SECONDS = re.compile(r"^(\d+)$|\bt=(\d+)")
KEPT = "What has come is kept: the same command goes on where it stopped"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file lies. `token` is sent to the origin of `url` and to no other."""

    url: str
    token: str | None = field(default=None, repr=False)
    token_advice: str = "Look whether the address needs a login: that cannot be given here"

    @property
    def server(self) -> str:
        """How messages name who sends it."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True, slots=True)
class Start:
    """The beginning of a reply: its first byte's place, and the whole file's length if known.

    `mark` is the validator by which the server tells this version of the file, "" if it has none.
    """

    first: int
    total: int | None
    mark: str


class BrokenOff(Exception):
    """The server or the network failed in a way that may be over soon; says how."""


def get(
    source: Source, first: int = 0, last: int | None = None, mark: str = ""
) -> Generator[Start | bytes, None, None]:
    """The file from byte `first` on, to byte `last`: a `Start`, then bytes.

    It starts at 0 instead if the server cannot do otherwise, or if the file is not that of `mark`
    any more. Raises `PullFailed` and `BrokenOff`.
    """
    import httpx

    headers = {"Accept-Encoding": "identity", "User-Agent": f"llm-localrun/{__version__}"}
    if first or last is not None:
        headers["Range"] = f"bytes={first}-{'' if last is None else last}"
    if mark:
        headers["If-Range"] = mark
    timeout = httpx.Timeout(_READ_TIMEOUT, connect=_CONNECT_TIMEOUT)
    with _translated(source):
        url = source.url
        for _ in range(_MOST_REDIRECTS):
            with (
                httpx.Client(timeout=timeout, **client_settings(url)) as client,
                client.stream("GET", url, headers=_with_token(headers, source, url)) as response,
            ):
                if response.has_redirect_location:
                    url = redirected(url, response.headers["location"], source.server)
                    continue
                yield _start(response, source, first)
                yield from response.iter_raw()
                return
    raise PullFailed(f"{source.server} redirects without end", "Check the address")


def look_at(source: Source) -> Start:
    """What the server says of the file, for which one byte is asked. Raises as `get` does."""
    pieces = get(source, 0, 0)
    start = next(pieces)
    pieces.close()
    assert isinstance(start, Start)
    return start


def _with_token(headers: Mapping[str, str], source: Source, url: str) -> dict[str, str]:
    if source.token is None or origin(url) != origin(source.url):
        return dict(headers)
    return {**headers, "Authorization": f"Bearer {source.token}"}


def _start(response: "httpx.Response", source: Source, first: int) -> Start:
    headers = response.headers
    etag = headers.get("etag", "")
    # A weak one promises the same meaning, not the same bytes (RFC 9110, 13.1.5).
    mark = headers.get("last-modified", "") if etag.startswith("W/") or not etag else etag
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if match is None or match[1] is None or int(match[1]) != first:
            raise BrokenOff("it sent another part of the file than was asked for")
        return Start(first, None if match[2] == "*" else int(match[2]), mark)
    if response.status_code == 200:
        length = headers.get("content-length", "")
        return Start(0, int(length) if length.isdigit() else None, mark)
    raise _refusal(response, source)


def _refusal(response: "httpx.Response", source: Source) -> PullFailed | BrokenOff:
    status, server = response.status_code, source.server
    if status == 429:
        return too_many_requests(server, response.headers)
    if status >= 500 or status == 408:
        return BrokenOff(f"it answered with HTTP {status}")
    said = response.headers.get("x-error-message", "") or response.reason_phrase
    problem = f"{server} does not give the file: {said} (HTTP {status})"
    if status in (401, 403):
        return PullFailed(problem, source.token_advice)
    return PullFailed(problem, "Check the address; the file may have been moved or removed")


def too_many_requests(server: str, headers: Mapping[str, str]) -> PullFailed:
    """What a reply of HTTP 429 means. `headers` are the reply's.

    Servers say in Retry-After when to come again, Hugging Face's hub in RateLimit.
    """
    said = headers.get("retry-after") or headers.get("ratelimit") or ""
    match = _SECONDS.search(said)
    when = f"in {match[1] or match[2]} seconds" if match else "in a few minutes"
    return PullFailed(
        f"{server} has had too many requests from here (HTTP 429)",
        f"Try again {when}. {KEPT}",
    )


@contextmanager
def _translated(source: Source) -> Iterator[None]:
    """Turns httpx's errors into ours."""
    import httpx

    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise PullFailed(f"{source.url} is no usable address: {error}", "Check it") from None
    except httpx.ProxyError as error:
        raise PullFailed(
            f"The proxy for {source.server} failed: {error}", "Mend it, or set NO_PROXY"
        ) from None
    except httpx.HTTPError as error:
        if "CERTIFICATE" in str(error).upper():
            raise PullFailed(
                f"{source.server} cannot be spoken to safely: {error}", "Check the address"
            ) from None
        raise BrokenOff(str(error) or type(error).__name__) from None
    except (ImportError, ValueError) as error:
        raise PullFailed(
            f"{source.server} cannot be asked: {error}",
            "Set ALL_PROXY, HTTP_PROXY and HTTPS_PROXY right",
        ) from None
