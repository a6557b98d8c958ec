"""Texts that will not end, and those that do."""

import json
import random

import pytest

from llm_localrun.wire.endless import is_endless, repeats_call

pytestmark = pytest.mark.pure

_WORDS = random.Random(0)
PROSE = " ".join("".join(_WORDS.choices("abcdefgh", k=5)) for _ in range(2000))

ENDLESS = {
    "a character": "1" * 200,
    "a character after prose": PROSE + "1" * 200,
    "a word": "example.com/" * 24,
    "growing blanks": "".join(f'{{"sub":\n{" " * n}' for n in range(60)),
    "a row": "| none | none |\n" * 30,
    "counting up": ", ".join(map(str, range(140))),
    "counting down in steps": ", ".join(str(10 - 2.5 * n) for n in range(140)),
    "digits without end": "[" + "7" * 5000,
}
ENDING = {
    "nothing": "",
    "prose": PROSE,
    "a row of dashes": PROSE + "-" * 150,
    "numbers": json.dumps([_WORDS.random() for _ in range(500)]),
    "one to a hundred": json.dumps([*range(1, 101)]),
    "a table that counts": "\n".join(f"| {n} | {n % 7} | {n * n} |" for n in range(300)),
    "a word a few times": "no, " * 20,
    "equal rows": "<td>nothing</td><td>nothing at all</td>\n" * 20,
}


@pytest.mark.parametrize("case", ENDLESS)
def test_text_without_an_end(case: str) -> None:
    assert is_endless(ENDLESS[case])


@pytest.mark.parametrize("case", ENDING)
def test_text_that_ends(case: str) -> None:
    assert not is_endless(ENDING[case])


def calls(*cities: str) -> str:
    return "\n".join(f'{{"name": "weather", "arguments": {{"city": "{city}"}}}}' for city in cities)


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        (calls(*["Rome"] * 5), True),
        (calls(*["Rome", "Oslo", "Bonn"] * 5), True),
        (calls(*["Rome"] * 9)[:-20], True),
        ('weather(city="Rome") ' * 12, True),
        (calls(*["Rome"] * 4), False),
        (calls(*["Rome", "Oslo", "Bonn"] * 4), False),
        (calls(*map(str, range(100))), False),
        ("weather " * 30, False),
        (calls(*["Rome"] * 9, "Oslo"), False),
        (calls(*["Rome"] * 9).replace("weather", "clock"), False),
        ("", False),
    ],
)
def test_same_call_again_and_again(text: str, repeats: bool) -> None:
    assert repeats_call(text, ["w.ather", "weather"]) is repeats
    assert not repeats_call(text, [])
