"""Estimates how many tokens a text takes, without the vocabulary of the model. Pure.

It divides the bytes of each script by the bytes that one token holds with the most expensive
vocabulary measured. The result is too high rather than too low, because a server may cut a prompt
that does not fit. `learn` brings it closer to what the server counts. A model has one factor for
each script instead of one for all: Qwen3 takes a third of the estimate for Chinese and 80 % for
Hindi, so that one factor learned from Chinese would leave Hindi at less than half of its tokens.
Keeping what was learned is left to `learned`.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Parts: TypeAlias = Mapping[str, float]
"""Tokens by script with the most expensive vocabulary: `{"english": 320.1, "mark": 58.0}`."""
Factors: TypeAlias = Mapping[str, float]
"""What a model takes of its `Parts`, 1 for scripts that are left out: `{"CJK": 0.52}`."""

# Bytes that a token holds with the most expensive and with the cheapest of nine vocabularies, from
# 32,000 (Llama 2) to 262,144 tokens (Gemma 3), measured on the texts of `tests/support/corpus.py`.
# The names in capitals are those of Unicode.
_BYTES_PER_TOKEN = {
    "english": (7.0, 8.0),  # words and identifiers; each counts as 8 bytes at least
    "letter": (2.0, 3.3),  # in words of other languages, and in capitals
    "random": (1.06, 1.25),  # base64, hexadecimal: 8 letters and digits, at least two of each
    "digit": (0.97, 3.0),
    "mark": (1.0, 1.1),  # punctuation and white space
    "template": (1.0, 8.0),  # what a template puts around the texts; in tokens, not bytes
    "media": (1.0, 25.0),  # images and sounds; in tokens, not bytes
    "PUNCTUATION": (3.0, 10.0),  # typographic quotation marks, dashes
    "GREEK": (1.6, 5.0),
    "CYRILLIC": (1.9, 5.7),
    "HEBREW": (1.38, 4.4),
    "ARABIC": (1.6, 5.0),
    "DEVANAGARI": (2.0, 10.0),
    "THAI": (1.53, 7.5),
    "CJK": (1.5, 5.0),  # Chinese and Japanese
    "HANGUL": (1.03, 4.3),
    "EMOJI": (1.2, 3.1),
    "OTHER": (1.0, 3.3),
}
_UNMEASURED = (1.0, 12.0)  # No vocabulary takes more than one token for a byte.

_MARGIN = 1.6  # A factor below 1 stays so far above what was counted: other texts take more.
_SURPLUS = 1.05  # The same for a factor above 1.
_LOWEST_FACTORS = {"template": 1.0, "media": 0.4, "CJK": 0.4, "OTHER": 1.0}  # They vary most.
_HIGHEST_FACTORS = {"template": 40.0, "media": 40.0}  # 1.5 for scripts
_SAFETY_FACTOR = 0.6  # On the lower bounds by script.

_PIECE = re.compile(
    r"(?P<random>(?<![A-Za-z0-9+/])(?=([A-Za-z+/]*[0-9]){2})(?=([0-9]*[A-Za-z+/]){2})[A-Za-z0-9+/]{8,})"
    r"|(?P<letter>[A-Z]{2,}(?![a-z]))|(?P<word>[A-Z]?[a-z]+|[A-Z])|(?P<digit>[0-9]+)"
    # An indentation is one token, and so is a space that vocabularies do not join with a word.
    r"|(?P<mark>[!-/:-@\[-`{-~]+)|(?P<space>[\n\t]|(?<=\s) +| (?=[0-9\u0980-\u9fff]))"
)
_MARK_OF_CODE = re.compile(r"[()\[\]{}<>=;_/\\|&$#*+@]+")
_ENGLISH = re.compile(
    r"\b(a|about|all|an|and|are|as|at|be|but|by|can|do|each|for|from|had|have|he|his|how|if|in|is|it"
    r"|not|of|on|or|said|that|the|their|there|they|this|to|up|was|we|were|what|when|which|will|with"
    r"|you|your)\b"
)


def parts_of(texts: Iterable[str]) -> dict[str, float]:
    """The tokens of `texts` by script, with the most expensive vocabulary."""
    sizes: defaultdict[str, float] = defaultdict(float)
    for text in texts:
        for paragraph in text.split("\n\n"):
            _add_ascii(paragraph, sizes)
        for character, count in Counter(re.findall("[^\x00-\x7f]", text)).items():
            sizes[_script_of(character)] += count * len(character.encode("utf-8", "replace"))
    return {s: size / _BYTES_PER_TOKEN.get(s, _UNMEASURED)[0] for s, size in sizes.items()}


def estimate(parts: Parts, factors: Factors) -> int:
    """The tokens of a prompt, with the factors learned of the model."""
    return round(sum(tokens * factors.get(script, 1.0) for script, tokens in parts.items()))


def least_plausible(parts: Parts) -> int:
    """Fewer tokens than a prompt takes with any vocabulary.

    A server that counts fewer has cut the prompt, or leaves out the part that it had cached.
    """
    return round(_SAFETY_FACTOR * sum(size * _least(script) for script, size in parts.items()))


def learn(factors: Factors, parts: Parts, counted: int) -> Factors:
    """The factors after a server has counted the tokens of a prompt.

    If the estimate was too low, the factors of the largest parts rise until it is not. Otherwise
    those fall that are too high even if their script took all the tokens, half of the way each
    time, because one text may be unusual.
    """
    moved, missing = dict(factors), _SURPLUS * counted - estimate(parts, factors)
    is_too_low = counted > estimate(parts, factors)
    for script in sorted(filter(parts.get, parts), key=parts.__getitem__, reverse=True):
        factor, target = factors.get(script, 1.0), _target(script, counted / parts[script])
        if is_too_low and missing >= 1:
            highest = _HIGHEST_FACTORS.get(script, 1.5)
            moved[script] = min(highest, factor + missing / parts[script])
            missing -= (moved[script] - factor) * parts[script]
        elif not is_too_low and target < factor:
            moved[script] = round((factor + target) / 2 + 0.004, 2)
    return moved


def _target(script: str, share: float) -> float:
    """The factor of a script if it took this share of its part."""
    lowest = _LOWEST_FACTORS.get(script, _least(script))
    return max(lowest, min(1.0, _MARGIN * share), _SURPLUS * share)


def _least(script: str) -> float:
    """The fewest tokens, as a share of the most."""
    fewest, most = _BYTES_PER_TOKEN.get(script, _UNMEASURED)
    return fewest / most


def _add_ascii(paragraph: str, sizes: defaultdict[str, float]) -> None:
    """Adds the ASCII characters of a paragraph, which is in one language or code."""
    words = []
    sizes["mark"] += 1
    for piece in _PIECE.finditer(paragraph):
        kind, text = str(piece.lastgroup), piece[0]
        if kind == "word":
            words.append(text)
        elif kind in ("mark", "space"):
            tokens = 1.0 if kind == "space" else 0.6 + 0.4 * min(len(text), 4)
            sizes["mark"] += max(tokens, len(text) / 16)
        else:
            sizes[kind] += len(text)
    marks, english = len(_MARK_OF_CODE.findall(paragraph)), len(_ENGLISH.findall(paragraph))
    if marks > 0.4 * len(words) or english > 0.15 * len(words):
        sizes["english"] += sum(max(8, len(word)) for word in words)
    else:
        sizes["letter"] += sum(map(len, words))


def _script_of(character: str) -> str:
    """The first word of a letter's name in Unicode: `CYRILLIC`; for others, what they are."""
    category = unicodedata.category(character)
    if "\u3000" <= character <= "\u9fff" or (category[0] == "P" and character > "\u3000"):
        return "CJK"
    if category[0] in "LM":
        return unicodedata.name(character, "OTHER").partition(" ")[0]
    return {"P": "PUNCTUATION", "S": "EMOJI"}.get(category[0], "OTHER")
