"""What an engine and its users tell each other through files in `localrun/engine/`.

    <id>.lock     held by the engine's host for life: whoever can take it knows that it is dead
    <id>.json     what runs and how to reach it, until the host has decided to end
    <id>.lease    until when it may idle: written by the users, read by the host
    <id>.seat<n>  held by whoever has a request in llama.cpp's slot `n`: see `seats`
    <id>.log      what llama.cpp wrote, bounded

An id begins with the host's process id, so that an engine can be ended even if its state cannot be
read. Imports nothing but the standard library: the engine's host uses it too.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from llm_localrun.engine_defaults import CACHE_TYPES, LEAST_CONTEXT, MOST_THREADS, UNQUANTIZED
from llm_localrun.system.locks import clear_away, hold

FOR_EVER = float("inf")
NGRAM = "ngram"
"""The draft model that is none: llama.cpp guesses ahead from what has been said."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How an engine is set up when it starts; None leaves it to llama.cpp.

    `projector`, `lora` and `draft_model` are paths of GGUF files, "" for none; `draft_model` may be
    `NGRAM`. `chat_template` is Jinja, "" for the one in the model's file. `rpc` is where RPC
    servers of llama.cpp's listen, with commas between.
    """

    context_size: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    kv_cache_type: str | None = None
    flash_attention: bool | None = None
    embedding: bool = False
    projector: str = ""
    lora: str = ""
    draft_model: str = ""
    chat_template: str = ""
    rpc: str = ""

    def files(self) -> list[str]:
        """The files that it loads beside the model."""
        paths = (self.projector, self.lora, self.draft_model)
        return [path for path in paths if path not in ("", NGRAM)]

    def meets(self, wanted: "EngineSettings") -> bool:
        """Whether who wants `wanted`, None standing for anything, can use these.

        A larger context than is wanted will do.
        """
        return all(
            asked is None or (given >= asked if name == "context_size" else given == asked)
            for name, given, asked in self._pairs(wanted)
        )

    def _pairs(self, other: "EngineSettings") -> Iterator[tuple[str, Any, Any]]:
        for field in fields(self):
            yield field.name, getattr(self, field.name), getattr(other, field.name)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine runs."""

    path: str
    name: str
    """What it calls itself in its replies."""
    file_size: int
    file_modified: float
    settings: EngineSettings
    """With a context size: that is settled before an engine starts."""

    @property
    def context_size(self) -> int:
        """Tokens that all conversations may fill together."""
        assert self.settings.context_size is not None
        return self.settings.context_size


@dataclass(frozen=True, slots=True)
class EngineState:
    """An engine that is up, or about to be: then it has no `url` yet."""

    id: str
    spec: EngineSpec
    key: str
    build: str
    """Which llama.cpp runs it."""
    started_at: float
    url: str = ""
    server_pid: int = 0
    """The process that holds the model: the host's own, or llama-server's."""
    load_seconds: float = 0.0

    @property
    def pid(self) -> int:
        """The host's process."""
        return pid_of(self.id)


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of the engine `id` in `folder`."""

    folder: Path
    id: str

    @property
    def lock(self) -> Path:
        return self.folder / f"{self.id}.lock"

    @property
    def state(self) -> Path:
        return self.folder / f"{self.id}.json"

    @property
    def lease(self) -> Path:
        return self.folder / f"{self.id}.lease"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.id}.log"

    def seat(self, number: int) -> Path:
        return self.folder / f"{self.id}.seat{number}"

    @property
    def prompts(self) -> Path:
        """Where conversations outlive the engines: see `prompts`."""
        return self.folder.parent / "prompts"

    def remove(self) -> None:
        """Removes all that the engine has left, half a conversation included; the lock last."""
        left = {*self.folder.glob(f"{self.id}.*"), *self.prompts.glob(f"{self.id}.*")} - {self.lock}
        for path in (*left, self.lock):
            with contextlib.suppress(OSError):
                path.unlink()


@dataclass(frozen=True, slots=True)
class Order:
    """What a host is told to do."""

    folder: str
    spec: EngineSpec
    key: str
    build: str
    llama_server: str
    """The program to run; "" for xllamacpp in the host's own process."""
    xllamacpp: str
    """Where xllamacpp lies."""
    has_gpu: bool
    load_seconds: float
    """How long loading may take."""
    keep_alive: float
    prompt_bytes: int
    """What may be on disk of evaluated prompts; 0: nothing is written."""

    def prompt_folder(self, paths: Paths) -> str:
        """Where llama.cpp may save slots, as it wants it; "" for nowhere."""
        return f"{paths.prompts}{os.sep}" if self.prompt_bytes else ""


