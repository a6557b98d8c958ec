"""Draws charts of horizontal bars as SVG.

Each bar has its label and its value beside it. How a bar is filled only helps to find those of the
same label in other groups, and tells them apart without color.
"""

import math
from collections.abc import Iterator, Sequence

from llm_localrun.charts.axes import axis_end, number, number_ticks
from llm_localrun.charts.model import Bar, BarChart, BarGroup
from llm_localrun.charts.svg import (
    FAINT,
    GRID,
    INK,
    LINE_HEIGHT,
    SIZE,
    Panel,
    element,
    line,
    note,
    page,
    short_labels,
    shortened,
    text,
    text_width,
    widest,
)

_PLOT_WIDTH = 440
_BAR_HEIGHT = 14
_PITCH = 20
_TITLE_SIZE = 14
_BOLD = 1.15
_NOT_MEASURED = "not measured"
_FILLS = (
    ("#1f3b63", "", ""),
    ("#a9cbe8", "", ""),
    ("#fff", "#a34a12", "M-2 2L2 -2M0 8L8 0M6 10L10 6"),
    ("#6d8f3c", "", ""),
    ("#fff", "#333", "M2 2h2v2h-2zM6 6h2v2h-2z"),
    ("#c9a6d6", "#4a235a", "M0 2h8M0 6h8"),
)
"""Paper, ink and strokes in a square of 8 pixels. Their grays differ, or their patterns do."""


def bars_svg(title: str, panels: Sequence[BarChart], footnote: str = "") -> str:
    """The panels below each other, under one title, as an SVG document."""
    panels = [panel for panel in panels if any(group.bars for group in panel.groups)]
    groups = [group for panel in panels for group in panel.groups]
    rows = [_row_label(group, bar) for group in groups for bar in group.bars]
    labels = short_labels([*rows, *(group.label for group in groups)])
    room = widest(labels[row] for row in rows) + 8
    fills = _fills(panels)
    drawn = [_Drawing(panel, labels, room, fills).panel() for panel in panels]
    return page(title, drawn, footnote, element("defs", "".join(map(_pattern, range(len(_FILLS))))))


def _row_label(group: BarGroup, bar: Bar) -> str:
    return bar.label or group.label


def _is_one_row(group: BarGroup) -> bool:
    return len(group.bars) == 1 and group.bars[0].label in ("", group.label)


def _fills(panels: Sequence[BarChart]) -> dict[str, int]:
    """Which fill the bars of each label have, if there is something to compare."""
    groups = [group for panel in panels for group in panel.groups if not _is_one_row(group)]
    labels = [*dict.fromkeys(bar.label for group in groups for bar in group.bars)]
    is_helpful = len(groups) > len(panels) and len(labels) <= len(_FILLS)
    return {label: at for at, label in enumerate(labels)} if is_helpful else {}


