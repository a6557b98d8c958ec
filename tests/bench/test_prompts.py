"""Prompts of a wanted length: exact where tokens are counted, learned where they are not."""

import pytest

from llm_localrun.bench.prompts import PromptWriter

pytestmark = pytest.mark.pure


def by_word(text: str) -> int:
    """A template of 24 tokens, and one for each word."""
    return 24 + len(text.split())


def by_length(text: str) -> int:
    return 24 + len(text) // 4


@pytest.mark.parametrize("count", [by_word, by_length])
@pytest.mark.parametrize("tokens", [64, 512, 4608])
def test_counted_prompts_are_exact_or_one_off(count: object, tokens: int) -> None:
    assert callable(count)
    counted = PromptWriter(1).write([], tokens, count)
    assert counted.is_exact
    assert counted.tokens == count(counted.text)
    assert abs(counted.tokens - tokens) <= (0 if count is by_word else 1)


def test_what_is_shorter_than_the_template_has_one_word() -> None:
    counted = PromptWriter(1).write([], 5, by_word)
    assert counted.tokens == by_word("one word") + 6
    assert counted.is_exact


def test_without_counts_the_length_is_learned() -> None:
    writer = PromptWriter(1)
    first = writer.write([], 512, lambda _: None)
    assert (first.tokens, first.is_exact) == (512, False)
    assert by_word(first.text) != 512
    writer.learn(first.text, by_word(first.text))
    assert by_word(writer.write([], 512, lambda _: None).text) == 512


def test_prompts_differ_from_their_first_words_on_and_share_a_beginning_if_wanted() -> None:
    writer = PromptWriter(1)
    starts = {" ".join(writer.write([], 64, by_word).text.split()[:3]) for _ in range(20)}
    assert len(starts) == 20
    beginning = writer.beginning(100, 0)
    assert len(beginning) == 100
    assert writer.beginning(100, 0) == beginning
    assert writer.beginning(100, 1) != beginning
    texts = [writer.write(beginning, 200, by_word).text for _ in range(2)]
    assert all(text.startswith(" ".join(beginning)) for text in texts)
    assert texts[0] != texts[1]
    assert writer.write_beginning(beginning, by_word).text.startswith(" ".join(beginning))
