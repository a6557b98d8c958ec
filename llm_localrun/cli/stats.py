"""Show how fast your models were, by llm's log.

The numbers of runs and tokens are of all answers; the rest is of the newest 500 of each model at
each endpoint. NAME is the name of a model, also of one that is gone, or a pattern:
'local/ollama/*'. Only reads llm's log: no server is asked.

\b
Example:
  llm localrun stats 'local/ollama/*' --days 30
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
import llm

from llm_localrun.catalogue import get_catalogue
from llm_localrun.charts.lines import lines_svg
from llm_localrun.charts.model import LineChart, Series
from llm_localrun.charts.save import check_plot_path, save_chart
from llm_localrun.cli.table import (
    Row,
    json_option,
    say,
    seconds_text,
    show_json,
    show_table,
    terminal_width,
)
from llm_localrun.config import read_config
from llm_localrun.errors import LocalRunError, UnknownModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.registration import user_aliases
from llm_localrun.resolve import candidates, order_of
from llm_localrun.stats.figures import Figures, Measure, Slowdown, figures_of, points_of
from llm_localrun.stats.log import SAMPLE, History, LoggedModel, days_ago, read_history

_OPTIONAL = ("prompt/s", "cached", "in", "out", "used", "p90", "loads", "load")
_EXPLANATION = (
    "first: seconds to the first token (p90: nine of ten are not slower). prompt/s,",
    "gen/s: tokens a second. load: seconds. trend: gen/s over time, from 0.",
    "runs, in and out are of all runs; the rest is of the newest",
    f"{SAMPLE} of each row, speeds and seconds as medians.",
)
_BY_LLM = "~: by llm's clock, because the server does not say how fast it is."
_LEVELS, _ASCII_LEVELS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_MAX_LINES, _MAX_POINTS = 6, 60
"""In a picture: the lines of the models that ran most, and the points of each."""
_PANELS = {Measure.GENERATION: "Generation", Measure.PROMPT: "Reading prompts"}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A NAME: the id or pattern that it is, and what the catalogue says that it means."""

    name: str
    model_id: str = ""
    error: LocalRunError | None = None

    def accepts(self, model: str) -> bool:
        lowered, name = model.lower(), self.name.lower()
        parts = (lowered, lowered.partition("/")[2], lowered.split("/", 2)[-1])
        if name in parts or lowered == self.model_id.lower():
            return True
        return _is_pattern(name) and any(fnmatchcase(part, name) for part in parts)


@click.command(help=__doc__)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--days", type=click.IntRange(1), help="Only the runs of the last so many days")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a picture of the speeds over time to FILE.svg or FILE.png",
)
@json_option
def stats(names: tuple[str, ...], days: int | None, plot: Path | None, as_json: bool) -> None:
    if plot is not None:
        check_plot_path(plot)
    wanted = [_resolve(name) for name in names]
    history = read_history(_accepting(wanted), days and days_ago(days))
    found = figures_of(history.models)
    missing = [each for each in wanted if not any(each.accepts(model.model) for model in found)]
    lately = f" in the last {days} days" if days else ""
    for each in missing:
        if isinstance(each.error, UnknownModel):
            what = f"llm's log has no run of {each.name}{lately}"
            raise UnknownModel(what, "See what it has with `llm localrun stats`") from each.error
        if each.error is not None:
            raise each.error
    if as_json:
        show_json([_facts(each) for each in found])
    else:
        _show(found)
    absent = [each.name for each in missing] if wanted or found else ["a local model"]
    notes = [f"llm's log has no run of {name}{lately}." for name in absent]
    say(*notes, *_what_is_missing(history), err=True)
    if plot is not None:
        _plot(history.models, found, plot)


def _accepting(wanted: Sequence[_Wanted]) -> Callable[[str], bool]:
    return lambda model: not wanted or any(each.accepts(model) for each in wanted)


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _resolve(name: str) -> _Wanted:
    """What a name means, as far as it is known without asking servers."""
    if _is_pattern(name):
        return _Wanted(name)
    target = user_aliases().get(name, name)
    target = target if isinstance(target, str) else name
    snapshot = get_catalogue(CachePolicy.CACHED)
    try:
        found = candidates(target, snapshot.models, order_of(read_config(), snapshot))
    except LocalRunError as error:
        return _Wanted(target, error=error)
    return _Wanted(target, found[0].id)


def _facts(figures: Figures) -> dict[str, Any]:
    """What --json shows of a model. `docs/json.md` describes each field."""
    slowdown = figures.slowdown
    facts = {**asdict(figures), "speeds": [*figures.speeds]}
    if slowdown is not None:
        changes = {"share": slowdown.share, "changes": [*slowdown.changes]}
        facts["slowdown"] = {**asdict(slowdown), "measure": slowdown.measure.value, **changes}
    return facts


