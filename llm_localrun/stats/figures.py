"""What logged answers say of the speed of a model: medians, a history, and whether it is slower.

Computes only. Reading the log is left to `log`, showing the figures to `cli.stats`.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from llm_localrun.stats.log import LoggedModel, LoggedRun

_LEAST_READ = 100
"""Tokens that are read for a prompt. With fewer, fixed costs hide the speed."""
_LEAST_GENERATED = 16
"""Tokens of an answer. The time of a shorter one says little."""
_LEAST_TIMED_READ = 256
"""The same where the time is that of the first token."""
_LEAST_TIMED_S = 2
"""From the first token to the last. The time before the request, up to 0.8 s, is in it: so it hides
little, and an answer that came as a whole is none."""
_MOST_TIMED = 1000
"""Tokens a second from the first token to the last. More did not come one by one."""
_LEAST_LOAD_S = 0.15
"""Ollama 0.32 reports up to 0.07 s for a model that is in memory."""
_LAST = 5
"""Answers that are compared with those before."""
_LEAST_LAST = 3
_LEAST_BEFORE = 8
"""Answers to prompts of a similar length that the last ones are compared with."""
_SLOW_SHARE = 0.6
_ALIKE_TOKENS = 512
"""Prompts up to this length are alike, and then each up to twice the length before."""
_BUCKETS = 12


class Measure(str, Enum):
    """A speed, in tokens a second."""

    PROMPT = "prompt"
    GENERATION = "generation"


@dataclass(frozen=True, slots=True)
class Slowdown:
    """The last answers were much slower than those before to prompts of a similar length.

    The speeds are medians, in tokens a second. `changes` says in which facts of the log the last
    answers differ from the others: `quantization: Q8_0, was Q4_K_M`.
    """

    measure: Measure
    now: float
    before: float
    last_runs: int
    changes: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return self.now / self.before


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a model at an endpoint; None means unknown.

    `runs` and the sums of tokens are of all answers, the others of the newest `sampled_runs`.
    """

    model: str
    endpoint: str
    quantization: str | None
    runs: int
    input_tokens: int
    output_tokens: int
    sampled_runs: int
    cached_share: float | None
    time_to_first_token: float | None
    time_to_first_token_p90: float | None
    prompt_tokens_per_second: float | None
    generation_tokens_per_second: float | None
    prompt_speed_by_llm: bool
    """Whether llm's clock measured some of these speeds, because the server did not."""
    generation_speed_by_llm: bool
    loads: int
    load_seconds: float | None
    last_used: float | None
    speeds: tuple[float, ...]
    """Of generation, the oldest first: medians of as many answers each."""
    slowdown: Slowdown | None


def figures_of(models: Sequence[LoggedModel]) -> list[Figures]:
    """The figures of each model, the one with the most answers first."""
    of_model: defaultdict[str, list[LoggedModel]] = defaultdict(list)
    for each in models:
        of_model[each.model].append(each)
    found = [
        _figures(each, [other for other in of_model[each.model] if other is not each])
        for each in models
        if each.newest
    ]
    return sorted(found, key=lambda each: (-each.runs, each.model, each.endpoint))


def _figures(model: LoggedModel, elsewhere: Sequence[LoggedModel]) -> Figures:
    newest = model.newest
    first_tokens = _numbers(run.time_to_first_token for run in newest)
    loads = [each for each in _numbers(run.load_seconds for run in newest) if each >= _LEAST_LOAD_S]
    generation, prompt = (speeds_of(newest, each) for each in (Measure.GENERATION, Measure.PROMPT))
    return Figures(
        model=model.model,
        endpoint=model.endpoint,
        quantization=next(filter(None, (run.quantization for run in newest)), None),
        runs=model.runs,
        input_tokens=model.input_tokens,
        output_tokens=model.output_tokens,
        sampled_runs=len(newest),
        cached_share=_cached_share(newest),
        time_to_first_token=_median(first_tokens),
        time_to_first_token_p90=_p90(first_tokens),
        prompt_tokens_per_second=_median([speed for _, speed in prompt]),
        generation_tokens_per_second=_median([speed for _, speed in generation]),
        prompt_speed_by_llm=any(_is_timed(run, Measure.PROMPT) for run, _ in prompt),
        generation_speed_by_llm=any(_is_timed(run, Measure.GENERATION) for run, _ in generation),
        loads=len(loads),
        load_seconds=_median(loads),
        last_used=max(_numbers(run.at for run in newest), default=None),
        speeds=tuple(_median_of_each([speed for _, speed in reversed(generation)], _BUCKETS)),
        slowdown=_slowdown(model, elsewhere),
    )


def speeds_of(newest: Iterable[LoggedRun], measure: Measure) -> list[tuple[LoggedRun, float]]:
    """The answers that say how fast a model is, with their speeds, in the order of `newest`."""
    return [(run, speed) for run in newest if (speed := _speed(run, measure)) is not None]


def points_of(
    newest: Sequence[LoggedRun], measure: Measure, most: int
) -> tuple[tuple[float, float], ...]:
    """Times and speeds for a chart, the oldest first: medians, at most as many as given."""
    timed = [(run.at, speed) for run, speed in speeds_of(newest, measure) if run.at is not None]
    timed.sort()
    times, speeds = ([each[at] for each in timed] for at in (0, 1))
    return (*zip(_median_of_each(times, most), _median_of_each(speeds, most), strict=True),)


def _speed(run: LoggedRun, measure: Measure) -> float | None:
    if measure is Measure.GENERATION:
        is_enough = (run.output_tokens or 0) >= _LEAST_GENERATED
        return (run.generation_tokens_per_second or _timed_generation(run)) if is_enough else None
    is_enough = _read_tokens(run) >= _LEAST_READ
    return (run.prompt_tokens_per_second or _timed_reading(run)) if is_enough else None


