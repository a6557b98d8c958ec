"""Msty: an app that runs Ollama, llama-server and mlx_lm on ports of its own.

It is not a kind of server itself: what answers there is recognized as what it is. The ports are
those of Msty 1 (10000) and Msty Studio.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_localrun.privacy import is_loopback
from llm_localrun.system.json_files import setting
from llm_localrun.system.paths import user_home


def settings_path() -> Path:
    """Msty Studio's settings: of its folders and of its services."""
    if sys.platform == "darwin":
        folder = user_home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        folder = Path(os.environ.get("APPDATA") or user_home() / "AppData" / "Roaming")
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or user_home() / ".config")
    return folder / "MstyStudio" / "Gifnoc.nosj"


def setting_at(*keys: str) -> Any:
    """The value under `keys`, one inside the other, in Msty Studio's settings; None if none."""
    return setting(settings_path(), *keys)


def ollama_addresses() -> Iterator[str]:
    """Where Msty's Ollama may be."""
    yield from _addresses("localAIService", 10000, 11964)


def mlx_addresses() -> Iterator[str]:
    """Where Msty's mlx_lm.server may be."""
    yield from _addresses("mlxService", 11973)


LLAMA_SERVER_PORT = 11454
PORT_OWNERS = {10000: "Msty 1", **dict.fromkeys((11964, LLAMA_SERVER_PORT, 11973), "Msty Studio")}
"""Which of its versions uses which port."""


def _addresses(service: str, *usual_ports: int) -> Iterator[str]:
    """The address in the settings, even if the service does not run, then the usual ones."""
    host = setting_at(service, "host")
    match = (
        re.fullmatch(r"(?:http://)?([^/]+:(\d{1,5}))/?", host) if isinstance(host, str) else None
    )
    if match and is_loopback(f"http://{match[1]}"):
        yield f"http://127.0.0.1:{match[2]}"
    yield from (f"http://127.0.0.1:{port}" for port in usual_ports)
