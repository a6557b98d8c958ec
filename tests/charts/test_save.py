"""Where charts can be written, which is known before anything is measured."""

import os
import stat
import sys
from functools import partial
from pathlib import Path

import pytest

from llm_localrun.charts.save import check_plot_path, save_chart
from llm_localrun.errors import NotPlotted
from tests.support.charts import bars
from tests.support.png import is_white, read_png
from tests.support.special_files import NOT_REGULAR

pytestmark = pytest.mark.pure

REFUSED = [
    ("chart", "does not end in .svg or .png. Give a file that does."),
    ("chart.pdf", "does not end in .svg or .png. Give a file that does."),
    (".svg", "does not end in .svg or .png. Give a file that does."),
    ("none/chart.svg", "none is not a folder. Make that folder first, or give another path."),
    ("file/chart.svg", "file is not a folder. Make that folder first, or give another path."),
    ("link.svg", "elsewhere is not a folder. Make that folder first, or give another path."),
    ("folder.svg", "Is a directory. Give the path of a file, not of a directory."),
    (f"{'x' * 248}.svg", "File name too long. Check the path."),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "link.svg").symlink_to("elsewhere/chart.svg")
    return tmp_path


@pytest.fixture
def no_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)


@pytest.mark.parametrize(("name", "problem"), REFUSED)
def test_what_cannot_be_written_is_refused_beforehand(
    folder: Path, name: str, problem: str
) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(NotPlotted) as caught:
        check_plot_path(folder / name)
    assert str(caught.value).startswith(f"{folder / name} ")
    assert str(caught.value).endswith(problem)
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_a_folder_where_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(NotPlotted, match=r"/proc/chart\.svg cannot be written"):
        check_plot_path(Path("/proc/chart.svg"))


@pytest.mark.parametrize("kind", NOT_REGULAR)
def test_special_files_are_refused_and_stay(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "chart.svg"
    NOT_REGULAR[kind](path)
    before = path.lstat()
    for write in (partial(check_plot_path, path), partial(save_chart, bars(1), path)):
        with pytest.raises(NotPlotted, match="not a regular file"):
            write()
    assert path.lstat().st_ino == before.st_ino


@pytest.mark.usefixtures("no_renderer")
def test_svg_needs_no_renderer(tmp_path: Path) -> None:
    for name in ("chart.svg", "CHART.SVG"):
        path = tmp_path / name
        check_plot_path(path)
        assert not path.exists()
        save_chart(bars(1, 2), path)
        assert path.read_text() == bars(1, 2)
    assert len([*tmp_path.iterdir()]) == 2


def test_a_chart_replaces_the_one_before_through_a_link(tmp_path: Path) -> None:
    link, path = tmp_path / "link.svg", tmp_path / "chart.svg"
    path.write_text("before")
    link.symlink_to(path)
    check_plot_path(link)
    assert path.read_text() == "before"
    save_chart(bars(1), link)
    assert link.is_symlink()
    assert path.read_text() == bars(1)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions of this kind")
def test_others_may_read_a_chart_if_the_user_allows_it(tmp_path: Path) -> None:
    path = tmp_path / "chart.svg"
    before = os.umask(0o022)
    try:
        save_chart(bars(1), path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.usefixtures("no_renderer")
def test_png_without_a_renderer_says_how_to_get_one(tmp_path: Path) -> None:
    path = tmp_path / "chart.png"
    for write in (partial(check_plot_path, path), partial(save_chart, bars(1), path)):
        with pytest.raises(NotPlotted) as caught:
            write()
        assert str(caught.value) == (
            f"{path} cannot be written: the renderer of PNG files (resvg-py) is not installed."
            " Install it with `llm install 'llm-localrun[plot]'`, or write"
            f" {tmp_path / 'chart.svg'} instead, which needs nothing."
        )
    assert [*tmp_path.iterdir()] == []


def test_png_has_the_chart_in_twice_its_size(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="resvg-py, which draws PNG files, is missing")
    path = tmp_path / "chart.png"
    check_plot_path(path)
    save_chart(bars(1, 2), path)
    picture = read_png(path.read_bytes())
    assert f'width="{picture.width // 2}"' in bars(1, 2)
    assert not is_white(picture.rows)


def test_png_without_fonts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resvg_py = pytest.importorskip("resvg_py", reason="resvg-py, which draws PNG files, is missing")
    draw = resvg_py.svg_to_bytes
    monkeypatch.setattr(resvg_py, "svg_to_bytes", lambda **k: draw(**k, skip_system_fonts=True))
    with pytest.raises(NotPlotted, match="would have no text: the renderer finds no font"):
        check_plot_path(tmp_path / "chart.png")


def test_what_cannot_be_drawn_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="resvg-py, which draws PNG files, is missing")
    with pytest.raises(NotPlotted, match="cannot be written"):
        save_chart("<svg", tmp_path / "chart.png")
    assert [*tmp_path.iterdir()] == []