def _show(found: Sequence[Figures]) -> None:
    if not found:
        return
    show_table([_row(each) for each in found], _OPTIONAL, may_break_first=True)
    if terminal_width() is not None:
        is_by_llm = any(each.prompt_speed_by_llm or each.generation_speed_by_llm for each in found)
        say("", *_EXPLANATION, *([_BY_LLM] if is_by_llm else []), err=True)
    slow = [(each, each.slowdown) for each in found if each.slowdown]
    for figures, slowdown in slow:
        say("", _slow_text(figures, slowdown))
    if slow:
        say(
            "See which models are in memory with `llm localrun ps`,"
            " and look for problems with `llm localrun doctor`."
        )


def _row(figures: Figures) -> Row:
    used, share = figures.last_used, figures.cached_share
    return {
        "model": figures.model,
        "at": figures.endpoint,
        "runs": _short(figures.runs),
        "in": _short(figures.input_tokens),
        "out": _short(figures.output_tokens),
        "cached": "" if share is None else f"{share:.0%}",
        "first": _digits(figures.time_to_first_token),
        "p90": _digits(figures.time_to_first_token_p90),
        "prompt/s": _speed(figures.prompt_tokens_per_second, figures.prompt_speed_by_llm),
        "gen/s": _speed(figures.generation_tokens_per_second, figures.generation_speed_by_llm),
        "loads": str(figures.loads or ""),
        "load": _digits(figures.load_seconds),
        "used": "" if used is None else _age(max(0.0, time.time() - used)),
        "trend": sparkline(figures.speeds, sys.stdout.encoding or "ascii"),
    }


def sparkline(speeds: Sequence[float], encoding: str) -> str:
    """Bars of one character for `speeds`, from 0 to the highest; "" if there is only one."""
    try:
        _LEVELS.encode(encoding)
        levels = _LEVELS
    except (UnicodeError, LookupError):
        levels = _ASCII_LEVELS
    if len(speeds) < 2:
        return ""
    highest = max(speeds)
    return "".join(levels[min(7, int(speed / highest * 8))] for speed in speeds)


def _short(count: int) -> str:
    """A number with at most four digits: 950, 12.3k, 4.1M."""
    if count < 1000:
        return str(count)
    for unit in "kMG":
        count_, count = count / 1000, count // 1000
        if count_ < 999.5:
            return f"{count_:.{1 if count_ < 99.95 else 0}f}{unit}"
    return f"{count}G"


def _digits(value: float | None) -> str:
    """Seconds, or tokens a second: 0.82, 9.4, 310; "" for None."""
    if value is None:
        return ""
    return f"{value:.{2 if value < 0.995 else 1 if value < 9.95 else 0}f}"


def _speed(value: float | None, is_by_llm: bool) -> str:
    return "~" * is_by_llm + _digits(value)


def _age(seconds: float) -> str:
    """How long ago: 5m, 2h, 30d."""
    return seconds_text(seconds) if seconds < 2 * 86_400 else f"{seconds / 86_400:.0f}d"


def _slow_text(figures: Figures, slowdown: Slowdown) -> str:
    did = "generated" if slowdown.measure is Measure.GENERATION else "read the prompt at"
    changed = "; ".join(slowdown.changes)
    known = f"What differs: {changed}." if changed else "The log does not say why."
    return (
        f"{figures.model} at {figures.endpoint} is slower than it was: the last"
        f" {slowdown.last_runs} runs {did} {_digits(slowdown.now)} tokens/s,"
        f" {slowdown.share:.2f} of the {_digits(slowdown.before)} before with prompts of a similar"
        f" length. {known}"
    )


def _what_is_missing(history: History) -> Iterator[str]:
    """Says which answers the figures lack, and why."""
    if history.unread_rows:
        yield f"llm's log is damaged: up to {history.unread_rows:,} of its rows could not be read."
    if (llm.user_dir() / "logs-off").exists():  # type: ignore[no-untyped-call]
        yield "Logging is off, so newer runs are missing: `llm logs on` turns it on."


def _plot(models: Sequence[LoggedModel], found: Sequence[Figures], path: Path) -> None:
    """Writes a picture of the models that ran most, if there is anything to show."""
    keys = [(each.model, each.endpoint) for each in found]
    logged = [each for each in models if each.newest]
    ordered = sorted(logged, key=lambda each: keys.index((each.model, each.endpoint)))
    panels = [*_panels(ordered)]
    if not panels:
        say(f"{path} was not written: the log has no speeds over time.", err=True)
        raise click.exceptions.Exit(1)
    footnote = f"Up to {_MAX_LINES} models: those that ran most, the newest {SAMPLE} runs of each."
    save_chart(lines_svg("Speed of local models by llm's log", panels, footnote), path)


def _panels(models: Sequence[LoggedModel]) -> Iterator[LineChart]:
    several = {each.model for each in models if sum(o.model == each.model for o in models) > 1}
    for measure, title in _PANELS.items():
        lines = (
            Series(
                f"{each.model} at {each.endpoint}" if each.model in several else each.model,
                points_of(each.newest, measure, _MAX_POINTS),
            )
            for each in models
        )
        shown = [line for line in lines if len(line.points) > 1][:_MAX_LINES]
        if shown:
            yield LineChart(title, "tokens/s", (*shown,))
