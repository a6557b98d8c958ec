"""How likely a model finds the next token of a text, according to llama.cpp's server.

The server reports probabilities for tokens that it generates, not for those of a prompt. So a bias
that outweighs everything makes it generate the token of the text. The probability that it reports
(`post_sampling_probs` is off) is the one before any bias (b11549). Which texts are scored is left
to `quantize.quality`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from llm_localrun.wire.shapes import WireModel, parse_payload
from llm_localrun.wire.sse import Payload

tokens_path = "/tokenize"
score_path = "/completion"

_BIAS = 1e6
_MIN_LOGPROB = math.log(2.0**-126)
"""The server's numbers are 32-bit floats: anything less likely is reported as impossible."""


@dataclass(frozen=True, slots=True)
class Score:
    """The natural logarithm of a token's probability, and the token that is likeliest."""

    logprob: float
    likeliest: int


class _Tokens(WireModel):
    tokens: tuple[int, ...]


class _ScoredToken(WireModel):
    id: int
    logprob: float


class _GeneratedToken(_ScoredToken):
    top_logprobs: tuple[_ScoredToken, ...] = Field(min_length=1)


class _ScoredCompletion(WireModel):
    completion_probabilities: tuple[_GeneratedToken, ...] = Field(min_length=1)


def encode_text(text: str) -> Payload:
    """The body of POST /tokenize, with the tokens that the model puts at the beginning."""
    return {"content": text, "add_special": True}


def decode_tokens(payload: Payload) -> tuple[int, ...]:
    """Raises like `parse_payload`."""
    return parse_payload(_Tokens, payload).tokens


def encode_score(before: Sequence[int], token: int, slot: int) -> Payload:
    """The body of POST /completion that asks how likely `token` is after those `before`."""
    return {
        "prompt": list(before),
        "n_predict": 1,
        "n_probs": 1,
        "temperature": 0,
        "logit_bias": [[token, _BIAS]],
        "cache_prompt": True,
        "id_slot": slot,
    }


def decode_score(payload: Payload) -> Score:
    """Raises like `parse_payload`."""
    generated = parse_payload(_ScoredCompletion, payload).completion_probabilities[0]
    return Score(max(generated.logprob, _MIN_LOGPROB), generated.top_logprobs[0].id)
