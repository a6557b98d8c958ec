"""Reads, checks and changes the user's settings: `localrun/config.json` in llm's user directory.

A missing file means the defaults. A file that is not valid is an error and is not changed. What a
setting does is left to the modules that read it: `engine.settings`, `servers.discover`, `resolve`
and others.
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
    model_validator,
)

from llm_localrun.engine_defaults import MAX_THREADS
from llm_localrun.errors import ConfigError
from llm_localrun.names.quantizations import quality_distance, quantization_in, without_quantization
from llm_localrun.system.atomic import check_folder, read_own, write_atomically
from llm_localrun.system.locks import exclusive
from llm_localrun.system.logins import add_login, hide_passwords, shown_login, split_login
from llm_localrun.system.paths import home
from llm_localrun.system.text import printable_json

_LOCK_TIMEOUT_S = 10.0
"""How long to wait for another command that is changing the file."""
_FIX_FILE = "Fix the file, or delete it to return to the defaults"


def _check_endpoint_name(name: str) -> str:
    """Checks that `name` can be a part of model ids. Raises ValueError."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError("use a-z, 0-9, - and _ only, and begin with a letter or a digit")
    return name


def server_root(url: str) -> str:
    """The root of a server from a URL as the user may paste it: `http://box:8000/v1/`, `box:8000`.

    A user and password are left out: they are no part of an address. Raises ValueError.
    """
    url, _ = split_login(url)
    if not url.isprintable():
        raise ValueError("the URL has characters that no URL has")
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise ValueError("only http:// and https:// are supported")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the URL has no valid host") from None
    if not parts.hostname:
        raise ValueError("the URL has no host")
    if parts.query or parts.fragment:
        raise ValueError("leave out what follows ? or #; `llm keys set` stores a key")
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise ValueError("its port is not a number up to 65535") from None
    # A server prints the address that it listens on. Clients reach it at the loopback address.
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")
    if reachable is not None:
        url = parts._replace(netloc=f"{reachable}{port}").geturl()
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


_BYTES = re.compile(r"(?P<number>\d+(\.\d+)?) *(?P<unit>[KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T"))}


def _parse_bytes(value: object) -> object:
    """Converts `12GB` or `500 MB` to bytes, and returns other types unchanged."""
    if not isinstance(value, str):
        return value
    if (size := _BYTES.fullmatch(value.strip())) is None:
        raise ValueError("give bytes, or a size such as 500MB or 12GB")
    return int(float(size["number"]) * _UNITS[size["unit"].upper()])


Bytes = Annotated[int, BeforeValidator(_parse_bytes), Field(ge=0)]

_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _parse_seconds(value: object) -> object:
    """Converts `10m`, `1h30m`, `45s` or `90` to seconds, and returns other types unchanged."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    parts = list(_DURATION.finditer(text))
    if parts and "".join(part.group() for part in parts) == text:
        return sum(float(part["number"]) * _SECONDS[part["unit"]] for part in parts)
    try:
        return float(text)
    except ValueError:
        raise ValueError("give seconds, or a duration such as 45s, 10m or 1h30m") from None


Duration = Annotated[float, BeforeValidator(_parse_seconds)]
"""Seconds, given as a number or as a text such as 10m."""


def _spell_quantization(text: str) -> str:
    """The quantization `text` in its usual spelling: q4_k_m is Q4_K_M. Raises ValueError."""
    name = quantization_in(text.strip())
    # A quantization that is not ranked has no distance to any, not even to itself.
    if without_quantization(text.strip()) or quality_distance(name, name):
        raise ValueError(f"{text!r} is not a quantization; examples are Q4_K_M, Q8_0 and 4bit")
    return name


class ConfiguredEndpoint(BaseModel):
    """A server that the user has added."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_check_endpoint_name)]
    url: Annotated[str, AfterValidator(server_root)]
    key: str | None = None
    """The name of its key in `llm keys`; None: localrun-NAME."""
    dialect: str | None = None
    """The kind of server, such as vllm; None: recognized by its answers."""
    login: str | None = Field(default=None, repr=False)
    """The user and password that it wants, `me:secret`, which may stand in `url` too."""

    @model_validator(mode="before")
    @classmethod
    def _split_url(cls, data: Any) -> Any:
        url = data.get("url") if isinstance(data, dict) else None
        login = split_login(url)[1] if isinstance(url, str) else ""
        return {**data, "login": login} if login else data

    @property
    def address(self) -> str:
        """`url` as messages show it: `http://me:…@box`."""
        return add_login(self.url, shown_login(self.login or ""))


