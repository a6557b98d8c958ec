"""How many tokens a text takes: estimated on the safe side, and learning from what servers report.

Pure. A text is taken apart into pieces of several kinds: English words, the letters of other
languages, digits, marks, characters of each script, what looks random. What one of a kind takes
differs from vocabulary to vocabulary, outside of English by up to five times. Until a model is
known the dearest is taken for granted; each prompt whose tokens its server has counted then brings
the estimate nearer. Keeping what was learned is `calibration`'s business.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Units: TypeAlias = Mapping[str, float]
"""How many pieces of each kind a prompt has."""
Factors: TypeAlias = Mapping[str, float]
"""For some kinds: what a model's vocabulary takes of them, as a share of what the dearest does."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Tokens that a piece takes with the dearest vocabulary, and the least that is believed."""

    most: float
    least: float


# Measured with nine vocabularies, of 32,000 (Llama 2) to 262,144 tokens (Gemma 3); the dearest for
# most scripts is SmolLM2's, which was made for English and code. The texts are in `tests/corpus.py`
# and its like. What a template puts around a prompt's texts, nobody shows beforehand.
_KINDS = {
    "template": _Kind(64, 8),
    "message": _Kind(8, 3),
    "media": _Kind(1500, 60),
    "word": _Kind(1.1, 1.0),
    "letter": _Kind(0.5, 0.3),
    "random": _Kind(0.92, 0.8),
    "digit": _Kind(1.03, 0.5),
    "mark": _Kind(1.0, 0.9),
    "han": _Kind(2.0, 0.8),
    "kana": _Kind(1.85, 0.45),
    "hangul": _Kind(2.9, 0.7),
    "arabic": _Kind(1.25, 0.4),
    "hebrew": _Kind(1.45, 0.45),
    "cyrillic": _Kind(1.0, 0.35),
    "greek": _Kind(1.25, 0.4),
    "devanagari": _Kind(1.5, 0.3),
    "indic": _Kind(2.0, 0.25),
    "thai": _Kind(1.95, 0.4),
    "emoji": _Kind(3.3, 1.3),
    "byte": _Kind(1.0, 0.3),
}

# Where a script begins; it goes up to the next beginning. Of what is not known, bytes are counted:
# no vocabulary takes more than a token for one.
_SCRIPTS = (
    *((0x0, "byte"), (0x370, "greek"), (0x400, "cyrillic"), (0x530, "byte"), (0x590, "hebrew")),
    *((0x600, "arabic"), (0x780, "byte"), (0x900, "devanagari"), (0x980, "indic")),
    *((0xE00, "thai"), (0xE80, "byte"), (0x1F00, "greek"), (0x2000, "byte"), (0x2010, "mark")),
    *((0x2060, "byte"), (0x2600, "emoji"), (0x27C0, "byte"), (0x3000, "han"), (0x3040, "kana")),
    *((0x3100, "han"), (0xA000, "byte"), (0xAC00, "hangul"), (0xD7B0, "byte"), (0xF900, "han")),
    *((0xFB00, "byte"), (0xFF00, "han"), (0xFFF0, "byte"), (0x1F000, "emoji"), (0x20000, "han")),
    (0x32000, "byte"),
)

_LATIN = "A-Za-z\u00c0-\u024f"
_WORD = re.compile(f"[{_LATIN}]+")
_PART_OF_WORD = re.compile("[A-Z]?[a-z\u00df-\u024f]+|[A-Z\u00c0-\u00de]+")
_DIGIT = re.compile("[0-9]")
_MARKS = re.compile(r"[!-/:-@\[-`{-~]+")
# Line ends, indentation, and what vocabularies that split numbers leave of the space before one.
_SPACE = re.compile(r"\n+|(?<=\s)[ \t]+|[ \t](?=[0-9])")
_MAYBE_RANDOM = re.compile("[A-Za-z0-9+/]{8,}")
_NOT_LATIN = re.compile(f"[^\x00-\x7f{_LATIN}]")
_ENGLISH = frozenset(
    (
        *("a", "about", "all", "an", "and", "are", "as", "at", "be", "but", "by", "can", "do"),
        *("each", "for", "from", "had", "have", "he", "his", "how", "if", "in", "is", "it", "not"),
        *("of", "on", "or", "said", "that", "the", "their", "there", "they", "this", "to", "up"),
        *("was", "we", "were", "what", "when", "which", "will", "with", "you", "your"),
    )
)

