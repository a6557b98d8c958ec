"""Splits a user and password from the address of a server, as users write them, and hides them.

Every module that reads such an address begins here, so that none shows a part of a password: some
characters of passwords end the host in a URL. Sending them is left to `servers`.
"""

import re
from urllib.parse import quote, unquote

_START = re.compile(r"\A(?:[\s\"']*[a-z][a-z0-9+.-]*://)?[\s\"']*", re.IGNORECASE)
_AROUND = " \t\r\n\"'"
_USER = re.compile(r"(?!\[)[^/?#:]*:")
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[]*)(?::\d+)?")
_ADDRESS_IN_TEXT = re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://[^\s`]+", re.IGNORECASE)
_SECRET_IN_QUERY = re.compile(
    r"([?&;][^=&?;\s]*(?:key|token|secret|password|signature|\bsig)=)[^&#\s\"'`)]+", re.IGNORECASE
)
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
    is_raw = not _HOST.fullmatch(host.rstrip(_AROUND)) or _HOST_AND_PORT.match(raw_rest)
    if raw_at and is_raw and _USER.match(raw_login):
        login, rest = raw_login, raw_rest
    elif at:
        rest = rest[len(login) + 1 :]
    return start + rest, unquote(login)


def shown_login(login: str) -> str:
    """What an address shows of a login: `me:…@` for `me:secret`; `…@` for a token, "" for "".

    A user is encoded as in a URL.
    """
    user, colon, _ = login.partition(":")
    return f"{quote(user, safe='') if colon else ''}{colon}…@" if login else ""


def add_login(url: str, shown: str) -> str:
    """`url` with what `shown_login` shows: `http://me:…@box`."""
    return url.replace("://", f"://{shown}", 1)


def shown_address(address: str) -> str:
    """An address as messages show it, whatever characters its password has."""
    rest, login = split_login(address)
    return add_login(rest, shown_login(login))


def hide_passwords(text: str) -> str:
    """`text` with the addresses in it as messages show them, without passwords and keys."""
    if "://" in text:
        text = _ADDRESS_IN_TEXT.sub(lambda address: shown_address(address[0]), text)
    return _SECRET_IN_QUERY.sub(r"\1…", text)
