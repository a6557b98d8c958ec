"""Which slot a request goes to, and who knows that it has it."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llm_localrun.engine.slots import (
    Seat,
    Visit,
    last_used,
    set_up,
    take,
    take_all,
    take_free,
    visit_of,
)
from llm_localrun.engine.state import EngineSettings, EngineSpec, EngineState, Paths, write_state
from llm_localrun.engine_defaults import SEATS

LONG = "It was the best of times, it was the worst of times. " * 40
"""Eight blocks and a bit."""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path, "1-a")
    set_up(paths)
    paths.state.touch()
    return paths


@contextmanager
def taken(seats: Iterable[Seat | None]) -> Iterator[list[Seat]]:
    taken = [seat for seat in seats if seat is not None]
    yield taken
    for seat in taken:
        seat.leave()


@contextmanager
def taken_by(paths: Paths, visit: Visit, is_on_disk: bool = False) -> Iterator[Seat]:
    with taken([take(paths, visit, is_on_disk, 1)]) as (seat,):
        yield seat


def leave(paths: Paths, *visits: Visit) -> None:
    """Lets each of `visits` have been in a seat, one after the other, from seat 0 on."""
    with taken(take_free(paths)) as seats:
        for number, visit in enumerate(visits):
            seats[number].note(visit)
            os.utime(paths.seat(number), (0, 1000 + number))


A, B = visit_of("a", LONG), visit_of("b", "Another thing. " * 200)


@pytest.mark.parametrize(
    ("held", "visit", "is_on_disk", "number"),
    [
        ([], A, False, 0),
        ([A], visit_of("a", "too short to be compared"), False, 0),
        ([A], visit_of("a", LONG + "more"), True, 0),
        ([B, A], visit_of("c", LONG), False, 1),
        ([B, A], visit_of("", LONG + "more"), False, 1),
        ([B, A], visit_of("c", LONG * 3), False, 2),
        ([B, A], visit_of("c", LONG + "more"), True, 2),
        ([B, A], visit_of("c", "short"), False, 2),
        ([visit_of("c", "short"), A, B, B], visit_of("d", "short"), False, 0),
        ([A, B, B, B], visit_of("e", "Something else"), False, 0),
    ],
    ids=[
        "nothing held: the first",
        "its own conversation, however little it shares",
        "its own conversation, though the disk has it too",
        "another conversation with the same beginning",
        "no conversation, the same beginning",
        "less than half of the prompt is there",
        "the disk has more than a beginning",
        "nothing in common: a slot that holds nothing",
        "the same short prompt",
        "all in use: the one left longest ago",
    ],
)
def test_seat_that_suits(
    paths: Paths, held: list[Visit], visit: Visit, is_on_disk: bool, number: int
) -> None:
    leave(paths, *held)
    with taken_by(paths, visit, is_on_disk) as seat:
        assert seat.number == number
        assert seat.before == (held[number] if number < len(held) else Visit())


def test_seat_that_is_taken_is_nobody_elses(paths: Paths) -> None:
    with taken(take(paths, A, False, 1) for _ in range(SEATS)) as seats:
        assert sorted(seat.number for seat in seats) == list(range(SEATS))
        with pytest.raises(TimeoutError):
            take(paths, A, False, 0.05)
        assert take_all(paths) is None
    with taken(take_all(paths) or []) as everything:
        assert len(everything) == SEATS


@pytest.mark.parametrize(
    ("visit", "before"), [(A, A), (visit_of("b", LONG), Visit())], ids=["its own", "another's"]
)
def test_what_a_slot_holds_is_unknown_until_it_is_noted(
    paths: Paths, visit: Visit, before: Visit
) -> None:
    leave(paths, A)
    with taken_by(paths, visit):
        # Whoever has it may be killed now.
        pass
    with taken(take_free(paths)) as seats:
        assert seats[0].before == before


@pytest.fixture
def thousand(paths: Paths) -> Paths:
    """Of an engine with a context of 1,000 tokens."""
    spec = EngineSpec("m.gguf", "m", 0, 0.0, EngineSettings(context_size=1000))
    write_state(paths.folder, EngineState(paths.id, spec, key="", build="", started_at=0.0))
    return paths


def fill(visit: Visit, tokens: int) -> Visit:
    return replace(visit, tokens=tokens)


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
def test_context_is_shared(thousand: Paths, others: list[int], tokens: int, fits: bool) -> None:
    leave(thousand, A)
    with taken(take(thousand, fill(B, other), False, 1) for other in others):
        if fits:
            with taken_by(thousand, fill(A, tokens)) as seat:
                assert seat.number == 0
        else:
            with pytest.raises(TimeoutError):
                take(thousand, fill(A, tokens), False, 0.05)
    # What a slot holds is still known, and nobody claims anything any more.
    with taken(take_free(thousand)) as seats:
        assert seats[0].before == A
    with taken_by(thousand, fill(B, 1000)), taken_by(thousand, Visit()):
        pass


def test_claim_lasts_until_the_seat_is_left(thousand: Paths) -> None:
    with taken_by(thousand, fill(A, 600)) as seat:
        seat.note(fill(A, 600))
        with pytest.raises(TimeoutError):
            take(thousand, fill(B, 600), False, 0.05)
    with taken_by(thousand, fill(B, 600)):
        pass


def test_claim_of_who_was_killed_is_void(thousand: Paths) -> None:
    leave(thousand, A, B)
    killed = take(thousand, fill(A, 600), False, 1)
    assert killed is not None
    killed._file.close()
    with taken_by(thousand, fill(B, 600)) as seat:
        assert seat.number == 1


def test_engine_that_is_about_to_end_gives_no_seat(paths: Paths) -> None:
    paths.state.unlink()
    assert take(paths, A, False, 1) is None


def test_when_it_was_last_used(paths: Paths) -> None:
    begun = time.time()
    leave(paths, A, B)
    assert last_used(paths) >= begun - 1
    for number in range(SEATS):
        os.utime(paths.seat(number), (0, 1000 + number))
    assert last_used(paths) == 1000 + SEATS - 1
