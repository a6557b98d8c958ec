"""Prompts of a wanted number of tokens, each with a beginning of its own.

Pure: counting tokens is left to the caller. The words are usual ones, so nearly every vocabulary
has one token for each.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "life", "child", "world", "school"),
    *("state", "family", "student", "group", "country", "problem", "hand", "part", "place", "case"),
    *("week", "company", "system", "program", "question", "work", "government", "number", "night"),
    *("point", "home", "water", "room", "mother", "area", "money", "story", "fact", "month"),
    *("right", "study", "book", "eye", "job", "word", "business", "issue", "side", "kind", "head"),
    *("house", "service", "friend", "father", "power", "hour", "game", "line", "end", "member"),
    *("law", "car", "city"),
)
_TASK = "\n\nWrite a long story with these words."
"""Some servers cannot be told to go on, so the model is asked to."""
_USUAL_OVERHEAD = 35
"""Tokens of the task and of a usual chat template."""
_MAX_COUNTS = 8

Count = Callable[[str], int | None]
"""Returns the tokens of a prompt with a text; None if it is unknown."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A text, and the tokens of the prompt with it."""

    text: str
    tokens: int
    is_exact: bool


class PromptWriter:
    """Writes the prompts for one model."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(seed)
        self._overhead = _USUAL_OVERHEAD

    def beginning(self, depth: int, stream: int) -> list[str]:
        """The words, one for each token of `depth`, with which all prompts of a stream begin."""
        return _words(random.Random(f"{self._seed} {depth} {stream}"), depth)

    def write(self, beginning: Sequence[str], tokens: int, count: Count) -> Counted:
        """A text that begins so, and goes on as none before did, for a prompt of `tokens`."""
        fresh = _words(self._random, max(1, tokens - len(beginning)))
        words = [*beginning, *fresh]
        return self._fitted(words, len(beginning) + 1, tokens, count)

    def write_beginning(self, beginning: Sequence[str], count: Count) -> Counted:
        """A text with which the prompt takes as many tokens as there are words, or a few more."""
        return self._fitted([*beginning], len(beginning), len(beginning), count)

    def learn(self, text: str, tokens: int) -> None:
        """Corrects the estimate by what a server has counted."""
        self._overhead = tokens - _length(text)

    def _fitted(self, words: list[str], least: int, tokens: int, count: Count) -> Counted:
        """The first of `words`, at least `least`, as many as make a prompt of `tokens`."""
        length = max(least, tokens - self._overhead)
        best: Counted | None = None
        for _ in range(_MAX_COUNTS):
            words += _words(self._random, length - len(words))
            text = " ".join(words[:length]) + _TASK
            counted = count(text)
            if counted is None:
                return Counted(text, length + self._overhead, is_exact=False)
            if best is None or abs(counted - tokens) < abs(best.tokens - tokens):
                best = Counted(text, counted, is_exact=True)
            if counted == tokens or (counted > tokens and length == least):
                break
            # A vocabulary may need more than a token for a word.
            step = (tokens - counted) / max(1.0, counted / length)
            length = max(least, length + (round(step) or (1 if step > 0 else -1)))
        assert best is not None
        return best


def _length(text: str) -> int:
    return len(text.removesuffix(_TASK).split())


def _words(source: random.Random, count: int) -> list[str]:
    return source.choices(_WORDS, k=max(0, count))
