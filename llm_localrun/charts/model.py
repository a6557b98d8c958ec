"""What a chart shows. Drawing it is left to `bars` and `lines`, writing it to a file to `save`.

Titles, labels and units may be any text: they are shown `printable`, and shortened where they are
too long.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its spread: the lowest and the highest that were measured.

    None, or a number that is not finite, is shown as "not measured".
    """

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class BarGroup:
    """Bars that are compared with each other.

    Bars of the same label look alike in all groups. A group of one bar without a label is one row.
    """

    label: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class BarChart:
    """A panel of horizontal bars with one axis from 0; `unit` stands at the axis: "tokens/s"."""

    title: str
    unit: str
    groups: tuple[BarGroup, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """A line: points of time in seconds since the epoch, and values; in any order.

    Each point is drawn: summarize thousands of them first, to medians of days for instance.
    """

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LineChart:
    """A panel of lines over time with one axis from 0; `unit` stands at the axis: "tokens/s"."""

    title: str
    unit: str
    series: tuple[Series, ...]
