"""How long the threads of an engine look for work before they sleep depends on the load."""

import os

import pytest

from llm_localrun.engine.host import spin_count

pytestmark = pytest.mark.pure

CALM, BUSY = 100_000, 1_000


@pytest.mark.parametrize(
    ("load", "cores", "spins"),
    [(0.0, 8, CALM), (4.0, 8, CALM), (4.1, 8, BUSY), (1.0, 1, BUSY), (9.0, None, BUSY)],
)
def test_by_the_load(
    monkeypatch: pytest.MonkeyPatch, load: float, cores: int | None, spins: int
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert spin_count() == spins


def test_unknown_load_counts_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert spin_count() == BUSY
