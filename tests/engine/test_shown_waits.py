"""What a terminal shows while a prompt waits for others, for a load, or for its conversation."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from llm_localrun.engine import launch, slots
from llm_localrun.engine.launch import acquire_slot
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.slots import SlotContents, create_slots
from llm_localrun.engine.state import (
    EnginePaths,
    EngineSettings,
    EngineSpec,
    EngineState,
    write_state,
)
from llm_localrun.engine.stop import stop, stop_all, stop_when_idle
from llm_localrun.engine_defaults import SLOTS
from llm_localrun.system import locks
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.progress import Progress, Work
from tests.support.engines import converse, wait_until


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each work said of itself, also when it began."""
    said: list[str] = []
    begin, report = Work.__init__, Work.report

    def begun(work: Work, progress: Progress, *clock: Callable[[], float]) -> None:
        said.append(progress.what)
        begin(work, progress, *clock)

    def reported(work: Work, progress: Progress) -> None:
        said.append(progress.what)
        report(work, progress)

    monkeypatch.setattr(Work, "__init__", begun)
    monkeypatch.setattr(Work, "report", reported)
    return said


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineState:
    monkeypatch.setattr(slots, "_TELL_INTERVAL_S", 0.02)
    paths = EnginePaths(tmp_path, "1-a")
    create_slots(paths)
    spec = EngineSpec("m.gguf", "m", 0, 0.0, EngineSettings(context_size=1000))
    state = EngineState(paths.id, spec, key="", build="", started_at=0.0)
    write_state(tmp_path, state)
    return state


@contextmanager
def in_use(paths: EnginePaths, count: int, tokens: int) -> Iterator[None]:
    with ExitStack() as held:
        for _ in range(count):
            slot = slots.acquire(paths, SlotContents(tokens=tokens), False, 1)
            assert slot is not None
            held.enter_context(slot.held())
        yield


@contextmanager
def acquiring(engine: EngineState, folder: Path) -> Iterator[threading.Thread]:
    """A thread that acquires a slot, and releases it as soon as it has it."""

    def wait() -> None:
        contents = SlotContents(tokens=500)
        acquire_slot(contents, folder, lambda: (engine, False)).slot.release()

    thread = threading.Thread(target=wait)
    thread.start()
    yield thread
    thread.join()


@pytest.mark.parametrize(
    ("count", "tokens", "expected"),
    [
        (SLOTS, 0, f"waiting for {SLOTS} other prompts"),
        (1, 1000, "waiting for another prompt"),
        (2, 500, "waiting for 2 other prompts"),
    ],
)
def test_other_prompts(
    engine: EngineState, tmp_path: Path, shown: list[str], count: int, tokens: int, expected: str
) -> None:
    with ExitStack() as others:
        others.enter_context(in_use(EnginePaths(tmp_path, engine.id), count, tokens))
        with acquiring(engine, tmp_path) as thread:
            wait_until(lambda: expected in shown)
            assert thread.is_alive()
            others.close()


def test_a_model_that_is_to_be_unloaded(
    engine: EngineState, tmp_path: Path, shown: list[str]
) -> None:
    with ExitStack() as unloading:
        unloading.enter_context(locks.exclusive(EnginePaths(tmp_path, engine.id).ending, 1))
        with acquiring(engine, tmp_path):
            wait_until(lambda: "waiting for m to be unloaded" in shown)
            unloading.close()


def test_unloading_waits_for_an_answer(
    engine: EngineState, tmp_path: Path, shown: list[str]
) -> None:
    paths = EnginePaths(tmp_path, engine.id)
    with in_use(paths, 1, 0):
        thread = threading.Thread(target=stop_when_idle, args=[paths, lambda *_: None])
        thread.start()
        wait_until(lambda: "waiting for m" in shown)
    thread.join()
    assert "unloading m" in shown


def test_another_command_loads_the_file(
    starter_model: Path, tmp_path: Path, shown: list[str]
) -> None:
    folder, found = tmp_path / "engine", list[tuple[EngineState, bool]]()
    folder.mkdir(mode=0o700)
    wanted = EngineRequest(str(starter_model), "tiny", EngineSettings(512))
    name = hashlib.sha256(wanted.path.encode()).hexdigest()[:16]

    def wait() -> None:
        found.append(launch.find_or_start(wanted, folder, 60))

    with locks.exclusive(folder / f"{name}.starting", 1):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: "waiting for another command to load tiny" in shown)
        assert "loading tiny" not in shown
    thread.join()
    ((engine, _),) = found
    assert "loading tiny" in shown
    stop(engine, folder)


def test_a_conversation_that_returns(starter_model: Path, shown: list[str]) -> None:
    def end() -> None:
        stop_all(engine_folder())

    converse(starter_model, end, {})
    assert "restoring the conversation" in shown
