"""Which slot a request acquires, and how the slots share the context."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llm_localrun.engine.slots import (
    Slot,
    SlotContents,
    acquire,
    acquire_all,
    acquire_free,
    contents_for,
    create_slots,
    last_used,
)
from llm_localrun.engine.state import (
    EnginePaths,
    EngineSettings,
    EngineSpec,
    EngineState,
    write_state,
)
from llm_localrun.engine_defaults import SLOTS

LONG = "It was the best of times, it was the worst of times. " * 40
"""Eight blocks and a bit."""


@pytest.fixture
def paths(tmp_path: Path) -> EnginePaths:
    paths = EnginePaths(tmp_path, "1-a")
    create_slots(paths)
    paths.state.touch()
    return paths


@contextmanager
def holding(slots: Iterable[Slot | None]) -> Iterator[list[Slot]]:
    """Releases the slots at the end."""
    acquired = [slot for slot in slots if slot is not None]
    yield acquired
    for slot in acquired:
        slot.release()


@contextmanager
def held_for(paths: EnginePaths, contents: SlotContents, is_saved: bool = False) -> Iterator[Slot]:
    with holding([acquire(paths, contents, is_saved, 1)]) as (slot,):
        yield slot


def fill(paths: EnginePaths, *contents: SlotContents) -> None:
    """Makes the slots hold `contents`, the first one used longest ago."""
    with holding(acquire_free(paths)) as slots:
        for number, each in enumerate(contents):
            slots[number].record(each)
            os.utime(paths.slot(number), (0, 1000 + number))


A, B = contents_for("a", LONG), contents_for("b", "Another thing. " * 200)


@pytest.mark.parametrize(
    ("held", "contents", "is_saved", "number"),
    [
        ([], A, False, 0),
        ([A], contents_for("a", "too short to be compared"), False, 0),
        ([A], contents_for("a", LONG + "more"), True, 0),
        ([B, A], contents_for("c", LONG), False, 1),
        ([B, A], contents_for("", LONG + "more"), False, 1),
        ([B, A], contents_for("c", LONG * 3), False, 0),
        ([B, A], contents_for("c", LONG + "more"), True, 0),
        ([B, A], contents_for("c", "short"), False, 0),
        ([B, A], SlotContents(), False, 2),
        ([contents_for("c", "short"), A, B, B], contents_for("d", "short"), False, 0),
        ([A, B, B, B], contents_for("e", "Something else"), False, 0),
    ],
    ids=[
        "all empty: the first",
        "its own conversation, even without a common beginning",
        "its own conversation, although it is saved too",
        "another conversation with the same beginning",
        "no conversation, the same beginning",
        "less than half of the prompt is there",
        "the whole conversation is saved",
        "nothing in common: the least recently used",
        "no prompt to compare: an empty slot",
        "the same short prompt",
        "nothing in common, no empty slot: the least recently used",
    ],
)
def test_best_slot(
    paths: EnginePaths,
    held: list[SlotContents],
    contents: SlotContents,
    is_saved: bool,
    number: int,
) -> None:
    fill(paths, *held)
    with held_for(paths, contents, is_saved) as slot:
        assert slot.number == number
        assert slot.previous == (held[number] if number < len(held) else SlotContents())


def test_slot_has_one_holder(paths: EnginePaths) -> None:
    with holding(acquire(paths, A, False, 1) for _ in range(SLOTS)) as slots:
        assert sorted(slot.number for slot in slots) == list(range(SLOTS))
        with pytest.raises(TimeoutError):
            acquire(paths, A, False, 0.05)
        assert acquire_all(paths) is None
    with holding(acquire_all(paths) or []) as everything:
        assert len(everything) == SLOTS


@pytest.mark.parametrize(
    ("contents", "previous"),
    [(A, A), (contents_for("b", LONG), SlotContents())],
    ids=["its own", "another's"],
)
def test_contents_are_unknown_until_they_are_recorded(
    paths: EnginePaths, contents: SlotContents, previous: SlotContents
) -> None:
    fill(paths, A)
    with held_for(paths, contents):
        # Its holder may be killed now.
        pass
    with holding(acquire_free(paths)) as slots:
        assert slots[0].previous == previous


@pytest.fixture
def thousand(paths: EnginePaths) -> EnginePaths:
    """The files of an engine with a context of 1,000 tokens."""
    spec = EngineSpec("m.gguf", "m", 0, 0.0, EngineSettings(context_size=1000))
    write_state(paths.folder, EngineState(paths.id, spec, key="", build="", started_at=0.0))
    return paths


def claiming(contents: SlotContents, tokens: int) -> SlotContents:
    return replace(contents, tokens=tokens)


@pytest.mark.parametrize(
    ("others", "tokens", "fits"),
    [
        ([], 1000, True),
        ([], 5000, True),
        ([600], 400, True),
        ([600], 401, False),
        ([300, 300], 401, False),
        ([0, 1000], 0, True),
    ],
)
def test_context_is_shared(
    thousand: EnginePaths, others: list[int], tokens: int, fits: bool
) -> None:
    fill(thousand, A)
    with holding(acquire(thousand, claiming(SlotContents(), other), False, 1) for other in others):
        if fits:
            with held_for(thousand, claiming(A, tokens)) as slot:
                assert slot.number == 0
        else:
            with pytest.raises(TimeoutError):
                acquire(thousand, claiming(A, tokens), False, 0.05)
    # The contents of the slot are still known, and all claims have ended.
    with holding(acquire_free(thousand)) as slots:
        assert slots[0].previous == A
    with held_for(thousand, claiming(B, 1000)), held_for(thousand, SlotContents()):
        pass


def test_claim_lasts_until_the_slot_is_released(thousand: EnginePaths) -> None:
    with held_for(thousand, claiming(A, 600)) as slot:
        slot.record(claiming(A, 600))
        with pytest.raises(TimeoutError):
            acquire(thousand, claiming(B, 600), False, 0.05)
    with held_for(thousand, claiming(B, 600)):
        pass


def test_claim_of_a_killed_process_is_void(thousand: EnginePaths) -> None:
    fill(thousand, A, B)
    killed = acquire(thousand, claiming(A, 600), False, 1)
    assert killed is not None
    killed._file.close()
    with held_for(thousand, claiming(B, 600)) as slot:
        assert slot.number == 1


def test_engine_that_is_about_to_end_has_no_slots(paths: EnginePaths) -> None:
    paths.state.unlink()
    assert acquire(paths, A, False, 1) is None


def test_last_used(paths: EnginePaths) -> None:
    begun = time.time()
    fill(paths, A, B)
    assert last_used(paths) >= begun - 1
    for number in range(SLOTS):
        os.utime(paths.slot(number), (0, 1000 + number))
    assert last_used(paths) == 1000 + SLOTS - 1
