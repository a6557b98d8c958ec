"""Makes texts from outside printable: names of files and models, errors of servers, logs.

A terminal obeys control characters, and marks that change the direction of a text, or that have no
width, make one name look like another. Every module may import this one; printing is left to them.
"""

import json
import re
from collections.abc import Callable
from typing import Any

MAX_ID = 200
"""Characters of the part of an id that comes from outside."""

# The joiner within an emoji, which is one picture made of several characters: keep it.
_IN_EMOJI = re.compile(
    "(?<=[\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])\u200d(?=[\u2190-\u2bff\U0001f000-\U0001faff])"
)


def printable(text: str) -> str:
    r"""`text` with an escape for each character that cannot be printed: `\n`, `\x1b`, `\u202e`.

    As in `repr`, these are controls, marks of direction, characters without width, halves of
    surrogate pairs, and spaces other than U+0020. The joiner within an emoji stays.
    """
    return _replaced(text, lambda c: c.encode("unicode_escape").decode())


def printable_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON, with JSON's own escapes for what `printable` escapes."""
    lines = json.dumps(value, indent=indent, ensure_ascii=False).split("\n")
    # Within a string, json.dumps has escaped the line end.
    return "\n".join(_replaced(line, _json_escape) for line in lines)


def id_part(name: str) -> str:
    """What stands for `name` in an id: printable and short.

    A name that is neither becomes one that no other name becomes: its end is a hash.
    """
    clean = _replaced(name, lambda _: "_")
    if clean == name and len(name) <= MAX_ID:
        return name
    # Imported here because it takes milliseconds, and nearly all names stay as they are.
    import hashlib

    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{clean[: MAX_ID - 11]}@{digest}"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    pairs = (units[at : at + 2].hex() for at in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs)


def _replaced(text: str, replacement: Callable[[str], str]) -> str:
    """`text` with `replacement` of each character that cannot be printed."""
    if text.isprintable():
        return text
    kept = {match.start() for match in _IN_EMOJI.finditer(text)}
    return "".join(
        each if each.isprintable() or at in kept else replacement(each)
        for at, each in enumerate(text)
    )
