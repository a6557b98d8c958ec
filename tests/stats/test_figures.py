"""The figures of logged answers: medians, and whether a model has become slower."""

from typing import Any

import pytest

from llm_localrun.stats.figures import Figures, Measure, figures_of, points_of
from llm_localrun.stats.log import LoggedModel, LoggedRun

pytestmark = pytest.mark.pure

NOW = 1_790_000_000.0
MODEL = "local/ollama/q:8b"


def run(speed: float | None = 20.0, at: float | None = NOW, **changes: Any) -> LoggedRun:
    facts = {
        "endpoint": "ollama",
        "input_tokens": 300,
        "output_tokens": 100,
        "cached_tokens": 0,
        "prompt_tokens_per_second": 200.0,
        "context_size": 8192,
        "quantization": "Q4_K_M",
        **changes,
    }
    return LoggedRun(model=MODEL, at=at, generation_tokens_per_second=speed, **facts)


def figures(newest: list[LoggedRun], *others: list[LoggedRun]) -> Figures:
    logged = [
        LoggedModel(MODEL, runs[0].endpoint, runs=len(runs), newest=runs)
        for runs in (newest, *others)
    ]
    return next(each for each in figures_of(logged) if each.endpoint == newest[0].endpoint)


def test_medians() -> None:
    found = figures(
        [
            run(speed, time_to_first_token=seconds, load_seconds=load, cached_tokens=cached)
            for speed, seconds, load, cached in (
                (10.0, 1.0, None, 300),
                (30.0, 2.0, 4.0, 0),
                (20.0, 30.0, 0.05, None),  # a server reports little for a model in memory
            )
        ]
    )
    assert found.generation_tokens_per_second == 20
    assert (found.time_to_first_token, found.time_to_first_token_p90) == (2, 30)
    assert (found.loads, found.load_seconds) == (1, 4)
    assert found.cached_share == 0.5
    assert (found.sampled_runs, found.last_used, found.quantization) == (3, NOW, "Q4_K_M")
    assert found.speeds == (20, 30, 10)


def test_p90_is_not_exceeded_by_nine_of_ten() -> None:
    found = figures([run(time_to_first_token=float(seconds)) for seconds in range(1, 101)])
    assert found.time_to_first_token_p90 == 90


def test_what_is_unknown() -> None:
    unknown: dict[str, Any] = dict.fromkeys(
        ("input_tokens", "output_tokens", "cached_tokens", "quantization")
    )
    found = figures([run(None, prompt_tokens_per_second=None, **unknown)])
    values = (
        *(found.cached_share, found.time_to_first_token, found.time_to_first_token_p90),
        *(found.prompt_tokens_per_second, found.generation_tokens_per_second),
        *(found.load_seconds, found.quantization, found.slowdown),
    )
    assert values == (None,) * len(values)
    assert (found.loads, found.speeds) == (0, ())


def test_short_answers_and_prompts_in_the_cache_say_nothing_of_speed() -> None:
    found = figures([run(9.0, output_tokens=5, cached_tokens=290)])
    assert found.generation_tokens_per_second is None
    assert found.prompt_tokens_per_second is None


ON_OUR_CLOCK: dict[str, tuple[dict[str, Any], float | None, float | None]] = {
    "both": ({}, 11.0, 150.0),
    "as a whole": ({"duration_ms": 4800}, None, None),
    "faster than one by one": ({"output_tokens": 10_100}, None, None),
    "a call": ({"finish_reason": "tool_calls"}, None, None),
    "asked again": ({"tool_repair": True}, None, None),
    "no duration": ({"duration_ms": None}, None, None),
    "no first token": ({"time_to_first_token": None}, None, None),
    "a short prompt": ({"input_tokens": 255}, 11.0, None),
    "mostly cached": ({"cached_tokens": 450}, 11.0, None),
    "partly cached": ({"cached_tokens": 300}, 11.0, 75.0),
    "after a load": ({"load_seconds": 2.0}, 11.0, 300.0),
    "at the same time": ({"is_alone": False}, 11.0, None),
    "a conversation goes on": ({"cached_tokens": None, "is_first": False}, 11.0, None),
    "a conversation begins": ({"cached_tokens": None}, 11.0, 150.0),
    "the server says it": ({"prompt_tokens_per_second": 7.0}, 11.0, 7.0),
}


@pytest.mark.parametrize(
    ("changes", "generation", "prompt"), ON_OUR_CLOCK.values(), ids=ON_OUR_CLOCK
)
def test_a_server_that_does_not_say_how_fast_it_is(
    changes: dict[str, Any], generation: float | None, prompt: float | None
) -> None:
    timed = {
        **{"input_tokens": 600, "output_tokens": 111, "duration_ms": 14_000},
        **{"time_to_first_token": 4.0, "prompt_tokens_per_second": None, "finish_reason": "stop"},
    }
    found = figures([run(None, **{**timed, **changes})])
    assert found.generation_tokens_per_second == generation
    assert found.prompt_tokens_per_second == prompt
    assert found.generation_speed_by_llm is (generation is not None)
    assert found.prompt_speed_by_llm is (prompt not in (None, 7.0))


