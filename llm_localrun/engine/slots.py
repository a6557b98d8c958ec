"""Slots: which request uses which of llama.cpp's slots, and what each slot holds.

A request acquires a slot before it is sent, and tells llama.cpp its number. So it is known which
conversation a slot holds, and an engine whose slots are all free is idle. All slots share one
context: if it overflows, llama.cpp aborts every answer, so the holder of a slot claims the tokens
that it may use. A slot is a lock on a file, so the slot of a killed process is free. Ending an idle
engine is left to `evict` and `host`.

Imports only the standard library: the engine's host process uses this module.
"""

import contextlib
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from llm_localrun.engine.state import EnginePaths, EngineState, read_state
from llm_localrun.engine_defaults import SLOTS
from llm_localrun.system.atomic import MAX_BYTES, read_own
from llm_localrun.system.locks import create_locked, is_locked, open_locked

BLOCK_CHARACTERS = 256
"""Prefixes of prompts are compared in blocks of this length."""
_POLL_INTERVAL_S = 0.01
_TELL_INTERVAL_S = 0.5
_ANSWER_TIMEOUT_S = 2.0
"""llama.cpp tells at once what its slots do, unless it evaluates a batch."""


@dataclass(frozen=True, slots=True)
class SlotContents:
    """What a slot holds, or will hold for a request.

    `conversation` is llm's id of the conversation, "" if llm does not log it. `prefixes` are
    digests of the prompt's first block, its first two blocks, and so on. `tokens` is the share of
    the context that the prompt and its answer claim while the slot is acquired.
    """

    conversation: str = ""
    prefixes: tuple[str, ...] = ()
    tokens: int = 0

    def is_cut_by(self, other: "SlotContents") -> bool:
        """Whether a slot that holds this loses a part of it when it is used for `other`."""
        is_own = bool(self.conversation) and self.conversation == other.conversation
        return not is_own and self.count_shared_blocks(other) < len(self.prefixes)

    def is_lost_to(self, other: "SlotContents") -> bool:
        """Whether less than half of it is left: only then llama.cpp keeps it in its memory."""
        return self.is_cut_by(other) and 2 * self.count_shared_blocks(other) < len(self.prefixes)

    def count_shared_blocks(self, other: "SlotContents") -> int:
        """How many blocks at the beginning of the two prompts are equal."""
        # Each digest covers all blocks before it, so equal digests are never behind unequal ones.
        return sum(a == b for a, b in zip(self.prefixes, other.prefixes, strict=False))


def contents_for(conversation: str, prompt: str) -> SlotContents:
    """The contents for a request. `prompt` is its whole prompt, in any fixed serialization."""
    running, prefixes = hashlib.blake2b(digest_size=8), []
    for start in range(0, len(prompt), BLOCK_CHARACTERS):
        running.update(prompt[start : start + BLOCK_CHARACTERS].encode("utf-8", "replace"))
        prefixes.append(running.hexdigest())
    return SlotContents(conversation, tuple(prefixes))


@dataclass(frozen=True, slots=True)
class Slot:
    """An acquired slot. `previous` is what it held when it was acquired."""

    number: int
    previous: SlotContents
    _file: BinaryIO

    def record(self, contents: SlotContents) -> None:
        """Records what the slot holds from now on."""
        # On a full disk the contents stay unknown.
        with contextlib.suppress(OSError):
            self._file.seek(0)
            self._file.write(json.dumps(asdict(contents)).encode())
            # Truncating before writing would make file systems flush, which takes milliseconds.
            self._file.truncate()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Releases the slot at the end."""
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Releases the slot and its claim on the context."""
        with self._file as file, contextlib.suppress(OSError):
            file.seek(0)
            contents = _parse(file.read(MAX_BYTES))
            if contents.tokens:
                self.record(replace(contents, tokens=0))


def create_slots(paths: EnginePaths) -> None:
    """Creates the slots of an engine. Raises OSError."""
    for number in range(SLOTS):
        create_locked(paths.slot(number)).close()


def acquire(
    paths: EnginePaths,
    contents: SlotContents,
    is_saved: bool,
    timeout: float,
    tell: Callable[[int], None] = lambda _: None,
) -> Slot | None:
    """Waits for a free slot and acquires the best one; None if the engine is about to end.

    While a command waits to unload the engine, this waits too: for its end, or for Ctrl-C there.

    `is_saved`: the conversation can be restored from disk. `tell` is called now and then with the
    number of the prompts that are waited for. Raises TimeoutError after `timeout` seconds.
    """
    deadline, told_at = time.monotonic() + timeout, time.monotonic()
    while paths.state.exists():
        ranked = () if is_locked(paths.ending) else _rank(paths, contents, is_saved)
        if slot := next(_acquire_each(paths, ranked), None):
            # Before an engine ends, its host acquires all slots.
            if paths.state.exists() and _claim_context(paths, slot, contents):
                return slot
            slot.release()
        if (now := time.monotonic()) > deadline:
            raise TimeoutError
        if now - told_at > _TELL_INTERVAL_S:
            told_at = now
            tell(sum(is_locked(paths.slot(number)) for number in range(SLOTS)))
        # Random, so that waiting requests do not collide again and again.
        time.sleep(_POLL_INTERVAL_S * random.uniform(1, 3))
    return None


