"""HTTP GET of large files: in chunks, from any byte on, with each redirect checked first.

`wire.http` talks to model servers and follows no redirect; this module fetches files from anywhere.
Resuming, checking and writing are left to `download`.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import urljoin, urlsplit

from llm_localrun import __version__
from llm_localrun.errors import PullFailed
from llm_localrun.privacy import is_loopback
from llm_localrun.system.logins import hide_passwords, split_login
from llm_localrun.wire.http import client_settings

if TYPE_CHECKING:
    import httpx

_Result = TypeVar("_Result")

_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 60.0
"""The longest wait for the next bytes from the server."""
_SLICE_S = 0.1
_MAX_REDIRECTS = 10
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_EPOCH_SECONDS = re.compile(r"[12]\d{9}")
_RETRY_SECONDS = re.compile(r"^(\d+)$|\bt=(\d+)")
_THE_FILE = "the file"
RESUME_ADVICE = "Interrupted downloads resume: run the same command again"


class TooSlow(Exception):
    """What was waited for has not come in time."""


def result_within(seconds: float, work: Callable[[], _Result]) -> _Result:
    """What `work` returns or raises. Raises `TooSlow` if that takes longer; it then goes on in its
    thread.

    The time limits of a client are for the next bytes only, and a name server that does not answer
    holds its caller for longer. Of each wait at most `_SLICE_S` counts, so that a busy machine
    waits longer.
    """
    results: SimpleQueue[Callable[[], _Result]] = SimpleQueue()

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            results.put(partial(_raise, error))
        else:
            results.put(lambda: result)

    Thread(target=run, daemon=True).start()
    for _ in range(round(seconds / _SLICE_S)):
        try:
            outcome = results.get(timeout=_SLICE_S)
        except Empty:
            continue
        return outcome()
    raise TooSlow


def _raise(error: Exception) -> NoReturn:
    raise error


@dataclass(frozen=True, slots=True)
class FileSource:
    """The address of a file. `token` is sent to the origin of `url` and to no other."""

    url: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    token_advice: str = "The address may need a login, which llm-localrun cannot send"
    what: str = _THE_FILE
    """What it has, in messages."""

    @property
    def server(self) -> str:
        """The name of the server in messages."""
        return urlsplit(split_login(self.url)[0]).netloc


@dataclass(frozen=True, slots=True)
class ResponseStart:
    """The start of a response: the position of its first byte, and the size of the whole file.

    `etag` is the validator for this version of the file: a strong ETag or a Last-Modified date, ""
    if the server sends neither.
    """

    first: int
    total: int | None
    etag: str


class DownloadInterrupted(Exception):
    """The server or the network failed in a way that may pass. Its text says how."""


@contextmanager
def request_file(
    source: FileSource, first: int = 0, last: int | None = None, etag: str = ""
) -> Iterator[tuple[ResponseStart, Iterator[bytes]]]:
    """Requests the bytes `first` to `last` of the file: the start of the response, and its bytes.

    The bytes start at 0 instead if the server supports no ranges, or if the file is no longer the
    version `etag`. Requesting and reading them raises `PullFailed` and `DownloadInterrupted`.
    """
    import httpx

    headers = {"Accept-Encoding": "identity", "User-Agent": f"llm-localrun/{__version__}"}
    if first or last is not None:
        headers["Range"] = f"bytes={first}-{'' if last is None else last}"
    if etag:
        headers["If-Range"] = etag
    timeout = httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    with _translate_errors(source):
        url = source.url
        for _ in range(_MAX_REDIRECTS):
            with (
                httpx.Client(timeout=timeout, **client_settings(url)) as client,
                client.stream("GET", url, headers=_with_token(headers, source, url)) as response,
            ):
                if not response.has_redirect_location:
                    yield _read_start(response, source, first), response.iter_raw()
                    return
                url = resolve_redirect(url, response.headers["location"], source.server)
    raise PullFailed(
        f"{source.server} sent more than {_MAX_REDIRECTS} redirects", "Check the address"
    )


def probe(source: FileSource) -> ResponseStart:
    """The server's facts about the file, from a request for one byte.

    Raises `PullFailed` and `DownloadInterrupted`.
    """
    with request_file(source, 0, 0) as (start, _):
        return start


def _with_token(headers: Mapping[str, str], source: FileSource, url: str) -> dict[str, str]:
    if source.token is None or origin_of(url) != origin_of(source.url):
        return dict(headers)
    return {**headers, "Authorization": f"Bearer {source.token}"}


def _read_start(response: "httpx.Response", source: FileSource, first: int) -> ResponseStart:
    headers = response.headers
    etag = headers.get("etag", "")
    # A weak ETag does not promise the same bytes (RFC 9110, 13.1.5).
    if not etag or etag.startswith("W/"):
        etag = headers.get("last-modified", "")
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if match is None or match[1] is None or int(match[1]) != first:
            raise DownloadInterrupted("it sent a different part of the file")
        return ResponseStart(first, None if match[2] == "*" else int(match[2]), etag)
    if response.status_code == 200:
        length = headers.get("content-length", "")
        return ResponseStart(0, int(length) if length.isdigit() else None, etag)
    raise _status_error(response, source)


def _status_error(
    response: "httpx.Response", source: FileSource
) -> PullFailed | DownloadInterrupted:
    status, server = response.status_code, source.server
    if status == 429 or (status == 403 and _is_rate_limit(response.headers)):
        resumes = source.what == _THE_FILE
        return too_many_requests(server, response.headers, status, resumes=resumes)
    if status >= 500 or status == 408:
        return DownloadInterrupted(f"it answered with HTTP {status}")
    reason = response.headers.get("x-error-message", "") or response.reason_phrase
    problem = f"{server} did not send {source.what}: {reason} (HTTP {status})"
    gone = f"Check the address: {source.what} may have been moved or deleted"
    error = PullFailed(problem, source.token_advice if status in (401, 403) else gone)
    error.status = status
    return error


def _is_rate_limit(headers: Mapping[str, str]) -> bool:
    """Whether a refusal is about the number of requests. GitHub's API says so with HTTP 403."""
    return headers.get("x-ratelimit-remaining") == "0" or "retry-after" in headers


