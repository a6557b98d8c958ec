"""What runs on this machine and what does not.

Pure: judges addresses and what servers say of their models. Refusing is `backends`'s business.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from llm_localrun.catalogue import RunsOn

WHERE: Mapping[RunsOn, str] = {
    "this machine": "on this machine",
    "another machine": "on another machine",
    "cloud": "in a cloud",
    "unknown": "nobody knows where",
}
"""How that is said of a model that runs there."""

_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is this machine, told without asking a name server."""
    host = _host(url)
    if host in _LOCAL_NAMES or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def needs_leave(runs_on: RunsOn) -> bool:
    """Whether a model that runs there is refused until the user has allowed it by its id."""
    return runs_on in ("cloud", "unknown")


def where_runs(url: str) -> RunsOn:
    """Where a model runs that the server at `url` offers, if it does not hand prompts on."""
    if _host(url) == "ollama.com":
        return "cloud"
    return "this machine" if is_loopback(url) else "another machine"


def where_ollama_runs(url: str, name: str, remote_host: str) -> RunsOn:
    """Where a model of Ollama's runs.

    Ollama hands a prompt on for every model that has a `remote_host`, under whatever name, and for
    every name whose tag says cloud, whether it has been pulled or not.
    """
    if remote_host or name.lower().endswith((":cloud", "-cloud")):
        return "cloud"
    return where_runs(url)
