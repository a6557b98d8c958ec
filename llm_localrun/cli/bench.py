"""Measure the speed of models, servers and engine builds side by side.

NAME is a model, a GGUF file (./x.gguf) or a model of a server (local/ollama/x). Each is sent
prompts of --prompt tokens that no cache knows, and then generates --generate tokens. --depth 0,4096
measures also with 4,096 tokens of context before both, --concurrency 1,4 also with four
requests at once: then the speeds are those of all four together. After a warm-up, the models take
turns --repeat times. Loading is not counted, and nothing goes to llm's log. What is printed are
medians, with the widest deviation from them.

\b
Example:
  llm localrun bench local-qwen local-smollm2 --depth 0,4096
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from llm_localrun.bench.plan import BenchSetting, find_builds, find_subjects
from llm_localrun.bench.run import Bench
from llm_localrun.bench.summary import BenchRun, Doubt, Row, Spread, TimedAnswer, doubts_of
from llm_localrun.charts.bars import bars_svg
from llm_localrun.charts.model import Bar, BarChart, BarGroup
from llm_localrun.charts.save import check_plot_path, save_chart
from llm_localrun.cli.table import (
    count_of,
    json_option,
    pick,
    say,
    show_json,
    show_table,
    size_text,
)

_MAX_TOKENS = 10**7
_MAX_CONCURRENCY = 256
_INTERRUPTED = 130
_MARKS = {Doubt.CLOCK: "*", Doubt.DEPTH: "+", Doubt.LENGTH: "~"}
_MEANINGS = {
    Doubt.CLOCK: "timed here, from the request to the first token and from that to the last:"
    " the server does not say how long it took",
    Doubt.DEPTH: "nothing shows that the tokens before the prompt came from the cache",
    Doubt.LENGTH: "some prompts or answers have another length: --json has the numbers",
}
_ANSWER = "prompt_tokens cached_tokens"


def _numbers(least: int, most: int) -> Callable[..., tuple[int, ...]]:
    """A callback that reads whole numbers with commas between."""

    def read(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
        words = [word.strip() for word in text.split(",")]
        if not all(word.isascii() and word.isdecimal() and len(word) < 12 for word in words):
            raise click.BadParameter(f"{text!r} is no list of whole numbers, such as 1,4")
        numbers = tuple(dict.fromkeys(map(int, words)))
        if not all(least <= number <= most for number in numbers):
            raise click.BadParameter(f"use numbers from {least} to {most:,}")
        return numbers

    return read


def _names(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


_TOKENS = click.IntRange(1, _MAX_TOKENS)


@click.command(help=__doc__)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--prompt", type=_TOKENS, default=512, show_default=True, help="Tokens of a prompt")
@click.option(
    "--generate", type=_TOKENS, default=128, show_default=True, help="Tokens of an answer"
)
@click.option(
    "--depth",
    default="0",
    callback=_numbers(0, _MAX_TOKENS),
    show_default=True,
    help="Tokens in the context before the prompt: 0,4096",
)
@click.option(
    "--concurrency",
    default="1",
    callback=_numbers(1, _MAX_CONCURRENCY),
    show_default=True,
    help="Requests at once: 1,4",
)
@click.option("--repeat", type=click.IntRange(1, 1000), default=5, show_default=True, help="Rounds")
@click.option(
    "--engine",
    "engines",
    default="",
    metavar="BUILD,...",
    callback=_names,
    help="Builds of llama.cpp to compare: see `llm localrun engine`",
)
@json_option
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the figures: x.svg, x.png"
)
def bench(
    names: tuple[str, ...], engines: tuple[str, ...], as_json: bool, plot: Path | None, **given: Any
) -> None:
    if plot is not None:
        check_plot_path(plot)
    subjects, repeated = find_subjects(names, find_builds(engines))
    if repeated:
        say(f"{', '.join(repeated)}: the same as another NAME, measured once", err=True)
    settings = [
        BenchSetting(given["prompt"], given["generate"], depth, concurrency)
        for depth in given["depth"]
        for concurrency in given["concurrency"]
    ]
    measured = Bench(subjects, settings, given["repeat"])
    if not _tell_obstacles(measured.rows):
        if as_json:
            show_json([facts_of(row) for row in measured.rows])
        sys.exit(1)
    measured.run()
    _report(measured, as_json=as_json)
    known = [row for row in measured.rows if row.runs]
    if plot is not None and known:
        save_chart(chart_of(known), plot)
        say(f"Wrote {plot}", err=True)
    if measured.is_interrupted:
        sys.exit(_INTERRUPTED)
    if any(row.error for row in measured.rows):
        sys.exit(1)


def _tell_obstacles(rows: Sequence[Row]) -> bool:
    """Says what cannot be measured before anything is. Whether something can be."""
    for row in rows:
        if row.error:
            say(f"{_title(row)} is left out: {row.error}", err=True)
    return not all(row.error for row in rows)


def _report(measured: Bench, *, as_json: bool) -> None:
    rows, known = measured.rows, [row for row in measured.rows if row.runs]
    if as_json:
        show_json([facts_of(row) for row in rows])
    elif known:
        show_table([_cells(row) for row in known])
        say("", *_legend(known))
    for row in rows:
        # Those that are left out were told before.
        if row.error and row.error != row.subject.obstacle(row.setting):
            after = f" after {count_of(len(row.runs), 'run')}" if row.runs else ""
            say(f"{_title(row)} failed{after}: {row.error}", err=True)
    if measured.is_interrupted:
        say(f"Interrupted before the last {count_of(measured.runs_left, 'run')}", err=True)
    for note in measured.notes:
        say(note, err=True)


def _title(row: Row) -> str:
    return f"{row.subject.label}{_setting_text(row.setting, ', ')}"


def _setting_text(setting: BenchSetting, before: str = "") -> str:
    words = [f"depth {setting.depth:,}"] * bool(setting.depth)
    words += [f"{setting.concurrency} at once"] * (setting.concurrency > 1)
    return before + ", ".join(words) if words else ""


def _cells(row: Row) -> dict[str, str]:
    setting, marks = row.setting, "".join(_MARKS[doubt] for doubt in Doubt if doubt in row.doubts)
    first = row.first_token
    return {
        "model": row.subject.label,
        "depth": f"{setting.depth:,}" if setting.depth else "",
        "at once": str(setting.concurrency) if setting.concurrency > 1 else "",
        "prompt/s": _spread_text(row.prompt, marks),
        "answer/s": _spread_text(row.generation),
        "first token": f"{_figure(first.median)} s" if first else "",
        "memory": size_text(row.memory),
    }


def _spread_text(spread: Spread | None, marks: str = "") -> str:
    """For example "812 ±2%"."""
    if spread is None:
        return marks
    wide = f" ±{100 * spread.share:.0f}%" if spread.low < spread.high else ""
    return f"{_figure(spread.median)}{wide}{marks}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def _legend(rows: Sequence[Row]) -> list[str]:
    setting = rows[0].setting
    return [
        f"prompt/s, answer/s: tokens a second, of {setting.prompt:,} and {setting.generate:,};"
        f" {_runs_text(rows)}",
        *(f"{_MARKS[doubt]} {_MEANINGS[doubt]}" for doubt in doubts_of(rows)),
    ]


def _runs_text(rows: Sequence[Row]) -> str:
    """What each figure is of. How many runs a row had before it failed is said elsewhere."""
    counts = {len(row.runs) for row in rows if not row.error} or {len(row.runs) for row in rows}
    few, many = min(counts), max(counts)
    if many == 1:
        return "one run"
    return f"medians of {f'{few} to {many}' if few < many else many} runs"


def facts_of(row: Row) -> dict[str, Any]:
    """What `--json` shows of a row. `docs/json.md` describes each field."""
    build = row.subject.build
    return {
        "name": row.subject.label,
        "id": row.subject.model.id,
        "engine": build.name if build else None,
        **pick(row.setting, "prompt generate depth concurrency"),
        "prompt_tokens_per_second": _spread_facts(row.prompt),
        "generation_tokens_per_second": _spread_facts(row.generation),
        "time_to_first_token": _spread_facts(row.first_token),
        "memory": row.memory,
        "doubts": [doubt.value for doubt in Doubt if doubt in row.doubts],
        "error": row.error or None,
        "runs": [_run_facts(run) for run in row.runs],
    }


def _spread_facts(spread: Spread | None) -> dict[str, Any] | None:
    return {**pick(spread, "median"), "min": spread.low, "max": spread.high} if spread else None


def _run_facts(run: BenchRun) -> dict[str, Any]:
    return {
        "prompt_tokens_per_second": run.prompt_rate,
        "prompt_timed_by": run.prompt_clock.value,
        "generation_tokens_per_second": run.generation_rate,
        "generation_timed_by": run.generation_clock.value,
        "memory": run.memory,
        "prompts": [_answer_facts(prompt) for prompt in run.prompts],
        "answers": [_answer_facts(answer) for answer in run.answers],
    }


def _answer_facts(answer: TimedAnswer) -> dict[str, Any]:
    return {
        **pick(answer, _ANSWER),
        "generated_tokens": answer.generated,
        "time_to_first_token": None if answer.is_in_one_piece else answer.first_token,
        "seconds": answer.last - answer.began,
    }


def chart_of(rows: Sequence[Row]) -> str:
    """The figures as an SVG document."""
    panels = [
        _panel("Reading the prompt", "tokens/s", rows, lambda row: row.prompt),
        _panel("Generating the answer", "tokens/s", rows, lambda row: row.generation),
        _panel("Time to the first token", "s", rows, lambda row: row.first_token),
    ]
    setting = rows[0].setting
    title = f"Prompts of {setting.prompt:,} tokens, answers of {setting.generate:,}"
    return bars_svg(title, panels, _footnote(rows))


def _footnote(rows: Sequence[Row]) -> str:
    runs, doubts = _runs_text(rows).capitalize(), doubts_of(rows)
    with_spread = ", with lowest and highest" * any(len(row.runs) > 1 for row in rows)
    return ". ".join(
        [f"{runs}{with_spread}", *(f"{_MARKS[d]} {_chart_text(d, rows)}" for d in doubts)]
    )


def _chart_text(doubt: Doubt, rows: Sequence[Row]) -> str:
    """What is doubted, and of which rows, since the bars have no marks."""
    titles = [_title(row) for row in rows if doubt in row.doubts]
    of = "" if len(titles) == len(rows) else f"{'; '.join(titles)}: "
    return f"{of}{_MEANINGS[doubt]}"


def _panel(
    title: str, unit: str, rows: Sequence[Row], spread_in: Callable[[Row], Spread | None]
) -> BarChart:
    groups: dict[str, list[Bar]] = {}
    for row in rows:
        if spread := spread_in(row):
            bar = Bar(row.subject.label, spread.median, spread.low, spread.high)
            groups.setdefault(_setting_text(row.setting), []).append(bar)
    return BarChart(
        title, unit, tuple(BarGroup(name, tuple(bars)) for name, bars in groups.items())
    )
