"""The files by which an engine's host and the commands that use the engine communicate.

They lie in `localrun/engine/`:

    <id>.lock     locked by the host as long as it lives
    <id>.json     `EngineState` as JSON; the host removes it when it begins to end
    <id>.lease    until when the engine may idle: written by commands, read by the host
    <id>.slot<n>  locked by the command whose request is in llama.cpp's slot `n`: see `slots`
    <id>.ending   locked by a command that unloads the engine when its answers are finished
    <id>.log      the output of llama.cpp, limited in size

An id is `<process id of the host>-<8 hex digits>`, so an engine can be ended even if its state
cannot be read. Starting an engine is left to `launch`, ending it to `stop`.

Imports only the standard library: the engine's host process uses this module.
"""

import contextlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llm_localrun.engine_defaults import (
    CACHE_TYPES,
    MAX_THREADS,
    MIN_CONTEXT_SIZE,
    UNQUANTIZED_CACHE_TYPES,
)
from llm_localrun.system.atomic import check_folder, is_own, read_own, write_atomically
from llm_localrun.system.locks import open_locked, remove_unless_locked

# fmt: off
BUILT_IN_TEMPLATES = frozenset({
    "bailing", "bailing-think", "bailing2", "chatglm3", "chatglm4", "chatml", "command-r",
    "deepseek", "deepseek-ocr", "deepseek2", "deepseek3", "exaone-moe", "exaone3", "exaone4",
    "falcon3", "gemma", "gigachat", "glmedge", "gpt-oss", "granite", "granite-4.0", "grok-2",
    "hunyuan-dense", "hunyuan-moe", "kimi-k2", "llama2", "llama2-sys", "llama2-sys-bos",
    "llama2-sys-strip", "llama3", "llama4", "megrez", "minicpm", "mistral-v1", "mistral-v3",
    "mistral-v3-tekken", "mistral-v7", "mistral-v7-tekken", "monarch", "openchat", "orion",
    "pangu-embedded", "phi3", "phi4", "rwkv-world", "seed_oss", "smolvlm", "solar-open", "vicuna",
    "vicuna-orca", "yandex", "zephyr",
})
# fmt: on
"""Chat templates by name in llama.cpp (b10434). Except for `chatml`, they need Jinja to be off."""
ENDED = "\nThe engine ended: "
"""Before the reason, in a log."""
BUILD_LINE = "llm-localrun runs "
"""Before the build, in the first line of a log."""
NGRAM, AUTO = "ngram", "auto"
"""What `draft_model` may be besides a file: llama.cpp guesses the next tokens from the text so far,
at length and also from what it has read for others, or only where a wrong guess costs little."""
REPEATED, GUESSED = 24, 24
"""With `AUTO`: the tokens that must repeat an earlier part of the conversation, and how many are
then guessed. With fewer guessed than repeated, llama.cpp guesses none (b11549)."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The settings with which an engine starts; None leaves a value to llama.cpp.

    `projector`, `lora` and `draft_model` are paths of GGUF files, "" for none; `draft_model` may be
    `NGRAM` or `AUTO`. `chat_template` is Jinja or a name of llama.cpp's, "" for the template in the
    model's file. `rpc` lists the addresses of llama.cpp's RPC servers: "box:50052,other:50052".
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

    @property
    def needs_jinja(self) -> bool:
        """Whether llama.cpp has to read the chat template as Jinja, not as a name of its own."""
        return self.chat_template not in BUILT_IN_TEMPLATES - {"chatml"}

    def files(self) -> list[str]:
        """The files that the engine loads besides the model."""
        paths = (self.projector, self.lora, self.draft_model)
        return [path for path in paths if path not in ("", NGRAM, AUTO)]

    def satisfies(self, requested: "EngineSettings") -> bool:
        """Whether an engine with these settings satisfies `requested`, where None means any value.

        A larger context than requested does.
        """
        wanted = {name: value for name, value in asdict(requested).items() if value is not None}
        size = wanted.pop("context_size", 0)
        given = asdict(self)
        return (given.pop("context_size") or 0) >= size and wanted.items() <= given.items()


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine runs. `name` is what it calls the model in its replies."""

    path: str
    name: str
    file_size: int
    """Bytes."""
    file_modified: float
    """Seconds since the epoch."""
    settings: EngineSettings
    """With a context size once the engine starts."""
    file_stamp: str = ""
    """Differs for another file, and for another content, of the model or of what it loads besides.
    """

    @property
    def context_size(self) -> int:
        """Tokens that all conversations share."""
        assert self.settings.context_size is not None
        return self.settings.context_size

    def runs(self, path: str, settings: EngineSettings) -> bool:
        """Whether this is the file at `path`, with settings that satisfy `settings`."""
        return self.path == path and self.settings.satisfies(settings)

    def satisfies(self, requested: "EngineSpec") -> bool:
        """Whether this is the requested file, unchanged, with settings that satisfy the request."""
        requested = replace(requested, name=self.name)
        is_same = replace(self, settings=requested.settings) == requested
        return is_same and self.settings.satisfies(requested.settings)