def _claim_context(paths: EnginePaths, slot: Slot, contents: SlotContents) -> bool:
    """Claims `contents.tokens` of the context; False if the other slots leave too little of it."""
    is_own = slot.previous.conversation == contents.conversation
    slot.record(replace(slot.previous if is_own else SlotContents(), tokens=contents.tokens))
    # Only now: of two requests that claim at the same time, at least one sees the other's claim.
    others = sum(_claimed_tokens(paths, n) for n in range(SLOTS) if n != slot.number)
    if not others or others + contents.tokens <= _context_size(paths):
        return True
    slot.record(slot.previous)
    return False


def _claimed_tokens(paths: EnginePaths, number: int) -> int:
    """The claim of a slot's holder. A killed process leaves its claim behind, but no lock."""
    tokens = _read(paths.slot(number)).tokens
    return tokens if tokens and is_locked(paths.slot(number)) else 0


def _context_size(paths: EnginePaths) -> float:
    state = read_state(paths.state)
    return state.spec.context_size if state else inf


def is_evaluating(engine: EngineState) -> bool:
    """Whether llama.cpp evaluates a prompt or generates an answer, or is too busy to say."""
    try:
        slots = ask(engine, "GET", "/slots", None, _ANSWER_TIMEOUT_S)
        return any(slot["is_processing"] for slot in slots)
    except (OSError, ValueError, TypeError, KeyError):
        return True


def ask(engine: EngineState, method: str, path: str, body: Any, timeout: float) -> Any:
    """What llama.cpp answers to a request. Raises OSError and ValueError."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(urlsplit(engine.url).netloc, timeout=timeout)
    headers = {"Authorization": f"Bearer {engine.key}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, json.dumps(body), headers)
        return json.loads(connection.getresponse().read())
    except HTTPException as error:
        raise ValueError(str(error)) from None
    finally:
        connection.close()


def acquire_free(paths: EnginePaths) -> list[Slot]:
    """Acquires every slot that is free."""
    return list(_acquire_each(paths, range(SLOTS)))


def acquire_idle(paths: EnginePaths, held: Slot) -> list[Slot]:
    """Acquires the slots that hold something besides `held`; none while another is in use."""
    others = [number for number in range(SLOTS) if number != held.number]
    if not any(_read(paths.slot(number)).prefixes for number in others):
        return []
    acquired = list(_acquire_each(paths, others))
    is_calm = len(acquired) == len(others)
    kept = [slot for slot in acquired if is_calm and slot.previous.prefixes]
    for slot in acquired:
        if slot not in kept:
            slot.release()
    return kept


def acquire_all(paths: EnginePaths) -> list[Slot] | None:
    """Acquires all slots of an idle engine; None, and no slot, if one is in use."""
    slots = acquire_free(paths)
    if len(slots) == SLOTS:
        return slots
    for slot in slots:
        slot.release()
    return None


def are_in_use(paths: EnginePaths) -> bool:
    """Whether any slot of an engine is in use."""
    return any(is_locked(paths.slot(number)) for number in range(SLOTS))


def last_used(paths: EnginePaths) -> float:
    """When a request last acquired or released a slot, in seconds since the epoch."""
    return max(_modified(paths.slot(number)) for number in range(SLOTS))


def _rank(paths: EnginePaths, contents: SlotContents, is_saved: bool) -> list[int]:
    """The numbers of the slots, the best one for `contents` first.

    In this order: the slot of the same conversation; a slot that holds at least half of the
    prompt, unless the conversation is saved on disk; the least recently used that holds something;
    an empty slot. Only a request for a slot that holds something gets what llama.cpp keeps in
    memory of displaced prompts (b11549). A request without a prompt takes an empty slot first.
    """

    def key(number: int) -> tuple[bool, int, bool, float, int]:
        previous = _read(paths.slot(number))
        is_own = bool(contents.conversation) and previous.conversation == contents.conversation
        shared = 0 if is_saved else contents.count_shared_blocks(previous)
        useful = shared if 2 * shared >= len(contents.prefixes) else 0
        used_at = _modified(paths.slot(number)) if previous.prefixes else 0.0
        is_empty = not previous.prefixes
        return (not is_own, -useful, is_empty == bool(contents.prefixes), used_at, number)

    return sorted(range(SLOTS), key=key)


def _acquire_each(paths: EnginePaths, numbers: Iterable[int]) -> Iterator[Slot]:
    """Acquires the slots of these `numbers` that are free, one after the other."""
    for number in numbers:
        path = paths.slot(number)
        if file := open_locked(path):
            yield Slot(number, _read(path), file)


def _read(path: Path) -> SlotContents:
    try:
        return _parse(read_own(path))
    except OSError:
        return SlotContents()


def _parse(content: bytes) -> SlotContents:
    """The contents in a slot's file; empty if it was not written completely."""
    try:
        values = json.loads(content)
        return SlotContents(values["conversation"], tuple(values["prefixes"]), values["tokens"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return SlotContents()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
