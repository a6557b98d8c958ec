"""Writes a chart to a file: as SVG, or as PNG if a renderer is installed."""

from pathlib import Path


def check_plot_path(path: Path) -> None:
    """Raises a `LocalRunError` if no chart can be written there, before anything is measured."""
    raise NotImplementedError


def save_chart(svg: str, path: Path) -> None:
    """Writes `svg` to `path`, as PNG if that is its ending. Raises a `LocalRunError`."""
    raise NotImplementedError
