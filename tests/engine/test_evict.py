"""Which engines are stopped when memory is short."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from llm_localrun.engine import evict, slots
from llm_localrun.engine.state import (
    EnginePaths,
    EngineSettings,
    EngineSpec,
    EngineState,
    write_state,
)
from llm_localrun.engine_defaults import SLOTS
from llm_localrun.errors import EngineFailed
from llm_localrun.system import locks
from tests.support.trees import gguf

GB = 2**30


def spec(name: str, size: int) -> EngineSpec:
    return EngineSpec(f"/{name}.gguf", name, size, 0.0, EngineSettings(context_size=512))


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the engines still running, of three with 4 GB of weights, least recently used
    first.

    "busy" is answering.
    """
    running = ["old", "busy", "new"]
    held: list[BinaryIO] = []
    for index, name in enumerate(running):
        paths = EnginePaths(tmp_path, f"{index + 1}-{name}")
        held.append(locks.create_locked(paths.lock))
        slots.create_slots(paths)
        state = EngineState(paths.id, spec(name, 4 * GB), "key", "build", 0.0, url="http://x")
        write_state(tmp_path, state)
        for number in range(SLOTS):
            os.utime(paths.slot(number), (0, 1000 * index))
        if name == "busy":
            held.append(locks.create_locked(paths.slot(1)))

    def end(paths: EnginePaths, _name: str) -> None:
        held[int(paths.id[0]) - 1].close()
        running.remove(paths.id[2:])

    monkeypatch.setattr("llm_localrun.engine.stop.end", end)
    yield running
    for file in held:
        file.close()


@pytest.mark.parametrize(
    ("size", "budget", "kept"),
    [
        (1 * GB, None, ["old", "busy", "new"]),
        (1 * GB, 18 * GB, ["old", "busy", "new"]),
        (4 * GB, 18 * GB, ["busy", "new"]),
        (8 * GB, 18 * GB, ["busy"]),
    ],
)
def test_least_recently_used_engine_goes_first(
    tmp_path: Path, engines: list[str], size: int, budget: int | None, kept: list[str]
) -> None:
    evict.evict_idle(spec("wanted", size), tmp_path, budget)
    assert engines == kept


def test_file_that_has_grown_since_it_was_loaded_needs_no_more(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", size=2**21)
    loaded = EngineSpec(str(path), "m", 2**21, 0.0, EngineSettings(context_size=512))
    need = evict.need_of(loaded)
    os.truncate(path, 100 * GB)
    assert evict.need_of(loaded) == need
    assert need.weights == 2**21


def test_engine_in_use_is_kept(tmp_path: Path, engines: list[str]) -> None:
    with pytest.raises(EngineFailed, match="while these models answer: busy"):
        evict.evict_idle(spec("wanted", 12 * GB), tmp_path, 18 * GB)
    assert engines == ["busy"]


def test_model_that_does_not_fit_alone_is_not_refused(tmp_path: Path) -> None:
    evict.evict_idle(spec("wanted", 40 * GB), tmp_path, 18 * GB)