def _is_timed(run: LoggedRun, measure: Measure) -> bool:
    """Whether the server did not say how fast it was."""
    is_prompt = measure is Measure.PROMPT
    said = run.prompt_tokens_per_second if is_prompt else run.generation_tokens_per_second
    return said is None


def _timed_generation(run: LoggedRun) -> float | None:
    """Tokens a second from the first to the last, by llm's clock.

    None if they did not come one by one: tool calls come as a whole, as without streaming. If the
    model was asked again for a call, the time has that in it.
    """
    tokens, first = (run.output_tokens or 0) - 1, run.time_to_first_token
    if first is None or run.duration_ms is None or run.tool_repair:
        return None
    seconds = run.duration_ms / 1000 - first
    if run.finish_reason == "tool_calls" or seconds < _LEAST_TIMED_S or tokens < 1:
        return None
    return speed if (speed := tokens / seconds) <= _MOST_TIMED else None


def _timed_reading(run: LoggedRun) -> float | None:
    """Tokens a second before the first token, by llm's clock.

    None if another answer may have kept this one waiting, if it is not known how many tokens were
    in the cache, or if the answer may have come as a whole.
    """
    is_known = run.cached_tokens is not None or run.is_first
    if not (is_known and run.is_alone) or _timed_generation(run) is None:
        return None
    tokens, seconds = _read_tokens(run), (run.time_to_first_token or 0) - (run.load_seconds or 0)
    return tokens / seconds if tokens >= _LEAST_TIMED_READ and seconds > 0 else None


def _read_tokens(run: LoggedRun) -> int:
    """Tokens of the prompt that were read, and not in the cache."""
    return (run.input_tokens or 0) - (run.cached_tokens or 0)


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _p90(values: Sequence[float]) -> float | None:
    """The smallest value that nine of ten do not exceed."""
    return sorted(values)[-(-len(values) * 9 // 10) - 1] if values else None


def _cached_share(newest: Iterable[LoggedRun]) -> float | None:
    """Of the tokens of prompts whose server said how many were in its cache."""
    told = [
        (run.cached_tokens, run.input_tokens)
        for run in newest
        if run.input_tokens
        and run.cached_tokens is not None
        and run.cached_tokens <= run.input_tokens
    ]
    return sum(cached for cached, _ in told) / sum(read for _, read in told) if told else None


def _median_of_each(values: Sequence[float], most: int) -> list[float]:
    """The medians of consecutive parts of `values` of the same size, at most as many as given."""
    count = min(most, len(values))
    bounds = [len(values) * at // count for at in range(count + 1)] if count else []
    return [statistics.median(values[a:b]) for a, b in pairwise(bounds)]


def _slowdown(model: LoggedModel, elsewhere: Sequence[LoggedModel]) -> Slowdown | None:
    """If the last answers were slow: by how much, in generating or else in reading prompts."""
    for measure in (Measure.GENERATION, Measure.PROMPT):
        usable, earlier = (
            [run for run, _ in speeds_of(runs, measure)] for runs in (model.newest, model.earlier)
        )
        last, before = usable[:_LAST], [*usable[_LAST:], *earlier]
        if len(before) < _LEAST_BEFORE and last:
            others = [run for other in elsewhere for run in (*other.newest, *other.earlier)]
            before += [run for run in others if (run.at or 0.0) < (last[-1].at or 0.0)]
        if (found := _compare(measure, last, before)) is not None:
            return found
    return None


def _compare(
    measure: Measure, last: Sequence[LoggedRun], before: Sequence[LoggedRun]
) -> Slowdown | None:
    """Compares like with like: each of the `last` answers with those that it is similar to."""
    alike: defaultdict[object, list[float]] = defaultdict(list)
    for run, speed in speeds_of(before, measure):
        alike[_likeness(run, measure)].append(speed)
    usual = {
        key: statistics.median(speeds)
        for key, speeds in alike.items()
        if len(speeds) >= _LEAST_BEFORE
    }
    compared = [run for run in last if _likeness(run, measure) in usual]
    if len(compared) < _LEAST_LAST:
        return None
    now = statistics.median(speed for _, speed in speeds_of(compared, measure))
    expected = statistics.median(usual[_likeness(run, measure)] for run in compared)
    if now >= _SLOW_SHARE * expected:
        return None
    return Slowdown(measure, now, expected, len(compared), (*_changes(compared, before),))


def _likeness(run: LoggedRun, measure: Measure) -> object:
    """What the answers have in common that are compared.

    A long conversation slows a model down, as do other prompts at the same time.
    """
    read = _size_class(_read_tokens(run)) if measure is Measure.PROMPT else 0
    kind = run.guesses, run.is_alone, _is_timed(run, measure)
    return *kind, _size_class(run.input_tokens or 0), read


def _size_class(tokens: int) -> int:
    return ((max(tokens, 1) - 1) // _ALIKE_TOKENS).bit_length()


def _changes(last: Sequence[LoggedRun], before: Sequence[LoggedRun]) -> Iterable[str]:
    """The facts that all of the `last` answers share, and most of those before do not."""
    for name, label in (
        ("endpoint", "endpoint"),
        ("quantization", "quantization"),
        ("context_size", "context"),
    ):
        now = {getattr(run, name) for run in last}
        earlier = statistics.mode(getattr(run, name) for run in before)
        if len(now) == 1 and None not in {*now, earlier} and earlier not in now:
            yield f"{label}: {now.pop()}, was {earlier}"
