"""Writes a file so that other processes see the old content or the new, never a part.

Imports only the standard library: the engine's host process uses this module.
"""

import os
from pathlib import Path


def open_private(path: str, flags: int) -> int:
    """An `opener` for `open` that creates files which only their owner can read."""
    return os.open(path, flags, 0o600)


def write_atomically(target: Path, data: bytes) -> None:
    """Replaces the content of `target` with `data`, and creates its folder if needed.

    Only the owner can read the file. Raises OSError, and then leaves `target` as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "xb", opener=open_private) as file:
            file.write(data)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
