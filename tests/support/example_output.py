"""Compares what an example prints with what its document shows.

What differs from run to run becomes a placeholder: numbers with units, times, sizes, versions,
ids, folders, widths of columns. Answers of models are known, from llm's log or from the script
that asked; any other answer is as good, but JSON needs the same keys. All else must be the same.
"""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

ANY_LINES = "..."
_FIRST_MARK = 0xE000
_PROGRESS = re.compile(r"^Embedding(?: +\[[#-]*\].*)?$\n?", re.MULTILINE)
"""What `llm embed-multi` shows of its work: another line on a terminal than in a pipe."""
_ANSWER = re.compile("([\ue000-\uf8ff])")
"""Where an answer stood: a character for private use, which also says which answer it was."""
_SHORT = 3
"""Characters of an answer that is looked for only where it has its line to itself."""
_MOST_WRAPPED = 8
"""Lines of a sentence that is wrapped, in `doctor`'s report for example."""
_MIN_PIECE = 2
"""Characters of a text in a JSON answer that is looked for by itself."""

_SIZES = r"[kKMGT]i?B|bytes?|B"
_TIMES = r"ms|µs|s|min|m|h|seconds?|minutes?|hours?|days?|weeks?"
_NUMBER = re.compile(
    r"(?<![\w.:/@#~-])[-+±]?\d+(?:,\d{3})*(?:\.\d+)*(?:e[-+]?\d+)?k?"
    rf"(?:(?P<percent> ?%)| ?(?P<size>{_SIZES})\b| ?(?P<time>{_TIMES})\b|(?!\w))"
)
_COUNTED = re.compile(r" (?!tokens?\b|of\b|and\b|left\b|to\b)[a-z]{3,}")
"""What makes a small number a count of things, which must be right: `3 models`."""
_MAX_COUNT = 999

