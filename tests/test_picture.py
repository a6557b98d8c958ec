"""The picture in README.md is what was recorded, and a browser can show it."""

import re
from itertools import pairwise
from xml.etree import ElementTree

from benchmarks.picture import COMMANDS, PICTURE, RECORDED, drawn

SVG = "{http://www.w3.org/2000/svg}"
SESSION = RECORDED.read_text("utf-8")


def shown(svg: str) -> list[str]:
    """The lines of text in the picture; one line may consist of several texts."""
    lines: dict[str, str] = {}
    for text in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        line = lines.get(text.attrib["y"], "")
        lines[text.attrib["y"]] = f"{line} {text.text}" if line else f"{text.text}"
    return [*lines.values()]


def test_the_picture_shows_the_recorded_session() -> None:
    svg = PICTURE.read_text("utf-8")
    assert svg == drawn(SESSION), "run `python -m benchmarks.picture --draw`"
    assert shown(svg) == [line for line in SESSION.splitlines() if line]


def test_the_recorded_session_has_every_command_and_its_output() -> None:
    lines = SESSION.splitlines()
    assert [line[2:] for line in lines if line.startswith("$ ")] == [*COMMANDS]
    assert max(map(len, lines)) <= 80
    for line, following in pairwise(lines):
        assert not line.startswith("$ ") or (following and not following.startswith("$ ")), line


def test_the_picture_needs_nothing_else_and_can_be_read_aloud() -> None:
    root = ElementTree.fromstring(PICTURE.read_text("utf-8"))
    assert float(root.attrib["width"]) <= 820
    assert {each.tag.removeprefix(SVG) for each in root.iter()} == {
        *("svg", "title", "desc", "rect", "circle", "text")
    }
    assert not [key for each in root.iter() for key in each.attrib if key.endswith("href")]
    assert root.findtext(f"{SVG}title")
    assert SESSION in (root.findtext(f"{SVG}desc") or "")


def test_what_a_terminal_shows_is_escaped_and_lines_have_their_width() -> None:
    svg = drawn('$ cat <b> & "x"\n  a < b\n')
    assert shown(svg) == ['$ cat <b> & "x"', "  a < b"]
    assert re.findall(r'textLength="(\d+)"', svg) == ["9", "117", "63"]
