"""Draws charts of lines over time as SVG."""

from collections.abc import Sequence

from llm_localrun.charts.model import LineChart


def lines_svg(title: str, panels: Sequence[LineChart], footnote: str = "") -> str:
    """The panels below each other, under one title, as an SVG document."""
    raise NotImplementedError
