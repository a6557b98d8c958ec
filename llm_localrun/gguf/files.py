"""Names of GGUF files, the parts of a split one, and opening a file with errors that explain.

Reading the header itself is left to `header`.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO, TypeVar

from llm_localrun.gguf.header import Header, NotGGUF, Value, find_text, find_values, read_header
from llm_localrun.system.atomic import open_regular

_TEMPLATE = "tokenizer.chat_template"
_SAMPLING = "general.sampling."

_Path = TypeVar("_Path", bound=PurePath)


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


def checked_header(path: str) -> Header:
    """The header of the file at `path`, with its tensors. Raises `BadModelFile`."""
    with opened(Path(path)) as file:
        return read_header(file, os.fstat(file.fileno()).st_size)


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
    return find_text(file, _TEMPLATE, header.rest_at)


def sampling_in(file: BinaryIO, header: Header) -> dict[str, Value]:
    """How a file says that its model samples, by the names after `general.sampling.`: top_k.

    `header` is its summary. Raises OSError.
    """
    found = dict(header.metadata)
    if header.rest_at is not None:
        found |= find_values(file, _SAMPLING, header.rest_at)
    return {
        key.removeprefix(_SAMPLING): value
        for key, value in found.items()
        if key.startswith(_SAMPLING)
    }


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