def too_many_requests(
    server: str, headers: Mapping[str, str], status: int = 429, *, resumes: bool = True
) -> PullFailed:
    """The error for too many requests, from the `headers` of the response.

    Servers name the seconds to wait in Retry-After, Hugging Face's hub in RateLimit (`t=55`), and
    GitHub the second of the epoch in X-RateLimit-Reset.
    """
    match = _RETRY_SECONDS.search(headers.get("retry-after") or headers.get("ratelimit") or "")
    reset = headers.get("x-ratelimit-reset", "")
    when = "in a few minutes"
    if match:
        when = f"in {match[1] or match[2]} seconds"
    elif _EPOCH_SECONDS.fullmatch(reset):
        minutes = max(1, math.ceil((int(reset) - time.time()) / 60))
        when = f"in {minutes} minute{'s' * (minutes > 1)}"
    error = PullFailed(
        f"{server} received too many requests from you (HTTP {status})",
        f"Try again {when}. {RESUME_ADVICE if resumes else ''}",
    )
    error.status = status
    return error


@contextmanager
def _translate_errors(source: FileSource) -> Iterator[None]:
    """Turns httpx's errors into ours."""
    import httpx

    try:
        yield
    except httpx.InvalidURL:
        # httpx quotes the part that it cannot read, and that may be a password.
        raise PullFailed(
            f"{source.url} or the address of a proxy is not valid",
            "Check the address, ALL_PROXY, HTTP_PROXY and HTTPS_PROXY",
        ) from None
    except httpx.UnsupportedProtocol as error:
        raise PullFailed(
            f"{source.url} is not a valid address: {error}", "Check the address"
        ) from None
    except httpx.ProxyError as error:
        raise PullFailed(
            f"The proxy for {source.server} failed: {error}", "Fix the proxy, or set NO_PROXY"
        ) from None
    except httpx.HTTPError as error:
        if "CERTIFICATE" in str(error).upper():
            raise PullFailed(
                f"TLS verification of {source.server} failed: {error}", "Check the address"
            ) from None
        raise DownloadInterrupted(str(error) or type(error).__name__) from None
    except (ImportError, ValueError) as error:
        raise PullFailed(
            f"No request can be sent to {source.server}: {error}",
            "Check ALL_PROXY, HTTP_PROXY and HTTPS_PROXY",
        ) from None


# Addresses


def is_safe_url(url: str) -> bool:
    """Whether the network cannot change the response of `url`: https, or this machine.

    An address with a user or a password is not safe: addresses are shown and recorded.
    """
    scheme, host, _ = origin_of(url)
    if not host or urlsplit(url).username is not None:
        return False
    return scheme == "https" or (scheme == "http" and is_loopback(url))


def resolve_redirect(url: str, location: str, server: str) -> str:
    """The address that a redirect of `url` leads to. Raises `PullFailed` if it is not allowed.

    A redirect may lead to https, or to the same origin if the user gave an http address. Only this
    machine may redirect to this machine: other servers must not reach the ones that run here.
    """
    target = urljoin(url, location)
    leads_inward = is_loopback(target) and not is_loopback(url)
    if leads_inward or not (is_safe_url(target) or origin_of(target) == origin_of(url)):
        raise PullFailed(
            f"{server} redirects to {hide_passwords(target)[:80]!r}, which is not safe",
            "Nothing was downloaded from there. Check the address, or choose another source",
        )
    return target


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of `url`, empty if it is invalid. A token is for one origin only."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", "", None
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port or default
