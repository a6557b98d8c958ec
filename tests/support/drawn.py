"""Reads what a command has written to a terminal."""

import itertools
import re


def lines_on(shown: str) -> list[str]:
    """The lines that stand on a terminal of any width after `shown`, without trailing spaces."""
    lines, column = [""], 0
    for character in shown:
        if character == "\n":
            lines.append("")
            column = 0
        elif character == "\r":
            column = 0
        else:
            line = lines[-1].ljust(column)
            lines[-1] = line[:column] + character + line[column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def works_in(shown: str) -> list[str]:
    """The texts of the line that shows work, one after the other, with N for each number."""
    texts = (text.rstrip() for text in re.findall(r"(?:^|[\r\n])([^\r\n]+)(?=\r)", shown))
    works = (re.sub(r"\d[\d,]*", "N", text) for text in texts if text)
    return [work for work, _ in itertools.groupby(works)]
