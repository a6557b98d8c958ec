"""What other programs have settled, in JSON files of theirs: read, never written."""

import json
import os
from pathlib import Path
from typing import Any

_MOST_BYTES = 4 * 2**20


def user_home() -> Path:
    """The user's own folder; `~` as it is if nobody knows where that is."""
    return Path(os.path.expanduser("~"))  # noqa: PTH111  # Path.home raises instead


def read_json(path: Path) -> Any:
    """What is in a JSON file of another program; None if that cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
        # Some tools on Windows begin their files with a byte order mark.
        return json.loads(data.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


def setting(path: Path, *keys: str) -> Any:
    """The value below `keys`, one inside the other, in a JSON file; None if there is none."""
    value = read_json(path)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
