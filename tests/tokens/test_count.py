"""What of a request becomes tokens: the upper bound and the estimate."""

from collections.abc import Mapping
from typing import Any

import pytest

from llm_localrun.tokens.count import Prompt
from llm_localrun.wire.request import ChatMessage, ChatRequest, Media, PastCall, ToolSpec
from tests.support.corpus import CORPUS, COUNTS, VOCABULARIES

USER = ChatMessage("user", "Hello")
WEATHER = ToolSpec("weather", "How it is outside", {"type": "object", "properties": {}})


def prompt(*messages: ChatMessage, **more: Any) -> Prompt:
    return Prompt(ChatRequest(messages, {}, stream=False, **more))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_no_text_takes_more_than_the_bound(vocabulary: str) -> None:
    empty = prompt(ChatMessage("user", ""))
    for name, text in CORPUS.items():
        whole = prompt(ChatMessage("user", text))
        # SentencePiece puts a space in front.
        assert whole.bound - empty.bound + 1 >= COUNTS[name][vocabulary], name


@pytest.mark.parametrize(
    ("larger", "at_least"),
    [
        pytest.param(prompt(USER, USER), 5, id="a message"),
        pytest.param(prompt(ChatMessage("user", "Hello", reasoning="Hm.")), 3, id="thinking"),
        pytest.param(prompt(USER, tools=(WEATHER,)), 60, id="a tool"),
        pytest.param(
            prompt(ChatMessage("user", "Hello", calls=(PastCall("1", "weather", {"a": "b"}),))),
            10,
            id="a call",
        ),
        pytest.param(
            prompt(ChatMessage("user", "Hello", media=(Media("image/png", b"1"),))),
            2000,
            id="image",
        ),
    ],
)
def test_what_counts_besides_the_text(larger: Prompt, at_least: int) -> None:
    assert larger.bound - prompt(USER).bound >= at_least
    assert larger.estimate({}).tokens > prompt(USER).estimate({}).tokens


@pytest.mark.parametrize(
    ("factors", "tokens"), [({}, 77), ({"template": 0.5}, 41), ({"english": 2.0}, 78)]
)
def test_estimate(factors: Mapping[str, float], tokens: int) -> None:
    size = prompt(ChatMessage("user", "{Hello}")).estimate(factors)
    assert (size.tokens, size.is_exact) == (tokens, False)


def test_halves_of_surrogate_pairs() -> None:
    odd = prompt(ChatMessage("user", "\ud83d"))
    assert odd.bound > prompt(ChatMessage("user", "")).bound
    assert odd.estimate({}).tokens > 0