def new_id(pid: int) -> str:
    """An id for the engine whose host is the process `pid`."""
    return f"{pid}-{os.urandom(4).hex()}"


def pid_of(id_: str) -> int:
    """The process that hosts the engine of this id."""
    return int(id_.partition("-")[0])


def open_private(path: str, flags: int) -> int:
    """An `opener` for files that nobody but their owner may read."""
    return os.open(path, flags, 0o600)


def write_state(folder: Path, state: EngineState) -> None:
    """Puts `state` where the engine's users look for it. Raises OSError."""
    _write(Paths(folder, state.id).state, json.dumps(asdict(state)))


def spec_from(values: dict[str, Any]) -> EngineSpec:
    """The spec that `asdict` made `values` of. Raises TypeError and KeyError."""
    return EngineSpec(**{**values, "settings": EngineSettings(**values["settings"])})


def read_order(line: str) -> Order:
    """The order that is `line`, as JSON."""
    values = json.loads(line)
    return Order(**{**values, "spec": spec_from(values["spec"])})


def read_state(path: Path) -> EngineState | None:
    """The state in `path`; None if it is not there, damaged or another version's."""
    try:
        values = json.loads(path.read_bytes())
        return EngineState(**{**values, "spec": spec_from(values["spec"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def alive(folder: Path) -> list[Paths]:
    """The engines whose hosts live. Clears away what the dead have left."""
    for path in folder.glob("*.starting"):
        clear_away(path)
    live = []
    for lock in sorted(folder.glob("*.lock")):
        paths = Paths(folder, lock.stem)
        if held := hold(lock):
            with held:
                paths.remove()
        elif lock.exists():
            live.append(paths)
    return live


def known(folder: Path) -> list[EngineState]:
    """The engines that are up or about to be."""
    return [state for paths in alive(folder) if (state := read_state(paths.state))]


def running(folder: Path) -> list[EngineState]:
    """The engines that are up."""
    return [state for state in known(folder) if state.url]


def grant(paths: Paths, seconds: float) -> None:
    """Lets the engine idle for `seconds` from now; negative: for ever. Raises OSError."""
    until = FOR_EVER if seconds < 0 else time.time() + seconds
    _write(paths.lease, json.dumps(until))


def lease_end(paths: Paths) -> float | None:
    """Until when, by the clock, the engine may idle; None if no lease can be read."""
    try:
        return float(json.loads(paths.lease.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, text: str) -> None:
    """Puts `text` in `path`, whole or not at all. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with open(temporary, "wb", opener=open_private) as file:
            file.write(text.encode())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def problem_with(settings: EngineSettings) -> str:
    """Why llama.cpp would crash, or refuse, if it got `settings`; "" if it takes them."""
    if settings.context_size is not None and settings.context_size < LEAST_CONTEXT:
        return f"a context of {settings.context_size} tokens is too small"
    if settings.threads is not None and not 1 <= settings.threads <= MOST_THREADS:
        return f"it takes 1 to {MOST_THREADS} threads, not {settings.threads}"
    if settings.kv_cache_type not in (None, *CACHE_TYPES):
        return f"it knows no KV cache of type {settings.kv_cache_type}"
    if settings.kv_cache_type not in (None, *UNQUANTIZED) and settings.flash_attention is False:
        return f"a KV cache of type {settings.kv_cache_type} needs flash_attention"
    return ""
