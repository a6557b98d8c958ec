"""What charts show: where texts and bars lie, whatever the values and names."""

from collections.abc import Callable
from itertools import combinations

import pytest

from llm_localrun.charts.bars import bars_svg
from llm_localrun.charts.lines import spread_out
from llm_localrun.charts.model import Bar, BarChart, BarGroup, Series
from llm_localrun.charts.svg import MARGIN, short_labels, shortened, text_width
from tests.support.charts import BARS, DAY, LINES, LONG, MODELS, NAMES, NOON, bars, lines
from tests.support.svg import Page

pytestmark = pytest.mark.pure

Draw = Callable[[], str]
ALL = [pytest.param(draw, id=name) for name, draw in [*BARS.items(), *LINES.items()]]


@pytest.mark.parametrize("draw", ALL)
def test_texts_stay_on_the_page_and_do_not_overlap(draw: Draw) -> None:
    page = Page(draw())
    shown = [box for box in page.texts if box.text]
    for box in shown:
        assert box.x >= MARGIN - 0.5, box
        assert box.x + box.width <= page.width - MARGIN + 0.5, box
        assert box.y >= 0
        assert box.y + box.height <= page.height - MARGIN
    assert [pair for pair in combinations(shown, 2) if pair[0].overlaps(pair[1])] == []
    assert [(text, bar) for text in shown for bar in page.bars if text.overlaps(bar)] == []


@pytest.mark.parametrize("draw", ALL)
def test_a_chart_is_one_file_of_sensible_size(draw: Draw) -> None:
    svg = draw()
    page = Page(svg)
    assert svg.count("http") == 1  # the name of SVG itself
    assert "nan" not in svg
    assert "inf" not in svg
    assert "paint-order" not in svg  # renderers that do not know it hide the text
    assert not {"script", "style", "image", "foreignObject"} & {
        each.tag.rpartition("}")[2] for each in page.root.iter()
    }
    assert 480 <= page.width <= 1250
    assert page.words("title") in svg
    assert page.root.attrib["role"] == "img"


def test_bars_are_as_long_as_their_values() -> None:
    values = (123.0, 41.2, 0.5)
    widths = [bar.width for bar in Page(bars(*values)).bars]
    assert widths == pytest.approx([value * widths[0] / 123 for value in values], rel=1e-3)
    longest = Page(bars(*values))
    ticks = {box.text: box.x + box.width / 2 for box in longest.texts}
    start = longest.bars[0].x
    assert (ticks["100"] - start) / (ticks["50"] - start) == pytest.approx(2, rel=1e-3)
    assert longest.bars[0].width / (ticks["100"] - start) == pytest.approx(1.23, rel=1e-3)


def test_values_and_units_are_shown_and_said() -> None:
    page = Page(BARS["bench"]())
    assert {"412", "1,204", "41.2", "tokens/s", "GB", *MODELS} <= {*page.shown()}
    sentence = "qwen2.5-coder-0.5b: 412 tokens/s (from 392 to 433)"
    assert f"after 0 tokens, 1 at a time, {sentence}" in page.words("desc")
    page = Page(LINES["stats"]())
    assert {"961", "tokens/s", "s", "Nov 30", "2026", *MODELS} <= {*page.shown()}
    assert "qwen2.5-coder-0.5b: 961 tokens/s at last; from 961 to 1,440 in 31" in page.words("desc")


def test_bars_of_one_label_look_alike_in_all_groups() -> None:
    fills = [part.partition(")")[0] for part in BARS["six fills"]().split('fill="url(#')[1:]]
    assert fills == [f"fill{n}" for n in range(6)] * 2
    # Fills that are repeated would tell nothing.
    assert BARS["thirty of two groups"]().count("url(#fill0)") == 60
    assert BARS["thirty bars"]().count("url(#fill0)") == 30


def test_what_was_not_measured_has_no_bar() -> None:
    page = Page(BARS["not measured"]())
    assert page.shown().count("not measured") == 2
    assert len(page.bars) == 1
    assert "a server: not measured." in page.words("desc")


def test_a_spread_that_was_not_measured_is_not_drawn() -> None:
    group = BarGroup("", (Bar("a", 3.0), Bar("b", 3.0, 3.0, 3.0)))
    assert 'stroke-width="1.5"' not in bars_svg("", [BarChart("", "", (group,))])
    assert 'stroke-width="1.5"' in bars(3.0)


def test_names_of_all_kinds_are_shown_as_they_are() -> None:
    for page in (Page(BARS["names of all kinds"]()), Page(LINES["names of all kinds"]())):
        assert {'<model> & "friends"', r"line\nbreak\x1b[1m", *NAMES[1:7]} <= {*page.shown()}


def test_long_names_keep_their_beginnings_and_ends() -> None:
    short = short_labels([LONG.format("Q4_K_M"), LONG.format("F16"), "short"])
    assert short["short"] == "short"
    texts = {text.partition("…")[2][-10:] for text in short.values()}
    assert texts == {"Q4_K_M.gguf"[-10:], "e-F16.gguf"[-10:], ""}
    assert all(text.startswith("local/lmstudio") for text in short.values() if text != "short")


def test_shortening_never_makes_two_names_the_same() -> None:
    names = [f"{'x' * 60}{n}{'y' * 60}" for n in range(9)]
    assert len({*short_labels(names).values()}) == 9
    # What cannot be told apart in full is shortened all the same.
    assert short_labels(["a\n" + "x" * 99, r"a\n" + "x" * 99])


def test_shortened_texts_fit() -> None:
    for width in (40, 55, 300):
        for name in (*NAMES, LONG):
            assert text_width(shortened(name, width)) <= width


def test_labels_at_the_ends_of_lines_keep_their_distance() -> None:
    assert spread_out([10, 50], 0, 100, 16) == [10, 50]
    assert spread_out([10, 12, 14], 0, 100, 16) == [10, 26, 42]
    assert spread_out([95, 96, 97], 0, 100, 16) == [68, 84, 100]
    assert spread_out([-5], 0, 100, 16) == [0]


def test_a_line_ends_at_its_last_point_whatever_the_order() -> None:
    points = ((NOON + DAY, 5.0), (NOON, 20.0))
    page = Page(lines(Series("one", points)))
    assert "5.00" in page.shown()
    (first, last), _sample = page.lines[-1], page.lines[0]
    assert first[0] < last[0]
    assert first[1] < last[1]


def test_lines_look_different() -> None:
    looks = [
        tuple(
            part.partition(f'{key}="')[2].partition('"')[0]
            for key in ("stroke", "stroke-dasharray", "d", "fill")
        )
        for part in LINES["thirty lines"]().split("<polyline")[1:31]
    ]
    assert len({*looks}) == 30


def test_series_without_numbers_are_left_out() -> None:
    page = Page(LINES["no number"]())
    assert "some" in page.shown()
    assert not {"none", "empty"} & {*page.shown()}
