"""What the user has settled, on disk: `config.json` in llm's user directory under `localrun/`.

A missing file means the defaults. This module reads; the commands write.
"""

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import llm
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from llm_localrun.engine.parameters import MOST_THREADS
from llm_localrun.errors import ConfigError


def _server_root(url: str) -> str:
    """A URL as the user may paste it, `http://box:8000/v1/` say, to the root of the server."""
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise ValueError("only http:// and https:// are spoken")
    parts = urlsplit(url)
    # What a server listens on, and prints, is reached at this machine's own address.
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")
    if reachable is not None:
        port = f":{parts.port}" if parts.port else ""
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

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    url: Annotated[str, AfterValidator(_server_root)]
    key: str | None = None
    """The name of its key in `llm keys`."""


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
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
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


def home() -> Path:
    """Where everything of llm-localrun lives."""
    return Path(llm.user_dir()) / "localrun"  # type: ignore[no-untyped-call]


def engine_folder() -> Path:
    """Where the engines and their users keep the files that tell each other how things stand."""
    return home() / "engine"


def read_config() -> Config:
    """The user's configuration. Raises `ConfigError` if the file cannot be used."""
    path = home() / "config.json"
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", "Mend its permissions"
        ) from None
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ConfigError(
            f"{path} is not usable: {where or 'the file'}: {first['msg']}",
            "Mend the file, or delete it to go back to the defaults",
        ) from None
