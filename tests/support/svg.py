"""Reads charts: where their texts and bars lie."""

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree

from llm_localrun.charts.svg import SIZE, text_width

_NS = "{http://www.w3.org/2000/svg}"
_SHIFT = re.compile(r"translate\((\S+) (\S+)\)")


class Box(NamedTuple):
    """A rectangle on the page, and the text in it."""

    x: float
    y: float
    width: float
    height: float
    text: str = ""

    def overlaps(self, other: "Box") -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


class Page:
    """A chart, as a reader of XML understands it."""

    def __init__(self, svg: str) -> None:
        self.root = ElementTree.fromstring(svg)
        assert self.root.tag == f"{_NS}svg"
        self.width, self.height = (float(self.root.attrib[key]) for key in ("width", "height"))
        placed = [*_placed(self.root, 0, 0)]
        self.texts = [_text_box(each, x, y) for each, x, y in placed if each.tag == f"{_NS}text"]
        self.bars = [
            _bar_box(each, x, y)
            for each, x, y in placed
            if each.tag == f"{_NS}rect" and each.attrib["fill"].startswith("url(")
        ]
        self.panel_top = next((y for each, x, y in placed if x and each.tag == f"{_NS}g"), 0.0)
        self.lines = [
            [tuple(map(float, point.split(","))) for point in each.attrib["points"].split()]
            for each, _, _ in placed
            if each.tag == f"{_NS}polyline"
        ]

    def words(self, name: str) -> str:
        """The content of the first element of that name."""
        return self.root.findtext(f"{_NS}{name}") or ""

    def shown(self) -> list[str]:
        return [box.text for box in self.texts]


def _placed(
    parent: ElementTree.Element, x: float, y: float
) -> Iterator[tuple[ElementTree.Element, float, float]]:
    """The elements that are drawn, with the origin of each."""
    for child in parent:
        if child.tag == f"{_NS}defs":
            continue
        shift = _SHIFT.fullmatch(child.get("transform", "translate(0 0)"))
        assert shift, child.attrib
        at = (x + float(shift[1]), y + float(shift[2]))
        yield child, *at
        yield from _placed(child, *at)


def _bar_box(bar: ElementTree.Element, x: float, y: float) -> Box:
    left, top, width, height = (float(bar.attrib[k]) for k in ("x", "y", "width", "height"))
    return Box(x + left, y + top, width, height)


def _text_box(text: ElementTree.Element, x: float, y: float) -> Box:
    """Where a text lies, from the top of its capitals to its baseline."""
    content, size = text.text or "", float(text.get("font-size", SIZE))
    width = text_width(content, size, bold=text.get("font-weight") == "bold")
    share = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "start")]
    left, base = x + float(text.attrib["x"]), y + float(text.attrib["y"])
    return Box(left - share * width, base - 0.75 * size, width, 0.75 * size, content)
