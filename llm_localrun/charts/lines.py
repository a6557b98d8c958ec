"""Draws charts of lines over time as SVG.

Each line ends at its name. Lines differ by dashes and markers, not by color alone.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llm_localrun.charts.axes import LAST_TIME, number, number_ticks, time_ticks
from llm_localrun.charts.model import LineChart
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
    widest,
)

_PLOT_WIDTH = 560
_PLOT_HEIGHT = 200
_TITLE_SIZE = 14
_LEAST_LEFT = 48
"""Room for half of a date below the first tick."""
_SAMPLE_WIDTH = 28
_GAP = 16
"""Between the plot and the samples of the lines."""
_LEAST_SECONDS = 60
_MOST_MARKERS = 40
_COLORS = ("#1f3b63", "#a34a12", "#4a7d2c", "#7a3b8f", "#555")
_DASHES = ("", "7 3", "2 3", "12 3 2 3")
_MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M-3.5 -3.5h7v7h-7z",
    "M0 -5L4.5 3.5H-4.5z",
    "M0 -5L5 0L0 5L-5 0z",
    "M0 5L4.5 -3.5H-4.5z",
    "M-4 -1.5H-1.5V-4H1.5V-1.5H4V1.5H1.5V4H-1.5V1.5H-4z",
    "M-5 -2.5H5V2.5H-5z",
)
"""A circle, a square, triangles …, around (0, 0). Their number has no factor of the others'."""


class _Line(NamedTuple):
    label: str
    style: int
    points: list[tuple[float, float]]
    """Sorted; at least one."""


def lines_svg(title: str, panels: Sequence[LineChart], footnote: str = "") -> str:
    """The panels below each other, under one title, as an SVG document."""
    labels = short_labels(series.label for panel in panels for series in panel.series)
    styles = {label: at for at, label in enumerate(labels)}
    lines = [(panel, _lines(panel, styles)) for panel in panels]
    drawn = [_Drawing(panel, shown, labels).panel() for panel, shown in lines if shown]
    return page(title, drawn, footnote)


def _lines(chart: LineChart, styles: dict[str, int]) -> list[_Line]:
    """The series that have points with finite numbers."""
    shown = [(series, sorted(filter(_is_shown, series.points))) for series in chart.series]
    return [_Line(series.label, styles[series.label], points) for series, points in shown if points]


def _is_shown(point: tuple[float, float]) -> bool:
    return math.isfinite(point[1]) and abs(point[0]) <= LAST_TIME


def spread_out(wanted: Sequence[float], lowest: float, highest: float, gap: float) -> list[float]:
    """Positions near the wanted ones, which are sorted, with `gap` between neighbors."""
    placed: list[float] = []
    for position in wanted:
        placed.append(max(position, placed[-1] + gap if placed else lowest))
    limit = highest
    for at in reversed(range(len(placed))):
        placed[at] = min(placed[at], limit)
        limit = placed[at] - gap
    return placed


