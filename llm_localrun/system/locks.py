"""Locks on files that the operating system lets go of when their holder dies, however it dies.

Imports nothing but the standard library: the engine's host uses it too.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt

    # Windows locks are mandatory: a byte far behind the content leaves that readable.
    _OFFSET = 2**30

    def try_lock(file: BinaryIO) -> bool:
        """Takes the lock on `file` until it is closed; False if somebody else holds it."""
        position = file.tell()
        file.seek(_OFFSET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            file.seek(position)
        return True
else:
    import fcntl

    def try_lock(file: BinaryIO) -> bool:
        """Takes the lock on `file` until it is closed; False if somebody else holds it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock on `path`; False if there is no such file."""
    try:
        with path.open("r+b") as file:
            return not try_lock(file)
    except FileNotFoundError:
        return False


def hold(path: Path) -> BinaryIO | None:
    """`path`, open, with its lock, until it is closed.

    None if somebody else holds the lock, or if the file is gone.
    """
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        return None
    # The file may have been removed, or replaced, between our opening and locking it.
    if try_lock(file) and _is_at(file, path):
        return file
    file.close()
    return None


def held_anew(path: Path) -> BinaryIO:
    """`path`, created for its owner only, with its lock, until it is closed. Raises OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.close(descriptor)
        # Whoever clears away what the dead have left may take it for theirs before it is locked.
        if file := hold(path):
            return file


@contextmanager
def exclusive(path: Path, timeout: float) -> Iterator[None]:
    """Holds the lock on `path`, which exists only as long as somebody does.

    Raises TimeoutError after `timeout` seconds, and OSError.
    """
    deadline = time.monotonic() + timeout
    while True:
        path.open("ab").close()
        if file := hold(path):
            with file:
                try:
                    yield
                finally:
                    _remove(path)
            return
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def clear_away(path: Path) -> None:
    """Removes `path` unless somebody holds the lock on it."""
    if file := hold(path):
        with file:
            _remove(path)


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        # Windows keeps a file that somebody else is waiting for.
        return
