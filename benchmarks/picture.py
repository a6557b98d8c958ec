"""Draws the picture in README.md: a session on a terminal, as it was.

    python -m benchmarks.picture [--models DIR] [--draw]

Runs `COMMANDS` with the GGUF files in DIR (or the coder model, where the tests keep it), on a
pseudo-terminal of 80 columns, in a temporary user directory. docs/images/session.txt keeps what the
screen then shows, and docs/images/session.svg is drawn from it. Look at the answers: they are the
model's, and may be wrong.

    --draw   draws the recorded session again, and runs nothing
"""

import argparse
import signal
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.terminal_sessions import Stage, recorded, staged  # noqa: E402
from llm_localrun.charts.svg import element, text  # noqa: E402
from tests.support import coder_model  # noqa: E402

RECORDED = ROOT / "docs" / "images" / "session.txt"
PICTURE = RECORDED.with_suffix(".svg")
_REPORT = """\
Report of the harbor office for October

In October, 212 ships called at the harbor, 18 more than in September. Most of them carried grain
and timber. Four ships had to wait for longer than a day.
"""
COMMANDS = (
    "llm localrun models",
    'llm -m local "What is the capital of France?"',
    'cat report.txt | llm -m local "Which month is this report about?"',
    "llm -m local --schema 'name, age int, city' \"Anna is 34 and lives in Lyon\"",
    "llm localrun ps",
)
_PROMPT = "$ "
_COLUMNS, _FONT_SIZE, _LINE_HEIGHT, _MARGIN, _BAR = 80, 15, 21, 24, 34
_COLUMN_WIDTH = 9
"""Each line is stretched to this width of a character, whichever font there is."""
_FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,Liberation Mono,DejaVu Sans Mono,monospace"
_BACKGROUND, _BORDER, _TEXT, _COMMAND, _SIGN = "#161b22", "#3d444d", "#d1d7e0", "#fff", "#57ab5a"
_BUTTONS = ("#f47067", "#daaa3f", "#57ab5a")


def record(stage: Stage) -> str:
    """What a terminal shows after `COMMANDS`."""
    (stage.home / "report.txt").write_text(_REPORT, "utf-8")
    # llm creates its log at first, unseen.
    stage.run("-m", "local-qwen-coder", "-o", "max_tokens", "1", "Hello")
    lines: list[str] = []
    for command in COMMANDS:
        screen = recorded(["sh", "-c", command], stage.environment, stage.home)
        rows = [row.rstrip() for row in screen.rows]
        shown = "\n".join(rows).strip("\n")
        lines += [f"{_PROMPT}{command}", *shown.splitlines(), ""]
    return "\n".join(lines[:-1]).replace(str(stage.home), "~") + "\n"


def drawn(session: str) -> str:
    """An SVG of a terminal that shows `session`."""
    lines = session.splitlines()
    width = _COLUMNS * _COLUMN_WIDTH + 2 * _MARGIN
    height = _BAR + len(lines) * _LINE_HEIGHT + _MARGIN
    frame = element(
        "rect", x=0.5, y=0.5, width=width - 1, height=height - 1, rx=8, fill=_BACKGROUND,
        stroke=_BORDER,
    )  # fmt: skip
    buttons = [
        element("circle", cx=_MARGIN + 20 * number, cy=_BAR / 2 + 2, r=6, fill=color)
        for number, color in enumerate(_BUTTONS)
    ]
    shown = [
        _line(line, _BAR + (number + 1) * _LINE_HEIGHT) for number, line in enumerate(lines) if line
    ]
    said = f"A session on a terminal.\n{session}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" role="img" aria-labelledby="title desc"'
        f' font-family="{_FONTS}" font-size="{_FONT_SIZE}" xml:space="preserve">\n'
        + "\n".join(
            [
                element("title", "llm answers with local models", id="title"),
                element("desc", escape(said), id="desc"),
                frame,
                *buttons,
                *shown,
            ]
        )
        + "\n</svg>\n"
    )


def _line(line: str, y: float) -> str:
    """A line of the screen; a command stands out."""
    if not line.startswith(_PROMPT):
        return _text(line, _MARGIN, y, _TEXT)
    command = line.removeprefix(_PROMPT)
    after = _MARGIN + len(_PROMPT) * _COLUMN_WIDTH
    return _text(_PROMPT.rstrip(), _MARGIN, y, _SIGN) + _text(command, after, y, _COMMAND)


def _text(content: str, x: float, y: float, color: str) -> str:
    width = len(content) * _COLUMN_WIDTH
    return text(x, y, content, fill=color, textLength=width)


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--models", type=Path, default=coder_model.cache_folder())
    parser.add_argument("--draw", action="store_true")
    given = parser.parse_args()
    # What is started ends with the benchmark.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not given.draw:
        with staged(given.models, "", None) as stage:
            folder = stage.home / "user" / "localrun" / "models"
            for file in given.models.glob("*.gguf"):
                if not (folder / file.name).exists():
                    (folder / file.name).symlink_to(file.absolute())
            RECORDED.write_text(record(stage), "utf-8")
    session = RECORDED.read_text("utf-8")
    PICTURE.write_text(drawn(session), "utf-8")
    print(session, end="")


if __name__ == "__main__":
    main()