@dataclass(frozen=True, slots=True)
class EngineState:
    """An engine that runs, or that loads its model: then `url` is ""."""

    id: str
    spec: EngineSpec
    key: str
    """The API key that the engine requires."""
    build: str
    """The build of llama.cpp that runs it: "xllamacpp 2026.10.1"."""
    started_at: float
    """Seconds since the epoch."""
    url: str = ""
    server_pid: int = 0
    """The process that holds the model: the host itself, or llama-server."""
    load_seconds: float = 0.0
    memory_limit: int = 0
    """Bytes of memory that the engine may take; 0 for no limit."""
    build_path: str = ""
    """llama-server, or the folder that xllamacpp is imported from."""
    build_key: str = ""
    """Differs for another build: see `build_probe.Build`."""
    has_gpu: bool = False
    """Whether it may use a GPU."""
    layers: int = 0
    """Of the model; 0 if the log does not say."""
    offloaded: int = 0
    """Those of them that a GPU holds."""

    @property
    def pid(self) -> int:
        """The host process."""
        return pid_of(self.id)


@dataclass(frozen=True, slots=True)
class EnginePaths:
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
    def ending(self) -> Path:
        return self.folder / f"{self.id}.ending"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.id}.log"

    def slot(self, number: int) -> Path:
        return self.folder / f"{self.id}.slot{number}"

    @property
    def prompts(self) -> Path:
        """The folder of all engines' evaluated prompts: see `saved_prompts`."""
        return self.folder.parent / "prompts"

    def remove(self) -> None:
        """Removes all files of the engine, partially saved prompts included; the lock last."""
        files = {*self.folder.glob(f"{self.id}.*"), *self.prompts.glob(f"{self.id}.*")}
        for path in (*(files - {self.lock}), self.lock):
            with contextlib.suppress(OSError):
                path.unlink()


@dataclass(frozen=True, slots=True)
class HostInstructions:
    """What a new host process receives as one line of JSON."""

    folder: str
    spec: EngineSpec
    key: str
    build: str
    llama_server: str
    """The program to run; "" to run xllamacpp in the host process."""
    xllamacpp: str
    """The folder that xllamacpp is imported from."""
    has_gpu: bool
    """Whether llama.cpp may use a GPU."""
    load_grace: float
    """Seconds without progress after which a load is ended: see `load_watch`."""
    keep_alive: float
    """Seconds until the engine may end without having been used; negative: never."""
    prompt_bytes: int
    """Limit for all saved prompts on disk; 0 saves none."""
    max_preparation: float = math.inf
    """CPU seconds that llama.cpp gets to prepare prompts."""
    checkpoints: int = 1
    """States of a slot that llama.cpp keeps in memory: see `memory.footprint`."""
    memory_limit: int = 0
    """Bytes of memory that the engine may take, files included; 0 for no limit."""
    mapped_bytes: int = 0
    """The part of `memory_limit` for files that are only mapped."""
    build_key: str = ""
    ignores_gpu: bool = False
    """Whether the build could use a GPU, and must not, because that has failed."""

    @property
    def build_path(self) -> str:
        return self.llama_server or self.xllamacpp

    def prompt_folder(self, paths: EnginePaths) -> str:
        """Where llama.cpp may save slots, with the separator it expects at the end; "" for none."""
        return f"{paths.prompts}{os.sep}" if self.prompt_bytes else ""


