"""Files from the network to the disk: resumed, checked, and put into their places together.

What has come of a file lies in the partial folder under a name that its content decides, so that
the next pull of the same bytes goes on with it. Nothing gets to where models are looked for before
all of it is whole, has the right SHA-256 and is a GGUF file.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llm_localrun.errors import PullFailed
from llm_localrun.gguf.header import NotGGUF, read_header
from llm_localrun.pull import http_files
from llm_localrun.pull.checksum import sha256_in_steps
from llm_localrun.pull.http_files import KEPT, BrokenOff, Source, Start
from llm_localrun.system import locks
from llm_localrun.system.progress import Progress

_CHUNK = 2**20
_MOST_AT_ONCE = 2**34
"""Bytes of one request: the hub's content network gives no more than 50 GB in one reply."""
_TRIES = 5
_FIRST_PAUSE = 1.0
"""Seconds before a broken connection is tried again; twice as long each time."""
_SPARE = 2**26
"""Bytes that are to stay free on the disk."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be fetched, and the place for it.

    `size` and `sha256` are what it has to be, None and "" if nobody says; `mark` is the validator
    by which its server tells the version that is wanted.
    """

    source: Source
    target: Path
    size: int | None = None
    sha256: str = ""
    mark: str = ""

    @property
    def key(self) -> str:
        """Names what has come of it: the same for the same content."""
        told = f"{self.source.url} {self.mark} {self.size}" if self.mark else self.sha256
        told = told or self.source.url
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    @property
    def can_be_resumed(self) -> bool:
        """Whether the rest is known to belong to what has come."""
        return bool(self.sha256 or self.mark)


@dataclass(frozen=True, slots=True)
class Placed:
    """A file that is in its place."""

    target: Path
    size: int
    sha256: str


class _Spoiled(PullFailed):
    """What has come of a file is of no use."""


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turns what the disk of `folder` refuses into a `PullFailed`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = f"Free space on its disk. {KEPT}" if full else ""
        path = error.filename or folder
        raise PullFailed.from_os_error("written", path, error, remedy) from None


def claim(files: Sequence[Wanted], partial: Path, held: ExitStack) -> Iterator[Progress]:
    """Keeps other pulls from `files` while `held` lasts; shows how far they are before.

    Raises OSError.
    """
    partial.mkdir(parents=True, exist_ok=True)
    # Always in one order, so that no two pulls wait for each other.
    for key in sorted({file.key for file in files}):
        yield from hold(held, partial / key)


def download(
    files: Sequence[Wanted], partial: Path, ours: Collection[Path]
) -> Generator[Progress, None, list[Placed]]:
    """Puts `files`, which have been claimed, into their places; returns them in their order.

    What is there already is not fetched again. What is in the way is only replaced if it is one of
    `ours`. `partial` is the folder for what is half done. Raises `PullFailed` and OSError.
    """
    missing = yield from _missing(files, ours)
    _check_room(missing, partial)
    digests = yield from _fetch_all(missing, partial)
    for file in missing:
        file.target.parent.mkdir(parents=True, exist_ok=True)
        _part(file, partial).replace(file.target)
    return [
        Placed(file.target, file.target.stat().st_size, digests.get(file, file.sha256))
        for file in files
    ]


def unfinished(partial: Path) -> list[Path]:
    """What broken pulls have left in `partial`; not what a pull is working on now."""
    files = (path for path in sorted(partial.rglob("*")) if path.is_file())
    return [file for file in files if not locks.is_locked(_lock_of(file, partial))]


def _lock_of(file: Path, partial: Path) -> Path:
    """The lock of whoever works on `file`: it and what is in a folder are named after their key."""
    return (partial / file.relative_to(partial).parts[0]).with_suffix(".lock")


def hold(held: ExitStack, key: Path) -> Iterator[Progress]:
    """Keeps what `key` names from other pulls while `held` lasts; shows how far they are before.

    Raises OSError.
    """
    while True:
        try:
            held.enter_context(locks.exclusive(key.with_suffix(".lock"), 0.0))
            return
        except TimeoutError:
            yield Progress("Waiting for another pull of it", _size(key.with_suffix(".part")) or 0)
            time.sleep(0.2)


def _missing(
    files: Sequence[Wanted], ours: Collection[Path]
) -> Generator[Progress, None, list[Wanted]]:
    """Those of `files` that are not in their places."""
    missing = []
    for file in files:
        is_there = yield from _is_there(file)
        if not is_there and file.target not in ours and file.target.exists():
            raise PullFailed(
                f"{file.target} is there already, and is another file than this one",
                "Move it away or delete it, and try again",
            )
        if not is_there:
            missing.append(file)
    return missing


