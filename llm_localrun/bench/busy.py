"""How busy other programs keep the machine, and how engines are started on a calm one.

What is said of that is left to `run`.
"""

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from llm_localrun.engine.host import CALM_SPINS
from llm_localrun.engine_defaults import CALM_LOAD

_SAMPLE_S = 0.5
_NOT_USED = {"idle", "iowait", "guest", "guest_nice"}
"""Times of a processor in which no program runs on it, or which others include."""
_SPINS = "GOMP_SPINCOUNT"


def cores() -> int:
    return os.cpu_count() or 1


def cores_of_others(own: Collection[int] = ()) -> float | None:
    """How many cores are used now, but by this process and those `own`; None without psutil."""
    try:
        import psutil  # noqa: F401
    except ImportError:
        return None
    own = {os.getpid(), *own}
    began, all_before, own_before = time.perf_counter(), _used_seconds(), _seconds_of(own)
    time.sleep(_SAMPLE_S)
    seconds, all_after, own_after = time.perf_counter() - began, _used_seconds(), _seconds_of(own)
    # One that has ended meanwhile has used nothing more.
    ours = sum(own_after[pid] - own_before[pid] for pid in own_before.keys() & own_after.keys())
    return max(0.0, all_after - all_before - ours) / seconds


def _used_seconds() -> float:
    import psutil

    times: dict[str, float] = psutil.cpu_times()._asdict()
    return sum(seconds for name, seconds in times.items() if name not in _NOT_USED)


def _seconds_of(pids: Collection[int]) -> dict[int, float]:
    import psutil

    found = {}
    for pid in pids:
        try:
            used = psutil.Process(pid).cpu_times()
        except (psutil.Error, ValueError):
            continue
        found[pid] = used.user + used.system
    return found


def load() -> float:
    """How many processes wanted to compute in the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


@contextmanager
def calm_engines(busy: float) -> Iterator[None]:
    """Starts engines as on a calm machine, if others use only `busy` cores.

    An engine asks for the load of the last minute, and that is what was measured before it.
    """
    is_set = _SPINS in os.environ or "OMP_WAIT_POLICY" in os.environ
    if is_set or busy > CALM_LOAD * cores():
        yield
        return
    os.environ[_SPINS] = str(CALM_SPINS)
    try:
        yield
    finally:
        os.environ.pop(_SPINS, None)
