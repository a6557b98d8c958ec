"""The SHA-256 of files that take long to read."""

import hashlib
from collections.abc import Generator
from pathlib import Path

from llm_localrun.system.progress import Progress

_CHUNK = 2**20


def sha256_in_steps(path: Path) -> Generator[Progress, None, str]:
    """Reads the file, showing how far it is; returns its SHA-256. Raises OSError."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
            yield Progress("Checking what is there", file.tell(), size)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file. Raises OSError."""
    steps = sha256_in_steps(path)
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        digest: str = stop.value
        return digest
