"""All trials, running them at once, and the table of what came of them."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.faults import engine, headers, names, servers, special
from tests.support.faults.command import GivenUp, give_up
from tests.support.faults.trial import Result, Trial

_QUICK = 10
_HEADS = ("group", "tried", "clean", "peak memory", "longest time")


def all_trials(model: Path, guard_bytes: int) -> list[Trial]:
    return [
        *headers.trials(guard_bytes),
        *headers.scan_trials(guard_bytes),
        *engine.trials(model, guard_bytes),
        *servers.trials(guard_bytes),
        *special.trials(model, guard_bytes),
        *names.trials(model, guard_bytes),
    ]


def tenth(trials: Sequence[Trial]) -> list[Trial]:
    """One trial in ten; the first of each kind of files for the engine."""
    seen: set[str] = set()
    kept = []
    for number, trial in enumerate(trials):
        is_first = trial.group == engine.GROUP and trial.kind not in seen
        seen.add(trial.kind)
        if is_first or (trial.group != engine.GROUP and number % _QUICK == 0):
            kept.append(trial)
    return kept


def run(trials: Sequence[Trial], jobs: int) -> dict[str, Result]:
    """The results by group, printed as they come. Ends all trials if it is interrupted."""
    results: dict[str, Result] = {}
    begun = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            outcomes = pool.map(_outcome, trials)
            for number, (trial, result) in enumerate(zip(trials, outcomes, strict=True), 1):
                results[trial.group] = results.get(trial.group, Result(0)) + result
                for problem in result.bad:
                    print(f"{trial.group}: {problem}", flush=True)  # noqa: T201
                if number % 50 == 0:
                    minutes = (time.monotonic() - begun) / 60
                    print(f"… {number} of {len(trials)} after {minutes:.0f} min", flush=True)  # noqa: T201
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            give_up()
            raise
    return results


def _outcome(trial: Trial) -> Result:
    try:
        return trial.run()
    except GivenUp:
        raise
    except Exception as error:  # noqa: BLE001  # one trial must not end the others
        return Result(1, (f"{trial.kind}: the trial itself failed: {error!r}",))


def table(results: dict[str, Result]) -> Iterator[str]:
    """Lines of Markdown."""
    rows = [_HEADS, ("---",) * len(_HEADS)]
    for group, result in results.items():
        memory, seconds = f"{result.peak / 1e6:,.0f} MB", f"{result.seconds:.1f} s"
        rows.append(
            (group, f"{result.tried:,}", f"{result.tried - _unclean(result):,}", memory, seconds)
        )
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _unclean(result: Result) -> int:
    return min(len(result.bad), result.tried)