# An estimate may lie so far above what was counted: texts of one kind differ.
_LOW, _HIGH = 1.05, 1.15
_SURE = 0.6
"""What is left of the least that is believed of each kind, to be sure of all together."""
# What a factor may come to: vocabularies may be dearer than those measured, and a template may hold
# instructions of its own.
_DEAREST = 1.5
_LONGEST_TEMPLATE = 40.0


def units_of(texts: Iterable[str]) -> dict[str, float]:
    """The pieces in all `texts`, by their kind."""
    units: defaultdict[str, float] = defaultdict(float)
    for text in texts:
        for paragraph in text.split("\n\n"):
            _add_latin(paragraph, units)
        for character, count in Counter(_NOT_LATIN.findall(text)).items():
            kind = _script_of(ord(character))
            size = len(character.encode("utf-8", "replace")) if kind == "byte" else 1
            units[kind] += count * size
    return units


def estimate(units: Units, factors: Factors) -> int:
    """The tokens of a prompt of these pieces; `factors` are what is known of the model."""
    taken = (count * _KINDS[kind].most * factors.get(kind, 1.0) for kind, count in units.items())
    return round(sum(taken))


def learned(factors: Factors, units: Units, tokens: int) -> Factors:
    """The factors after a prompt of these pieces took so many `tokens`.

    Where the estimate was out, the difference is put down to the kinds that the prompt is made of,
    in proportion: a step of the normalised least-mean-squares filter, a whole one if the estimate
    was too low and half of one if it was too high.
    """
    gap = _gap(estimate(units, factors), tokens)
    shares = {kind: count * _KINDS[kind].most for kind, count in units.items() if count}
    power = sum(share * share for share in shares.values())
    if not gap or not power:
        return factors
    moved = {
        kind: _bounded(kind, factors.get(kind, 1.0) + gap * share / power)
        for kind, share in shares.items()
    }
    return {**factors, **moved}


def least_plausible(units: Units) -> int:
    """Fewer tokens than a prompt of these pieces takes with any vocabulary.

    A server that reports less has cut the prompt, or leaves out what it had evaluated before.
    """
    return round(sum(count * _KINDS[kind].least for kind, count in units.items()) * _SURE)


def _gap(estimated: int, tokens: int) -> float:
    if estimated < tokens * _LOW:
        return tokens * _LOW - estimated
    return min(0.0, (tokens * _HIGH - estimated) / 2)


def _bounded(kind: str, factor: float) -> float:
    highest = _LONGEST_TEMPLATE if kind == "template" else _DEAREST
    return min(highest, max(_KINDS[kind].least / _KINDS[kind].most, factor))


def _script_of(code: int) -> str:
    return next(kind for start, kind in reversed(_SCRIPTS) if start <= code)


def _add_latin(paragraph: str, units: defaultdict[str, float]) -> None:
    """Counts what is of no other script; a paragraph is in one language, or code."""
    units["random"] += sum(map(len, filter(_is_random, _MAYBE_RANDOM.findall(paragraph))))
    paragraph = _MAYBE_RANDOM.sub(lambda run: " " if _is_random(run[0]) else run[0], paragraph)
    words, marks = _WORD.findall(paragraph), _MARKS.findall(paragraph)
    units["digit"] += len(_DIGIT.findall(paragraph))
    units["mark"] += 1 + len(_SPACE.findall(paragraph))
    # A run of marks is one token, a long one is more.
    units["mark"] += sum(0.6 + 0.4 * min(len(run), 4) for run in marks)
    if _is_english(words) or len(marks) > len(words) / 2:
        _add_words(words, units)
    else:
        units["letter"] += sum(map(_letters, words))


def _add_words(words: Iterable[str], units: defaultdict[str, float]) -> None:
    """English, and the names in code; of what is in capitals the vocabularies know little."""
    for part in (part for word in words for part in _PART_OF_WORD.findall(word)):
        if len(part) > 1 and part.isupper():
            units["letter"] += len(part)
        else:
            units["word"] += max(1.0, len(part) / 8)


def _letters(word: str) -> int:
    """A letter with a mark on it, of two bytes, stands for three."""
    return 2 * len(word.encode()) - len(word)


def _is_random(run: str) -> bool:
    """Whether letters and digits are mixed as in base64 and in hexadecimal numbers."""
    return 2 <= len(_DIGIT.findall(run)) <= len(run) - 2


def _is_english(words: list[str]) -> bool:
    return sum(word.lower() in _ENGLISH for word in words) > 0.15 * len(words)