_REPLACED = (
    (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
    (r"(?:~|/[\w.-]+(?:/[\w.-]+)*?)?/(?:\.config/io\.datasette\.llm|user)(?=/|\b)", "«user»"),
    (r"/(?:home|Users)/\w+(?=/|\b)|/root(?=/|\b)", "~"),
    (r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?)?", "«date»"),
    (r"(?<![\w:])\d\d?:\d\d(?::\d\d)?(?![\w:])", "«time»"),
    (r"\b[0-9a-hjkmnp-tv-zA-HJKMNP-TV-Z]{26}\b", "«id»"),
    (r"\b(?=\w*\d)[0-9a-f]{12,64}\b", "«hash»"),
    (r"(localhost|127\.0\.0\.1|\[::1\]):\d{4,5}\b", r"\1:«port»"),
    (r"\bb\d{4,6}\b", "«build»"),
    (r"[▁-▏]+", "«chart»"),
    (r"[-─]{3,}", "---"),
)
_PATTERNS = tuple((re.compile(pattern), text) for pattern, text in _REPLACED)


def difference(expected: str, got: str, answers: Sequence[str] = ()) -> str:
    """How `got` differs from `expected`, as lines of a diff; empty if they are the same.

    `answers` are the texts of models that may stand in `got`.
    """
    marked = _mark(got, answers)
    wanted, found = normalized(expected), normalized(marked)
    if _same(wanted, found, answers):
        return ""
    shown = [_ANSWER.sub("«answer»", line) for line in found]
    lines = difflib.unified_diff(wanted, shown, "expected", "got", n=99, lineterm="")
    return "\n".join(lines)


def is_another_answer(expected: str, got: str) -> bool:
    """Whether both are answers of a model: neither is empty or an error, and JSON has its keys."""
    if not expected.strip() or not got.strip():
        return False
    if re.search(r"^(Error|Usage|Traceback)\b", f"{expected}\n{got}", re.MULTILINE):
        return False
    shape = _shape(expected)
    return shape is None or shape == _shape(got)


def pieces(answers: Sequence[str]) -> list[str]:
    """`answers`, and what a program may print of them: code in fences, texts of JSON objects."""
    found = [*answers]
    for answer in answers:
        found += re.findall(r"^`{3,}[^\n]*\n(.*?)\n`{3,}$", answer, re.MULTILINE | re.DOTALL)
        found.append(json.dumps(answer)[1:-1])
        found += [text for text in _texts(_parsed(answer)) if len(text) >= _MIN_PIECE]
    stripped = {text.strip() for text in found}
    return sorted(stripped - {""}, key=len, reverse=True)


def normalized(text: str) -> list[str]:
    """The lines of `text`, with placeholders; empty lines at the ends do not count."""
    lines = [_normalize_line(line) for line in _PROGRESS.sub("", text).splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n").splitlines()


def _normalize_line(line: str) -> str:
    for pattern, replacement in _PATTERNS:
        line = pattern.sub(replacement, line)
    line = _NUMBER.sub(_placeholder, line)
    line = re.sub(r"«time»(?: «time»)+", "«time»", line)
    return re.sub(r"\s+", " ", line).strip()


def _placeholder(number: re.Match[str]) -> str:
    name = next((name for name in ("percent", "size", "time") if number[name]), "number")
    is_small = number[0].isdigit() and int(number[0]) <= _MAX_COUNT
    if name == "number" and is_small and _COUNTED.match(number.string, number.end()):
        return number[0]
    return f"«{name}»"


def _mark(text: str, answers: Sequence[str]) -> str:
    """`text` with a mark in the place of each answer: the longest are looked for first."""
    for number, answer in enumerate(answers):
        before, after = ("^", "$") if len(answer) < _SHORT else (r"(?<!\w)", r"(?!\w)")
        pattern = f"{before}{re.escape(answer)}{after}"
        text = re.sub(pattern, chr(_FIRST_MARK + number), text, flags=re.MULTILINE)
    return text


def _same(wanted: list[str], found: list[str], answers: Sequence[str]) -> bool:
    """Whether `found`, with marks of answers, is what `wanted`, with `...`, stands for."""
    columns = len(found) + 1
    same = [[False] * columns for _ in range(len(wanted) + 1)]
    same[-1][-1] = True
    for row in range(len(wanted) - 1, -1, -1):
        for column in range(columns - 1, -1, -1):
            if wanted[row] == ANY_LINES:
                more = column + 1 < columns and same[row][column + 1]
                same[row][column] = same[row + 1][column] or more
            else:
                same[row][column] = any(
                    same[end][last] and _matches(wanted[row:end], found[column:last], answers)
                    for end, last in _ends(wanted, row, found, column)
                )
    return same[0][0]


def _ends(wanted: list[str], row: int, found: list[str], column: int) -> Iterator[tuple[int, int]]:
    """Where the lines that stand for each other may end, if they begin here.

    An answer has any number of lines; other lines may be wrapped elsewhere.
    """
    if column == len(found):
        return
    if _ANSWER.search(found[column]):
        yield from ((end, column + 1) for end in range(row + 1, len(wanted) + 1))
        return
    begins = wanted[row].partition(ANY_LINES)[0]
    if not (found[column].startswith(begins) or begins.startswith(found[column])):
        return
    for end in range(row + 1, min(row + _MOST_WRAPPED, len(wanted)) + 1):
        if wanted[end - 1] == ANY_LINES:
            return
        yield from ((end, last) for last in _lasts(found, column))


def _lasts(found: list[str], column: int) -> range:
    return range(column + 1, min(column + _MOST_WRAPPED, len(found)) + 1)


def _matches(wanted: list[str], found: list[str], answers: Sequence[str]) -> bool:
    if not _ANSWER.search(found[0]):
        # An empty line is not where a line is wrapped.
        if "" in (*wanted, *found):
            return wanted == found
        parts = " ".join(wanted).split(ANY_LINES)
        return re.fullmatch(".*".join(map(re.escape, parts)), " ".join(found)) is not None
    texts, marks = _ANSWER.split(found[0])[::2], _ANSWER.split(found[0])[1::2]
    pattern = "(.+)".join(map(re.escape, texts))
    match = re.fullmatch(pattern, "\n".join(wanted), re.DOTALL)
    return match is not None and all(
        (shape := _shape(answers[ord(mark) - _FIRST_MARK])) is None
        or ANY_LINES in text
        or _shape(_without_placeholders(text)) == shape
        for mark, text in zip(marks, match.groups(), strict=True)
    )


def _without_placeholders(text: str) -> str:
    return re.sub(r"«\w+»", "0", text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _texts(value: Any) -> list[str]:
    """All texts in a JSON value, except keys."""
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inside for text in _texts(each)]


def _shape(text: str) -> Any:
    """The keys of a JSON object or of the objects in a list; None if it is neither."""
    value = _parsed(text)
    return _shape_of(value) if isinstance(value, (dict, list)) else None


def _shape_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape_of(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shape_of(each) for each in value[:1]]
    return ""
