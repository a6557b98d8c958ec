"""Locks on files, which the operating system releases when their holder ends, however it ends.

Writing a file safely is left to `atomic`.

Imports only the standard library: the engine's host process uses this module.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llm_localrun.system.atomic import UnsafeFile, open_regular

if sys.platform == "win32":
    import msvcrt

    # Windows locks are mandatory. This byte lies far behind the content, which stays readable.
    _OFFSET = 2**30

    def try_lock(file: BinaryIO) -> bool:
        """Locks `file` until it is closed; False if another holder has the lock."""
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
        """Locks `file` until it is closed; False if another holder has the lock."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def is_locked(path: Path) -> bool:
    """Whether a holder has the lock on `path`; False if there is no such file."""
    try:
        with open_regular(path, os.O_RDWR) as file:
            return not try_lock(file)
    except (FileNotFoundError, UnsafeFile):
        return False


def open_locked(path: Path) -> BinaryIO | None:
    """Opens and locks an existing file; closing it releases the lock.

    None if another holder has the lock, or if the file does not exist.
    """
    try:
        file = open_regular(path, os.O_RDWR, buffering=0)
    except (FileNotFoundError, UnsafeFile):
        return None
    # The file may have been removed or replaced after it was opened.
    if try_lock(file) and _is_at(file, path):
        return file
    file.close()
    return None


def create_locked(path: Path) -> BinaryIO:
    """Creates, opens and locks a file that only its owner can read. Raises OSError."""
    while True:
        open_regular(path, os.O_RDWR | os.O_CREAT).close()
        # Before it is locked, another process may take it for a leftover and remove it.
        if file := open_locked(path):
            return file


@contextmanager
def exclusive(path: Path, timeout: float) -> Iterator[None]:
    """Holds the lock on `path`, a file that exists only while it is locked.

    Raises TimeoutError after `timeout` seconds, and OSError.
    """
    deadline = time.monotonic() + timeout
    while True:
        open_regular(path, os.O_RDWR | os.O_CREAT).close()
        if file := open_locked(path):
            with file:
                try:
                    yield
                finally:
                    _remove(path)
            return
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def remove_unless_locked(path: Path) -> None:
    """Removes `path` unless a holder has the lock on it."""
    if file := open_locked(path):
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
        # Windows does not remove a file that another process has open to wait for its lock.
        return
