"""What an engine and its users tell each other through files in `localrun/engine/`.

    <id>.json    what runs and how to reach it; its host holds the lock on it for life
    <id>.lease   until when it may idle: written by the users, read by the host
    <id>.log     what llama.cpp wrote, bounded

Imports nothing but the standard library: the engine's host uses it too.
"""

import json
import os
import threading
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from llm_localrun.engine.locks import is_locked

FOR_EVER = float("inf")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How an engine is set up when it starts; None leaves it to llama.cpp.

    `projector`, `lora` and `draft_model` are paths of GGUF files, "" for none; `chat_template` is
    Jinja, "" for the one in the model's file.
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

    def files(self) -> list[str]:
        """The files that it loads beside the model."""
        return [path for path in (self.projector, self.lora, self.draft_model) if path]

    def meets(self, wanted: "EngineSettings") -> bool:
        """Whether who wants `wanted`, None standing for anything, can use these."""
        pairs = ((getattr(self, f.name), getattr(wanted, f.name)) for f in fields(self))
        return all(asked is None or asked == given for given, asked in pairs)


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
    """An engine that is up."""

    id: str
    spec: EngineSpec
    pid: int
    url: str
    key: str
    build: str
    started_at: float
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Lease:
    """How long an idle engine may stay: `keep_alive` seconds after each use, at least `until`."""

    keep_alive: float
    until: float


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of the engine `id` in `folder`."""

    folder: Path
    id: str

    @property
    def state(self) -> Path:
        return self.folder / f"{self.id}.json"

    @property
    def lease(self) -> Path:
        return self.folder / f"{self.id}.lease"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.id}.log"

    def remove(self) -> None:
        for path in (self.state, self.lease, self.log):
            path.unlink(missing_ok=True)


def open_private(path: str, flags: int) -> int:
    """An `opener` for files that nobody but their owner may read."""
    return os.open(path, flags, 0o600)


def dump_state(state: EngineState) -> bytes:
    return json.dumps(asdict(state)).encode()


def spec_from(values: dict[str, Any]) -> EngineSpec:
    """The spec that `asdict` made `values` of. Raises TypeError and KeyError."""
    return EngineSpec(**{**values, "settings": EngineSettings(**values["settings"])})


def read_state(path: Path) -> EngineState | None:
    """The state in `path`; None if it is not there, half written or another version's."""
    try:
        values = json.loads(path.read_bytes())
        return EngineState(**{**values, "spec": spec_from(values["spec"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def running(folder: Path) -> list[EngineState]:
    """The engines that are up. Clears away what dead ones have left."""
    up = []
    for path in sorted(folder.glob("*.json")):
        if not is_locked(path):
            Paths(folder, path.stem).remove()
        elif state := read_state(path):
            up.append(state)
    return up


def grant(paths: Paths, keep_alive: float, at_least: float = 0.0) -> None:
    """Lets the engine idle for `keep_alive` seconds from now, and for `at_least` in any case.

    A negative `keep_alive` means for ever. Raises OSError.
    """
    keep_alive = FOR_EVER if keep_alive < 0 else keep_alive
    lease = Lease(keep_alive, time.time() + max(keep_alive, at_least))
    temporary = paths.lease.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    with open(temporary, "wb", opener=open_private) as file:
        file.write(json.dumps(asdict(lease)).encode())
    temporary.replace(paths.lease)


def read_lease(paths: Paths) -> Lease | None:
    """The lease last granted; None if there is none to be read."""
    try:
        values = json.loads(paths.lease.read_bytes())
        return Lease(**{field.name: float(values[field.name]) for field in fields(Lease)})
    except (OSError, ValueError, TypeError, KeyError):
        return None
