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


@contextmanager
def exclusive(path: Path, timeout: float) -> Iterator[None]:
    """Holds the lock on `path`, which exists only as long as somebody does.

    Raises TimeoutError after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        with path.open("ab") as file:
            # The last holder may have removed the file between our opening and locking it.
            if try_lock(file) and _is_at(file, path):
                try:
                    yield
                finally:
                    _remove(path)
                return
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


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
