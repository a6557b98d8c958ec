"""The builds of llama.cpp on this machine, and what they say of themselves: versions and devices.

Probing a build takes up to a second, because the driver of a GPU wakes up. So the results are kept
on disk until the build or the GPUs change; what the user can remedy is not kept. Which build is
used is decided in `builds`.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from llm_localrun.engine import programs
from llm_localrun.engine.build_logs import reason_in
from llm_localrun.engine.failed_builds import gpu_state
from llm_localrun.engine.installed import RECORD, InstalledBuild, list_installed
from llm_localrun.engine.libraries import NO_INSTRUCTION, OTHER_BUILD, Lack, lack_in
from llm_localrun.engine.llama_server import neutral_environment
from llm_localrun.files.found import NOT_TEXT, is_text
from llm_localrun.models import FrozenValue
from llm_localrun.system.atomic import read_own, write_atomically
from llm_localrun.system.progress import Progress, working
from llm_localrun.system.text import printable
from llm_localrun.wire.sse import excerpt

GRACE_S = 600.0 if sys.platform == "win32" else 60.0
"""How long a build may make no progress. Windows does not tell how much it has computed."""
_MAX_CACHE_AGE_S = 86400.0
"""Not all new GPUs and drivers change `gpu_state`."""
_STALL_AGE_S = 600.0
"""How long a build that hung is not asked again: each command would wait for it."""
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
_SHARES_RAM = re.compile(
    r"llvmpipe|Intel(?!.*(?:\b[AB]\d{2,3}\b|Data Center))|Radeon(?:\(TM\))?(?: \w+)? Graphics"
)
"""In the titles of GPUs whose memory is the RAM: as Mesa calls llvmpipe, the GPUs inside Intel's
processors (the others are A770, B580, Data Center GPU) and those inside AMD's (the others are
RX 7900, Pro W7900)."""
_VERSION = re.compile(r"^version: (.+)$", re.MULTILINE)
_PROBE_CODE = (
    "import sys; sys.path.append({!r}); import json; from xllamacpp import xllamacpp as x\n"
    "kinds = x.ggml_backend_dev_type; cpu = kinds.GGML_BACKEND_DEVICE_TYPE_CPU\n"
    "shared = getattr(kinds, 'GGML_BACKEND_DEVICE_TYPE_IGPU', None)\n"
    "print(json.dumps([[d['name'], d['description'], d['memory_total'], d['memory_free'],"
    " d['type'] == shared] for d in x.get_device_info() if d['type'] != cpu]))"
)


class Device(FrozenValue):
    """A GPU or another accelerator."""

    name: str
    title: str
    memory: int | None
    """Bytes."""
    shares_ram: bool = False
    """Whether its memory is the machine's RAM."""


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
    remedy: str = ""
    """What to do about the problem, as a sentence without a full stop."""
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
        """Whether it is known to use a GPU: xllamacpp alone is not asked before it runs."""
        return bool(self.devices) and not self.gpu_problem

    @property
    def is_native(self) -> bool:
        """Whether it uses a GPU as its vendor means it: with CUDA, ROCm or Metal, not Vulkan."""
        return self.uses_gpu and not all(d.name.startswith("Vulkan") for d in self.devices)


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
    holds_for: float = _MAX_CACHE_AGE_S
    """Seconds."""


class Unusable(Exception):
    """A build cannot be run. This is known for `holds_for` seconds, unless the build changes."""

    def __init__(self, lack: Lack, holds_for: float = 0) -> None:
        super().__init__(lack.problem)
        self.lack, self.holds_for = lack, holds_for


class _BuildCache(FrozenValue):
    """The results of probing, by the keys of the builds and the state of the GPUs."""

    probed: dict[str, _Probed]


def probe_all(builds: Iterable[Build], folder: Path) -> list[Build]:
    """`builds` with their versions, devices and problems, from disk if they have not changed."""
    file = folder.parent / "builds.json"
    before = _read_cache(file)
    after, probed, now = dict(before), [], time.time()
    state = gpu_state()
    for build in builds:
        key = f"{build.key} {state}"
        known = before.get(key)
        if known is None or abs(now - known.at) > known.holds_for:
            with working(Progress(f"trying {build.title}")):
                known = _probe(build, now)
            # A build that is missing has no key.
            after |= {key: known} if build.key and known.holds_for else {}
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
    """The bytes that llama.cpp may fill of a build's GPUs now, besides RAM. Takes a second."""
    try:
        with working(Progress("asking the GPU for its free memory")):
            listed = _list_devices(build)
    except Unusable:
        return 0
    return sum(max(0, free - _FIT_MARGIN_BYTES) for gpu, free in listed if not gpu.shares_ram)