def _pattern(at: int) -> str:
    paper, ink, strokes = _FILLS[at]
    square = element("rect", width=8, height=8, fill=paper)
    if strokes:
        square += element("path", d=strokes, stroke=ink, stroke_width=2, fill="none")
    return element(
        "pattern", square, id=f"fill{at}", width=8, height=8, patternUnits="userSpaceOnUse"
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _value_text(bar: Bar) -> str:
    return _NOT_MEASURED if (value := _finite(bar.value)) is None else number(value)


def _spread(bar: Bar) -> tuple[float, float] | None:
    low, high = _finite(bar.low), _finite(bar.high)
    if low is None or high is None or low >= high or _finite(bar.value) is None:
        return None
    return max(0, low), high


def _end(bar: Bar) -> float:
    """The largest number that a bar shows."""
    return max(0, _finite(bar.value) or 0, (_spread(bar) or (0, 0))[1])


def _sentence(bar: Bar, unit: str) -> str:
    """What a bar shows, in words."""
    value = _value_text(bar)
    if value == _NOT_MEASURED:
        return value
    spread = _spread(bar)
    rest = f" (from {number(spread[0])} to {number(spread[1])})" if spread else ""
    return f"{value} {unit}{rest}"


class _Drawing:
    """One panel."""

    def __init__(
        self, chart: BarChart, labels: dict[str, str], room: float, fills: dict[str, int]
    ) -> None:
        self._chart, self._labels, self._left, self._fills = chart, labels, room, fills
        bars = [bar for group in chart.groups for bar in group.bars]
        end = axis_end(max(map(_end, bars)))
        self._ticks = {v: label for v, label in number_ticks(end).items() if v <= end}
        self._scale = _PLOT_WIDTH / end
        headings = widest(labels[group.label] for group in chart.groups) * _BOLD
        beside = max(widest(map(_value_text, bars)) + 8, widest(self._ticks.values()) / 2)
        self._width = max(room + _PLOT_WIDTH + beside, headings)
        self._y = float(_TITLE_SIZE + 10)

    def panel(self) -> Panel:
        top, rows = self._y, [*self._rows()]
        title = shortened(self._chart.title, self._width, _TITLE_SIZE, bold=True)
        heading = text(0, _TITLE_SIZE, title, font_size=_TITLE_SIZE, font_weight="bold")
        axis = [*self._axis(top, self._y)]
        height = self._y + 2 * LINE_HEIGHT + 4
        return Panel([heading, *axis, *rows], self._width, height, self._summary())

    def _rows(self) -> Iterator[str]:
        for group in self._chart.groups:
            if group.label and group.bars and not _is_one_row(group):
                self._y += _PITCH + 4
                # It may be longer than the labels of the bars, and reach into the plot.
                yield _over_lines(0, self._y - 8, self._labels[group.label], font_weight="bold")
            for bar in group.bars:
                yield self._bar(group, bar)
                self._y += _PITCH
            self._y += 6

    def _bar(self, group: BarGroup, bar: Bar) -> str:
        label, base = _row_label(group, bar), self._y + 11
        x, value = self._left, max(0, _finite(bar.value) or 0)
        parts = [
            note(f"{label}: {_sentence(bar, self._chart.unit)}"),
            text(x - 8, base, self._labels[label], text_anchor="end"),
            element(
                "rect",
                x=x,
                y=self._y,
                width=value * self._scale,
                height=_BAR_HEIGHT,
                fill=f"url(#fill{self._fills.get(bar.label, 0)})",
                stroke=INK,
            ),
            *self._whisker(bar),
            _over_lines(x + _end(bar) * self._scale + 6, base, _value_text(bar)),
        ]
        return element("g", "".join(parts if value else [*parts[:2], parts[-1]]))

    def _whisker(self, bar: Bar) -> Iterator[str]:
        if (spread := _spread(bar)) is None:
            return
        middle = self._y + _BAR_HEIGHT / 2
        low, high = (self._left + end * self._scale for end in spread)
        path = f"M{low:.2f} {middle}H{high:.2f}"
        path += "".join(f"M{end:.2f} {middle - 4}v8" for end in (low, high))
        # White around it shows it on a dark bar.
        yield element("path", d=path, stroke="#fff", stroke_width=4, fill="none")
        yield element("path", d=path, stroke=INK, stroke_width=1.5, fill="none")

    def _axis(self, top: float, bottom: float) -> Iterator[str]:
        for value, label in self._ticks.items():
            x = self._left + value * self._scale
            yield line(x, top, x, bottom, stroke=GRID if value else INK)
            yield text(x, bottom + SIZE + 3, label, text_anchor="middle", fill=FAINT)
        middle, base = self._left + _PLOT_WIDTH / 2, bottom + SIZE + 3 + LINE_HEIGHT
        unit = shortened(self._chart.unit, _PLOT_WIDTH)
        yield text(middle, base, unit, text_anchor="middle", fill=FAINT)

    def _summary(self) -> str:
        rows = "; ".join(
            ", ".join(dict.fromkeys(filter(None, (group.label, bar.label))))
            + f": {_sentence(bar, self._chart.unit)}"
            for group in self._chart.groups
            for bar in group.bars
        )
        return f"{self._chart.title}: {rows}."


def _over_lines(x: float, y: float, content: str, **attributes: str | float) -> str:
    """A text that is readable where it lies on lines.

    Not with `paint-order`: renderers that do not know it draw the stroke over the text.
    """
    width = text_width(content, bold="font_weight" in attributes)
    paper = element("rect", x=x - 2, y=y - SIZE + 1, width=width + 2, height=SIZE + 2, fill="#fff")
    return paper + text(x, y, content, **attributes)
