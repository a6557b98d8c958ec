"""Reads what other programs keep in files; whatever cannot be read says nothing."""

import json
from pathlib import Path
from typing import Any

_MOST_BYTES = 4 * 2**20


def read_text(path: Path) -> str:
    """The text of a file; "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            # Some tools on Windows begin their files with a byte order mark.
            return file.read(_MOST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError):
        return ""


def parse_json(text: str | bytes) -> Any:
    """What a text says in JSON; None if it says nothing."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_json(path: Path) -> Any:
    """What is in a JSON file; None if that cannot be read."""
    return parse_json(read_text(path))


def value_at(value: Any, *keys: str) -> Any:
    """What is under `keys`, one inside the other, in what JSON said; None if nothing is."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def setting(path: Path, *keys: str) -> Any:
    """The value under `keys`, one inside the other, in a JSON file; None if there is none."""
    return value_at(read_json(path), *keys)


def text_at(value: Any, *keys: str) -> str:
    """The text under `keys` in what JSON said; "" if none is there."""
    found = value_at(value, *keys)
    return found if isinstance(found, str) else ""


def list_at(value: Any, *keys: str) -> list[Any]:
    """The list under `keys` in what JSON said; [] if none is there."""
    found = value_at(value, *keys)
    return found if isinstance(found, list) else []


def lines_of(path: Path, separator: str) -> dict[str, str]:
    """The `key<separator>value` lines of a flat settings file, unquoted."""
    pairs = (line.partition(separator) for line in read_text(path).splitlines())
    return {key.strip(): value.strip().strip("\"'") for key, found, value in pairs if found}
