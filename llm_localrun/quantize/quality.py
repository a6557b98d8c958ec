"""Measures the quality that quantizing costs: how well two files of a model predict the same text.

Perplexity is the exponential of the mean negative log-probability of the text's tokens; lower is
better. Agreement is the share of tokens for which both files have the same likeliest token. The
vectors of embedding models are compared by their cosine. Starting the engines is left to
`engine.launch`, showing the loss to `cli`.
"""

import math
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import TypeVar

from llm_localrun.chat.embed import embed
from llm_localrun.config import read_config
from llm_localrun.engine import launch
from llm_localrun.engine.launch import AcquiredSlot
from llm_localrun.engine.memory_check import ensure_fits
from llm_localrun.engine.serve import engine_server
from llm_localrun.engine.settings import EngineRequest, engine_request
from llm_localrun.engine.slots import SlotContents
from llm_localrun.engine.stop import stop_if_idle
from llm_localrun.errors import BadReply, ServerUnreachable
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.progress import Progress
from llm_localrun.wire import http, scoring
from llm_localrun.wire.response import decode_whole
from llm_localrun.wire.scoring import Score
from llm_localrun.wire.sse import Payload

_UNSCORED_TOKENS = 32
"""At the start of a passage, where every model can only guess."""
_PASSAGE_TOKENS = 160
_CONTEXT_TOKENS = 1024

_TOO_LARGE = "Close other programs before you measure what quantizing it has cost"

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_MIN_TEXT_LENGTH = 20
"""Characters. Vectors of shorter texts say too little."""

_Decoded = TypeVar("_Decoded")


@dataclass(frozen=True, slots=True)
class TextLoss:
    """The loss over `tokens` tokens: perplexity before and after, and the agreement, 0 to 1."""

    before: float
    after: float
    agreement: float
    tokens: int


@dataclass(frozen=True, slots=True)
class VectorLoss:
    """The loss over `texts` texts: mean and least cosine of the vectors before and after."""

    mean: float
    least: float
    texts: int


def passages() -> list[str]:
    """The passages to measure with: prose, dialogue, code and instructions."""
    return (files("llm_localrun") / "quantize" / "quality.txt").read_text("utf-8").split("\n---\n")


def text_loss(before: LocalModel, after: LocalModel) -> Generator[Progress, None, TextLoss]:
    """Compares two files of a chat model. Raises a `LocalRunError`."""
    first = yield from _scores(before, 0)
    second = yield from _scores(after, 1)
    return compare(first, second)


def compare(before: Sequence[Score], after: Sequence[Score]) -> TextLoss:
    """The loss from two files' scores of the same tokens."""
    same = sum(a.likeliest == b.likeliest for a, b in zip(before, after, strict=True))
    return TextLoss(perplexity(before), perplexity(after), same / len(before), len(before))


def perplexity(scores: Sequence[Score]) -> float:
    """The perplexity of the text that `scores` are for."""
    return math.exp(-sum(score.logprob for score in scores) / len(scores))


def vector_loss(before: LocalModel, after: LocalModel) -> VectorLoss:
    """Compares two files of an embedding model. Raises a `LocalRunError`."""
    sentences = (text for passage in passages() for text in _SENTENCE_END.split(passage))
    texts = [text for text in sentences if len(text) > _MIN_TEXT_LENGTH]
    for model in (before, after):
        _checked_request(model)
    vectors = [list(embed(m, m.on_disk, texts, None)) for m in (before, after) if m.on_disk]
    cosines = [cosine(a, b) for a, b in zip(*vectors, strict=True)]
    return VectorLoss(sum(cosines) / len(cosines), min(cosines), len(cosines))


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """The cosine of the angle between two vectors; 0 if one has no length."""
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def _scores(model: LocalModel, nth: int) -> Generator[Progress, None, list[Score]]:
    """The scores of every passage's tokens in the `nth` of two files, 0 or 1.

    Tokens are scored one at a time: in a batch, the last digits would depend on when the requests
    arrive.
    """
    scores: list[Score] = []
    with _engine(model) as engine:
        texts = [_tokens(engine, passage) for passage in passages()]
        total = sum(max(0, len(text) - _UNSCORED_TOKENS) for text in texts)
        for text in texts:
            for end in range(_UNSCORED_TOKENS + 1, len(text) + 1):
                yield Progress("Measuring", nth * total + len(scores), 2 * total, "tokens")
                scores.append(_score(engine, text[:end]))
    return scores


@contextmanager
def _engine(model: LocalModel) -> Iterator[AcquiredSlot]:
    """A slot in an engine for `model`. An engine that was started for this ends afterwards.

    Raises `NotEnoughMemory`, and what `find_or_start` raises.
    """
    folder = engine_folder()
    context_size = min(_CONTEXT_TOKENS, model.context_max or _CONTEXT_TOKENS)
    request = _checked_request(model, context_size)
    find = partial(launch.find_or_start, request, folder, keep_alive=0.0)
    acquired = launch.acquire_slot(SlotContents(), folder, find)
    try:
        yield acquired
    except (BadReply, ServerUnreachable) as error:
        raise launch.diagnose(error, acquired.engine, folder, acquired.before) from None
    finally:
        acquired.slot.release()
        if acquired.is_new:
            stop_if_idle(acquired.engine, folder)


def _checked_request(model: LocalModel, context_size: int | None = None) -> EngineRequest:
    """The request for an engine that there is memory for. Raises `NotEnoughMemory`."""
    assert model.on_disk is not None
    # The file alone: texts are scored without a template or a projector.
    route = OnDisk(path=model.on_disk.path)
    request = engine_request(model, route, {}, read_config()).with_context(context_size)
    return ensure_fits(model, request, may_shrink=True, remedy=_TOO_LARGE)


def _tokens(acquired: AcquiredSlot, passage: str) -> tuple[int, ...]:
    body = scoring.encode_text(passage)
    return _request(acquired, scoring.tokens_path, body, scoring.decode_tokens)[:_PASSAGE_TOKENS]


def _score(acquired: AcquiredSlot, text: Sequence[int]) -> Score:
    """The score of the last token of `text`."""
    body = scoring.encode_score(text[:-1], text[-1], acquired.slot.number)
    return _request(acquired, scoring.score_path, body, scoring.decode_score)


def _request(
    acquired: AcquiredSlot, path: str, body: Payload, decode: Callable[[Payload], _Decoded]
) -> _Decoded:
    server = engine_server(acquired.engine)
    received = http.stream(server.http_request("POST", path, body))
    return decode_whole(server.label, received, decode, server.response_context)
