"""Who has a request in which of llama.cpp's slots: seats, of which an engine has a few.

A request takes a seat before it is sent and says so to llama.cpp by the slot's number. So it is
known what conversation a slot holds, which lets its evaluated prompt outlive the engine; and an
engine of which all seats are free is idle. All slots share one context: where it cannot hold what
all may fill, llama.cpp breaks off every answer, so who takes a seat claims its part of it. A seat
is a lock on a file, so that one whose holder has died is free. Imports nothing but the standard
library: the engine's host uses it too.
"""

import contextlib
import hashlib
import json
import random
import time
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import BinaryIO

from llm_localrun.engine.state import Paths, read_state
from llm_localrun.engine_defaults import SEATS
from llm_localrun.system.locks import held_anew, hold, is_locked

_BLOCK = 256
"""Characters of a prompt by which prefixes are compared."""
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Visit:
    """What a request brings to a slot, or has left there.

    `conversation` is the id under which llm keeps it, "" if it does not; `prefixes` are digests of
    the prompt's first block, of its first two, and so on; `tokens` are what the prompt and its
    answer may fill of the context, as long as the seat is taken.
    """

    conversation: str = ""
    prefixes: tuple[str, ...] = ()
    tokens: int = 0

    def shares(self, other: "Visit") -> int:
        """How many blocks the two begin with in common."""
        # Each digest covers all before it: where two are equal, so are all earlier ones.
        return sum(a == b for a, b in zip(self.prefixes, other.prefixes, strict=False))


def visit_of(conversation: str, prompt: str) -> Visit:
    """The visit of a request whose whole prompt, in any spelling, is `prompt`."""
    running, prefixes = hashlib.blake2b(digest_size=8), []
    for start in range(0, len(prompt), _BLOCK):
        running.update(prompt[start : start + _BLOCK].encode("utf-8", "replace"))
        prefixes.append(running.hexdigest())
    return Visit(conversation, tuple(prefixes))


@dataclass(frozen=True, slots=True)
class Seat:
    """A seat that is taken, until it is left."""

    number: int
    before: Visit
    """What its slot holds."""
    _file: BinaryIO

    def note(self, visit: Visit) -> None:
        """Says what the slot holds from now on."""
        # On a full disk that stays unknown.
        with contextlib.suppress(OSError):
            self._file.seek(0)
            self._file.write(json.dumps(asdict(visit)).encode())
            # Not before: file systems write out what has been emptied, which takes milliseconds.
            self._file.truncate()

    def leave(self) -> None:
        """Gives back the seat, and what it has claimed of the context."""
        with self._file as file, contextlib.suppress(OSError):
            file.seek(0)
            held = _visit_in(file.read())
            if held.tokens:
                self.note(replace(held, tokens=0))


def set_up(paths: Paths) -> None:
    """Makes an engine's seats. Raises OSError."""
    for number in range(SEATS):
        held_anew(paths.seat(number)).close()


def take(paths: Paths, visit: Visit, is_on_disk: bool, patience: float) -> Seat | None:
    """The seat that suits `visit`, as soon as one is free; None if the engine is about to end.

    `is_on_disk` is whether the conversation can be had from there. Raises TimeoutError after
    `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while paths.state.exists():
        if seat := _first_free(paths, _by_preference(paths, visit, is_on_disk)):
            # The host takes all seats before it ends.
            if paths.state.exists() and _claim(paths, seat, visit):
                return seat
            seat.leave()
        if time.monotonic() > deadline:
            raise TimeoutError
        # Not in step with others who wait.
        time.sleep(_POLL_SECONDS * random.uniform(1, 3))
    return None


def _claim(paths: Paths, seat: Seat, visit: Visit) -> bool:
    """Claims what `visit` may fill of the context; False if others have too much of it."""
    is_own = seat.before.conversation == visit.conversation
    seat.note(replace(seat.before if is_own else Visit(), tokens=visit.tokens))
    # Only then: of two who come at once, one at least sees the other.
    others = sum(_claimed(paths, number) for number in range(SEATS) if number != seat.number)
    if not others or others + visit.tokens <= _context_size(paths):
        return True
    seat.note(seat.before)
    return False


def _claimed(paths: Paths, number: int) -> int:
    """What who has a seat claims; one who was killed has left a claim, but no lock."""
    tokens = _read(paths.seat(number)).tokens
    return tokens if tokens and is_locked(paths.seat(number)) else 0


def _context_size(paths: Paths) -> float:
    state = read_state(paths.state)
    return state.spec.context_size if state else inf


def take_free(paths: Paths) -> list[Seat]:
    """All seats that nobody has, so that nobody can come."""
    return [seat for number in range(SEATS) if (seat := _try(paths, number))]


def take_all(paths: Paths) -> list[Seat] | None:
    """All seats of an idle engine; None if one is taken."""
    seats = take_free(paths)
    if len(seats) == SEATS:
        return seats
    for seat in seats:
        seat.leave()
    return None


def last_used(paths: Paths) -> float:
    """When, by the clock, a request last took or left a seat."""
    return max((_modified(paths.seat(number)) for number in range(SEATS)), default=0.0)


def _by_preference(paths: Paths, visit: Visit, is_on_disk: bool) -> list[int]:
    """The numbers of the seats, the one that suits `visit` best first.

    That is the one with its conversation; the one whose slot holds at least half of the prompt,
    unless the disk has the conversation; one whose slot holds nothing; the one left longest ago.
    """

    def rank(number: int) -> tuple[bool, int, float, int]:
        held = _read(paths.seat(number))
        is_own = bool(visit.conversation) and held.conversation == visit.conversation
        shared = 0 if is_on_disk else visit.shares(held)
        useful = shared if 2 * shared >= len(visit.prefixes) else 0
        left_at = _modified(paths.seat(number)) if held.prefixes else 0.0
        return (not is_own, -useful, left_at, number)

    return sorted(range(SEATS), key=rank)


def _first_free(paths: Paths, numbers: list[int]) -> Seat | None:
    return next((seat for number in numbers if (seat := _try(paths, number))), None)


def _try(paths: Paths, number: int) -> Seat | None:
    path = paths.seat(number)
    file = hold(path)
    return None if file is None else Seat(number, _read(path), file)


def _read(path: Path) -> Visit:
    try:
        return _visit_in(path.read_bytes())
    except OSError:
        return Visit()


def _visit_in(content: bytes) -> Visit:
    """What a slot holds; nothing if its seat's file has not been written, or not to its end."""
    try:
        values = json.loads(content)
        return Visit(values["conversation"], tuple(values["prefixes"]), values["tokens"])
    except (ValueError, TypeError, KeyError):
        return Visit()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
