"""How much RAM this machine has, and how much of it is free, in bytes.

The builds of llama.cpp report the memory of GPUs: see `engine.builds`.
"""

import os
import platform
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def physical_memory() -> int | None:
    """All RAM of the machine; None where the system does not report it.

    Listings use it instead of what is free now: a name must not mean another model because a
    browser is open.
    """
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=1)
def has_matrix_units(root: Path = _ROOT) -> bool:
    """Whether llama.cpp may compute with units (AMX) that want half-precision floats rearranged.

    Assumed of every processor that is not of x86.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        return " amx_tile" in (root / "proc" / "cpuinfo").read_text()
    except OSError:
        return True


def free_ram(root: Path = _ROOT) -> int | None:
    """The RAM that a new process can have without displacing others; None if the system does not
    report it.

    A container, or a service with a limit, has what its control group leaves it.
    """
    if sys.platform != "linux":
        return _free_by_psutil()
    free = _in_meminfo(root / "proc" / "meminfo")
    return free and min([free, *(left for _, left in _in_control_groups(root))])


def usable_ram(root: Path = _ROOT) -> int | None:
    """The RAM that processes like this one can ever have; None if the system does not report it.

    Less than the machine has in a container, or a service, with a limit.
    """
    physical = physical_memory()
    if sys.platform != "linux":
        return physical
    return physical and min([physical, *(limit for limit, _ in _in_control_groups(root))])


def _free_by_psutil() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    free: int = psutil.virtual_memory().available
    return free


def _in_meminfo(path: Path) -> int | None:
    """MemAvailable, which includes what the kernel can drop at once."""
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _in_control_groups(root: Path) -> Iterator[tuple[int, int]]:
    """The limit, and what is left of it, of each control group (version 2) around this process that
    has one."""
    try:
        line = (root / "proc" / "self" / "cgroup").read_text().strip().rpartition("\n")[2]
    except OSError:
        return
    own = PurePosixPath(line.removeprefix("0::/"))
    for group in (own, *own.parents):
        folder = root / "sys" / "fs" / "cgroup" / group
        try:
            limit = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
            stat = (folder / "memory.stat").read_text()
        except (OSError, ValueError):
            # The root has no limit, and a group without one says "max".
            continue
        # Cached files count as used, and are dropped when memory is needed.
        cached = re.findall(r"^(?:in)?active_file (\d+)$", stat, re.MULTILINE)
        yield limit, max(0, limit - used + sum(map(int, cached)))
