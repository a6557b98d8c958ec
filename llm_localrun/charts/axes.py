"""Numbers and times at axes: round ticks and their labels. Drawing them is left to others."""

import math
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

LAST_TIME = 32_503_680_000.0
"""The year 3000: ticks of later times could be after the last one that Python knows."""
_DAY = 86_400
_MONTH = 30.4375 * _DAY
_YEAR = 12 * _MONTH
_TIME_STEPS = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(hours * 3600 for hours in (1, 2, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 4, 7, 14)),
    *(months * _MONTH for months in (1, 2, 3, 6)),
    *(years * _YEAR for years in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
)
"""Seconds between ticks."""
_MONDAY = datetime(1, 1, 1)
"""Midnight: multiples of a step that divides a day, or a week, are round from there."""


class TimeTick(NamedTuple):
    """A tick of time: what stands at it, and below that its day or year where that changes."""

    time: float
    label: str
    context: str


def number(value: float) -> str:
    """`value` with three digits, or with all before the decimal point."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e7:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def axis_end(highest: float) -> float:
    """Where an axis ends that shows values up to `highest`: not at 0."""
    return highest if highest > 1e-12 else 1


def number_ticks(highest: float, at_most: int = 5) -> dict[float, str]:
    """Round numbers from 0 to `highest` or a little more, with their labels."""
    highest = axis_end(highest)
    power = math.floor(math.log10(highest / at_most))
    # Read from texts, because 10 ** -5 is not the number that is nearest to 0.00001.
    steps = [float(f"{n}e{power}") for n in (1, 2, 5, 10)]
    step = next(each for each in steps if each * at_most >= highest * (1 - 1e-9))
    count = math.ceil(highest / step - 1e-9)
    values = [min(step * n, sys.float_info.max) for n in range(count + 1)]
    if step < 1e-4 or values[-1] >= 1e7:
        return {value: f"{value:.3g}" for value in values}
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return {value: f"{value:,.{decimals}f}" if value else "0" for value in values}


def time_ticks(first: float, last: float, at_most: int = 6) -> list[TimeTick]:
    """Round times of this machine's time zone between two, which are 10 s apart or more."""
    step = next((s for s in _TIME_STEPS if (last - first) / s <= at_most), _TIME_STEPS[-1])
    ticks: list[TimeTick] = []
    before = ""
    for moment in _moments(datetime.fromtimestamp(first), step):
        if (time := moment.timestamp()) > last:
            break
        if datetime.fromtimestamp(time) != moment:
            continue  # Summer time begins then: there is no such time.
        label, context = _labels(moment, step)
        ticks += [TimeTick(time, label, "" if context == before else context)]
        before = context
    return ticks


def _moments(first: datetime, step: float) -> Iterator[datetime]:
    """The multiples of `step` from `first` on."""
    if step < _MONTH:
        moment = _MONDAY + math.ceil((first - _MONDAY) / timedelta(seconds=step)) * timedelta(
            seconds=step
        )
        while True:
            yield moment
            moment += timedelta(seconds=step)
    months = round(step / _MONTH)
    index = -(-(first.year * 12 + first.month) // months) * months
    while True:
        yield datetime(index // 12, index % 12 + 1, 1)
        index += months


def _labels(moment: datetime, step: float) -> tuple[str, str]:
    """What stands at a tick, and what that is a part of."""
    day = f"{moment:%b} {moment.day}"
    if step < _DAY:
        return f"{moment:{'%H:%M:%S' if step < 60 else '%H:%M'}}", f"{day}, {moment.year}"
    if step < _YEAR:
        return (day if step < _MONTH else f"{moment:%b}"), f"{moment.year}"
    return f"{moment.year}", ""
