"""Names and texts as a hostile author of files and servers writes them."""

import re
import unicodedata

FORGED = "FORGED"
"""What stands at the beginning of a line if a name could begin one."""

_HARMFUL = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}

ODD: dict[str, str] = {
    "escape sequence": "a\x1b[2J\x1b[31mb",
    "title of the terminal": "a\x1b]0;title\x07b",
    "link": "a\x1b]8;;http://x\x1b\\b\x1b]8;;\x1b\\",
    "control sequence of one byte": "a\x9b31mb",
    "bell": "a\x07b",
    "backspaces": "secret\b\b\b\b\b\bpublic",
    "carriage return": f"a\r{FORGED}",
    "newline": f"a\n{FORGED}: ok",
    "line separator": f"a\u2028{FORGED}\u2029b",
    "next line": f"a\x85{FORGED}",
    "tab": "a\tb",
    "right to left": "a\u202egpj.b",
    "isolates": "a\u2066\u2067b\u2069",
    "no width": "a\u200b\u2060\ufeffb",
    "tags": "a\U000e0041\U000e0042b",
    "no character": "a\ufffe\uffffb",
    "NUL": "a\0b",
    "not UTF-8": b"a\xff\xfe\x80b".decode("utf-8", "surrogateescape"),
    "very long": "long" * 60,
    "formats": "a%s{0}{x}%(y)s$HOME`id`b",
    "markup": "a|b*c_<d>&e",
    "quotes": "a'b\"c\\d",
    "dash first": "--help",
    "spaces": "  a  b ",
    "only dots": "...",
    "slashes": "../../../../etc/passwd",
    "emoji": "a\U0001f980\u4f60\u597d\u0301b",
}
"""By what is odd in them."""


def for_file(name: str) -> bytes:
    """The name as bytes that a file can have."""
    data = name.replace("/", "_").replace("\0", "_").encode("utf-8", "surrogateescape")
    # Room for the end of the name of a part.
    return data[:220]


def unprintable(text: str, allowed: str = "") -> str:
    """What a terminal may not get raw of an output, besides ends of lines; "" if there is none."""
    for line in re.split("[\n\r]", text):
        if line.startswith(FORGED):
            return "a line that a name has begun"
    for line in text.split("\n"):
        for character in line:
            if character not in allowed and unicodedata.category(character) in _HARMFUL:
                return f"U+{ord(character):04X} in {line[:100]!r}"
    return ""
