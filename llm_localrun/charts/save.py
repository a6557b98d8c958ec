"""Writes a chart to a file: as SVG, or as PNG if a renderer is installed.

The renderer is resvg: docs/design/stats.md has the reasons.
"""

import os
import tempfile
from pathlib import Path

from llm_localrun.charts.svg import SIZE, Panel, page, text
from llm_localrun.errors import NotPlotted
from llm_localrun.system.atomic import open_regular, write_atomically

_PNG_SCALE = 2
"""Pixels of a PNG for each of the SVG: small texts stay sharp."""
_INSTALL = "Install it with `llm install 'llm-localrun[plot]'`"


def check_plot_path(path: Path) -> None:
    """Raises a `LocalRunError` if no chart can be written there, before anything is measured."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise NotPlotted(f"{path} does not end in .svg or .png", "Give a file that does")
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        problem = f"{path} cannot be written: {target.parent} is not a folder"
        raise NotPlotted(problem, "Make that folder first, or give another path")
    try:
        _check_regular(path)
        # Its name is as long as that of what `write_atomically` writes first.
        with tempfile.NamedTemporaryFile(prefix=f"{target.name}.", dir=target.parent):
            pass
    except OSError as error:
        raise NotPlotted.from_os_error("written", path, error) from error
    if _is_png(path):
        _check_renderer(path)


def save_chart(svg: str, path: Path) -> None:
    """Writes `svg` to `path`, as PNG if that is its ending. Raises a `LocalRunError`."""
    data = _render(svg, path) if _is_png(path) else svg.encode()
    try:
        _check_regular(path)
        write_atomically(Path(os.path.realpath(path)), data, is_private=False)
    except OSError as error:
        raise NotPlotted.from_os_error("written", path, error) from error


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _check_regular(path: Path) -> None:
    """Raises OSError if there is something else than a file. A device would be replaced by one."""
    try:
        open_regular(path).close()
    except FileNotFoundError:
        return


def _check_renderer(path: Path) -> None:
    # It leaves out a text without a word.
    if _render(_example(""), path) == _render(_example("Ag"), path):
        raise NotPlotted(
            f"{path} would have no text: the renderer finds no font that it knows",
            f"Install DejaVu Sans or Liberation Sans, or write {path.with_suffix('.svg')} instead",
        )


def _example(content: str) -> str:
    return page("", [Panel([text(0, SIZE, content)], SIZE, SIZE, "")], "")


def _render(svg: str, path: Path) -> bytes:
    """`svg` as PNG. `path` is named in an error."""
    instead = f"or write {path.with_suffix('.svg')} instead, which needs nothing"
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        problem = f"{path} cannot be written: the renderer of PNG files (resvg-py) is not installed"
        raise NotPlotted(problem, f"{_INSTALL}, {instead}") from error
    try:
        return bytes(svg_to_bytes(svg_string=svg, background="#fff", zoom=_PNG_SCALE))
    except ValueError as error:
        raise NotPlotted(f"{path} cannot be written: {error}", f"Report this, {instead}") from error
