"""Charts of all shapes: many and few, long names, numbers and times of all sizes.

`python -m tests.support.charts FOLDER` writes them all as PNG, to be looked at.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path

from llm_localrun.charts.bars import bars_svg
from llm_localrun.charts.lines import lines_svg
from llm_localrun.charts.model import Bar, BarChart, BarGroup, LineChart, Series
from llm_localrun.charts.save import save_chart

NOON = 1_796_040_000.0
DAY = 86_400.0
MODELS = ("qwen2.5-coder-0.5b", "SmolLM2-135M", "Qwen2.5-Coder-1.5B")
LONG = "local/lmstudio/lmstudio-community/Qwen2.5-Coder-32B-Instruct-GGUF-with-a-long-name-{}.gguf"
NAMES = (
    *('<model> & "friends"', "local/ollama/通义千问2.5:7b", "модель-на-русском", "모델"),
    *("نموذج", "emoji 🦙🦙", "e\u0301tude", "line\nbreak\x1b[1m", "W" * 30, ""),
)


def bar(label: str, value: float, spread: float = 0.05) -> Bar:
    return Bar(label, value, value * (1 - spread), value * (1 + spread))


def panel(title: str, unit: str, *values: float, groups: tuple[str, ...] = ("",)) -> BarChart:
    """A bar for each model in each group."""
    labels = MODELS if len(values) <= len(MODELS) else [f"model {n}" for n in range(len(values))]
    return BarChart(
        title,
        unit,
        tuple(
            BarGroup(
                group,
                tuple(
                    bar(label, value * 0.6**at)
                    for label, value in zip(labels, values, strict=False)
                ),
            )
            for at, group in enumerate(groups)
        ),
    )


def wave(label: str, level: float, start: float, step: float, count: int) -> Series:
    points = [(start + n * step, level * (1 + 0.2 * math.sin(n + level))) for n in range(count)]
    return Series(label, tuple(points))


def bench() -> str:
    depths = (
        *("after 0 tokens, 1 at a time", "after 4,096 tokens, 1 at a time"),
        "after 0 tokens, 4 at a time",
    )
    panels = (
        panel("Reading the prompt (512 tokens)", "tokens/s", 412.3, 1204, 131, groups=depths),
        panel("Generating (128 tokens)", "tokens/s", 41.2, 96.1, 14.8, groups=depths),
        panel("Time to first token (lower is better)", "s", 1.31, 0.52, 4.02, groups=depths),
        panel("Memory", "GB", 0.62, 0.21, 1.34),
    )
    return bars_svg("llm localrun bench: three models", panels, FOOTNOTE)


FOOTNOTE = "AMD EPYC 9454, 2 cores, 8 GB of memory, no GPU; llama.cpp b11549; 2026-11-30"


def bars(*values: float, labels: tuple[str, ...] = (), title: str = "Speed") -> str:
    """One bar for each value."""
    shown = labels or tuple(f"model {n}" for n in range(len(values)))
    groups = tuple(BarGroup(label, (bar("", v),)) for label, v in zip(shown, values, strict=True))
    return bars_svg(title, [BarChart("Generating", "tokens/s", groups)], FOOTNOTE)


def lines(*series: Series, title: str = "Speed over time") -> str:
    return lines_svg(title, [LineChart("Generating", "tokens/s", series)], FOOTNOTE)


def stats() -> str:
    start = NOON - 30 * DAY
    panels = [
        LineChart(
            title,
            unit,
            tuple(wave(m, level / (n + 1), start, DAY, 31) for n, m in enumerate(MODELS)),
        )
        for title, unit, level in (
            ("Reading the prompt", "tokens/s", 1200.0),
            ("Generating", "tokens/s", 60.0),
            ("Time to first token (lower is better)", "s", 2.4),
        )
    ]
    return lines_svg("llm localrun stats: the last 30 days", panels, FOOTNOTE)


BARS: dict[str, Callable[[], str]] = {
    "bench": bench,
    "one bar": lambda: bars(41.2),
    "two bars": lambda: bars(41.2, 12.9),
    "thirty bars": lambda: bars(*(3.0 * n + 1 for n in range(30))),
    "thirty of two groups": lambda: bars_svg(
        "Thirty", [panel("Generating", "tokens/s", *range(1, 31), groups=("cold", "warm"))]
    ),
    "six fills": lambda: bars_svg(
        "Six", [panel("Generating", "tokens/s", *range(10, 16), groups=("cold", "warm"))]
    ),
    "long names": lambda: bars(30, 20, labels=(LONG.format("Q4_K_M"), LONG.format("F16"))),
    "names that differ in the middle": lambda: bars(
        30, 20, labels=tuple(f"local/{'x' * 40}/{n}/{'y' * 40}" for n in "ab")
    ),
    "names of all kinds": lambda: bars(*range(10, 20), labels=NAMES),
    "zeros": lambda: bars(0, 0),
    "tiny": lambda: bars(3e-5, 1e-5, 1e-300),
    "huge": lambda: bars(3e12, 1.4e12, 5),
    "equal": lambda: bars(7, 7, 7),
    "of all sizes": lambda: bars(123456, 0.5, 1e-3, 0),
    "not measured": lambda: bars_svg(
        "Memory",
        [
            BarChart("Memory", "GB", (BarGroup("a server", (Bar("", None),)),)),
            BarChart(
                "Generating",
                "tokens/s",
                (BarGroup("", (Bar("a", math.nan, math.inf, 3), Bar("b", 3, math.nan, 5))),),
            ),
        ],
    ),
    "a wide spread": lambda: bars_svg(
        "Spread", [BarChart("Generating", "tokens/s", (BarGroup("", (Bar("a", 5, 0, 50),)),))]
    ),
    "long texts": lambda: bars_svg(
        "A title of many words " * 8,
        [
            panel(
                "A panel of many words " * 8, "a unit of many words " * 8, 3, 2, groups=("g" * 90,)
            )
        ],
        "A footnote of many words " * 8,
    ),
    "nothing": lambda: bars_svg("Nothing", [], FOOTNOTE),
}
LINES: dict[str, Callable[[], str]] = {
    "stats": stats,
    "one point": lambda: lines(Series("one", ((NOON, 41.2),))),
    "two points": lambda: lines(Series("two", ((NOON, 41.2), (NOON + DAY, 12.9)))),
    "one line": lambda: lines(wave("one", 40, NOON, DAY, 12)),
    "thirty lines": lambda: lines(
        *(wave(f"model {n}", 10 + 2 * n, NOON, 9 * DAY, 20) for n in range(30))
    ),
    "thirty equal lines": lambda: lines(*(wave(f"model {n}", 10, NOON, DAY, 9) for n in range(30))),
    "lines that end early": lambda: lines(
        wave("early", 20, NOON, DAY, 6),
        wave("late", 22, NOON + 7 * DAY, DAY, 6),
        wave("all the time", 30, NOON, DAY, 13),
    ),
    "within a minute": lambda: lines(wave("one", 40, NOON, 4, 12), wave("two", 20, NOON, 5, 9)),
    "within an hour": lambda: lines(wave("one", 40, NOON, 300, 12)),
    "within a day": lambda: lines(wave("one", 40, NOON, 7_000, 12)),
    "over two years": lambda: lines(
        wave("one", 40, NOON, 10 * DAY, 73), wave("two", 4, NOON, 5 * DAY, 146)
    ),
    "over twenty years": lambda: lines(wave("one", 40, NOON, 365 * DAY, 20)),
    "a thousand points": lambda: lines(wave("one", 40, NOON, DAY / 3, 1000)),
    "long names": lambda: lines(
        *(wave(LONG.format(end), 40, NOON, DAY, 12) for end in ("Q4_K_M", "F16"))
    ),
    "names of all kinds": lambda: lines(
        *(wave(name, 4 * at + 4, NOON, DAY, 12) for at, name in enumerate(NAMES))
    ),
    "zeros": lambda: lines(Series("zeros", ((NOON, 0), (NOON + DAY, 0)))),
    "tiny": lambda: lines(wave("tiny", 1e-7, NOON, DAY, 12), wave("less", 1e-300, NOON, DAY, 12)),
    "huge": lambda: lines(wave("huge", 1e12, NOON, DAY, 12)),
    "as huge as numbers are": lambda: lines(
        Series("huge", ((NOON, 1.7e308), (NOON + DAY, 1e307), (250_000_000_000.0, 1)))
    ),
    "no number": lambda: lines(
        Series("some", ((NOON, math.nan), (NOON + DAY, 3), (math.inf, 3))),
        Series("none", ((NOON, math.inf),)),
        Series("empty", ()),
    ),
    "nothing": lambda: lines_svg("Nothing", [LineChart("Generating", "tokens/s", ())], FOOTNOTE),
}

if __name__ == "__main__":
    for kind, drawings in (("bars", BARS), ("lines", LINES)):
        for name, draw in drawings.items():
            save_chart(draw(), Path(sys.argv[1]) / f"{kind}, {name}.png")
