"""Downloads files: resumes them, checks them, and moves them into place together.

An unfinished file lies in the partial folder under a name that depends on its content, so that the
next pull of the same bytes resumes it. A file is moved to its target only when all files are
complete, have the right SHA-256 and, if they must be, are GGUF files. The requests are left to
`http_files`.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llm_localrun.errors import LocalRunError, PullFailed
from llm_localrun.gguf.header import NotGGUF, read_header
from llm_localrun.pull.http_files import (
    RESUME_ADVICE,
    DownloadInterrupted,
    FileSource,
    ResponseStart,
    request_file,
)
from llm_localrun.system import locks
from llm_localrun.system.atomic import check_folder, open_regular
from llm_localrun.system.progress import Progress

_CHUNK_BYTES = 2**20
_MAX_REQUEST_BYTES = 2**34
"""The hub's content network sends at most 50 GB in one response."""
_MAX_TRIES = 5
_FIRST_RETRY_S = 1.0
"""The wait before the first retry of a broken connection. It doubles with each retry."""
_LOCK_POLL_S = 0.2
_SPARE_DISK_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class FileToDownload:
    """A file to download, and the path for it.

    `size` in bytes and `sha256` are what it must have, None and "" if they are not known. `etag` is
    the server's validator for the version to download.
    """

    source: FileSource
    target: Path
    size: int | None = None
    sha256: str = ""
    etag: str = ""
    is_gguf: bool = True
    """Whether it must be a GGUF file."""

    @property
    def partial_name(self) -> str:
        """The stem of its partial file: the same for the same content."""
        version = f"{self.source.url} {self.etag} {self.size}" if self.etag else self.sha256
        return hashlib.sha256((version or self.source.url).encode()).hexdigest()[:32]

    @property
    def is_resumable(self) -> bool:
        """Whether the rest of the file certainly belongs to what is in its partial file."""
        return bool(self.sha256 or self.etag)


class _BadContent(PullFailed):
    """A partial file has the wrong content; it is deleted."""