def test_speeds_over_time_are_medians_of_as_many_answers_each() -> None:
    newest = [run(float(number)) for number in range(1, 121)]
    speeds = figures(newest).speeds
    assert len(speeds) == 12
    assert speeds == tuple(sorted(speeds, reverse=True))


def test_points_of_a_chart_are_thinned_out_and_in_order() -> None:
    newest = [run(float(number), NOW - number) for number in range(1, 101)]
    points = points_of([run(5.0, None), *newest], Measure.GENERATION, 10)
    assert len(points) == 10
    assert [*points] == sorted(points)
    assert points[-1] == (NOW - 5.5, 5.5)


SLOW, FAST = [run(8.0)] * 5, [run(20.0)] * 8
SAME_LENGTH: list[tuple[list[LoggedRun], float | None]] = [
    ([*SLOW, *FAST], 0.4),
    ([run(12.1)] * 5 + FAST, None),  # above 0.6
    ([run(8.0)] * 2 + FAST, None),  # too few are slow
    (SLOW + [run(20.0)] * 7, None),  # too few before
    ([run(8.0), run(20.0), run(8.0), run(20.0), run(8.0), *FAST], 0.4),
    ([run(8.0), run(20.0), run(20.0), *FAST], None),
    # A long conversation is compared with long ones only.
    ([run(8.0, input_tokens=6000)] * 5 + FAST, None),
    ([run(8.0, input_tokens=6000)] * 5 + FAST + [run(9.0, input_tokens=7000)] * 8, None),
    ([run(8.0, input_tokens=6000)] * 5 + FAST + [run(20.0, input_tokens=7000)] * 8, 0.4),
    # A draft model that guesses tokens makes a model faster.
    (SLOW + [run(20.0, guesses=True)] * 8, None),
    # Other prompts at the same time make a model slower.
    ([run(8.0, is_alone=False)] * 5 + FAST, None),
    # Two clocks do not measure the same.
    ([run(None, duration_ms=30_000, time_to_first_token=1.0)] * 5 + FAST, None),
]


@pytest.mark.parametrize(("newest", "share"), SAME_LENGTH)
def test_slower_than_before(newest: list[LoggedRun], share: float | None) -> None:
    slowdown = figures(newest).slowdown
    assert (slowdown and pytest.approx(slowdown.share)) == share
    assert slowdown is None or slowdown.measure is Measure.GENERATION


def test_prompts_are_read_more_slowly() -> None:
    newest = [run(prompt_tokens_per_second=50.0)] * 5 + FAST
    slowdown = figures(newest).slowdown
    assert slowdown is not None
    assert (slowdown.measure, slowdown.now, slowdown.before) == (Measure.PROMPT, 50, 200)
    assert (slowdown.last_runs, slowdown.changes) == (5, ())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantization": "Q8_0"}, "quantization: Q8_0, was Q4_K_M"),
        ({"context_size": 32768}, "context: 32768, was 8192"),
        ({"context_size": None}, None),
    ],
)
def test_what_has_changed(changes: dict[str, Any], said: str | None) -> None:
    slowdown = figures([run(8.0, **changes)] * 5 + FAST).slowdown
    assert slowdown is not None
    assert slowdown.changes == ((said,) if said else ())


def test_a_model_that_ran_elsewhere_before() -> None:
    before = [run(20.0, NOW - 100 - number) for number in range(8)]
    now = [run(8.0, NOW - number, endpoint="gguf") for number in range(5)]
    slowdown = figures(now, before).slowdown
    assert slowdown is not None
    assert slowdown.changes == ("endpoint: gguf, was ollama",)
    assert figures(before, now).slowdown is None
    # What ran at the same time is no "before".
    later = [each.model_copy(update={"at": NOW + 1}) for each in before]
    assert figures(now, later).slowdown is None


def test_runs_before_the_time_that_was_asked_for_are_compared() -> None:
    logged = LoggedModel(MODEL, "ollama", runs=5, newest=SLOW, earlier=FAST)
    gone = LoggedModel("local/gguf/gone", "gguf", earlier=FAST)
    (found,) = figures_of([gone, logged])
    assert (found.sampled_runs, found.generation_tokens_per_second) == (5, 8)
    assert found.slowdown is not None
    assert found.slowdown.share == 0.4


def test_the_model_that_ran_most_is_first() -> None:
    models = [
        LoggedModel(name, "gguf", runs=runs, newest=[run()])
        for name, runs in (("b", 1), ("c", 5), ("a", 1))
    ]
    assert [each.model for each in figures_of(models)] == ["c", "a", "b"]
