"""What the program makes of its single measurements: which counts, how many, and for how long."""

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.recommended import measuring
from llm_localrun.recommended.measuring import measure

pytestmark = pytest.mark.pure
USUAL = ["F16", "Q4_K", "Q6_K", "Q8_0", "MXFP4", "Q5_K", "Q4_0", "Q5_0"]
ALL_TYPES, ROUNDS = 15, 3


class Machine:
    """A machine that answers each measurement at once, while its clock goes on by `tick`."""

    def __init__(self) -> None:
        self.threads, self.share, self.size = 2, 1.0, 0
        self.tick = 0.0
        self.now = 100.0
        self.measured: list[str] = []
        self.speeds: dict[str, Iterator[float]] = {}
        self.steps = iter([1e-6] * 1000)
        self.shares: Iterator[float] = iter([1.0] * 1000)

    def ggml(self, library: str, size: int) -> "Machine":
        if not library:
            raise OSError
        self.size = size
        return self

    def speed_of(self, _: "Machine", kind: TensorType, *, is_busy: bool) -> tuple[float, float]:
        self.now += self.tick
        self.measured.append(kind.name)
        return next(self.speeds.get(kind.name, iter([10.0]))), next(self.shares)

    def step_of(self, _: "Machine") -> float:
        return next(self.steps)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(measuring, "_Ggml", made.ggml)
    monkeypatch.setattr(measuring, "_speed_of", made.speed_of)
    monkeypatch.setattr(measuring, "_step_of", made.step_of)
    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


def measured(*, is_busy: bool = False) -> dict[str, Any]:
    found = measure("ggml.so", 0.33, is_busy=is_busy)
    assert found is not None
    return found


@pytest.mark.parametrize(("is_busy", "speed"), [(False, 9), (True, 3)])
def test_other_processes_make_some_rounds_wrong(
    machine: Machine, is_busy: bool, speed: float
) -> None:
    """The wall clock's figures are too low then, those of the time that threads work too high."""
    machine.threads = 1
    machine.speeds["Q4_K"] = iter([7, 9, 3, 8])
    assert measured(is_busy=is_busy)["reads"]["Q4_K"] == speed


@pytest.mark.parametrize(
    ("is_busy", "threads", "fastest"),
    [(True, 1, 60), (True, 2, 45), (True, 8, 11.25), (False, 2, 100)],
)
def test_on_a_busy_machine_memory_limits_all_types(
    machine: Machine, is_busy: bool, threads: int, fastest: float
) -> None:
    machine.threads = threads
    machine.speeds = {"F16": iter([60] * 9), "Q8_0": iter([100] * 9), "Q5_0": iter([5] * 9)}
    reads = measured(is_busy=is_busy)["reads"]
    assert (reads["Q8_0"], reads["Q5_0"]) == (fastest, 5)


def test_the_share_for_pages_is_that_of_all_types(machine: Machine) -> None:
    machine.share = 0.5
    assert set(measured()["reads"].values()) == {5}


@pytest.mark.parametrize(
    ("tick", "count"),
    [
        (1.0, len(USUAL)),  # these even if time is over
        (0.034, 10),
        (0.0, ALL_TYPES + ROUNDS * len(USUAL)),
    ],
)
def test_time_ends_all_but_the_usual_types(machine: Machine, tick: float, count: int) -> None:
    machine.tick = tick
    machine.speeds = {name: iter([10.0] * 9) for name in USUAL}
    reads = measured()["reads"]
    assert machine.measured[: len(USUAL)] == USUAL
    assert len(machine.measured) == count
    assert len(reads) == min(count, ALL_TYPES)


@pytest.mark.parametrize(("is_busy", "step"), [(False, 2e-6), (True, 1e-6)])
def test_the_smallest_step_counts(machine: Machine, is_busy: bool, step: float) -> None:
    machine.tick = 1.0
    machine.steps = iter([4e-6, 3e-6, 2e-6, *[5e-6] * 100])
    assert measured(is_busy=is_busy)["step"] == step


def test_the_threads_worked_for_a_share_of_all_measurements(machine: Machine) -> None:
    machine.tick = 1.0
    machine.shares = iter([1.0, 0.2] * 4)
    assert measured()["worked"] == pytest.approx(0.6)


@pytest.mark.parametrize(("is_busy", "size"), [(False, 128 * 2**20), (True, 64 * 2**20)])
def test_size_of_the_matrix(machine: Machine, is_busy: bool, size: int) -> None:
    machine.tick = 1.0
    measured(is_busy=is_busy)
    assert machine.size == size


def test_without_a_library_a_busy_machine_says_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = {"reads": {"": 1e9}, "step": 1e-6, "worked": 1.0}
    monkeypatch.setattr(measuring, "_searched", lambda: searched)
    assert measure("", 0.33, is_busy=True) is None
    assert measure("", 0.33, is_busy=False) == searched


# Single measurements


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Makes each work take so many seconds, for which all threads work together for so many."""
    now = {"wall": 5.0, "worked": 7.0}

    def set_up(wall: float, worked: float) -> None:
        def work() -> None:
            now["wall"] += wall
            now["worked"] += worked

        clock = SimpleNamespace(
            perf_counter=lambda: now["wall"], process_time=lambda: now["worked"]
        )
        monkeypatch.setattr(measuring, "time", clock)
        monkeypatch.setattr(Products, "work", staticmethod(work), raising=False)

    return set_up


class Products:
    """ggml, with two threads and a matrix of 1 MiB."""

    threads, size = 2, 2**20
    work: Callable[[], None]

    def products(self, *_: object) -> Callable[[], None]:
        return Products.work


@pytest.mark.parametrize(("is_busy", "speed"), [(False, 2**20 / 4), (True, 2**20 / 3)])
def test_speed_of_a_type(
    clocks: Callable[[float, float], None], is_busy: bool, speed: float
) -> None:
    clocks(4, 6)
    ggml: Any = Products()
    found = measuring._speed_of(ggml, TensorType.F16, is_busy=is_busy)
    assert found == pytest.approx((speed, 0.75))


def test_step_is_that_of_one_operation(clocks: Callable[[float, float], None]) -> None:
    clocks(100, 200)
    ggml: Any = Products()
    assert measuring._step_of(ggml) == 2


# Huge pages


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says which memory has huge pages")
@pytest.mark.parametrize(
    ("text", "is_valid", "pages", "share"),
    [
        ("always [madvise] never\n", True, "ADVISED", 0.72),
        ("always [madvise] never\n", False, "NONE", 1.0),
        ("[always] madvise never\n", True, "ALL", 1.0),
        ("always madvise [never]\n", True, "NONE", 1.0),
        ("", True, "NONE", 1.0),
        (None, True, "NONE", 1.0),
    ],
)
def test_huge_pages(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    is_valid: bool,
    pages: str,
    share: float,
) -> None:
    path = tmp_path / "enabled"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(measuring, "_HUGE_PAGES", path)
    size = 8 * 2**20
    with mmap.mmap(-1, size) as memory:
        view = (ctypes.c_char * size).from_buffer(memory)
        # Nothing is at the other address.
        address = ctypes.addressof(view) if is_valid else 2**46
        found = measuring._use_huge_pages(address, size)
        del view
    assert found.name == pages
    assert measuring._SHARES[found] == share
