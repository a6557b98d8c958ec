"""How likely a model finds the next token of a text, as llama.cpp's own server tells it.

That server gives probabilities for tokens that it generates, none for those of a prompt. So the
token that stands in the text is made to be generated, by a bias that nothing outweighs: what is
reported (`post_sampling_probs` is off) is what the model said before any bias (b11549).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from llm_localrun.wire.shapes import WireModel, error_in
from llm_localrun.wire.sse import Payload

tokens_path = "/tokenize"
score_path = "/completion"

_CERTAIN = 1e6
_LEAST = math.log(2.0**-126)
"""The server's numbers are 32-bit floats: what is less likely is reported as impossible."""


@dataclass(frozen=True, slots=True)
class Score:
    """The natural logarithm of a token's probability; the token that was found likeliest."""

    logprob: float
    likeliest: int


class _Tokens(WireModel):
    tokens: tuple[int, ...]


class _Token(WireModel):
    id: int
    logprob: float


class _Generated(_Token):
    top_logprobs: tuple[_Token, ...] = Field(min_length=1)


class _Completion(WireModel):
    completion_probabilities: tuple[_Generated, ...] = Field(min_length=1)


def encode_text(text: str) -> Payload:
    """The body of POST /tokenize: with what the model wants to begin with, if it does."""
    return {"content": text, "add_special": True}


def decode_tokens(payload: Payload) -> tuple[int, ...]:
    """Raises like `Decoder.feed` of the dialects."""
    if error := error_in(payload):
        raise error
    return _Tokens.model_validate(payload).tokens


def encode_score(before: Sequence[int], token: int, slot: int) -> Payload:
    """The body of POST /completion: how likely is `token` after those `before`?"""
    return {
        "prompt": list(before),
        "n_predict": 1,
        "n_probs": 1,
        "temperature": 0,
        "logit_bias": [[token, _CERTAIN]],
        "cache_prompt": True,
        "id_slot": slot,
    }


def decode_score(payload: Payload) -> Score:
    """Raises like `Decoder.feed` of the dialects."""
    if error := error_in(payload):
        raise error
    generated = _Completion.model_validate(payload).completion_probabilities[0]
    return Score(max(generated.logprob, _LEAST), generated.top_logprobs[0].id)
