"""What measurements say together: whose clock counts, rates of several requests, doubts."""

from dataclasses import replace

import pytest

from llm_localrun.bench.plan import BenchSetting
from llm_localrun.bench.summary import BenchRun, Clock, Doubt, Spread, TimedAnswer, spread_of

pytestmark = pytest.mark.pure

SETTING = BenchSetting(100, 11)
BY_CLOCK = TimedAnswer(10, 12, 17, prompt_tokens=100, cached_tokens=0, generated=11)
BY_SERVER = replace(BY_CLOCK, prompt_rate=60, generation_rate=2.2)


def test_the_servers_times_count_if_it_has_any() -> None:
    run = BenchRun(SETTING, (BY_SERVER,), (BY_SERVER,))
    assert run.prompt_rate == 60
    assert run.generation_rate == 2.2
    assert (run.prompt_clock, run.generation_clock) == (Clock.SERVER, Clock.SERVER)
    assert run.doubts == set()


def test_else_the_clock_here_counts() -> None:
    run = BenchRun(SETTING, (BY_CLOCK,), (BY_CLOCK,))
    assert (run.prompt_rate, run.generation_rate) == (50, 2)
    assert (run.prompt_clock, run.generation_clock) == (Clock.HERE, Clock.HERE)
    assert run.doubts == {Doubt.CLOCK}


def test_answers_of_one_token_need_no_clock() -> None:
    one = replace(BY_SERVER, generated=1)
    assert BenchRun(replace(SETTING, generate=1), (one,), (one,)).doubts == set()


def test_times_longer_than_the_answer_took_to_come_do_not_count() -> None:
    run = BenchRun(SETTING, (replace(BY_SERVER, prompt_rate=40),), (BY_SERVER,))
    assert (run.prompt_rate, run.prompt_clock) == (50, Clock.HERE)


def test_requests_at_once_share_the_time() -> None:
    setting = replace(SETTING, concurrency=2)
    second = replace(BY_SERVER, first=14, last=20)
    run = BenchRun(setting, (BY_SERVER, second), (BY_SERVER, second))
    assert run.prompt_rate == 200 / 4
    assert run.generation_rate == 20 / 8
    assert run.doubts == set()


@pytest.mark.parametrize(
    ("setting", "change", "doubt"),
    [
        (replace(SETTING, depth=50), {"prompt_tokens": 150}, Doubt.DEPTH),
        (replace(SETTING, depth=50), {"prompt_tokens": 150, "cached_tokens": None}, Doubt.DEPTH),
        (SETTING, {"generated": 10}, Doubt.LENGTH),
        (SETTING, {"generated": 12}, Doubt.LENGTH),
        (SETTING, {"prompt_tokens": 120}, Doubt.LENGTH),
        (SETTING, {"prompt_tokens": None}, Doubt.LENGTH),
    ],
)
def test_doubts(setting: BenchSetting, change: dict[str, int | None], doubt: Doubt) -> None:
    doubtful = replace(BY_SERVER, **change)  # type: ignore[arg-type]
    assert doubt in BenchRun(setting, (doubtful,), (doubtful,)).doubts
    held = replace(BY_SERVER, prompt_tokens=100 + setting.depth, cached_tokens=setting.depth)
    assert BenchRun(setting, (held,), (held,)).doubts == set()


def test_prompts_have_no_rate_if_the_tokens_from_the_cache_are_not_known() -> None:
    setting = replace(SETTING, depth=50)
    unknown = replace(BY_SERVER, prompt_tokens=150, cached_tokens=None)
    run = BenchRun(setting, (unknown,), (unknown,))
    assert run.prompt_rate is None
    assert (run.prompts[0].first_token, run.generation_rate) == (2, 2.2)
    known = replace(unknown, cached_tokens=50)
    assert BenchRun(setting, (known,), (known,)).prompt_rate == 60
    alone = replace(unknown, prompt_tokens=100)
    assert BenchRun(SETTING, (alone,), (alone,)).prompt_rate == 60


def test_what_came_in_one_piece_has_no_rate() -> None:
    run = BenchRun(SETTING, (BY_CLOCK,), (replace(BY_CLOCK, last=12),))
    assert run.generation_rate is None


def test_spread() -> None:
    assert spread_of([4, None, 5, 7]) == Spread(5, 4, 7)
    assert spread_of([4, 5, 7]).share == pytest.approx(0.4)  # type: ignore[union-attr]
    assert spread_of([None]) is None
