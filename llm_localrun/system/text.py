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

_EMOJI = "\U0001f000-\U0001faff"
_JOINS = f"[\u2194\u2195\u2640\u2642\u2695\u2696\u26a7\u26d3\u26f9\u2708\u2764\u27a1\u2b1b{_EMOJI}]"
# Patterns, compiled when they are needed, because every command imports this module.
# Within an emoji, which is one picture made of several characters: keep what makes it a picture,
# and its joiners.
_IN_EMOJI = (
    f"(?<=[\xa9\xae\u203c\u2049\u2100-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299{_EMOJI}])\ufe0f"
    f"|(?<=[#*0-9])\ufe0f(?=\u20e3)|(?:(?<={_JOINS})|(?<={_JOINS}\ufe0f))\u200d(?={_JOINS})"
)
# What Python can print and a terminal shows as nothing, or as a space.
_INVISIBLE = (
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800"
    "\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def printable(text: str) -> str:
    r"""`text` with an escape for each character that cannot be printed: `\n`, `\x1b`, `\u202e`.

    As in `repr`, these are controls, marks of direction, characters without width, halves of
    surrogate pairs, and spaces other than U+0020, and besides what no terminal shows. An emoji
    stays whole.
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
    if text.isprintable() and (text.isascii() or not re.search(_INVISIBLE, text)):
        return text
    kept, hidden = (
        {match.start() for match in re.finditer(pattern, text)}
        for pattern in (_IN_EMOJI, _INVISIBLE)
    )
    shown, stays = [], True
    for at, each in enumerate(text):
        # What belongs to an emoji goes with what stands before it, and a joiner joins two.
        is_kept = stays and at in kept and (each == "\ufe0f" or text[at + 1].isprintable())
        stays = is_kept or (each.isprintable() and at not in hidden)
        shown.append(each if stays else replacement(each))
    return "".join(shown)


def width_of(text: str) -> int:
    """The columns that a terminal needs for a printable text: two for a wide character."""
    if text.isascii():
        return len(text)
    # Imported here because nearly all texts are ASCII.
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in text)


def cut(text: str, width: int) -> str:
    """The beginning of a printable text that a terminal shows in `width` columns."""
    shown = text[: max(0, width)]
    while shown and width_of(shown) > width:
        shown = shown[:-1]
    return shown
