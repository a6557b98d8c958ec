"""What is read of a model's file beyond its header, and what people are told if it is none."""

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llm_localrun.errors import BadModelFile
from llm_localrun.gguf.header import Header, NotGGUF, find_text

_MAX_HEADER = 64 * 2**20
_TEMPLATE = "tokenizer.chat_template"


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, for its header to be read. Raises `BadModelFile` if that cannot be."""
    try:
        with path.open("rb") as file:
            yield file
    except NotGGUF as error:
        raise BadModelFile(
            f"{path} is no GGUF model: {error}", "Fetch it again, or choose another file"
        ) from None
    except OSError as error:
        raise BadModelFile(
            f"{path} cannot be read: {error.strerror}",
            "Mend its permissions, or choose another file",
        ) from None


def chat_template_in(file: BinaryIO, header: Header) -> str:
    """The Jinja template that a file carries; "" if it has none. `header` is its summary."""
    if header.rest_at is None:
        return header.text(_TEMPLATE)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return find_text(mapped, _TEMPLATE, header.rest_at, min(len(mapped), _MAX_HEADER))


_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")


def is_projector_name(stem: str) -> bool:
    """Whether the name is one of a projector, which lets another model see or hear."""
    return "mmproj" in stem.lower()


def shard_of(stem: str) -> tuple[str, int, int] | None:
    """Name, number from 1, and count of a split file's part; None if `stem` is a whole file's."""
    match = _SHARD.match(stem)
    return match and (match["stem"], int(match["number"]), int(match["count"]))


def part_stem(stem: str, number: int) -> str:
    """The name of a part of the split file that `stem` is a part of; of a whole file, its own."""
    shard = shard_of(stem)
    return f"{shard[0]}-{number:05}-of-{shard[2]:05}" if shard else stem


def part_stems(stem: str) -> list[str]:
    """The names of all parts of the file that `stem` begins; none if it is a later part's."""
    _, number, count = shard_of(stem) or (stem, 1, 1)
    return [part_stem(stem, each) for each in range(1, count + 1)] if number == 1 else []
