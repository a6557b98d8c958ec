"""What other programs use: without this process, without ours, and what a processor waits."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace as Names

import psutil
import pytest

from llm_localrun.bench import busy
from llm_localrun.engine.host import CALM_SPINS

pytestmark = pytest.mark.pure

OURS, OTHER = 11, 12


@pytest.fixture
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second, in which four cores are busy for 1.5 s: 0.4 s of that here, 0.6 s in `OURS`.

    `OTHER` uses 0.3 s, and 40 ends.
    """
    now: Iterator[int] = iter(range(100))
    state = {"now": next(now)}
    monkeypatch.setattr(time, "sleep", lambda _: state.update(now=next(now)))
    monkeypatch.setattr(time, "perf_counter", lambda: 100 + 0.5 * state["now"])
    used = {os.getpid(): 0.4, OURS: 0.6, OTHER: 0.3}

    def times() -> object:
        at = state["now"]
        names = "user system idle iowait guest"
        values = (7 + 1.1 * at, 3 + 0.4 * at, 50 + 0.3 * at, 2 + 0.2 * at, 7 + 1.1 * at)
        fields = dict(zip(names.split(), values, strict=True))
        return Names(_asdict=lambda: fields)

    def process(pid: int) -> object:
        if pid not in used and state["now"]:
            raise psutil.NoSuchProcess(pid)
        seconds = 5 + used.get(pid, 0) * state["now"]
        return Names(cpu_times=lambda: Names(user=seconds, system=1.0))

    monkeypatch.setattr(psutil, "cpu_times", times)
    monkeypatch.setattr(psutil, "Process", process)


@pytest.mark.usefixtures("half_a_second")
@pytest.mark.parametrize(
    ("own", "cores"), [((), 2.2), ((OURS,), 1.0), ((OURS, OTHER), 0.4), ((40,), 2.2)]
)
def test_what_is_ours_does_not_count(own: tuple[int, ...], cores: float) -> None:
    assert busy.cores_of_others(own) == pytest.approx(cores)


def test_nothing_is_known_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert busy.cores_of_others() is None


@pytest.mark.parametrize(
    ("before", "cores", "spins"),
    [
        ({}, 0.0, str(CALM_SPINS)),
        ({}, 0.6 * busy.cores(), None),
        ({"GOMP_SPINCOUNT": "7"}, 0.0, "7"),
        ({"OMP_WAIT_POLICY": "passive"}, 0.0, None),
    ],
)
def test_engines_start_as_on_a_calm_machine_if_it_is(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str], cores: float, spins: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    print_it = [sys.executable, "-c", "import os; print(os.environ.get('GOMP_SPINCOUNT'))"]
    with busy.calm_engines(cores):
        assert subprocess.check_output(print_it, text=True).strip() == str(spins)
    assert os.environ.get("GOMP_SPINCOUNT") == before.get("GOMP_SPINCOUNT")
