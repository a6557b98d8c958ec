"""How fast this machine reads weights is measured once, and kept while it is the same machine."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.recommended import bandwidth
from llm_localrun.recommended.bandwidth import (
    Machine,
    Measured,
    Rates,
    rates_in,
    rates_of,
    this_machine,
)

MACHINE = Machine("EPYC", 2, "ggml.so", "2026.10")
FIGURES: dict[str, Any] = {"reads": {"F16": 30e9}, "step": 1e-6}
IDLE, BUSY = (0.0, 0.0, 0.0), (10_000.0, 0.0, 0.0)

pytestmark = pytest.mark.usefixtures("user_path")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Each measurement that was made: whether it was that of a busy machine."""
    made: list[bool] = []

    def measure(library: str, *, is_busy: bool) -> Measured:
        made.append(is_busy)
        return Measured.model_validate({**FIGURES, "worked": 0.97})

    monkeypatch.setattr(bandwidth, "measure", measure)
    monkeypatch.setattr(os, "getloadavg", lambda: IDLE, raising=False)
    yield made
    bandwidth.rates_in.cache_clear()


def next_process(machine: Machine = MACHINE) -> Rates | None:
    bandwidth.rates_in.cache_clear()
    return rates_of(machine)


def test_measured_once(user_path: Path, measured: list[bool]) -> None:
    found = [next_process(), rates_of(MACHINE), next_process()]
    assert [rates and rates.model_dump() for rates in found] == [FIGURES] * 3
    assert measured == [False]
    assert (user_path / "localrun" / "speed.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "change", [{"processor": "Xeon"}, {"cores": 4}, {"version": "2026.11"}], ids=str
)
def test_another_machine_or_library_is_measured(
    measured: list[bool], change: dict[str, Any]
) -> None:
    next_process()
    next_process(replace(MACHINE, **change))
    assert len(measured) == 2


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "\0", '{"key": [], "rates": null}'),
        *(
            json.dumps({"key": MACHINE.key, "rates": rates})
            for rates in (
                {"reads": {}, "step": 1e-6},
                {"reads": {"F16": 0}, "step": 1e-6},
                {"reads": {"F16": -1}, "step": 1e-6},
                {"reads": {"F16": "fast"}, "step": 1e-6},
                {"reads": {"F16": float("inf")}, "step": 1e-6},
                {"reads": {"F16": float("nan")}, "step": 1e-6},
                {"reads": {"F16": 30e9}, "step": 0},
                {"reads": {"F16": 30e9}, "step": 1e-8},
                {"reads": {"F16": 30e9}, "step": 1e-2},
                {"reads": {"F16": 30e9, "Q4_K": 1e8}, "step": 1e-6},
                {"reads": {"F16": 30e9, "Q4_K": 1e13}, "step": 1e-6},
                {"reads": {"F16": 30e9}},
            )
        ),
    ],
)
def test_a_damaged_file_is_measured_again(
    user_path: Path, measured: list[bool], content: str
) -> None:
    path = user_path / "localrun" / "speed.json"
    path.write_text(content)
    next_process()
    next_process()
    assert measured == [False]
    assert json.loads(path.read_text())["rates"] == FIGURES


def test_a_folder_in_its_place_costs_only_the_memory_of_it(
    user_path: Path, measured: list[bool]
) -> None:
    (user_path / "localrun" / "speed.json").mkdir()
    assert next_process()
    assert next_process()
    assert len(measured) == 2


def test_a_busy_machine_is_measured_for_one_process(
    measured: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: BUSY, raising=False)
    next_process()
    rates_of(MACHINE)
    monkeypatch.setattr(os, "getloadavg", lambda: IDLE, raising=False)
    next_process()
    next_process()
    assert measured == [True, False]


@pytest.mark.parametrize(
    ("library", "figures", "is_kept"),
    [
        ("ggml.so", {**FIGURES, "worked": 0.9}, True),
        ("ggml.so", {**FIGURES, "worked": 0.89}, False),
        ("ggml.so", {**FIGURES, "worked": 0.0}, False),
        # The library failed, which it may not do the next time.
        ("ggml.so", {"reads": {"": 30e9}, "step": 1e-6, "worked": 1.0}, False),
        ("", {"reads": {"": 30e9}, "step": 1e-6, "worked": 1.0}, True),
        ("", {"reads": {"": 30e9}, "step": 1e-6, "worked": 0.5}, False),
    ],
)
def test_what_a_moment_disturbed_is_used_but_not_kept(
    user_path: Path,
    measured: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    figures: dict[str, Any],
    is_kept: bool,
) -> None:
    found = Measured.model_validate(figures)
    monkeypatch.setattr(bandwidth, "measure", lambda *_, **__: found)
    path = user_path / "localrun" / "speed.json"
    rates = rates_in(path, replace(MACHINE, library=library))
    assert rates and rates.reads == found.reads
    assert path.exists() is is_kept


def test_figures_of_another_format_are_measured_again(
    measured: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    next_process()
    monkeypatch.setattr(bandwidth, "_FORMAT", bandwidth._FORMAT + 1)
    next_process()
    assert len(measured) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs a set of usable processors")
def test_processors_that_others_have_do_not_count(
    measured: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container with 2 of 64 processors is busy with a load of 3."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7})
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    next_process(this_machine())
    assert (this_machine().cores, measured) == (2, [True])


def test_a_library_whose_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(_: str) -> str:
        raise PackageNotFoundError

    with_package = this_machine()
    monkeypatch.setattr(bandwidth, "version", version)
    machine = this_machine()
    assert machine.library == with_package.library
    assert machine.version == ("unknown" if machine.library else "")


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_engines_library_is_measured_by_types(
    is_busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = this_machine()
    if not machine.library:
        pytest.skip("xllamacpp exports none of ggml's functions here")
    monkeypatch.setattr(bandwidth, "_TIMEOUT_S", 30.0)
    rates = bandwidth.measure(machine.library, is_busy=is_busy)
    assert rates and "F16" in rates.reads and "" not in rates.reads
    assert rates.worked > 0


NO_LIBRARIES = pytest.mark.parametrize("library", ["", "/nowhere/ggml.so", __file__])


@NO_LIBRARIES
def test_without_a_library_a_busy_machine_is_not_measured(library: str) -> None:
    assert bandwidth.measure(library, is_busy=True) is None


@NO_LIBRARIES
def test_without_the_library_memory_is_measured(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bandwidth, "_TIMEOUT_S", 30.0)
    rates = bandwidth.measure(library, is_busy=False)
    assert rates and [*rates.reads] == [""]
    assert rates.of("Q4_K") == rates.of("") > 0


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for Python")
@pytest.mark.parametrize(
    "failure",
    ["kill -SEGV $$", "exit 1", "exec sleep 60", "echo '{'; exit 0", "echo '[1, 2]'; exit"],
)
def test_if_the_library_breaks_the_process_memory_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$5" = bad.so ] && {{ {failure}; }}\nexec {sys.executable} "$@"'
    )
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(bandwidth, "_TIMEOUT_S", 5.0)
    rates = bandwidth.measure("bad.so", is_busy=False)
    assert rates and [*rates.reads] == [""]


def test_without_a_process_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    assert bandwidth.measure("", is_busy=False) is None


def test_a_type_that_was_not_measured_counts_as_the_slowest() -> None:
    rates = Rates(reads={"F16": 30e9, "Q8_0": 20e9}, step=1e-6)
    assert (rates.of("F16"), rates.of("IQ1_S")) == (30e9, 20e9)
