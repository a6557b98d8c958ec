"""The estimate of tokens is not too low with any vocabulary, before and after it has learned."""

from itertools import product
from pathlib import Path

import httpx
import pytest

from llm_localrun.catalogue import model_at
from llm_localrun.engine.state import list_running
from llm_localrun.tokens.estimate import Factors, Parts, estimate, learn, least_plausible, parts_of
from tests.support.corpus import CORPUS, COUNTS, VOCABULARIES
from tests.support.drive import ask

PARTS = {name: parts_of([text]) for name, text in CORPUS.items()}
ENGLISH_AND_CODE = ("prose", "python", "c++", "html", "javascript", "base64", "log", "uuids")
LOWEST = 0.98

in_every_vocabulary = pytest.mark.parametrize("vocabulary", VOCABULARIES)


def ratio(name: str, vocabulary: str, factors: Factors) -> float:
    """The estimate, as a share of the tokens that the vocabulary takes."""
    return estimate(PARTS[name], factors) / COUNTS[name][vocabulary]


def taught(names: list[str], vocabulary: str) -> Factors:
    """The factors after a server has counted these texts."""
    factors: Factors = {}
    for name in names:
        factors = learn(factors, PARTS[name], COUNTS[name][vocabulary])
    return factors


def too_low(vocabulary: str, factors: Factors) -> dict[str, float]:
    ratios = {name: ratio(name, vocabulary, factors) for name in CORPUS}
    return {name: share for name, share in ratios.items() if share < LOWEST}


def test_counts_belong_to_the_texts() -> None:
    assert COUNTS.keys() == CORPUS.keys()


def test_counts_are_those_of_the_engine(warm: Path) -> None:
    ask(model_at(next((warm / "localrun" / "models").iterdir())), "Hi", max_tokens=1)
    engine = max(
        list_running(warm / "localrun" / "engine"), key=lambda each: each.spec.context_size
    )
    headers = {"Authorization": f"Bearer {engine.key}"}
    with httpx.Client(base_url=engine.url, headers=headers) as client:
        for name, text in CORPUS.items():
            tokens = client.post("/tokenize", json={"content": text}).json()["tokens"]
            assert len(tokens) == COUNTS[name]["SmolLM2"], name


@in_every_vocabulary
def test_unknown_model(vocabulary: str) -> None:
    assert too_low(vocabulary, {}) == {}
    assert max(ratio(name, vocabulary, {}) for name in ENGLISH_AND_CODE) < 1.65


@in_every_vocabulary
@pytest.mark.parametrize("replies", [1, 10])
def test_no_text_makes_the_estimate_of_another_too_low(replies: int, vocabulary: str) -> None:
    for first in CORPUS:
        assert too_low(vocabulary, taught([first] * replies, vocabulary)) == {}, first


@in_every_vocabulary
def test_all_texts_together_make_no_estimate_too_low(vocabulary: str) -> None:
    names = [*CORPUS]
    for order in (names, names[::-1], names * 3):
        assert too_low(vocabulary, taught(order, vocabulary)) == {}


@in_every_vocabulary
@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("chinese", "chinese_news"),
        ("chinese", "traditional_chinese"),
        ("japanese_manual", "japanese"),
        ("arabic", "arabic_news"),
        ("hindi", "hindi_news"),
        ("korean", "korean_news"),
        ("russian", "russian_manual"),
        ("tamil", "tamil"),
        ("thai", "thai"),
    ],
)
def test_learning_one_text_helps_with_others(first: str, other: str, vocabulary: str) -> None:
    before = ratio(other, vocabulary, {})
    after = ratio(other, vocabulary, taught([first] * 10, vocabulary))
    assert after <= before
    assert after < 2.75


@pytest.mark.parametrize(
    ("factors", "parts", "counted", "after"),
    [
        pytest.param({}, {"CJK": 1000.0}, 500, {"CJK": 0.9}, id="half of the way to 0.8"),
        pytest.param({"CJK": 0.9}, {"CJK": 1000.0}, 500, {"CJK": 0.85}, id="and another half"),
        pytest.param({"CJK": 0.4}, {"CJK": 1000.0}, 1, {"CJK": 0.4}, id="no lower"),
        pytest.param({"CJK": 0.9}, {"CJK": 1000.0}, 800, {"CJK": 0.9}, id="good enough"),
        pytest.param({"CJK": 0.5}, {"CJK": 1000.0}, 600, {"CJK": 0.63}, id="at once if too low"),
        pytest.param({}, {"CJK": 1000.0, "mark": 9.0}, 1100, {"CJK": 1.146}, id="above 1"),
        pytest.param({}, {"CJK": 1000.0}, 10**6, {"CJK": 1.5}, id="no higher"),
        pytest.param({"CJK": 1.4}, {"CJK": 1000.0}, 900, {"CJK": 1.2}, id="back from above 1"),
        pytest.param({}, {"template": 100.0}, 1000, {"template": 10.5}, id="a long template"),
        pytest.param({}, {"template": 100.0}, 1, {}, id="a short template"),
        pytest.param({}, {"template": 100.0}, 10**6, {"template": 40}, id="template, no higher"),
        pytest.param({}, {"media": 0.0}, 0, {}, id="nothing"),
    ],
)
def test_learn(factors: Factors, parts: Parts, counted: int, after: Factors) -> None:
    assert learn(factors, parts, counted) == pytest.approx(after)


def test_short_prompt_teaches_that_a_template_is_long() -> None:
    short = {**parts_of(["Hi"]), "template": 72.0}
    long = {**parts_of(["Hi there. " * 500]), "template": 72.0}
    factors = learn({}, short, 1200)
    assert estimate(short, factors) >= 1200
    assert 1100 < estimate(long, factors) - estimate(long, {}) < 1300


def test_least_plausible_is_less_than_any_vocabulary_takes() -> None:
    for name, vocabulary in product(CORPUS, VOCABULARIES):
        assert 0 < least_plausible(PARTS[name]) <= COUNTS[name][vocabulary], (name, vocabulary)


@in_every_vocabulary
@pytest.mark.parametrize("name", ENGLISH_AND_CODE)
def test_least_plausible_tells_a_prompt_that_lost_two_thirds(name: str, vocabulary: str) -> None:
    assert least_plausible(PARTS[name]) > COUNTS[name][vocabulary] / 3


@pytest.mark.parametrize(
    ("text", "at_least"),
    [
        pytest.param("\ud83d \udc00", 2, id="halves of surrogate pairs"),
        pytest.param("ⴰⵎⴰⵣⵉⵖ", 18, id="script that was not measured: a token for each byte"),
        pytest.param("-" * 3200, 200, id="long run of marks"),
        pytest.param("x" + " " * 3200, 200, id="long run of spaces"),
    ],
)
def test_unusual_texts(text: str, at_least: int) -> None:
    assert estimate(parts_of([text]), {}) >= at_least
