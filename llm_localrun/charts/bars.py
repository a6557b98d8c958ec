"""Draws charts of horizontal bars as SVG."""

from collections.abc import Sequence

from llm_localrun.charts.model import BarChart


def bars_svg(title: str, panels: Sequence[BarChart], footnote: str = "") -> str:
    """The panels below each other, under one title, as an SVG document."""
    raise NotImplementedError