@contextmanager
def translate_disk_errors(folder: Path) -> Iterator[None]:
    """Turns an OSError about a file of `folder` into a `PullFailed`."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = f"Free space on its disk. {RESUME_ADVICE}" if is_full else ""
        path = error.filename or folder
        raise PullFailed.from_os_error("written", path, error, remedy) from None


# Hashes and space


def sha256_steps(path: Path) -> Generator[Progress, None, str]:
    """Reads the file, yields progress, and returns its SHA-256. Raises OSError."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while data := file.read(_CHUNK_BYTES):
            digest.update(data)
            yield Progress("Checking the file", file.tell(), size)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file. Raises OSError."""
    steps = sha256_steps(path)
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        digest: str = stop.value
        return digest


def check_free_space(
    folder: Path, needed: int, error_type: type[LocalRunError], remedy: str
) -> None:
    """Raises `error_type` if the disk of `folder` has less than `needed` bytes to spare."""
    free = shutil.disk_usage(folder).free
    wanted = needed + _SPARE_DISK_BYTES
    if needed and wanted > free:
        raise error_type(
            f"The disk of {folder} has {free // 10**7 / 100:.2f} GB free, and"
            # Rounded up, so that it is more than what is free.
            f" {-(-wanted // 10**7) / 100:.2f} GB are needed",
            remedy,
        )


# Locks


def lock_partials(
    names: Iterable[str],
    partial: Path,
    held_locks: ExitStack,
    waits_for: str = "another pull of the same file",
) -> Iterator[Progress]:
    """Locks partial files against other commands until `held_locks` closes.

    `names` are the stems of the files, `partial` is the folder for them. Yields progress while it
    waits for what has a lock. Raises OSError.
    """
    partial.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_folder(partial)
    # Sorted, so that two pulls never wait for each other.
    waiting = sorted(set(names))
    while waiting:
        try:
            held_locks.enter_context(locks.exclusive(partial / f"{waiting[0]}.lock", 0.0))
            del waiting[0]
        except TimeoutError:
            done = _size(partial / f"{waiting[0]}.part") or 0
            yield Progress(f"Waiting for {waits_for}", done)
            time.sleep(_LOCK_POLL_S)


def unfinished_files(partial: Path) -> list[Path]:
    """The files that interrupted pulls left in `partial`, without those of pulls that run now."""
    files = (path for path in sorted(partial.rglob("*")) if path.is_file())
    return [file for file in files if not locks.is_locked(_lock_of(file, partial))]


def _lock_of(file: Path, partial: Path) -> Path:
    """The lock for a file in `partial`: named after the file, or after the folder it is in."""
    return (partial / file.relative_to(partial).parts[0]).with_suffix(".lock")


# Downloading


def download(
    files: Sequence[FileToDownload], partial: Path, replaceable: Collection[Path]
) -> Generator[Progress, None, dict[FileToDownload, str]]:
    """Downloads `files`, which `lock_partials` has locked, to their targets. Returns their SHA-256.

    A target that has the right content already is not downloaded; one with other content is
    replaced only if it is in `replaceable`. `partial` is the folder for unfinished files. Raises
    `PullFailed` and OSError.
    """
    missing = yield from _missing_files(files, replaceable)
    rest = sum(max(0, (f.size or 0) - (_size(_partial_path(f, partial)) or 0)) for f in missing)
    remedy = "Free space there, or choose a smaller quantization with -q"
    check_free_space(partial, rest, PullFailed, remedy)
    hashes = yield from _download_all(missing, partial)
    for file in missing:
        file.target.parent.mkdir(parents=True, exist_ok=True)
        _partial_path(file, partial).replace(file.target)
    return {file: hashes.get(file, file.sha256) for file in files}


def _missing_files(
    files: Sequence[FileToDownload], replaceable: Collection[Path]
) -> Generator[Progress, None, list[FileToDownload]]:
    """Those of `files` that are not at their targets. Raises `PullFailed` if another is there."""
    missing = []
    for file in files:
        if (yield from _is_there(file)):
            continue
        if file.target not in replaceable and file.target.exists():
            raise PullFailed(
                f"{file.target} exists and is a different file",
                "Move or delete it, and try again",
            )
        missing.append(file)
    return missing


def _is_there(file: FileToDownload) -> Generator[Progress, None, bool]:
    size = _size(file.target)
    if not file.sha256 or size is None or size != file.size:
        return False
    return (yield from sha256_steps(file.target)) == file.sha256


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _partial_path(file: FileToDownload, partial: Path) -> Path:
    return partial / f"{file.partial_name}.part"


def _download_all(
    files: Sequence[FileToDownload], partial: Path
) -> Generator[Progress, None, dict[FileToDownload, str]]:
    """Completes the partial file of each of `files`. Returns their SHA-256."""
    sizes = [file.size for file in files if file.size is not None]
    total = sum(sizes) if len(sizes) == len(files) else None
    before = 0
    hashes = {}
    for file in files:
        path = _partial_path(file, partial)
        try:
            with open_regular(path, os.O_RDWR | os.O_CREAT) as opened:
                part = _PartialFile(opened, file)
                for done in part.read_existing():
                    yield Progress("Checking the unfinished file", before + done, total)
                for done in part.complete():
                    yield Progress("Downloading", before + done, total)
                part.check()
        except _BadContent:
            path.unlink()
            raise
        before += part.done
        hashes[file] = part.digest.hexdigest()
    return hashes


class _PartialFile:
    """An open partial file of `wanted`. `digest` is the SHA-256 of its first `done` bytes."""

    def __init__(self, file: BinaryIO, wanted: FileToDownload) -> None:
        self._file = file
        self._wanted = wanted
        self.digest = hashlib.sha256()
        self.done = 0

    def read_existing(self) -> Iterator[int]:
        """Hashes the bytes of an earlier pull; discards them if they cannot be resumed."""
        while self._wanted.is_resumable and (data := self._file.read(_CHUNK_BYTES)):
            self.digest.update(data)
            self.done += len(data)
            yield self.done
        if not self._wanted.is_resumable or self.done > (self._wanted.size or self.done):
            self._clear()

    def complete(self) -> Iterator[int]:
        """Downloads the rest and yields the bytes that are there. Raises `PullFailed`, OSError."""
        begun, failures = self.done, 0
        while self._wanted.size is None or self.done < self._wanted.size:
            before = self.done
            try:
                yield from self._request()
                if self.done == before:
                    raise DownloadInterrupted("it sent nothing")
            except DownloadInterrupted as error:
                failures = failures + 1 if self.done == before else 1
                # A retry is of use only if the server has sent something in this pull.
                if self.done == begun or failures >= _MAX_TRIES:
                    raise PullFailed(
                        f"The download from {self._wanted.source.server} failed: {error}",
                        f"Check the network. {RESUME_ADVICE if self._wanted.is_resumable else ''}",
                    ) from None
                time.sleep(_FIRST_RETRY_S * 2 ** (failures - 1))
                continue
            if self._wanted.size is None:
                break
        self._file.flush()
        os.fsync(self._file.fileno())

    def check(self) -> None:
        """Raises `PullFailed` unless the content has the right SHA-256 and format."""
        name = self._wanted.target.name
        if self._wanted.sha256 and self.digest.hexdigest() != self._wanted.sha256:
            raise _BadContent(
                f"The SHA-256 of {name} is wrong: it was damaged in transit, or has changed",
                "Nothing of it was kept. Try again",
            )
        if not self._wanted.is_gguf:
            return
        self._file.seek(0)
        try:
            read_header(self._file, self.done)
        except NotGGUF as error:
            raise _BadContent(
                f"{name} from {self._wanted.source.server} is not a usable GGUF file: {error}",
                "Nothing of it was kept. Choose another file",
            ) from None

    def _clear(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.digest = hashlib.sha256()
        self.done = 0

    def _request(self) -> Iterator[int]:
        """Appends the response to one request."""
        size = self._wanted.size
        last = None if size is None else min(self.done + _MAX_REQUEST_BYTES, size) - 1
        etag = self._wanted.etag if self.done else ""
        with request_file(self._wanted.source, self.done, last, etag) as (start, chunks):
            self._begin(start)
            for chunk in chunks:
                self._file.write(chunk)
                self.digest.update(chunk)
                self.done += len(chunk)
                if size is not None and self.done > size:
                    raise self._size_error(self.done)
                yield self.done

    def _begin(self, start: ResponseStart) -> None:
        size = self._wanted.size
        if size is not None and start.total not in (size, None):
            raise self._size_error(start.total or 0)
        if start.first != self.done:
            self._clear()

    def _size_error(self, size: int) -> PullFailed:
        return _BadContent(
            f"{self._wanted.source.server} sends {size:,} bytes, but the file should have"
            f" {self._wanted.size:,}",
            "It may have changed a moment ago. Try again",
        )
