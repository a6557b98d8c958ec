"""Limits the memory of an engine's process, so that a hostile file cannot take the machine's.

How much an engine may take is computed in `memory.footprint`. On Linux, the system refuses more to
a build without a GPU (`limit_data`); elsewhere `load_watch` and `host` measure the process, and end
it if it holds more (`is_over`). What a command says then is left to `launch`.

Imports only the standard library: the engine's host process uses this module.
"""

import contextlib
import os
import re
import sys
from pathlib import Path

from llm_localrun.engine.state import HostInstructions
from llm_localrun.engine_defaults import SLOTS

OUT_OF_MEMORY = b"MemoryError: the engine took more memory than it may have\n"
"""The line in the log of an engine that `host` ends because it takes too much memory."""
_REFUSED = re.compile(
    r"bad_alloc|bad allocation|insufficient memory|failed to allocate|unable to allocate"
    r"|cannot allocate memory|MemoryError|Resource temporarily unavailable",
    re.IGNORECASE,
)
"""In logs and replies of an engine that got no more memory (b10434, b11549)."""
_GPU_BYTES = 10**9
"""What the drivers of GPUs take in a process that uses them, at most."""
_UNTOUCHED_BYTES = 64 * 2**20
"""Counts as data and is never used: of Python and the libraries (measured: 54 to 58 MiB)."""
_OTHER_THREADS = 8
"""Of a host besides those that compute and those that answer requests."""
_DEFAULT_STACK_BYTES = 8 * 2**20


def expose_to_oom_killer() -> None:
    """Makes this process, and those that it starts, the first that Linux kills for memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def limit_data(instructions: HostInstructions, *, is_final: bool = False) -> None:
    """Makes Linux refuse this process more than it may take.

    A read-only file in memory does not count. `is_final` is for a program that this process
    becomes: it cannot undo it. Not for a build with a GPU, whose driver reserves address space.
    """
    if sys.platform != "linux" or not instructions.memory_limit:
        return
    import resource

    most = instructions.memory_limit - instructions.mapped_bytes
    most += _UNTOUCHED_BYTES + _stacks(instructions.spec.settings.threads)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most if is_final else hard))


def _stacks(threads: int | None) -> int:
    """The address space for the stacks of all threads: it counts as data from the beginning."""
    import resource

    size, _ = resource.getrlimit(resource.RLIMIT_STACK)
    cores = os.cpu_count() or 1
    # llama.cpp computes with as many threads as there are cores at most, unless it is told.
    count = max(threads or 0, cores) + max(SLOTS + 4, cores) + _OTHER_THREADS
    return count * (_DEFAULT_STACK_BYTES if size == resource.RLIM_INFINITY else size)


def is_over(pid: int, limit: int) -> bool:
    """Whether a process holds more memory than `limit`, and what a GPU's driver takes.

    Never for a `limit` of 0.
    """
    return bool(limit) and resident(pid) > limit + _GPU_BYTES


def resident(pid: int) -> int:
    """The bytes of memory that a process holds, files included; 0 if the system does not tell."""
    try:
        pages = int(Path("/proc", str(pid), "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return _peak() if pid == os.getpid() else _resident_by_ps(pid)


def _peak() -> int:
    """The most that this process has held; 0 on Windows."""
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return 0


def _resident_by_ps(pid: int) -> int:
    import subprocess

    command = ["ps", "-o", "rss=", "-p", str(pid)]
    try:
        return int(subprocess.run(command, capture_output=True, check=False).stdout) * 1024
    except (OSError, ValueError):
        return 0


def is_reached(text: str, *, has_gpu: bool) -> bool:
    """Whether a log or a reply of an engine says that it got no more memory.

    One that may use a GPU is refused memory by the GPU only.
    """
    can_refuse = sys.platform == "linux" and not has_gpu
    is_refused = can_refuse and _REFUSED.search(text) is not None
    return is_refused or OUT_OF_MEMORY.decode().strip() in text