def _probe(build: Build, now: float) -> _Probed:
    if build.problem:
        return _Probed(build=build, at=now)
    try:
        found = {} if build.kind == "xllamacpp" else _probe_llama_server(build)
        devices = tuple(device for device, _ in _list_devices(build))
        return _Probed(build=build.model_copy(update={**found, "devices": devices}), at=now)
    except Unusable as error:
        lack = {"problem": error.lack.problem, "remedy": error.lack.remedy}
        return _Probed(build=build.model_copy(update=lack), at=now, holds_for=error.holds_for)


def _probe_llama_server(build: Build) -> dict[str, Any]:
    usage = output_of(build.path, "--help")
    if "--model" not in usage:
        raise Unusable(Lack("it is no llama-server", OTHER_BUILD), _MAX_CACHE_AGE_S)
    if missing := [argument for argument in _REQUIRED_ARGUMENTS if argument not in usage]:
        more = f" and {len(missing) - 1} more" * (len(missing) > 1)
        lack = Lack(f"it is too old: it lacks {missing[0]}{more}", "Install a newer llama.cpp")
        raise Unusable(lack, _MAX_CACHE_AGE_S)
    return {"version": version_of(build.path), "can_rpc": "--rpc " in usage}


def _list_devices(build: Build) -> list[tuple[Device, int]]:
    """The devices, and the bytes of their memory that are free. Raises `Unusable`."""
    if build.kind == "xllamacpp":
        return _list_of_xllamacpp(build)
    return devices_in(output_of(build.path, "--list-devices"))


def devices_in(output: str) -> list[tuple[Device, int]]:
    """The devices that llama-server lists, and the bytes of their memory that are free."""
    return [
        (_device(d["name"], d["title"], _bytes(d["mib"])), _bytes(d["free"]) or 0)
        for d in _DEVICE.finditer(output)
    ]


def _device(name: str, title: str, memory: int | None, *, shares_ram: bool = False) -> Device:
    shares_ram = shares_ram or _SHARES_RAM.search(title) is not None
    return Device(name=name, title=title, memory=memory, shares_ram=shares_ram)


def _bytes(mib: str | None) -> int | None:
    return int(mib) * 2**20 if mib else None


def _list_of_xllamacpp(build: Build) -> list[tuple[Device, int]]:
    # In a process of its own, because a GPU's driver may crash.
    output = output_of(sys.executable, "-I", "-S", "-c", _PROBE_CODE.format(build.path))
    try:
        listed = json.loads(output.strip().rpartition("\n")[2])
        return [(_device(n, t, m, shares_ram=s), int(f)) for n, t, m, f, s in listed]
    except (ValueError, TypeError):
        problem = f"its list of devices is {excerpt(output.encode())!r}"
        raise Unusable(Lack(problem, OTHER_BUILD)) from None


def version_of(program: str, grace: float = GRACE_S) -> str:
    """What a llama-server says of its version. Raises `Unusable`."""
    found = _VERSION.search(output_of(program, "--version", grace=grace))
    return found[1] if found else ""


def output_of(*command: str, grace: float = GRACE_S) -> str:
    """What a build prints. It may make no progress for `grace` seconds. Raises `Unusable`."""
    try:
        done = programs.run(*command, grace=grace, environment=neutral_environment())
    except OSError as error:
        # The loader that a program names may be missing too: then it is there and not found.
        problem = f"it cannot be started ({error.strerror})"
        raise Unusable(Lack(problem, OTHER_BUILD)) from None
    if done.stalled:
        raise Unusable(Lack(f"it {done.stalled}", OTHER_BUILD), _STALL_AGE_S)
    if done.status:
        lack = lack_of(done.output, done.status)
        raise Unusable(lack, _MAX_CACHE_AGE_S if lack.problem == NO_INSTRUCTION else 0)
    return done.output


def lack_of(output: str, status: int) -> Lack:
    """Why a build ended with `status`, from what it has printed."""
    problem = (reason_in(output) or programs.ending_of(status)).rstrip(".")
    return lack_in(output, status) or Lack(problem, OTHER_BUILD)
