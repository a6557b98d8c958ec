"""Splits a user and password from the address of a server, as users write them.

Every module that reads such an address begins here, so that none shows a part of a password: some
characters of passwords end the host in a URL. Sending them is left to `servers`.
"""

import re
from urllib.parse import unquote

_START = re.compile(r"\A(?:[\s\"']*[a-z][a-z0-9+.-]*://)?[\s\"']*", re.IGNORECASE)
_USER = re.compile(r"(?!\[)[^/?#:]*:")
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[]*)(?::\d+)?[\s\"']*")
_HOST_AND_PORT = re.compile(r"(?:\[[^\]/?#]*\]|[^\s\[\]:/?#]+):\d+(?![^\s\"'/?#])")


def split_login(address: str) -> tuple[str, str]:
    """`http://me:secret@box` as `http://box` and `me:secret`, which is "" if there is none.

    A password may have `/`, `?` and `#`, which a valid URL encodes. An `@` behind them ends it if
    what is before them is not a host, or if a host with a port follows: `http://box:1/me@home` is
    the URL of a box.
    """
    rest = _START.sub("", address)
    start = address.removesuffix(rest)
    login, at, host = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")
    raw_login, raw_at, raw_rest = rest.rpartition("@")
    is_raw = not _HOST.fullmatch(host) or _HOST_AND_PORT.match(raw_rest)
    if raw_at and is_raw and _USER.match(raw_login):
        login, rest = raw_login, raw_rest
    elif at:
        rest = rest[len(login) + 1 :]
    return start + rest, unquote(login)
