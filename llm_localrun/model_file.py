"""What is read of a model's file beyond its header, and what people are told if it is none."""

import mmap
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
