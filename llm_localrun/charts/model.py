"""What a chart shows. Drawing it is left to `bars` and `lines`, writing it to a file to `save`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its spread: the lowest and the highest that were measured."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BarGroup:
    """Bars that are compared with each other."""

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
    """A line: points of time in seconds since the epoch, and values."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LineChart:
    """A panel of lines over time with one axis from 0; `unit` stands at the axis: "tokens/s"."""

    title: str
    unit: str
    series: tuple[Series, ...]
