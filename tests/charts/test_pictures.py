"""Charts as pixels, as resvg draws them with the fonts of this machine."""

from functools import cache
from itertools import combinations
from statistics import mean, pstdev
from string import printable

import pytest

from llm_localrun.charts.svg import MARGIN, Panel, page, text, text_width
from tests.support.charts import BARS, LINES
from tests.support.png import Picture, is_white, read_png
from tests.support.svg import Box, Page

resvg_py = pytest.importorskip("resvg_py", reason="resvg-py, which draws PNG files, is missing")

pytestmark = pytest.mark.pure

DRAWINGS = {
    f"{kind}: {name}": draw
    for kind, drawings in (("bars", BARS), ("lines", LINES))
    for name, draw in drawings.items()
}


@cache
def drawn(name: str) -> tuple[Page, Picture]:
    svg = DRAWINGS[name]()
    return Page(svg), read_png(resvg_py.svg_to_bytes(svg_string=svg))


def part(picture: Picture, box: Box) -> list[bytes]:
    return picture.part(box.x, box.y, box.width, box.height)


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_picture_is_whole(name: str) -> None:
    """Its edges are white, so nothing is cut off; each text is there, and ends where it may."""
    page, picture = drawn(name)
    assert (picture.width, picture.height) == (int(page.width), int(page.height))
    edge = MARGIN - 4
    for edges in (
        *(picture.part(0, 0, picture.width, 6), picture.part(0, 0, edge, picture.height)),
        picture.part(0, picture.height - 10, picture.width, 10),
        picture.part(picture.width - edge, 0, edge, picture.height),
    ):
        assert is_white(edges)
    for box in page.texts:
        assert not box.text or not is_white(part(picture, box)), box


@pytest.mark.parametrize("content", [printable[:95], "W" * 9, "mmm", "@%@", "ЖЩШ", "Ag0.5-_/"])
@pytest.mark.parametrize("weight", ["normal", "bold"])
def test_texts_take_no_more_room_than_reckoned(content: str, weight: str) -> None:
    drawing = page("", [Panel([text(0, 12, content, font_weight=weight)], 2000, 20, "")], "")
    rows = read_png(resvg_py.svg_to_bytes(svg_string=drawing)).rows
    end = max(at + 1 for row in rows for at, gray in enumerate(row) if gray < 255)
    width = text_width(content, bold=weight == "bold")
    # DejaVu Sans is among the widest fonts; a narrow one may take two thirds of that.
    assert 0.5 * width <= end - MARGIN <= width + 1


def looks(rows: list[bytes]) -> tuple[float, ...]:
    """The mean gray, and how much rows and columns vary."""
    return (
        mean(map(mean, rows)),
        pstdev([mean(row) for row in rows]),
        pstdev([mean(column) for column in zip(*rows, strict=True)]),
        mean(map(pstdev, rows)),
    )


def test_bars_differ_in_gray() -> None:
    page, picture = drawn("bars: six fills")
    fills = [
        looks(picture.part(bar.x + 2, bar.y + 2, bar.width / 2, bar.height - 4))
        for bar in page.bars[:6]
    ]
    for one, other in combinations(fills, 2):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 25


@pytest.mark.parametrize("name", ["bars: bench", "bars: thirty bars", "bars: of all sizes"])
def test_bars_are_drawn_where_their_values_say(name: str) -> None:
    page, picture = drawn(name)
    assert page.bars
    for bar in page.bars:
        if bar.width > 4:
            assert mean(map(mean, part(picture, bar))) < 230
        # Below it, within the plot, there are no more than thin gray lines.
        below = picture.part(bar.x + 2, bar.y + bar.height + 2, bar.width, 2)
        assert min((min(row) for row in below if row), default=255) > 190


@pytest.mark.parametrize("name", ["lines: one line", "lines: within a minute", "lines: huge"])
def test_lines_go_through_their_points(name: str) -> None:
    page, picture = drawn(name)
    # Samples come before the lines, and panels begin below the title.
    line, shift = max(page.lines, key=len), page.panel_top
    for x, y in line:
        around = picture.part(x + MARGIN - 5, y + shift - 5, 10, 10)
        assert min(map(min, around)) < 100


def test_a_picture_without_color_is_as_good() -> None:
    """Markers of thirty lines differ as grays."""
    _, picture = drawn("lines: thirty equal lines")
    page = Page(LINES["thirty equal lines"]())
    samples = [line for line in page.lines if len(line) == 2]
    grays = {
        tuple(picture.part(line[0][0] + MARGIN, line[0][1] + page.panel_top - 6, 28, 12))
        for line in samples
    }
    assert len(samples) == len(grays) == 30
