"""Where on this machine servers are looked for: usual ports, variables, the servers' own settings.

What is at another machine is in here only if a variable of the user's says so.
"""

import os
import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from llm_localrun.config import server_root
from llm_localrun.privacy import host_of, is_loopback
from llm_localrun.servers.kinds import KINDS
from llm_localrun.servers.lmstudio_home import server_port
from llm_localrun.servers.msty import setting_at
from llm_localrun.system.json_files import setting
from llm_localrun.system.paths import user_home

_OLLAMA_PORT = "11434"
# LM Studio's own processes talk to each other there; it is no server of models.
_NOT_SERVERS = frozenset({41343, 52993, 16141, 39414, 22931})


def usual_addresses() -> list[tuple[str, str]]:
    """Every address to ask, with the kind of server that usually has it; the surest first."""
    found: dict[str, tuple[str, str]] = {}
    for kind, url in _all():
        found.setdefault(same_address(url), (kind, url))
    return [*found.values()]


def same_address(url: str) -> str:
    """The one of several spellings of a URL by which it is told from others."""
    return url.replace("://localhost", "://127.0.0.1")


def _all() -> Iterator[tuple[str, str]]:
    yield "ollama", ollama_url(os.environ.get("OLLAMA_HOST", ""))
    for kind, variable in (("lmstudio", "LMSTUDIO_API_BASE"), ("unsloth", "UNSLOTH_STUDIO_URL")):
        for text in os.environ.get(variable, "").split(","):
            yield from ((kind, url) for url in _url(text))
    for kind, port in _settled_ports():
        yield from _at_port(kind, port)
    for each in KINDS:
        # Ollama's first is settled by its variable.
        for port in each.ports[1:] if each.name == "ollama" else each.ports:
            yield from _at_port(each.name, port)


def _url(text: str) -> Iterator[str]:
    """What the user has put into a variable, as a URL if it can be one."""
    try:
        url = server_root(text.strip())
    except ValueError:
        return
    if host_of(url):
        yield url


def _at_port(kind: str, port: Any) -> Iterator[tuple[str, str]]:
    is_port = isinstance(port, int) and not isinstance(port, bool) and 0 < port < 2**16
    if is_port and port not in _NOT_SERVERS:
        yield kind, f"http://127.0.0.1:{port}"


def _settled_ports() -> Iterator[tuple[str, Any]]:
    """What is in the servers' own settings, which are no proof that they run."""
    yield "lmstudio", server_port(user_home())
    yield "omlx", setting(user_home() / ".omlx" / "settings.json", "server", "port")
    for kind, service in (("ollama", "localAIService"), ("mlx", "mlxService")):
        yield kind, _port_in(setting_at(service, "host"))


def _port_in(host: Any) -> int | None:
    """The port of a service on this machine, which is given as `HOST:PORT` or as a URL."""
    match = (
        re.fullmatch(r"(?:http://)?([^/]+:(\d{1,5}))/?", host) if isinstance(host, str) else None
    )
    return int(match[2]) if match and is_loopback(f"http://{match[1]}") else None


def ollama_url(host: str) -> str:
    """OLLAMA_HOST to a URL, as Ollama's `envconfig.Host` does, for a client (0.32).

    An address that a server listens on, 0.0.0.0 say, is reached at the loopback one.
    """
    host = host.strip().strip("\"'").strip()
    if host == "ollama.com":
        return "https://ollama.com:443"
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest, usual_port = "http", host, _OLLAMA_PORT
    else:
        usual_port = {"http": "80", "https": "443"}.get(scheme, _OLLAMA_PORT)
    authority, slash, path = rest.partition("/")
    name, port = _split(authority)
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    name = f"[{name}]" if ":" in name else name
    if not (port.isdecimal() and port.isascii() and int(port) < 2**16):
        port = usual_port
    return f"{scheme}://{name}:{port}{slash}{path}".rstrip("/")


def _split(authority: str) -> tuple[str, str]:
    """Host and port, as Go's `net.SplitHostPort` has them; "" for what is not there."""
    try:
        return str(ip_address(authority.strip("[]"))), ""
    except ValueError:
        host, colon, port = authority.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return (host, port) if colon and ":" not in host else (authority, "")
