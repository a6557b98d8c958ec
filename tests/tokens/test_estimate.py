"""Estimates of tokens: never much too low, with any vocabulary, before and after they have learned.

`data/token_counts.json` holds what nine vocabularies make of the corpus: SmolLM2's and Gemma 3's by
llama.cpp b11549, Mistral's by mistral-common 1.13, the others by @lenml/tokenizers 3.7.2.
"""

import json
from pathlib import Path

import httpx
import pytest

from llm_localrun.catalogue import model_at
from llm_localrun.engine.state import list_running
from llm_localrun.tokens.estimate import Factors, estimate, learned, least_plausible, units_of
from tests.support.corpus import CORPUS
from tests.support.drive import ask

COUNTS: dict[str, dict[str, int]] = json.loads(
    (Path(__file__).parents[1] / "data" / "token_counts.json").read_text()
)
VOCABULARIES = [*COUNTS["prose"]]
UNITS = {name: units_of([text]) for name, text in CORPUS.items()}
ENGLISH_AND_CODE = ("prose", "python", "c++", "html", "javascript", "base64", "log", "uuids")

LOWEST = 0.95


def off_by(name: str, vocabulary: str, factors: Factors) -> float:
    """The estimate as a share of what the vocabulary takes."""
    return estimate(UNITS[name], factors) / COUNTS[name][vocabulary]


def test_corpus_is_what_was_counted() -> None:
    assert COUNTS.keys() == CORPUS.keys()


def test_counts_are_the_engines(warm: Path) -> None:
    ask(model_at(next((warm / "localrun" / "models").iterdir())), "Hi", max_tokens=1)
    engine = max(
        list_running(warm / "localrun" / "engine"), key=lambda each: each.spec.context_size
    )
    headers = {"Authorization": f"Bearer {engine.key}"}
    with httpx.Client(base_url=engine.url, headers=headers) as client:
        for name, text in CORPUS.items():
            tokens = client.post("/tokenize", json={"content": text}).json()["tokens"]
            assert len(tokens) == COUNTS[name]["SmolLM2"], name


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_estimate_before_a_model_is_known(vocabulary: str) -> None:
    too_low = {
        name: off_by(name, vocabulary, {})
        for name in CORPUS
        if off_by(name, vocabulary, {}) < LOWEST
    }
    assert too_low == {}
    for name in ENGLISH_AND_CODE:
        assert off_by(name, vocabulary, {}) < 1.65, name


# What is learned of one text is to hold for another of its kind.
OF_A_KIND = [
    ("chinese", "chinese_news"),
    ("chinese", "chinese_and_code"),
    ("arabic", "arabic_news"),
    ("hindi", "hindi_news"),
    ("korean", "korean_news"),
    ("russian", "russian_manual"),
    ("japanese", "japanese_manual"),
    ("emoji", "emoji_chat"),
    ("base64", "base64 in one line"),
    ("python", "c++"),
    ("python", "prose"),
    ("german", "french"),
]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize(("first", "other"), OF_A_KIND)
def test_estimate_learns_what_a_kind_of_text_takes(first: str, other: str, vocabulary: str) -> None:
    factors: Factors = {}
    for _ in range(6):
        factors = learned(factors, UNITS[first], COUNTS[first][vocabulary])
    assert off_by(first, vocabulary, factors) >= LOWEST
    assert LOWEST <= off_by(other, vocabulary, factors) < 1.75
    assert off_by(other, vocabulary, factors) <= max(1.3, off_by(other, vocabulary, {}))


def test_one_long_prompt_is_enough_to_learn_from_one_that_was_underestimated() -> None:
    dear = 2 * estimate(UNITS["prose"], {})
    factors: Factors = {}
    for _ in range(2):
        factors = learned(factors, UNITS["prose"], int(dear * 0.7))
    assert estimate(UNITS["prose"], factors) >= int(dear * 0.7)


def test_nothing_is_learned_where_the_estimate_is_good() -> None:
    factors = {"word": 0.95}
    tokens = int(estimate(UNITS["prose"], factors) / 1.1)
    assert learned(factors, UNITS["prose"], tokens) is factors
    assert learned(factors, {}, 0) is factors


def test_what_is_learned_is_bounded() -> None:
    factors: Factors = {}
    for _ in range(50):
        factors = learned(factors, UNITS["chinese"], 1)
    assert estimate(UNITS["chinese"], factors) > 0.7 * COUNTS["chinese"]["Gemma 3"]
    for _ in range(50):
        factors = learned(factors, UNITS["chinese"], 10**6)
    assert estimate(UNITS["chinese"], factors) < 2 * estimate(UNITS["chinese"], {})


def test_template_that_is_long_is_learned_from_a_short_prompt() -> None:
    units = {**units_of(["Hi"]), "template": 1, "message": 1}
    factors: Factors = {}
    for _ in range(5):
        factors = learned(factors, units, 1200)
    assert estimate(units, factors) >= 1200
    longer = {**units_of(["Hi there. " * 500]), "template": 1, "message": 1}
    assert estimate(longer, factors) - estimate(longer, {}) > 1000


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_least_plausible(vocabulary: str) -> None:
    for name, units in UNITS.items():
        assert 0 < least_plausible(units) <= COUNTS[name][vocabulary], name


def test_text_of_halves_of_surrogate_pairs() -> None:
    assert estimate(units_of(["\ud83d \udc00"]), {}) > 0
