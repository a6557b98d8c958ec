"""Opens, reads and writes files so that no other process or user can spoil that.

A file is opened only if it is a regular one: a FIFO would make the command wait for another
process, and opening a device may do something. What this program keeps is read only if no other
user can have written it. A file is written so that other processes see the old content or the new,
never a part.

Imports only the standard library: the engine's host process uses this module.
"""

import contextlib
import errno
import os
import shlex
import stat
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

MAX_BYTES = 64 * 2**20
"""What is read of a file: ours are a hundred times smaller."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class UnsafeFile(OSError):
    """A file or folder that is not used. `strerror` says why, `remedy` what to do."""

    def __init__(self, path: str | Path, problem: str, remedy: str) -> None:
        super().__init__(errno.EPERM, problem, str(path))
        self.remedy = remedy


def open_regular(path: str | Path, flags: int = os.O_RDONLY, buffering: int = -1) -> BinaryIO:
    """Opens a file, for reading and writing if `flags` say so; a new one is for its owner only.

    Raises OSError; `UnsafeFile` for a FIFO, a socket or a device, which is not opened.
    """
    try:
        _check_regular(path, os.stat(path))  # noqa: PTH116
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    mode = "r+b" if flags & os.O_RDWR else "rb"
    # Most are opened to read, thousands of them in a scan.
    opener = partial(_open, flags=flags) if flags else _open
    file = open(path, mode, buffering, opener=opener)  # noqa: SIM115
    try:
        # Another file may have taken its place.
        _check_regular(path, os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, file)


def _open(path: str, _mode: int, flags: int = os.O_RDONLY) -> int:
    return os.open(path, flags | _FLAGS, 0o600)


def read_up_to(file: BinaryIO, size: int) -> bytes:
    """The next bytes of a file, `size` at most.

    Raises OSError also for what the system calls a regular file and which has nothing to read yet,
    such as /proc/kmsg.
    """
    data = cast(bytes | None, file.read(size))
    if data is None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return data


def read_regular(path: Path) -> bytes:
    """The content of a file of usual size. Raises OSError as `open_regular`."""
    with open_regular(path) as file:
        return _read(path, file)


def open_own(path: Path) -> BinaryIO:
    """Opens a file that this program has written, or the user for it.

    Raises OSError; `UnsafeFile` if it is not a regular file or if another user can have written it.
    """
    check_folder(path.parent)
    _check_owner(path, path.lstat())
    file = open_regular(path)
    try:
        status = os.fstat(file.fileno())
        _check_owner(path, status)
        if status.st_mode & stat.S_IWOTH and _HAS_OWNERS:
            raise _writable(path, "Check what it holds, and run")
        # An editor leaves such files where the user's group is the user's own.
        _take_from_others(path, status)
    except BaseException:
        file.close()
        raise
    return file


def read_own(path: Path) -> bytes:
    """The content of a file of ours. Raises OSError as `open_own`."""
    with open_own(path) as file:
        return _read(path, file)


def is_own(path: Path) -> bool:
    """Whether `open_own` opens the file at `path`."""
    try:
        open_own(path).close()
    except OSError:
        return False
    return True


def check_folder(folder: Path) -> None:
    """Makes sure that no other user can change which files are in a folder of ours.

    Takes the permission from them. Raises OSError; `UnsafeFile` if that does not help. A link to
    the folder counts as the user's if the user or root made it.
    """
    if _HAS_OWNERS:
        status = folder.lstat()
        _check_owner(folder, status)
        if stat.S_ISLNK(status.st_mode):
            status = folder.stat()
            _check_owner(folder, status)
        _take_from_others(folder, status)


_HAS_OWNERS = hasattr(os, "geteuid")
"""Windows has neither: there the folder's place in the user's profile protects it."""


def _check_regular(path: str | Path, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise UnsafeFile(path, "it is not a regular file", "Replace it with one, or remove it")


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Raises `UnsafeFile` if a file belongs to another user than this one or root."""
    if not _HAS_OWNERS or status.st_uid in (0, user := os.geteuid()):
        return
    # What `sudo` runs may use the files of the user who has called it.
    if user == 0 and str(status.st_uid) == os.environ.get("SUDO_UID"):
        return
    if stat.S_ISLNK(status.st_mode):
        # What it leads to may be anything: it must not become the user's.
        problem = f"the link {path} was made by another user (uid {status.st_uid})"
        raise UnsafeFile(path, problem, "Remove it")
    problem = f"{_name(path)} belongs to another user (uid {status.st_uid})"
    take = f"`chown -R {user} {shlex.quote(str(path))}`" if user == 0 else "move it away"
    raise UnsafeFile(path, problem, f"Run this command as that user, or {take}")


def _take_from_others(path: Path, status: os.stat_result) -> None:
    """Leaves the permission to write to the owner alone. Raises `UnsafeFile` if that fails."""
    if _HAS_OWNERS and status.st_mode & _OTHERS_WRITE:
        with contextlib.suppress(OSError):
            path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
        # Some disks keep no permissions.
        if path.stat().st_mode & _OTHERS_WRITE:
            raise _writable(path, "Set LLM_USER_PATH to another disk, or run as its owner")


def _writable(path: Path, remedy: str) -> UnsafeFile:
    command = f"`chmod go-w {shlex.quote(str(path))}`"
    return UnsafeFile(path, f"other users can write to {_name(path)}", f"{remedy} {command}")


def _name(path: Path) -> str:
    return f"the folder {path}" if path.is_dir() else "it"


def _read(path: Path, file: BinaryIO) -> bytes:
    content = read_up_to(file, MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UnsafeFile(path, "it is larger than 64 MiB", "Replace it, or remove it")
    return content


def open_private(path: str, flags: int) -> int:
    """An `opener` for `open` that creates files which only their owner can read."""
    return os.open(path, flags, 0o600)


def write_atomically(target: Path, data: bytes, *, is_private: bool = True) -> None:
    """Replaces the content of `target` with `data`, and creates its folder if needed.

    Only the owner can read the file, unless it is not private. Raises OSError, and then leaves
    `target` as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "xb", opener=open_private if is_private else None) as file:
            file.write(data)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
