"""What the user has settled, on disk: `config.json` in llm's user directory under `localrun/`.

A missing file means the defaults. A file that cannot be used is an error, and is left alone.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from llm_localrun.engine_defaults import MAX_THREADS
from llm_localrun.errors import ConfigError
from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.locks import exclusive
from llm_localrun.system.paths import home

_LOCK_PATIENCE = 10.0
"""Seconds to wait for another command that is changing the file."""
_MEND = "Mend the file, or delete it to go back to the defaults"


def _part_of_an_id(name: str) -> str:
    """A name as it can stand in the ids of models."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError("it is made of a-z, 0-9, - and _, and begins with one of the first two")
    return name


def server_root(url: str) -> str:
    """A URL as the user may paste it, `http://box:8000/v1/` say, to the root of the server.

    Raises ValueError.
    """
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise ValueError("only http:// and https:// are spoken")
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("it names no host")
    # Reading a port that is no number raises ValueError.
    port = f":{parts.port}" if parts.port else ""
    # What a server listens on, and prints, is reached at this machine's own address.
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname)
    if reachable is not None:
        url = parts._replace(netloc=f"{reachable}{port}").geturl()
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


_BYTES = re.compile(r"(?P<number>\d+(\.\d+)?) *(?P<unit>[KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T"))}


def _bytes(value: object) -> object:
    """`12GB`, `500 MB` or a number of bytes to bytes; other types as they are."""
    if not isinstance(value, str):
        return value
    if (size := _BYTES.fullmatch(value.strip())) is None:
        raise ValueError("give bytes, or a size such as 500MB or 12GB")
    return int(float(size["number"]) * _UNITS[size["unit"].upper()])


Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]


class ConfiguredEndpoint(BaseModel):
    """A server that the user has named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_part_of_an_id)]
    url: Annotated[str, AfterValidator(server_root)]
    key: str | None = None
    """The name of its key in `llm keys`."""
    dialect: str | None = None
    """The kind of server that it is to be spoken to as; None: what its answers say it is."""


RpcServer = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$")]


class Config(BaseModel):
    """The whole of config.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoints: tuple[ConfiguredEndpoint, ...] = ()
    folders: tuple[str, ...] = ()
    """More folders that hold GGUF files."""
    default_endpoints: bool = True
    """Whether to look for servers on their usual ports."""
    allow: tuple[str, ...] = ()
    """Ids of models that may run elsewhere than on this machine."""
    quantization: str = "Q4_K_M"
    """The preferred one, where a name fits several."""
    threads: int | None = Field(default=None, ge=1, le=MAX_THREADS)
    """Threads of the engine; llama.cpp's own choice by default."""
    keep_alive: float = 300.0
    """Seconds for which the engine keeps an unused model; negative: for ever."""
    llama_server: str | None = None
    """The llama-server that runs GGUF files; "": none, xllamacpp does. By default one on PATH does
    if it has a GPU and xllamacpp has none."""
    engine_memory: Bytes | None = None
    """What all engines may take of the memory together; three quarters by default."""
    prompt_cache: Bytes = 2 * 2**30
    """What may be kept on disk of evaluated conversations; 0: nothing."""
    rpc: tuple[RpcServer, ...] = ()
    """llama.cpp's RPC servers, over which models are spread; what they compute leaves this
    machine."""


def config_path() -> Path:
    return home() / "config.json"


def read_config() -> Config:
    """The user's configuration. Raises `ConfigError` if the file cannot be used."""
    text = _read()
    return Config() if text is None else _validated(text, _MEND)


def update_config(change: Callable[[dict[str, Any]], None]) -> Config:
    """Changes what the file holds, and returns that; commands at once do so one after the other.

    `change` is given the file's JSON and may alter it. Raises `ConfigError`, and leaves the file
    alone, if it is not usable before or after.
    """
    path = config_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path.with_suffix(".lock"), _LOCK_PATIENCE):
            text = _read()
            text = b"{}" if text is None else text
            _validated(text, _MEND)
            settings = json.loads(text)
            change(settings)
            text = json.dumps(settings, indent=2, ensure_ascii=False).encode() + b"\n"
            config = _validated(text, "It was left as it was")
            # Where the file is a link, it stays one.
            write_atomically(Path(os.path.realpath(path)), text)
    except TimeoutError:
        raise ConfigError(
            f"Another command has been changing {path} for too long", "Try again"
        ) from None
    except OSError as error:
        raise ConfigError.from_os_error("written", path, error) from None
    return config


def problem_of(error: ValidationError) -> str:
    """What is wrong with a user's settings, in half a sentence: where it is, and what."""
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"{where or 'the file'}: {first['msg'].removeprefix('Value error, ')}"


def _read() -> bytes | None:
    path = config_path()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError.from_os_error("read", path, error) from None


def _validated(text: bytes, remedy: str) -> Config:
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{config_path()} is not usable: {problem_of(error)}", remedy) from None