_PORT = r"([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
RpcServer = Annotated[str, Field(pattern=rf"^[A-Za-z0-9.-]+:{_PORT}$")]


class Config(BaseModel):
    """The contents of config.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    endpoints: tuple[ConfiguredEndpoint, ...] = ()
    folders: tuple[str, ...] = ()
    """Additional folders with GGUF files."""
    default_endpoints: bool = True
    """Whether to look for servers on their default ports."""
    allow: tuple[str, ...] = ()
    """Ids of models that may run outside this machine."""
    quantization: Annotated[str, AfterValidator(_spell_quantization)] = "Q4_K_M"
    """The preferred quantization, where a name means several models."""
    threads: int | None = Field(default=None, ge=1, le=MAX_THREADS)
    """Threads of the engine; None: llama.cpp chooses."""
    keep_alive: Duration = 300.0
    """Seconds for which the engine keeps an unused model in memory; negative: forever."""
    llama_server: str | None = None
    """The llama-server that runs GGUF files: its path, or the name of an installed build. "":
    xllamacpp runs them. None: the fastest build, as `engine.builds` says. `engine use` sets it."""
    engine_memory: Bytes | None = None
    """Memory that all engines together may use; None: three quarters of this machine's."""
    prompt_cache: Bytes = 2 * 2**30
    """Disk space for saved states of evaluated conversations; 0: save none."""
    rpc: tuple[RpcServer, ...] = ()
    """llama.cpp RPC servers, HOST:PORT, that share the work of the engine. The data that they
    compute leaves this machine."""


def config_path() -> Path:
    return home() / "config.json"


def read_config() -> Config:
    """The user's settings. Raises `ConfigError` if the file cannot be read or is not valid."""
    return _parse(_read(), _FIX_FILE)


def update_config(change: Callable[[dict[str, Any]], None]) -> Config:
    """Changes the file and returns the new settings. Concurrent commands take turns.

    `change` receives the file's JSON object and alters it. Raises `ConfigError`, and does not
    change the file, if it is not valid before or after.
    """
    path = config_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_folder(path.parent)
        with exclusive(path.with_suffix(".lock"), _LOCK_TIMEOUT_S):
            text = _read()
            _parse(text, _FIX_FILE)
            settings = json.loads(text)
            change(settings)
            text = printable_json(settings, indent=2).encode() + b"\n"
            config = _parse(text, "The file was not changed")
            # Write through a symbolic link instead of replacing it.
            write_atomically(Path(os.path.realpath(path)), text)
    except TimeoutError:
        raise ConfigError(
            f"Another command has been changing {path} for too long", "Try again"
        ) from None
    except OSError as error:
        raise ConfigError.from_os_error("written", path, error) from None
    return config


def problem_of(error: ValidationError) -> str:
    """The first problem in a user's settings: `endpoints.0.url: the URL has no host`."""
    first = error.errors()[0]
    key = ".".join(str(step) for step in first["loc"])
    return hide_passwords(f"{key or 'the file'}: {first['msg'].removeprefix('Value error, ')}")


def _read() -> bytes:
    """The text of the file; an empty JSON object if there is no file."""
    path = config_path()
    try:
        return read_own(path)
    except FileNotFoundError:
        return b"{}"
    except OSError as error:
        raise ConfigError.from_os_error("read", path, error) from None


def _parse(text: bytes, remedy: str) -> Config:
    """The settings in a JSON text. Raises `ConfigError` with `remedy` if they are not valid."""
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{config_path()} is not valid: {problem_of(error)}", remedy) from None
