"""Which engines go when memory is short."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from llm_localrun.engine import evict, slots
from llm_localrun.engine.state import EngineSettings, EngineSpec, EngineState, Paths, write_state
from llm_localrun.engine_defaults import SEATS
from llm_localrun.errors import EngineFailed
from llm_localrun.system import locks

GB = 2**30


def spec(name: str, size: int) -> EngineSpec:
    return EngineSpec(f"/{name}.gguf", name, size, 0.0, EngineSettings(context_size=512))


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of three engines that run, each with 4 GB of weights, least recently used first.

    "busy" is answering a request.
    """
    running = ["old", "busy", "new"]
    held: list[BinaryIO] = []
    for place, name in enumerate(running):
        paths = Paths(tmp_path, f"{place + 1}-{name}")
        held.append(locks.held_anew(paths.lock))
        slots.set_up(paths)
        state = EngineState(paths.id, spec(name, 4 * GB), "key", "build", 0.0, url="http://x")
        write_state(tmp_path, state)
        for number in range(SEATS):
            os.utime(paths.seat(number), (0, 1000 * place))
        if name == "busy":
            held.append(locks.held_anew(paths.seat(1)))

    def end(paths: Paths) -> None:
        held[int(paths.id[0]) - 1].close()
        running.remove(paths.id[2:])

    monkeypatch.setattr("llm_localrun.engine.stop.end", end)
    yield running
    for file in held:
        file.close()


@pytest.mark.parametrize(
    ("size", "budget", "left"),
    [
        (1 * GB, None, ["old", "busy", "new"]),
        (1 * GB, 18 * GB, ["old", "busy", "new"]),
        (4 * GB, 18 * GB, ["busy", "new"]),
        (8 * GB, 18 * GB, ["busy"]),
    ],
)
def test_idle_engine_left_longest_ago_goes_first(
    tmp_path: Path, engines: list[str], size: int, budget: int | None, left: list[str]
) -> None:
    evict.evict_idle(spec("wanted", size), tmp_path, budget)
    assert engines == left


def test_what_answers_is_left_alone(tmp_path: Path, engines: list[str]) -> None:
    with pytest.raises(EngineFailed, match="together with the models that are answering now: busy"):
        evict.evict_idle(spec("wanted", 12 * GB), tmp_path, 18 * GB)
    assert engines == ["busy"]


def test_model_that_is_too_large_alone_is_let_through(tmp_path: Path) -> None:
    evict.evict_idle(spec("wanted", 40 * GB), tmp_path, 18 * GB)
