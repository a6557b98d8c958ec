"""What OLLAMA_HOST and OLLAMA_HEADERS say, as Ollama's own clients and llm-ollama read them.

Where the variables apply is left to `ollama`.
"""

import re
from ipaddress import ip_address

from llm_localrun.system.logins import split_login

_PORT = "11434"


def url_from_variable(host: str) -> str:
    """OLLAMA_HOST to a URL, as Ollama's `envconfig.Host` does for a client (0.32).

    An address that a server listens on, such as 0.0.0.0, is reached at the loopback one. A user and
    password are left out.
    """
    host = re.split("[?#]", split_login(unquoted(host))[0], maxsplit=1)[0]
    if host == "ollama.com":
        return "https://ollama.com:443"
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest, usual_port = "http", host, _PORT
    else:
        usual_port = {"http": "80", "https": "443"}.get(scheme, _PORT)
    authority, slash, path = rest.partition("/")
    name, port = _split_host_port(authority)
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    name = f"[{name}]" if ":" in name else name
    if not (port.isdecimal() and port.isascii() and int(port) < 2**16):
        port = usual_port
    return f"{scheme}://{name}:{port}{slash}{path}".rstrip("/")


def unquoted(text: str) -> str:
    """A value as Ollama reads it."""
    return text.strip().strip("\"'").strip()


def _split_host_port(authority: str) -> tuple[str, str]:
    """Host and port, as Go's `net.SplitHostPort` has them; "" for what is absent."""
    try:
        return str(ip_address(authority.strip("[]"))), ""
    except ValueError:
        host, colon, port = authority.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return (host, port) if colon and ":" not in host else (authority, "")


def headers_from_variable(text: str) -> dict[str, str]:
    """The headers in `Name=value,Name=value`, with their names in lower case."""
    return dict(filter(None, map(_header, text.split(","))))


def _header(assignment: str) -> tuple[str, str] | None:
    """Name and value in `Name=value`; None if HTTP cannot carry them."""
    name, _, value = map(str.strip, assignment.partition("="))
    is_usable = re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII) and value.isascii()
    return (name.lower(), value) if is_usable and value.isprintable() and value else None
