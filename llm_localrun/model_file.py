"""Opens a model's file for who needs it, with a sentence for people if it is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llm_localrun.errors import BadModelFile
from llm_localrun.gguf.header import NotGGUF


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
