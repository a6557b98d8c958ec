"""Reads settings and indexes that other programs keep in files, and JSON files of ours.

Such a file may be absent, damaged or of another format, so these functions return an empty value
instead of raising an exception. What the values mean is left to the modules of `files` and
`servers`.
"""

import json
from pathlib import Path
from typing import Any

from llm_localrun.system.atomic import open_regular, read_own, read_up_to

_MAX_BYTES = 4 * 2**20


def read_text(path: Path) -> str:
    """The text of a file, up to 4 MiB; "" if it cannot be read."""
    try:
        with open_regular(path) as file:
            # Some tools on Windows begin their files with a byte order mark.
            return read_up_to(file, _MAX_BYTES).decode("utf-8-sig")
    except (OSError, ValueError):
        return ""


def parse_json(text: str | bytes | bytearray) -> Any:
    """The value of a JSON text; None if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_json(path: Path) -> Any:
    """The value in a JSON file; None if it cannot be read."""
    return parse_json(read_text(path))


def read_own_json(path: Path) -> Any:
    """The value in a JSON file of ours; None if it cannot be read, or others can have written it.

    `atomic.open_own` says which files those are.
    """
    try:
        return parse_json(read_own(path))
    except OSError:
        return None


def value_at(value: Any, *keys: str) -> Any:
    """`value[key][key]…` for nested JSON objects; None if a key is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def setting(path: Path, *keys: str) -> Any:
    """`value_at(read_json(path), *keys)`."""
    return value_at(read_json(path), *keys)


def text_at(value: Any, *keys: str) -> str:
    """The string at `keys`, as `value_at`; "" if there is none."""
    found = value_at(value, *keys)
    return found if isinstance(found, str) else ""


def list_at(value: Any, *keys: str) -> list[Any]:
    """The list at `keys`, as `value_at`; [] if there is none."""
    found = value_at(value, *keys)
    return found if isinstance(found, list) else []


def lines_of(path: Path, separator: str) -> dict[str, str]:
    """The lines `key<separator>value` of a settings file, without spaces and quotes.

    `{"modelPath": "/models"}` for `modelPath="/models"` and the separator `=`.
    """
    pairs = (line.partition(separator) for line in read_text(path).splitlines())
    return {key.strip(): value.strip().strip("\"'") for key, found, value in pairs if found}