def _is_there(file: Wanted) -> Generator[Progress, None, bool]:
    size = _size(file.target)
    if not file.sha256 or size is None or size != file.size:
        return False
    return (yield from sha256_in_steps(file.target)) == file.sha256


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _check_room(files: Sequence[Wanted], partial: Path) -> None:
    needed = sum(max(0, (file.size or 0) - (_size(_part(file, partial)) or 0)) for file in files)
    free = shutil.disk_usage(partial).free
    if needed and needed + _SPARE > free:
        raise PullFailed(
            f"{needed / 1e9:.2f} GB have to be fetched, and {free / 1e9:.2f} GB are free on the"
            f" disk of {partial.parent}",
            "Make room there, or choose a smaller quantization with -q",
        )


def _part(file: Wanted, partial: Path) -> Path:
    return partial / f"{file.key}.part"


def _fetch_all(
    files: Sequence[Wanted], partial: Path
) -> Generator[Progress, None, dict[Wanted, str]]:
    """Completes what has come of each file; returns their SHA-256."""
    sizes = [file.size for file in files if file.size is not None]
    total = sum(sizes) if len(sizes) == len(files) else None
    before = 0
    digests = {}
    for file in files:
        part = _part(file, partial)
        try:
            with _opened(part) as opened:
                half = _Half(opened, file)
                for done in half.take_up():
                    yield Progress("Checking what has come", before + done, total)
                for done in half.complete():
                    yield Progress("Downloading", before + done, total)
                _check(file, opened, half)
        except _Spoiled:
            part.unlink()
            raise
        before += half.done
        digests[file] = half.digest.hexdigest()
    return digests


def _check(file: Wanted, opened: BinaryIO, half: "_Half") -> None:
    """Raises `PullFailed` unless what has come is what was wanted, and a GGUF file."""
    name = file.target.name
    if file.sha256 and half.digest.hexdigest() != file.sha256:
        raise _Spoiled(
            f"{name} was damaged on its way, or changed: its SHA-256 is not the right one",
            "Nothing of it was kept: try again",
        )
    opened.seek(0)
    try:
        read_header(opened, half.done)
    except NotGGUF as error:
        raise _Spoiled(
            f"What {file.source.server} gives as {name} is no usable GGUF file: {error}",
            "Nothing of it was kept: choose another file",
        ) from None


def _opened(part: Path) -> BinaryIO:
    """`part` to be read and written; what it holds stays."""
    return os.fdopen(
        os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b"
    )


class _Half:
    """What has come of `wanted` in an open file, and the SHA-256 of it."""

    def __init__(self, file: BinaryIO, wanted: Wanted) -> None:
        self._file = file
        self._wanted = wanted
        self.digest = hashlib.sha256()
        self.done = 0

    def take_up(self) -> Iterator[int]:
        """Reads what has come before; starts anew if the rest may not belong to that."""
        while self._wanted.can_be_resumed and (data := self._file.read(_CHUNK)):
            self.digest.update(data)
            self.done += len(data)
            yield self.done
        if not self._wanted.can_be_resumed or self.done > (self._wanted.size or self.done):
            self._clear()

    def complete(self) -> Iterator[int]:
        """Fetches the rest; yields the bytes that are there. Raises `PullFailed` and OSError."""
        begun, failures = self.done, 0
        while self._wanted.size is None or self.done < self._wanted.size:
            before = self.done
            try:
                yield from self._request()
                if self.done == before:
                    raise BrokenOff("it sent nothing")
            except BrokenOff as error:
                failures = failures + 1 if self.done == before else 1
                # A server that has given nothing will hardly do so in a moment.
                if self.done == begun or failures >= _TRIES:
                    raise PullFailed(
                        f"{self._wanted.source.server} cannot be reached, or breaks off: {error}",
                        f"Check the network. {KEPT if self._wanted.can_be_resumed else ''}",
                    ) from None
                time.sleep(_FIRST_PAUSE * 2 ** (failures - 1))
                continue
            if self._wanted.size is None:
                break
        self._file.flush()
        os.fsync(self._file.fileno())

    def _clear(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.digest = hashlib.sha256()
        self.done = 0

    def _request(self) -> Iterator[int]:
        """Takes what one request brings."""
        size = self._wanted.size
        last = None if size is None else min(self.done + _MOST_AT_ONCE, size) - 1
        mark = self._wanted.mark if self.done else ""
        with closing(http_files.get(self._wanted.source, self.done, last, mark)) as received:
            for piece in received:
                if isinstance(piece, Start):
                    self._begin(piece)
                    continue
                self._file.write(piece)
                self.digest.update(piece)
                self.done += len(piece)
                if size is not None and self.done > size:
                    raise self._wrong_size(self.done)
                yield self.done

    def _begin(self, start: Start) -> None:
        size = self._wanted.size
        if size is not None and start.total not in (size, None):
            raise self._wrong_size(start.total or 0)
        if start.first != self.done:
            self._clear()

    def _wrong_size(self, size: int) -> PullFailed:
        return _Spoiled(
            f"{self._wanted.source.server} sends {size:,} bytes, and the file has to have"
            f" {self._wanted.size:,}",
            "It may have changed just now: try again",
        )
