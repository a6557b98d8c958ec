"""How large a context is made, and what the user is told when it cannot be large enough."""

from math import inf

import pytest

from llm_localrun.tokens.window import (
    Limits,
    Size,
    context_too_small,
    describe_cut_answer,
    round_up_context,
    too_long,
)


@pytest.mark.parametrize(
    ("tokens", "largest", "size"),
    [
        (1, inf, 4096),
        (4096, inf, 4096),
        (4097, inf, 8192),
        (6000, 131_072, 8192),
        (100_000, inf, 131_072),
        (5000, 6144, 6144),
        (100_000, 40_960, 40_960),
        (10, 2048, 2048),
    ],
)
def test_context_grows_by_powers_of_two(tokens: int, largest: float, size: int) -> None:
    assert round_up_context(tokens, largest) == size


def test_prompt_fits_if_a_token_is_left() -> None:
    assert [Size(tokens, is_exact=True).fits(4096) for tokens in (4095, 4096)] == [True, False]


CAN_GROW = Limits(trained=131_072)
TRAINED = (
    "Shorten it, or choose a model with a larger context: this one was trained for 8,192 tokens."
)


@pytest.mark.parametrize(
    ("size", "limits", "said"),
    [
        (
            Size(6000, is_exact=True),
            CAN_GROW,
            "takes 6,000 tokens and Box holds 4,096."
            " Shorten it, or enlarge the context with -o context_size 8192.",
        ),
        (
            Size(6000, is_exact=False),
            CAN_GROW,
            "takes about 6,000 tokens and Box holds 4,096."
            " Shorten it, or enlarge the context with -o context_size 8192.",
        ),
        (
            Size(9000, is_exact=True),
            Limits(trained=8192),
            f"takes 9,000 tokens and Box holds 4,096. {TRAINED}",
        ),
        (
            Size(6000, is_exact=True),
            Limits(fixed=True, flag="--max-model-len {}"),
            "takes 6,000 tokens and Box holds 4,096."
            " Shorten it, or start the server with --max-model-len 8192.",
        ),
    ],
)
def test_prompt_that_is_too_long(size: Size, limits: Limits, said: str) -> None:
    assert str(too_long(size, "Box", 4096, limits)) == f"The prompt {said}"


def test_server_with_too_small_a_context() -> None:
    assert str(context_too_small(20_000, 8192, "Box", Limits(fixed=True, flag="-c {}"))) == (
        "Box holds 8,192 tokens, not 20,000. Start the server with -c 32768."
    )


FULL = "The answer stopped because the context of 4,096 tokens is full"
LIMIT = "The answer stopped at a limit of the server. Set another with -o max_tokens N."


@pytest.mark.parametrize(
    ("used", "context_size", "limits", "said"),
    [
        (4096, 4096, CAN_GROW, f"{FULL}. Enlarge it with -o context_size 8192."),
        (4090, 4096, CAN_GROW, f"{FULL}. Enlarge it with -o context_size 8192."),
        (4096, 4096, Limits(trained=4096), f"{FULL}, and it cannot be larger."),
        (4096, 4096, Limits(affordable=5000), f"{FULL}, and it cannot be larger."),
        (
            4096,
            4096,
            Limits(fixed=True, flag="-c {}"),
            f"{FULL}. To enlarge it, start the server with -c 8192.",
        ),
        (512, 4096, CAN_GROW, LIMIT),
        (512, None, CAN_GROW, LIMIT),
        (None, 4096, CAN_GROW, LIMIT),
    ],
)
def test_answer_that_was_cut_short(
    used: int | None, context_size: int | None, limits: Limits, said: str
) -> None:
    assert describe_cut_answer(used, context_size, limits) == said
