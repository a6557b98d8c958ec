"""Names of GGUF files, the parts of a split one, and opening a file with errors that explain.

Reading the header itself is left to `header`.
"""

import errno
import mmap
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO, TypeVar

from llm_localrun.gguf.header import MAX_HEADER, Header, NotGGUF, find_text

_NO_WAITING: int = getattr(os, "O_NONBLOCK", 0)
_TEMPLATE = "tokenizer.chat_template"

_Path = TypeVar("_Path", bound=PurePath)


def open_regular(path: str | Path, buffering: int = -1) -> BinaryIO:
    """Opens a regular file to read it. Raises OSError, for what is none too.

    A FIFO, a socket and a device are not opened: that may wait forever, or do something. If one
    takes the place of a file in that moment, reading it does not wait.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116
    if not stat.S_ISREG(mode):
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return open(path, "rb", buffering, opener=_open_without_waiting)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_WAITING)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, opened to read its header. Raises `BadModelFile` for any failure."""
    # Imported here because the quantizing process uses this module without click and llm.
    from llm_localrun.errors import BadModelFile

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadModelFile(*_not_a_file(path))
        with open_regular(path) as file:
            yield file
    except NotGGUF as error:
        raise BadModelFile(
            f"{path} is not a GGUF model: {error}", "Download it again, or choose another file"
        ).with_load_problem(f"it is not a GGUF model: {error}") from None
    except OSError as error:
        raise BadModelFile(*_explained(path, error)) from None


def _not_a_file(path: Path) -> tuple[str, str]:
    """What is wrong with a path at which there is something else than a file, and what to do."""
    if path.is_dir():
        return f"{path} is a directory", "Give the path of a .gguf file in it"
    return f"{path} is not a regular file", "Give the path of a .gguf file"


def _explained(path: Path, error: OSError) -> tuple[str, str]:
    """What is wrong with a file that cannot be opened or read, and what to do."""
    if isinstance(error, FileNotFoundError):
        return (
            f"{path} does not exist",
            "Check the path; `llm localrun models` lists the files that were found",
        )
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{path} cannot be opened: {error.strerror}", "Check the path"
    if isinstance(error, PermissionError):
        return (
            f"{path} cannot be read: {error.strerror}",
            "Give yourself permission to read it, or choose another file",
        )
    return f"{path} cannot be read: {error.strerror}", "Check the disk, or choose another file"


def chat_template_in(file: BinaryIO, header: Header) -> str:
    """The Jinja template that a file carries; "" if it has none. `header` is its summary."""
    if header.rest_at is None:
        return header.text(_TEMPLATE)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return find_text(mapped, _TEMPLATE, header.rest_at, min(len(mapped), MAX_HEADER))


_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")


def shard_of(stem: str) -> tuple[str, int, int] | None:
    """Name, number from 1, and count of a split file's part; None if `stem` is a whole file's."""
    match = _SHARD.match(stem)
    return match and (match["stem"], int(match["number"]), int(match["count"]))


def part_stem(stem: str, number: int) -> str:
    """The name of a part of the split file that `stem` is a part of; of a whole file, its own."""
    shard = shard_of(stem)
    return f"{shard[0]}-{number:05}-of-{shard[2]:05}" if shard else stem


def part_stems(stem: str) -> list[str]:
    """The stems of all parts of the file whose first part is `stem`; [] for a later part."""
    _, number, count = shard_of(stem) or (stem, 1, 1)
    return [part_stem(stem, each) for each in range(1, count + 1)] if number == 1 else []


def parts_of(path: _Path) -> list[_Path]:
    """The paths of all parts of the file whose first part is `path`; [] for a later part.

    A file that is not split is its only part. The parts need not exist.
    """
    return [path.with_name(f"{stem}{path.suffix}") for stem in part_stems(path.stem)]
