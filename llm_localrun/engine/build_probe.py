"""The builds of llama.cpp on this machine, and what they say of themselves: versions and devices.

Probing a build takes up to a second, because the driver of a GPU wakes up. So the results are kept
on disk until the build changes. Which build is used is decided in `builds`.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from llm_localrun.engine.build_logs import reason_in
from llm_localrun.engine.failed_builds import NO_INSTRUCTION
from llm_localrun.engine.installed import RECORD, InstalledBuild, list_installed
from llm_localrun.engine.windows_job import STATUS_ILLEGAL_INSTRUCTION
from llm_localrun.files.found import NOT_TEXT, is_text
from llm_localrun.models import FrozenValue
from llm_localrun.system.atomic import read_own, write_atomically
from llm_localrun.system.text import printable
from llm_localrun.wire.sse import excerpt

_PROBE_TIMEOUT_S = 20.0
_MAX_CACHE_AGE_S = 86400.0
"""A new GPU or driver changes no file of a build."""
_MAX_CACHED = 50
_FIT_MARGIN_BYTES = 2**30
"""What llama.cpp leaves free of each GPU when it splits a model (--fit-target, b10434)."""
_REQUIRED_ARGUMENTS = (
    *("--kv-unified", "--no-cache-idle-slots", "--spec-type", "--spec-ngram-simple-size-n"),
    *("--slot-save-path", "--fit"),
)
"""Arguments that older builds of llama-server lack. The newest is of autumn 2026."""
_DEVICE = re.compile(
    r"^  (?P<name>[^\s:(]+): (?P<title>.*?)"
    r"(?: \((?P<mib>\d+) MiB\b(?:, (?P<free>\d+) MiB free)?.*)?$",
    re.M,
)
_ILLEGAL = (-signal.SIGILL, 128 + signal.SIGILL, STATUS_ILLEGAL_INSTRUCTION)
_VERSION = re.compile(r"^version: (.+)$", re.MULTILINE)
_PROBE_CODE = (
    "import sys; sys.path.append({!r}); import json; from xllamacpp import xllamacpp as x\n"
    "cpu = x.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU\n"
    "print(json.dumps([[d['name'], d['description'], d['memory_total'], d['memory_free']]"
    " for d in x.get_device_info() if d['type'] != cpu]))"
)


class Device(FrozenValue):
    """A GPU or another accelerator."""

    name: str
    title: str
    memory: int | None
    """Bytes."""


class Build(FrozenValue):
    """One build of llama.cpp."""

    kind: Literal["xllamacpp", "llama-server"]
    path: str
    """The program, or the folder that xllamacpp is imported from."""
    version: str = ""
    devices: tuple[Device, ...] = ()
    can_rpc: bool = False
    problem: str = ""
    """Why it cannot be used, in half a sentence; "" if it can."""
    installed: str = ""
    """Its name if `llm localrun engine install` has installed it."""
    key: str = ""
    """Differs if its files have changed."""
    gpu_problem: str = ""
    """Why it must not use a GPU, in half a sentence; "" if it may."""

    @property
    def title(self) -> str:
        return f"{self.kind} {self.installed or self.version}".rstrip()

    @property
    def name(self) -> str:
        """What `llm localrun engine use` calls it."""
        return self.installed or ("xllamacpp" if self.kind == "xllamacpp" else self.path)

    @property
    def uses_gpu(self) -> bool:
        return bool(self.devices) and not self.gpu_problem


def find_builds(llama_server: str | None) -> list[Build]:
    """The builds on this machine, not probed yet: the one that `llama_server` names first.

    It is as in config.json: a name or path; "" and None name none.
    """
    installed = [_installed(each) for each in list_installed()]
    found = [*filter(None, [_named(llama_server, installed)] if llama_server else [])]
    found += [*installed, *filter(None, (_xllamacpp(), _on_path()))]
    by_path: dict[str, Build] = {}
    for build in found:
        by_path.setdefault(build.path, build)
    return [*by_path.values()]


def choice_in(name: str) -> Build | None:
    """The build that the user means: `xllamacpp`, an installed one, or a llama-server."""
    if name == "xllamacpp":
        return _xllamacpp()
    return _named(name, map(_installed, list_installed()))


def _installed(build: InstalledBuild) -> Build:
    key = _key(build.server, build.folder / RECORD)
    return Build(kind="llama-server", path=str(build.server), installed=build.name, key=key)


def _xllamacpp() -> Build | None:
    found = importlib.util.find_spec("xllamacpp")
    if found is None or found.origin is None:
        return None
    version = importlib.metadata.version("xllamacpp")
    folder = Path(found.origin).parents[1]
    key = f"{version} {_key(folder)}"
    return Build(kind="xllamacpp", path=str(folder), version=version, key=key)


def _on_path() -> Build | None:
    path = shutil.which("llama-server")
    return _llama_server(path) if path else None


def _named(name: str, installed: Iterable[Build]) -> Build:
    """The build that config.json names, which may be missing."""
    if found := next((build for build in installed if build.installed == name), None):
        return found
    program = str(Path(name).expanduser())
    if path := shutil.which(program):
        return _llama_server(path)
    problem = "there is no such program"
    return Build(kind="llama-server", path=printable(program), problem=problem)


def _llama_server(path: str) -> Build:
    if not is_text(path):
        return Build(kind="llama-server", path=printable(path), problem=NOT_TEXT)
    program = Path(path).absolute()
    return Build(kind="llama-server", path=str(program), key=_key(program))


def _key(*files: Path) -> str:
    """Differs if a file has another path, size or time of the last change."""
    parts = []
    for file in files:
        try:
            stat = file.stat()
            parts.append(f"{file} {stat.st_size} {stat.st_mtime}")
        except OSError:
            parts.append(str(file))
    return " ".join(parts)


class _Probed(FrozenValue):
    build: Build
    at: float
    """Seconds since the epoch."""


class _BuildCache(FrozenValue):
    """The results of probing, by the keys of the builds."""

    probed: dict[str, _Probed]


def probe_all(builds: Iterable[Build], folder: Path) -> list[Build]:
    """`builds` with their versions, devices and problems, from disk if they have not changed."""
    file = folder.parent / "builds.json"
    before = _read_cache(file)
    after, probed, now = dict(before), [], time.time()
    for build in builds:
        known = before.get(build.key)
        if known is None or abs(now - known.at) > _MAX_CACHE_AGE_S:
            known = _Probed(build=_probe(build), at=now)
            # A build that is missing has no key.
            after |= {build.key: known} if build.key else {}
        probed.append(known.build)
    if after != before:
        kept = dict([*after.items()][-_MAX_CACHED:])
        # If it cannot be written, the next command probes again.
        with contextlib.suppress(OSError):
            write_atomically(file, _BuildCache(probed=kept).model_dump_json().encode())
    return probed


def _read_cache(file: Path) -> dict[str, _Probed]:
    try:
        return _BuildCache.model_validate_json(read_own(file)).probed
    except (OSError, ValidationError):
        return {}


def free_gpu_memory(build: Build) -> int:
    """The bytes that llama.cpp may fill of a build's GPUs now. Takes up to a second."""
    try:
        return sum(max(0, (free or 0) - _FIT_MARGIN_BYTES) for _, free in _list_devices(build))
    except _Unusable:
        return 0


