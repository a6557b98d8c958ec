"""The builds of llama.cpp on this machine: their versions and devices, and which one to use.

Probing a build takes up to a second, because the driver of a GPU wakes up. So the results are kept
on disk until the build changes, and a machine that has only xllamacpp is not probed to start it.
Starting the chosen build is left to `launch` and `host`.
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

from pydantic import ValidationError

from llm_localrun.engine.state import ENDED, list_hosts
from llm_localrun.errors import EngineFailed
from llm_localrun.files.found import NOT_TEXT, is_text
from llm_localrun.models import FrozenValue
from llm_localrun.system.atomic import read_own, write_atomically
from llm_localrun.system.text import printable
from llm_localrun.wire.sse import excerpt

_PROBE_TIMEOUT_S = 20.0
_MAX_CACHE_AGE_S = 86400.0
"""A new GPU or driver changes no file of a build."""
_MAX_REASON_LENGTH = 200
"""Characters."""
_REQUIRED_ARGUMENTS = (
    *("--kv-unified", "--no-cache-idle-slots", "--spec-type", "--spec-ngram-simple-size-n"),
    *("--slot-save-path", "--fit"),
)
"""Arguments that older builds of llama-server lack. The newest is of autumn 2026."""
_DEVICE = re.compile(r"^  (?P<name>[^\s:(]+): (?P<title>.*?)(?: \((?P<mib>\d+) MiB\b.*)?$", re.M)
_INSTALL = "`llm install 'llm-localrun[gguf]'`"
_VERSION = re.compile(r"^version: (.+)$", re.MULTILINE)
_PROBE_CODE = (
    "import sys; sys.path.append({!r}); import json; from xllamacpp import xllamacpp as x\n"
    "cpu = x.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU\n"
    "print(json.dumps([[d['name'], d['description'], d['memory_total']]"
    " for d in x.get_device_info() if d['type'] != cpu]))"
)

_ENDED = re.compile(rf"^{ENDED.strip()} (?P<text>.*)$", re.MULTILINE)
_CRASH = re.compile(r"^Fatal Python error: (?P<text>(?!Aborted).*)$", re.MULTILINE)
"""As `faulthandler` writes it when a signal ends the host. What aborts gives its own reason."""
_ASSERTION = re.compile(r"(?P<text>GGML_ASSERT\(.*|GGML_ABORT.*|Remote RPC server crashed.*)")
_LOGGED_ERROR = re.compile(r"^[\d.]+ E (?:\S+\s+)?(?:[\w\s]+?: )?(?P<text>.*)$", re.MULTILINE)
_LOGGED_LINE = re.compile(r"[\d.]+ [A-Z] ")
_ERROR_LINE = re.compile(r"(?:\w*Error|error|  what\(\)): ")
_LOADING = "load_model: loading model '"
_OTHER_CAUSE = re.compile(
    r"memory|alloc|cuda|vulkan|\bvk::|rocm|\bhip|metal|sycl|\bmmap|failed to open"
    r"|lora adapter|draft model|multimodal|CLIP model",
    re.IGNORECASE,
)
"""In errors that are not about the model's file (b11549)."""
_LOAD_REMEDIES = [
    (re.compile(cause, re.IGNORECASE), remedy)
    for cause, remedy in (
        ("lora adapter", "Choose another adapter"),
        ("draft model", "Choose another with -o draft_model"),
        ("multimodal|CLIP model", "Download its projector again"),
        ("memory|alloc", "Free memory, or choose a smaller model"),
        (
            r"cuda|vulkan|\bvk::|rocm|\bhip|metal|sycl",
            "Update the driver, or run it without the GPU: -o gpu_layers 0",
        ),
        ("", "Choose another model, or another build of llama.cpp"),
    )
]
_MISSING_LIBRARY = re.compile(
    r"^(?:ImportError|.*error while loading shared libraries): (?P<text>.*)$", re.MULTILINE
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

    @property
    def title(self) -> str:
        return f"{self.kind} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The builds and the logs of the engine."""

    builds: tuple[Build, ...]
    """The chosen one first."""
    chosen: Build | None
    problem: str
    """Why none is chosen; "" if one is."""
    logs: tuple[Path, ...]
    """The logs of the running engines, and of the last one that failed."""
    remedy: str = ""
    """What to do about the problem."""


def report(folder: Path, llama_server: str | None, rpc: str = "") -> BuildReport:
    """Describes builds, devices and logs. `folder` holds the engines' files.

    Probes the builds, which takes seconds the first time and milliseconds afterwards.
    """
    builds = _probe_all(_find_installed(llama_server), folder)
    try:
        chosen, problem, remedy = _select(builds, llama_server, rpc), "", ""
    except EngineFailed as error:
        chosen, problem, remedy = None, error.problem, error.remedy
    logs = (*(paths.log for paths in list_hosts(folder)), failed_log(folder))
    builds.sort(key=lambda build: build != chosen)
    logs = tuple(log for log in logs if log.exists())
    return BuildReport(tuple(builds), chosen, problem, logs, remedy)


def failed_log(folder: Path) -> Path:
    """The log of the last engine that failed."""
    return folder.parent / "engine-failed.log"


def choose(folder: Path, llama_server: str | None, rpc: str) -> Build:
    """Chooses the build to start an engine with. Raises `EngineFailed`.

    `llama_server` is a program named by the user, which is used then; "" for none, None to look on
    PATH. Otherwise a build with a GPU is preferred, then xllamacpp.
    """
    builds = _find_installed(llama_server)
    if [build.kind for build in builds] != ["xllamacpp"]:
        builds = _probe_all(builds, folder)
    return _select(builds, llama_server, rpc)


def _select(builds: list[Build], llama_server: str | None, rpc: str) -> Build:
    if llama_server or rpc:
        # xllamacpp cannot use RPC servers.
        builds = [build for build in builds if build.kind == "llama-server"]
    usable = [build for build in builds if not build.problem and (build.can_rpc or not rpc)]
    if usable:
        return max(usable, key=lambda build: (bool(build.devices), build.kind == "xllamacpp"))
    if broken := next((build for build in builds if build.problem), None):
        setting = "llama_server" if llama_server else "rpc" if rpc else ""
        raise EngineFailed(
            f"{broken.path} cannot be used: {broken.problem}",
            _remedy_for_build(broken, setting),
        )
    if rpc:
        raise _no_build_for_rpc(builds, llama_server)
    raise EngineFailed(
        "GGUF files need the engine, which is not installed",
        f"Install it with {_INSTALL}",
    )


def _remedy_for_build(build: Build, setting: str) -> str:
    """What to do if a build cannot be used, and no other may be: because of `setting`, if any."""
    if setting == "llama_server":
        return "Correct llama_server in config.json, or remove it"
    if setting == "rpc":
        return "Install a newer llama.cpp, or remove rpc from config.json"
    if build.kind == "llama-server":
        return f"Install a newer llama.cpp, or the engine with {_INSTALL}"
    if "is missing" in build.problem:
        return "Install what is missing"
    return f"Install it again with {_INSTALL}".replace("install '", "install --force-reinstall '")


def _no_build_for_rpc(builds: list[Build], llama_server: str | None) -> EngineFailed:
    """The error for RPC servers where no llama-server can use them: `builds` are the others."""
    need = "The RPC servers in config.json need a llama-server that was built with GGML_RPC"
    if sys.platform == "win32":
        return EngineFailed(
            f"{need}, and llama-server is not run on Windows", "Remove rpc from config.json"
        )
    found = f"{builds[0].path} was not" if builds else "there is none on PATH"
    if llama_server == "":
        found = "llama_server rules it out there"
    return EngineFailed(
        f"{need}, and {found}", "Set llama_server in config.json to its path, or remove rpc"
    )


def _find_installed(llama_server: str | None) -> list[Build]:
    """The installed builds, not probed yet."""
    builds = []
    found = importlib.util.find_spec("xllamacpp")
    if found is not None and found.origin is not None:
        version = importlib.metadata.version("xllamacpp")
        folder = str(Path(found.origin).parents[1])
        builds.append(Build(kind="xllamacpp", path=folder, version=version))
    # On Windows, a child process cannot be made to end with its host.
    if llama_server != "" and sys.platform != "win32":
        program = str(Path(llama_server).expanduser()) if llama_server else "llama-server"
        path = shutil.which(program)
        if path and is_text(path):
            builds.append(Build(kind="llama-server", path=str(Path(path).absolute())))
        elif path or llama_server:
            problem = NOT_TEXT if path else "there is no such program"
            shown = printable(path or program)
            builds.append(Build(kind="llama-server", path=shown, problem=problem))
    return builds


class _BuildCache(FrozenValue):
    """The results of probing, by path, version, size and time of the last change."""

    builds: dict[str, Build]


def _probe_all(builds: list[Build], folder: Path) -> list[Build]:
    """`builds` with their versions, devices and problems, from disk if they have not changed."""
    file = folder.parent / "builds.json"
    cached = _read_cache(file)
    by_key = {_cache_key(build): build for build in builds}
    probed = {key: cached.get(key) or _probe(build) for key, build in by_key.items()}
    if probed != cached:
        # If it cannot be written, the next command probes again.
        with contextlib.suppress(OSError):
            write_atomically(file, _BuildCache(builds=probed).model_dump_json().encode())
    return list(probed.values())


def _read_cache(file: Path) -> dict[str, Build]:
    try:
        if time.time() - file.stat().st_mtime > _MAX_CACHE_AGE_S:
            return {}
        return _BuildCache.model_validate_json(read_own(file)).builds
    except (OSError, ValidationError):
        return {}


def _cache_key(build: Build) -> str:
    try:
        stat = Path(build.path).stat()
    except OSError:
        return build.path
    return f"{build.path} {build.version} {stat.st_size} {stat.st_mtime}"


def _probe(build: Build) -> Build:
    if build.problem:
        return build
    try:
        return _probe_xllamacpp(build) if build.kind == "xllamacpp" else _probe_llama_server(build)
    except _Unusable as error:
        return build.model_copy(update={"problem": str(error)})


class _Unusable(Exception):
    """A build cannot be run; the message says why."""


def _probe_xllamacpp(build: Build) -> Build:
    # In a process of its own, because a GPU's driver may crash.
    output = _run(sys.executable, "-I", "-S", "-c", _PROBE_CODE.format(build.path))
    try:
        listed = json.loads(output.strip().rpartition("\n")[2])
        devices = tuple(Device(name=name, title=title, memory=m) for name, title, m in listed)
    except (ValueError, TypeError):
        raise _Unusable(f"its list of devices is {excerpt(output.encode())!r}") from None
    return build.model_copy(update={"devices": devices})


def _probe_llama_server(build: Build) -> Build:
    usage = _run(build.path, "--help")
    if missing := [argument for argument in _REQUIRED_ARGUMENTS if argument not in usage]:
        raise _Unusable(f"it does not support {', '.join(missing)}")
    version = _VERSION.search(_run(build.path, "--version"))
    listed = _DEVICE.finditer(_run(build.path, "--list-devices"))
    devices = tuple(
        Device(name=d["name"], title=d["title"], memory=int(d["mib"]) * 2**20 if d["mib"] else None)
        for d in listed
    )
    return build.model_copy(
        update={
            "version": version[1] if version else "",
            "devices": devices,
            "can_rpc": "--rpc " in usage,
        }
    )


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
    if done.returncode != 0:
        raise _Unusable(reason_in(output) or f"it exited with status {done.returncode}")
    return output


def reason_in(log: str) -> str:
    """Why llama.cpp failed, from its log; "" if the log gives no reason.

    Of several errors the first is the cause, and the others follow from it.
    """
    patterns = (_MISSING_LIBRARY, _ENDED, _ASSERTION, _CRASH, _LOGGED_ERROR)
    found = next(filter(None, (pattern.search(log) for pattern in patterns)), None)
    if found is not None and found.re is _MISSING_LIBRARY and "libgomp" in found["text"]:
        return "libgomp.so.1 is missing (Debian, Ubuntu: `apt install libgomp1`; Fedora: libgomp)"
    reason = found["text"] if found else next(reversed(_unlogged(log)), "")
    return excerpt(reason.encode(), _MAX_REASON_LENGTH)


def remedy_for(reason: str) -> str:
    """What to do if llama.cpp cannot load a model for a `reason` that is not in its file."""
    return next(remedy for cause, remedy in _LOAD_REMEDIES if cause.search(reason))


def blames_model(log: str) -> bool:
    """Whether llama.cpp failed while it loaded the model, and names no other cause."""
    errors = [*_unlogged(log), *(match[0] for match in _LOGGED_ERROR.finditer(log))]
    errors += (match[0] for match in _ASSERTION.finditer(log))
    return _LOADING in log and not any(map(_OTHER_CAUSE.search, errors))


def _unlogged(log: str) -> list[str]:
    """The lines that do not come from llama.cpp's logger.

    Texts that it logs may have several lines. So after it has begun to log, only lines that say
    that they are errors count.
    """
    lines = [line for line in log.splitlines() if line.strip()]
    others = [line for line in lines if not _LOGGED_LINE.match(line)]
    return others if others == lines else [line for line in others if _ERROR_LINE.match(line)]
