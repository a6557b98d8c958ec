"""Splits a command line up to the cursor into words, and quotes words for bash. Pure.

Shells pass the text as it was typed. Only quoting is undone: variables and patterns stay as they
are.
"""

import re
from typing import NamedTuple

_BREAKS = frozenset(":=")
"""The characters within names at which bash breaks words (COMP_WORDBREAKS) unless quoted."""


class Line(NamedTuple):
    """A command line up to the cursor."""

    words: list[str]
    """The words before the last one, without their quotes; the first is the program."""
    typed: str
    """The last word, which may be empty, without its quotes."""
    quote: str = ""
    """The quote that is still open: ', " or nothing."""
    kept: str = ""
    """The part of `typed` that bash keeps, because it ends with a break outside quotes."""


def split(text: str) -> Line:
    """The words of `text`."""
    words: list[str] = []
    word, quote, kept, is_escaped, is_begun = "", "", "", False, False
    for character in text:
        if is_escaped:
            word, is_escaped = word + character, False
        elif character == "\\" and quote != "'":
            is_escaped, is_begun = True, True
        elif quote:
            word, quote = (word, "") if character == quote else (word + character, quote)
        elif character in "'\"":
            quote, is_begun = character, True
        elif character.isspace():
            words += [word] if word or is_begun else []
            word, kept, is_begun = "", "", False
        else:
            word += character
            kept = word if character in _BREAKS else kept
    return Line(words, word, quote, kept)


def for_bash(value: str, line: Line) -> str:
    """What bash puts in the place of the last word to make it `value`.

    bash replaces only what follows the last break, and quotes nothing itself.
    """
    rest = value[len(line.kept) :]
    if line.quote == "'":
        return rest.replace("'", "'\\''")
    if line.quote:
        return re.sub(r'([\\"$`])', r"\\\1", rest)
    return re.sub(r"([^\w@%+=:,./~-])", r"\\\1", rest)


def for_zsh(value: str) -> str:
    """`value` as `_describe` reads it: a colon would end it, and a backslash keeps what follows."""
    return value.replace("\\", "\\\\").replace(":", "\\:")
