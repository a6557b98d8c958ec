"""The builds of llama.cpp whose CPU or GPU part has failed here, in `localrun/failed-builds.json`.

A build that lacks an instruction is not chosen again until it changes. A GPU that failed is not
used again by that build for a day, or until the driver changes; if only its memory was too small,
that holds for the one model. What a log says is left to `build_logs`, choosing to `builds`.
"""

import contextlib
import hashlib
import os
import platform
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError

from llm_localrun.engine.state import EngineState
from llm_localrun.errors import Fault
from llm_localrun.models import FrozenValue
from llm_localrun.system.atomic import read_own, write_atomically
from llm_localrun.system.paths import home

_MAX_AGE_S = 86400.0
_MAX_RECORDS = 100
_DRIVERS = (
    *("/proc/driver/nvidia/version", "/sys/module/nvidia/version", "/sys/module/amdgpu/version"),
    *("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/dev/dri", "/etc/ld.so.cache"),
)
"""What changes with a driver: files with versions; folders with Vulkan's drivers, and with the
GPUs that the kernel has found; the list of all libraries."""
_CHOICES = re.compile(r"\w+_(?:VISIBLE_DEVICES|DEVICE_ORDER)|VK_(?:DRIVER_FILES|ICD_FILENAMES)")
"""Variables that decide which GPUs a program finds."""


class Failure(FrozenValue):
    """A failure of the build with this key: see `build_probe.Build`."""

    build: str
    fault: Fault
    reason: str
    """In half a sentence."""
    model: str
    """The file that it was to run."""
    driver: str
    """See `gpu_state`."""
    at: float
    """Seconds since the epoch."""

    def holds(self, build: str, model: str, driver: str, now: float) -> bool:
        """Whether it tells what would happen now. `model` is "" for none in particular."""
        if self.build != build or self.fault is Fault.CPU:
            return self.build == build
        is_recent = self.driver == driver and abs(now - self.at) < _MAX_AGE_S
        return is_recent and (self.fault is Fault.GPU or self.model == model)


class _Records(FrozenValue):
    failures: tuple[Failure, ...] = ()


def add(build: str, fault: Fault, reason: str, model: str) -> None:
    """Records that a build has failed with a model."""
    now = time.time()
    failed = Failure(
        build=build, fault=fault, reason=reason, model=model, driver=gpu_state(), at=now
    )
    _write([*(each for each in _read() if not _is_same(each, failed)), failed])


def forget(build: str, model: str | None = None) -> None:
    """Drops the failures of a build: all of them, or those with one model."""
    _keep(lambda each: each.build != build or model not in (None, each.model))


def forget_gpus() -> None:
    """Drops the failures of all GPUs."""
    _keep(lambda each: each.fault is Fault.CPU)


def _keep(is_kept: Callable[[Failure], bool]) -> None:
    records = _read()
    kept = [*filter(is_kept, records)]
    if len(kept) != len(records):
        _write(kept)


def find(build: str, model: str = "") -> Failure | None:
    """The failure that keeps a build, or its GPU, from running a model. The CPU's comes first."""
    records = [each for each in _read() if each.build == build]
    driver, now = gpu_state() if records else "", time.time()
    found = [each for each in records if each.holds(build, model, driver, now)]
    return min(found, key=lambda each: each.fault is not Fault.CPU, default=None)


def gpu_problem(engine: EngineState) -> str:
    """Why an engine does not use the GPU that its build has found; "" if none has failed."""
    failed = None if engine.has_gpu else find(engine.build_key, engine.spec.path)
    return failed.reason if failed else ""


def _is_same(one: Failure, other: Failure) -> bool:
    return (one.build, one.fault, one.model) == (other.build, other.fault, other.model)


def gpu_state() -> str:
    """Differs if other GPUs may be found, or their drivers have changed.

    Other systems than Linux bring the drivers with them.
    """
    parts = [platform.release(), platform.version()]
    parts += sorted(f"{name}={os.environ[name]}" for name in filter(_CHOICES.fullmatch, os.environ))
    for path in map(Path, _DRIVERS):
        with contextlib.suppress(OSError):
            is_version = path.name == "version"
            parts.append(path.read_text("utf-8") if is_version else str(path.stat().st_mtime_ns))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _read() -> list[Failure]:
    try:
        return [*_Records.model_validate_json(read_own(_path())).failures]
    except (OSError, ValidationError):
        return []


def _write(failures: Iterable[Failure]) -> None:
    records = _Records(failures=tuple([*failures][-_MAX_RECORDS:]))
    # On a full disk, the build is tried again.
    with contextlib.suppress(OSError):
        write_atomically(_path(), records.model_dump_json(indent=2).encode())


def _path() -> Path:
    return home() / "failed-builds.json"