def _probe(build: Build) -> Build:
    if build.problem:
        return build
    try:
        found = {} if build.kind == "xllamacpp" else _probe_llama_server(build)
        devices = tuple(device for device, _ in _list_devices(build))
        return build.model_copy(update={**found, "devices": devices})
    except _Unusable as error:
        return build.model_copy(update={"problem": str(error)})


class _Unusable(Exception):
    """A build cannot be run; the message says why."""


def _probe_llama_server(build: Build) -> dict[str, Any]:
    usage = _run(build.path, "--help")
    if missing := [argument for argument in _REQUIRED_ARGUMENTS if argument not in usage]:
        more = f" and {len(missing) - 1} more" * (len(missing) > 1)
        raise _Unusable(f"it is too old: it lacks {missing[0]}{more}")
    version = _VERSION.search(_run(build.path, "--version"))
    return {"version": version[1] if version else "", "can_rpc": "--rpc " in usage}


def _list_devices(build: Build) -> list[tuple[Device, int | None]]:
    """The devices, and the bytes of their memory that are free. Raises `_Unusable`."""
    if build.kind == "xllamacpp":
        return _list_of_xllamacpp(build)
    return [
        (Device(name=d["name"], title=d["title"], memory=_bytes(d["mib"])), _bytes(d["free"]))
        for d in _DEVICE.finditer(_run(build.path, "--list-devices"))
    ]


def _bytes(mib: str | None) -> int | None:
    return int(mib) * 2**20 if mib else None


def _list_of_xllamacpp(build: Build) -> list[tuple[Device, int | None]]:
    # In a process of its own, because a GPU's driver may crash.
    output = _run(sys.executable, "-I", "-S", "-c", _PROBE_CODE.format(build.path))
    try:
        listed = json.loads(output.strip().rpartition("\n")[2])
        return [(Device(name=n, title=title, memory=m), int(f)) for n, title, m, f in listed]
    except (ValueError, TypeError):
        raise _Unusable(f"its list of devices is {excerpt(output.encode())!r}") from None


def _run(*command: str) -> str:
    """The output of a command. Raises `_Unusable`."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise _Unusable(f"it cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise _Unusable(f"it did not end within {_PROBE_TIMEOUT_S:.0f} s") from None
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode in _ILLEGAL:
        raise _Unusable(NO_INSTRUCTION)
    if done.returncode != 0:
        raise _Unusable(reason_in(output) or f"it exited with status {done.returncode}")
    return output
