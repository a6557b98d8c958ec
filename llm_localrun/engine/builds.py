"""The builds of llama.cpp on this machine: which there are, which devices they use, which to take.

Asking one costs up to a second (a GPU's driver wakes up), so what it says is kept on disk until its
file changes; and where there is only xllamacpp, which is the rule, nobody asks.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from llm_localrun.engine.failure import reason_in
from llm_localrun.engine.state import alive
from llm_localrun.errors import EngineFailed
from llm_localrun.system.atomic import write_atomically
from llm_localrun.wire.sse import excerpt

_SECONDS = 20.0
"""How long a build may take to name its devices."""
_FRESH_SECONDS = 86400.0
"""A GPU may come, or get its driver, and no file of a build changes."""
_NEEDED = ("--kv-unified", "--no-cache-idle-slots", "--spec-type", "--slot-save-path", "--fit")
"""Arguments of llama-server that not all builds have; the youngest is of autumn 2026."""
_LISTED = re.compile(r"^  (?P<name>[^\s:(]+): (?P<title>.*?)(?: \((?P<mib>\d+) MiB\b.*)?$", re.M)
_VERSION = re.compile(r"^version: (.+)$", re.MULTILINE)
_PROBE = (
    "import sys; sys.path.append({!r}); import json; from xllamacpp import xllamacpp as x\n"
    "cpu = x.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU\n"
    "print(json.dumps([[d['name'], d['description'], d['memory_total']]"
    " for d in x.get_device_info() if d['type'] != cpu]))"
)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Device(_Value):
    """A GPU, or another thing that computes faster than the processor."""

    name: str
    title: str
    memory: int | None
    """Bytes."""


class Build(_Value):
    """One build of llama.cpp."""

    kind: Literal["xllamacpp", "llama-server"]
    path: str
    """The program, or the folder that xllamacpp is imported from."""
    version: str = ""
    devices: tuple[Device, ...] = ()
    can_rpc: bool = False
    problem: str = ""
    """Why it cannot be used; "" if it can."""

    @property
    def title(self) -> str:
        return f"{self.kind} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class Report:
    """How things stand with the engine, for people."""

    builds: tuple[Build, ...]
    """What there is, the one that is used first."""
    chosen: Build | None
    problem: str
    """Why none is used, and what to do; "" if one is."""
    logs: tuple[Path, ...]
    """What the engines that are up write, and what the last one that failed has written."""


def report(folder: Path, llama_server: str | None, rpc: str = "") -> Report:
    """Everything about builds, devices and logs; `folder` holds the engines' files.

    Asks the builds if they have not been asked before: up to some seconds once, milliseconds after.
    """
    builds = _asked(_installed(llama_server), folder)
    try:
        chosen, problem = _best(builds, llama_server, rpc), ""
    except EngineFailed as error:
        chosen, problem = None, str(error)
    logs = (*(paths.log for paths in alive(folder)), failed_log(folder))
    builds.sort(key=lambda build: build != chosen)
    return Report(tuple(builds), chosen, problem, tuple(log for log in logs if log.exists()))


def failed_log(folder: Path) -> Path:
    """What the last engine that failed has written."""
    return folder.parent / "engine-failed.log"


def choose(folder: Path, llama_server: str | None, rpc: str) -> Build:
    """The build to start an engine with. Raises `EngineFailed`.

    `llama_server` is the user's own, "" for none; None looks on PATH. The user's own comes first,
    then one that has a GPU, then xllamacpp.
    """
    builds = _installed(llama_server)
    if [build.kind for build in builds] != ["xllamacpp"]:
        builds = _asked(builds, folder)
    return _best(builds, llama_server, rpc)


def _best(builds: list[Build], llama_server: str | None, rpc: str) -> Build:
    if llama_server:
        builds = [build for build in builds if build.kind == "llama-server"]
    able = [build for build in builds if not rpc or build.can_rpc or build.problem]
    usable = [build for build in able if not build.problem]
    if usable:
        return max(usable, key=lambda build: (bool(build.devices), build.kind == "xllamacpp"))
    if able:
        raise EngineFailed(
            f"{able[0].path} cannot be used: {able[0].problem}",
            "Mend that, or take llama_server out of config.json" if llama_server else "Mend that",
        )
    if rpc:
        raise EngineFailed(
            "The RPC servers in config.json need a llama-server that was built with GGML_RPC",
            "Put its path into config.json as llama_server, or take rpc out",
        )
    raise EngineFailed(
        "GGUF files need the engine, which is not installed",
        "Install it with `llm install 'llm-localrun[gguf]'`",
    )


def _installed(llama_server: str | None) -> list[Build]:
    """What there is, not asked yet."""
    builds = []
    found = importlib.util.find_spec("xllamacpp")
    if found is not None and found.origin is not None:
        version = importlib.metadata.version("xllamacpp")
        folder = str(Path(found.origin).parents[1])
        builds.append(Build(kind="xllamacpp", path=folder, version=version))
    # A child's end could not be tied to its host's on Windows.
    if llama_server != "" and sys.platform != "win32":
        own = str(Path(llama_server).expanduser()) if llama_server else "llama-server"
        if path := shutil.which(own):
            builds.append(Build(kind="llama-server", path=str(Path(path).absolute())))
        elif llama_server:
            problem = "there is no such program"
            builds.append(Build(kind="llama-server", path=own, problem=problem))
    return builds


class _Memory(_Value):
    """What builds have said, by path, version and time of change."""

    builds: dict[str, Build] = {}


def _asked(builds: list[Build], folder: Path) -> list[Build]:
    """`builds` with what they say of themselves: from disk, if they have not changed."""
    file = folder.parent / "builds.json"
    memory = _remembered(file)
    asked = {_identity(build): build for build in builds}
    now = {name: memory.get(name) or _ask(build) for name, build in asked.items()}
    if now != memory:
        # Where it cannot be written, asking again costs a second.
        with contextlib.suppress(OSError):
            write_atomically(file, _Memory(builds=now).model_dump_json().encode())
    return list(now.values())


def _remembered(file: Path) -> dict[str, Build]:
    try:
        if time.time() - file.stat().st_mtime > _FRESH_SECONDS:
            return {}
        return _Memory.model_validate_json(file.read_bytes()).builds
    except (OSError, ValidationError):
        return {}


def _identity(build: Build) -> str:
    try:
        facts = Path(build.path).stat()
    except OSError:
        return build.path
    return f"{build.path} {build.version} {facts.st_size} {facts.st_mtime}"


def _ask(build: Build) -> Build:
    if build.problem:
        return build
    try:
        return _ask_xllamacpp(build) if build.kind == "xllamacpp" else _ask_llama_server(build)
    except _Unusable as error:
        return build.model_copy(update={"problem": str(error)})


class _Unusable(Exception):
    """A build cannot be run; the message says why."""


def _ask_xllamacpp(build: Build) -> Build:
    # In a process of its own: a GPU's driver may take its process down.
    said = _run(sys.executable, "-I", "-S", "-c", _PROBE.format(build.path))
    try:
        listed = json.loads(said.strip().rpartition("\n")[2])
        devices = tuple(Device(name=name, title=title, memory=m) for name, title, m in listed)
    except (ValueError, TypeError):
        raise _Unusable(f"it does not say what devices it has: {excerpt(said.encode())}") from None
    return build.model_copy(update={"devices": devices})


def _ask_llama_server(build: Build) -> Build:
    known = _run(build.path, "--help")
    if missing := [argument for argument in _NEEDED if argument not in known]:
        raise _Unusable(f"it is too old, or too new: it does not know {', '.join(missing)}")
    version = _VERSION.search(_run(build.path, "--version"))
    listed = _LISTED.finditer(_run(build.path, "--list-devices"))
    devices = tuple(
        Device(name=d["name"], title=d["title"], memory=int(d["mib"]) * 2**20 if d["mib"] else None)
        for d in listed
    )
    return build.model_copy(
        update={
            "version": version[1] if version else "",
            "devices": devices,
            "can_rpc": "--rpc " in known,
        }
    )


def _run(*command: str) -> str:
    """What a command prints. Raises `_Unusable`."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
    except OSError as error:
        raise _Unusable(f"it cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise _Unusable(f"it says nothing for {_SECONDS:.0f} seconds") from None
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise _Unusable(reason_in(said) or f"it ends with status {done.returncode}")
    return said