class _Drawing:
    """One panel."""

    def __init__(self, chart: LineChart, lines: list[_Line], labels: dict[str, str]) -> None:
        self._chart, self._lines, self._labels = chart, lines, labels
        times = [time for shown in lines for time, _ in shown.points]
        self._first, self._last = min(times), max(times)
        if (missing := _LEAST_SECONDS - (self._last - self._first)) > 0:
            self._first -= missing / 2
            self._last += missing / 2
        self._ticks = number_ticks(max(value for shown in lines for _, value in shown.points))
        self._left = max(_LEAST_LEFT, widest(self._ticks.values()) + 8)
        self._right = self._left + _PLOT_WIDTH
        values = widest(number(shown.points[-1][1]) for shown in lines)
        self._names_x = self._right + _GAP + _SAMPLE_WIDTH + 6 + values + 6
        self._top = float(_TITLE_SIZE + LINE_HEIGHT + 14)
        height = max(_PLOT_HEIGHT, LINE_HEIGHT * len(lines))
        self._bottom = self._top + height

    def panel(self) -> Panel:
        width = self._names_x + widest(self._labels[shown.label] for shown in self._lines)
        title = shortened(self._chart.title, width, _TITLE_SIZE, bold=True)
        elements = [
            text(0, _TITLE_SIZE, title, font_size=_TITLE_SIZE, font_weight="bold"),
            *self._values(width),
            *self._times(),
            *self._ends(),
            *(self._line(shown) for shown in self._lines),
        ]
        height = self._bottom + 2 * LINE_HEIGHT + 4
        return Panel(elements, width, height, self._summary())

    def _x(self, time: float) -> float:
        return self._left + _PLOT_WIDTH * (time - self._first) / (self._last - self._first)

    def _y(self, value: float) -> float:
        return self._bottom - (self._bottom - self._top) * (max(0, value) / max(self._ticks))

    def _values(self, width: float) -> Iterator[str]:
        """The axis of values, whose unit stands above it."""
        unit = shortened(self._chart.unit, width)
        yield text(0, self._top - 10, unit, fill=FAINT)
        for value, label in self._ticks.items():
            y = self._y(value)
            yield line(self._left, y, self._right, y, stroke=GRID if value else INK)
            yield text(self._left - 8, y + 4, label, text_anchor="end", fill=FAINT)

    def _times(self) -> Iterator[str]:
        for tick in time_ticks(self._first, self._last):
            x, base = self._x(tick.time), self._bottom + SIZE + 6
            yield line(x, self._bottom, x, self._bottom + 5, stroke=INK)
            yield text(x, base, tick.label, text_anchor="middle", fill=FAINT)
            if tick.context:
                yield text(x, base + 14, tick.context, text_anchor="middle", fill=FAINT)

    def _line(self, shown: _Line) -> str:
        at = [(self._x(time), self._y(value)) for time, value in shown.points]
        every = -(-len(at) // _MOST_MARKERS)
        name = note(f"{shown.label}: {self._sentence(shown)}")
        markers = [_marker(x, y, shown.style) for x, y in at[::-every]]
        return element("g", name + _stroke(at, shown.style) + "".join(markers))

    def _ends(self) -> Iterator[str]:
        """A sample of each line, its last value and its name, as near to its end as they fit."""
        lines = sorted(self._lines, key=lambda shown: self._y(shown.points[-1][1]))
        ends = [self._y(shown.points[-1][1]) for shown in lines]
        x = self._right + _GAP
        for shown, end, y in zip(
            lines, ends, spread_out(ends, self._top, self._bottom, LINE_HEIGHT), strict=True
        ):
            last_x, value = self._x(shown.points[-1][0]), number(shown.points[-1][1])
            yield line(last_x, end, x, y, stroke="#999", stroke_dasharray="1 2")
            yield _stroke([(x, y), (x + _SAMPLE_WIDTH, y)], shown.style)
            yield _marker(x + _SAMPLE_WIDTH / 2, y, shown.style)
            # Apart, because a value would stand on the wrong side of an Arabic name.
            yield text(self._names_x - 6, y + 4, value, text_anchor="end")
            yield text(self._names_x, y + 4, self._labels[shown.label])

    def _sentence(self, shown: _Line) -> str:
        values = [value for _, value in shown.points]
        if len(values) == 1:
            return f"{number(values[0])} {self._chart.unit}"
        return (
            f"{number(values[-1])} {self._chart.unit} at last; from {number(min(values))}"
            f" to {number(max(values))} in {len(values):,} points"
        )

    def _summary(self) -> str:
        lines = ". ".join(f"{shown.label}: {self._sentence(shown)}" for shown in self._lines)
        return f"{self._chart.title}. {lines}."


def _stroke(at: Sequence[tuple[float, float]], style: int) -> str:
    return element(
        "polyline",
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in at),
        fill="none",
        stroke=_COLORS[style % len(_COLORS)],
        stroke_width=2,
        stroke_dasharray=_DASHES[style % len(_DASHES)] or "none",
    )


def _marker(x: float, y: float, style: int) -> str:
    """Filled for every other style, hollow for the rest."""
    color = _COLORS[style % len(_COLORS)]
    return element(
        "path",
        d=_MARKERS[style % len(_MARKERS)],
        transform=f"translate({x:.1f} {y:.1f})",
        fill=color if style % 2 == 0 else "#fff",
        stroke=color,
        stroke_width=1.5,
    )
