"""What may come from the network: names that stay in their folder, addresses that stay safe.

Pure. A name is refused on every system if one system would take it for something else than a file.
"""

import re
from urllib.parse import urljoin, urlsplit

from llm_localrun.errors import PullFailed
from llm_localrun.privacy import is_loopback

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: with any ending, too.
_DEVICE = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³])(?:\..*)?", re.I)
_NOT_IN_NAMES = frozenset('<>:"/\\|?*')
_MAX_NAME = 200
"""Bytes; file systems take 255, and endings are added while a file is on its way."""


def is_plain(path: str) -> bool:
    """Whether `path`, with slashes, names a file below where it is taken, on every system."""
    return all(map(_is_plain_name, path.split("/")))


def parts_of(path: str) -> tuple[str, ...]:
    """The folders and the file that `path` names. Raises `PullFailed` unless it is plain."""
    if not is_plain(path):
        raise PullFailed(
            f"{_shown(path)} is no name for a file on this machine",
            "Nothing was written: choose another file",
        )
    return tuple(path.split("/"))


def _is_plain_name(name: str) -> bool:
    return (
        bool(name)
        and name.isprintable()
        and not _NOT_IN_NAMES & set(name)
        and not name.startswith((".", "~", " "))
        and not name.endswith((".", " "))
        and not _DEVICE.fullmatch(name)
        and len(name.encode()) <= _MAX_NAME
    )


def _shown(path: str) -> str:
    return repr(path if len(path) <= 80 else f"{path[:80]}…")


def is_safe_url(url: str) -> bool:
    """Whether what comes from `url` cannot be changed on its way: https, or this machine.

    An address that carries a password is not: addresses are shown and kept.
    """
    try:
        parts = urlsplit(url)
        has_host, _ = bool(parts.hostname) and parts.username is None, parts.port
    except ValueError:
        return False
    return has_host and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)))


def redirected(url: str, location: str, server: str) -> str:
    """Where a redirect of `url` leads. Raises `PullFailed` if it must not be followed.

    To https, or further on the same server if the user has given it as http. Nothing but this
    machine may redirect to this machine: that would reach servers that trust it.
    """
    target = urljoin(url, location)
    is_inward = is_loopback(target) and not is_loopback(url)
    if is_inward or not (is_safe_url(target) or origin(target) == origin(url)):
        raise PullFailed(
            f"{server} redirects to {_shown(target)}, which is not safe",
            "Nothing was fetched from there. Check the address, or choose another source",
        )
    return target


def origin(url: str) -> tuple[str, str, int | None]:
    """Who answers at `url`: a token is for one origin, and for no other."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", "", None
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port or default
