"""Ticks are round and labeled without doubt, whatever the numbers and times."""

import time
from collections.abc import Callable, Iterator

import pytest

from llm_localrun.charts.axes import number, number_ticks, time_ticks

pytestmark = pytest.mark.pure

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
NOON = 1_796_040_000.0
"""2026-11-30 12:00 UTC."""

NUMBERS = [
    (0, "0"),
    (41.234, "41.2"),
    (9.999, "10.00"),
    (0.00123456, "0.00123"),
    (0.0001, "0.0001"),
    (1234.4, "1,234"),
    (9_999_999, "9,999,999"),
    (1.234e12, "1.23e+12"),
    (1e-300, "1e-300"),
]

TICKS = [
    (0, "0 0.2 0.4 0.6 0.8 1.0"),
    (1, "0 0.2 0.4 0.6 0.8 1.0"),
    (1.01, "0 0.5 1.0 1.5"),
    (41.2, "0 10 20 30 40 50"),
    (50, "0 10 20 30 40 50"),
    (1204, "0 500 1,000 1,500"),
    (0.07, "0 0.02 0.04 0.06 0.08"),
    (3e-5, "0 1e-05 2e-05 3e-05"),
    (3e12, "0 1e+12 2e+12 3e+12"),
    (5e-324, "0 0.2 0.4 0.6 0.8 1.0"),
    (1.79e308, "0 5e+307 1e+308 1.5e+308 1.8e+308"),
]

# From when, how many seconds, and the labels with what stands below them.
TIMES = [
    (NOON, MINUTE, "12:00:00/Nov 30, 2026 12:00:10 12:00:20 12:00:30 12:00:40 12:00:50 12:01:00"),
    (NOON, HOUR, "12:00/Nov 30, 2026 12:10 12:20 12:30 12:40 12:50 13:00"),
    (NOON, DAY, "12:00/Nov 30, 2026 18:00 00:00/Dec 1, 2026 06:00 12:00"),
    (NOON, 3 * DAY, "12:00/Nov 30, 2026 00:00/Dec 1, 2026 12:00 00:00/Dec 2, 2026 12:00"
     " 00:00/Dec 3, 2026 12:00"),
    (NOON, 6 * DAY, "Dec 1/2026 Dec 2 Dec 3 Dec 4 Dec 5 Dec 6"),
    (NOON, 40 * DAY, "Dec 7/2026 Dec 14 Dec 21 Dec 28 Jan 4/2027"),
    (NOON, 170 * DAY, "Dec/2026 Jan/2027 Feb Mar Apr May"),
    (NOON, 730 * DAY, "Jan/2027 Jul Jan/2028 Jul"),
    (NOON, 4000 * DAY, "2028 2030 2032 2034 2036"),
]  # fmt: skip

IN_SUMMER_TIME = [
    # 2027-03-14: 02:00 does not exist.
    (1_804_996_800.0, 6 * HOUR, "23:00/Mar 13, 2027 00:00/Mar 14, 2027 01:00 03:00 04:00 05:00"
     " 06:00"),
    # 2027-11-07: each day has its midnight.
    (1_825_387_200.0, 5 * DAY, "Nov 5/2027 Nov 6 Nov 7 Nov 8 Nov 9"),
]  # fmt: skip


@pytest.fixture
def set_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def set_zone(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("value", "text"), NUMBERS)
def test_a_number_has_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("highest", "labels"), TICKS)
def test_an_axis_has_round_numbers_from_zero(highest: float, labels: str) -> None:
    ticks = number_ticks(highest)
    assert " ".join(ticks.values()) == labels
    assert max(ticks) >= highest * (1 - 1e-9)


def test_an_axis_has_three_to_six_ticks_for_any_number() -> None:
    for n in range(2000):
        ticks = number_ticks(10 ** (n / 100 - 10))
        assert 3 <= len(ticks) <= 6
        assert len({*ticks.values()}) == len(ticks)


def labels_of(first: float, seconds: float) -> str:
    ticks = time_ticks(first, first + seconds)
    assert all(first <= tick.time <= first + seconds for tick in ticks)
    return " ".join(f"{tick.label}/{tick.context}".rstrip("/") for tick in ticks)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system has one time zone")
@pytest.mark.parametrize(
    ("zone", "first", "seconds", "labels"),
    [
        *(("UTC0", *row) for row in TIMES),
        *(("EST5EDT,M3.2.0,M11.1.0", *row) for row in IN_SUMMER_TIME),
    ],
)
def test_times_are_round_and_have_their_day_or_year(
    set_zone: Callable[[str], None], zone: str, first: float, seconds: float, labels: str
) -> None:
    set_zone(zone)
    assert labels_of(first, seconds) == labels


def test_any_span_of_time_has_two_to_seven_ticks() -> None:
    for n in range(1000):
        assert 2 <= len(time_ticks(NOON, NOON + 10 * 1.019**n)) <= 7, n