def new_id(pid: int) -> str:
    """An id for the engine whose host is the process `pid`."""
    return f"{pid}-{os.urandom(4).hex()}"


def pid_of(id_: str) -> int:
    """The host process of the engine with this id."""
    return int(id_.partition("-")[0])


def write_state(folder: Path, state: EngineState) -> None:
    """Writes the state file of an engine. Raises OSError."""
    _write_json(EnginePaths(folder, state.id).state, asdict(state))


def parse_instructions(line: str) -> HostInstructions:
    """The instructions in a line of JSON."""
    values = json.loads(line)
    return HostInstructions(**{**values, "spec": _parse_spec(values["spec"])})


def read_state(path: Path) -> EngineState | None:
    """The state in a file; None if it is missing, damaged or from an incompatible version."""
    try:
        values = json.loads(read_own(path))
        return EngineState(**{**values, "spec": _parse_spec(values["spec"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _parse_spec(values: dict[str, Any]) -> EngineSpec:
    return EngineSpec(**{**values, "settings": EngineSettings(**values["settings"])})


def check_folders(folder: Path) -> None:
    """Makes sure that no other user can plant an engine or a saved prompt. Raises OSError."""
    for each in (folder, EnginePaths(folder, "").prompts):
        with contextlib.suppress(FileNotFoundError):
            check_folder(each)


def list_hosts(folder: Path) -> list[EnginePaths]:
    """The engines whose host processes live. Removes the files of those that are dead.

    What another user can have put into the folder is no engine.
    """
    for path in folder.glob("*.starting"):
        remove_unless_locked(path)
    hosts = []
    for lock in filter(is_own, sorted(folder.glob("*.lock"))):
        paths = EnginePaths(folder, lock.stem)
        if file := open_locked(lock):
            with file:
                paths.remove()
        elif lock.exists():
            hosts.append(paths)
    return hosts


def list_engines(folder: Path) -> list[EngineState]:
    """The engines that run or load their models."""
    current = [paths for paths in list_hosts(folder) if not _is_outdated(paths)]
    return [state for paths in current if (state := read_state(paths.state))]


def list_running(folder: Path) -> list[EngineState]:
    """The engines that have loaded their models."""
    return [state for state in list_engines(folder) if state.url]


def _is_outdated(paths: EnginePaths) -> bool:
    """Whether an engine is of a version that had no slot files. Makes it end when idle."""
    # A host creates its slots before its state, and removes the state first.
    if paths.slot(0).exists() or not paths.state.exists():
        return False
    with contextlib.suppress(OSError):
        write_lease(paths, 0)
    return True


def write_lease(paths: EnginePaths, seconds: float) -> None:
    """Lets the engine idle for `seconds` from now; negative: forever. Raises OSError."""
    until = float("inf") if seconds < 0 else time.time() + seconds
    _write_json(paths.lease, until)


def read_lease(paths: EnginePaths) -> float | None:
    """Until when the engine may idle, in seconds since the epoch; None if there is no lease."""
    try:
        return float(json.loads(read_own(paths.lease)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def ending(reason: str) -> bytes:
    """The line of the log that says why the engine ends: see `build_logs.reason_in`."""
    return f"{ENDED}{reason}\n".encode()


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value).encode())


def find_problem(settings: EngineSettings) -> str:
    """Why llama.cpp would crash on `settings`, or refuse them; "" if they are valid."""
    if settings.context_size is not None and settings.context_size < MIN_CONTEXT_SIZE:
        return f"a context of {settings.context_size} tokens is too small"
    if settings.threads is not None and not 1 <= settings.threads <= MAX_THREADS:
        return f"it takes 1 to {MAX_THREADS} threads, not {settings.threads}"
    if settings.kv_cache_type not in (None, *CACHE_TYPES):
        return f"it has no KV cache of type {settings.kv_cache_type}"
    is_quantized = settings.kv_cache_type not in (None, *UNQUANTIZED_CACHE_TYPES)
    if is_quantized and settings.flash_attention is False:
        return f"a KV cache of type {settings.kv_cache_type} needs flash_attention"
    return ""
