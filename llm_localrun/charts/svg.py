"""Elements of SVG, texts that fit, and the page that holds the panels of a chart.

What the panels show is left to `bars` and `lines`. No font is read: `text_width` is an upper bound
for the sans-serif fonts in use, of which DejaVu Sans and Verdana are the widest.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple
from unicodedata import combining, east_asian_width

from llm_localrun.system.text import printable

FONTS = (
    "Helvetica Neue,Helvetica,Arial,Liberation Sans,DejaVu Sans,Noto Sans,Segoe UI,Ubuntu,"
    "Cantarell,Verdana,sans-serif"
)
"""resvg 0.48 drops a text if no font that is named here is installed; sans-serif is Arial to it."""
SIZE = 12
"""Pixels of most texts."""
LINE_HEIGHT = 16
MARGIN = 16
INK = "#111"
FAINT = "#555"
GRID = "#ddd"
_TITLE_SIZE = 18
_NARROW = set(" .,:;'|!ijlftrI()[]-/\\`\"")
_WIDE = set("mwMW@%")
_LONGEST_LABEL = 400
_LEAST_WIDTH = 480


class Panel(NamedTuple):
    """A part of a chart: its elements, how large it is, and what it shows in words."""

    elements: list[str]
    width: float
    height: float
    summary: str


def element(name: str, content: str = "", /, **attributes: str | float) -> str:
    """An element. `content` is SVG already; `stroke_width` stands for `stroke-width`."""
    shown = "".join(
        f' {key.replace("_", "-")}="{escape(value if isinstance(value, str) else f"{value:.6g}")}"'
        for key, value in attributes.items()
    )
    return f"<{name}{shown}>{content}</{name}>" if content else f"<{name}{shown}/>"


def text(x: float, y: float, content: str, **attributes: str | float) -> str:
    """A text whose baseline begins at a point, in `SIZE` unless `attributes` say otherwise."""
    return element("text", escape(printable(content)), x=x, y=y, **attributes)


def note(content: str, **attributes: str | float) -> str:
    """What a reader of the screen says, and a browser shows beside the pointer."""
    return element("title", escape(printable(content)), **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: str | float) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def text_width(content: str, size: float = SIZE, *, bold: bool = False) -> float:
    """The pixels that a printable text takes at most."""
    return size * (1.15 if bold else 1) * sum(map(_em, content))


def _em(character: str) -> float:
    if character in _NARROW:
        return 0.47
    if character.isascii():
        is_usual = character.isdigit() or character.islower() or character in "_?*$"
        return 1.1 if character in _WIDE else 0.65 if is_usual else 0.82
    if combining(character):
        return 0
    return 1.3 if character.isupper() or east_asian_width(character) in "WF" else 1


def widest(contents: Iterable[str]) -> float:
    return max(map(text_width, contents), default=0)


def shortened(content: str, width: float, size: float = SIZE, *, bold: bool = False) -> str:
    """`content`, printable, with an ellipsis for its middle if it is wider than `width`."""
    content = printable(content)
    if text_width(content, size, bold=bold) <= width:
        return content
    kept = len(content)
    while kept > 2 and text_width(_without_middle(content, kept), size, bold=bold) > width:
        kept -= 1
    return _without_middle(content, kept)


def _without_middle(content: str, kept: int) -> str:
    return f"{content[: kept - kept // 2]}…{content[len(content) - kept // 2 :]}"


def short_labels(labels: Iterable[str]) -> dict[str, str]:
    """What is shown for each label: shortened, but not so far that two become the same."""
    distinct, width = dict.fromkeys(labels), _LONGEST_LABEL
    while True:
        short = {label: shortened(label, width) for label in distinct}
        if len({*short.values()}) == len({*map(printable, distinct)}):
            return short
        width *= 2


def _wrapped(content: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    lines = [""]
    for word in printable(content).split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size, bold=bold) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [shortened(each, width, size, bold=bold) for each in lines if each]


def page(title: str, panels: Sequence[Panel], footnote: str, definitions: str = "") -> str:
    """The panels below each other, between a title and a footnote, as an SVG document."""
    width = math.ceil(max((panel.width for panel in panels), default=0)) + 2 * MARGIN
    width = max(width, _LEAST_WIDTH)
    room, y, parts = width - 2 * MARGIN, float(MARGIN), [definitions]
    for each in _wrapped(title, room, _TITLE_SIZE, bold=True):
        y += _TITLE_SIZE * 1.25
        parts.append(text(MARGIN, y, each, font_size=_TITLE_SIZE, font_weight="bold"))
    for panel in panels:
        y += 20
        content = "\n".join(panel.elements)
        parts.append(element("g", content, transform=f"translate({MARGIN} {y:.6g})"))
        y += panel.height
    y += 8
    for each in _wrapped(footnote, room, SIZE):
        y += LINE_HEIGHT
        parts.append(text(MARGIN, y, each, fill=FAINT))
    height = math.ceil(y) + MARGIN
    summary = printable(" ".join(panel.summary for panel in panels))
    head = [
        note(title, id="title"),
        element("desc", escape(summary), id="desc"),
        element("rect", width="100%", height="100%", fill="#fff"),
    ]
    return element(
        "svg",
        "\n".join(["", *head, *filter(None, parts), ""]),
        xmlns="http://www.w3.org/2000/svg",
        width=width,
        height=height,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_labelledby="title desc",
        font_family=FONTS,
        font_size=SIZE,
        fill=INK,
    )
