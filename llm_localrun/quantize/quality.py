"""What quantizing has cost a model: how well two files of it predict the same text.

Perplexity is the exponential of the mean negative log-probability of the text's tokens: of how
many tokens the model is as unsure as if it had to guess among so many. Agreement is how often both
files find the same token likeliest. Vectors of embedding models are compared by their cosine.
"""

import math
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import TypeVar

from llm_localrun.chat import run
from llm_localrun.config import read_config
from llm_localrun.engine import launch
from llm_localrun.engine.launch import AcquiredSlot
from llm_localrun.engine.memory_check import ensure_fits
from llm_localrun.engine.settings import EngineLimits, engine_settings, read_limits
from llm_localrun.engine.slots import SlotContents
from llm_localrun.engine.state import EngineSettings
from llm_localrun.engine.stop import stop
from llm_localrun.errors import BadReply, ServerUnreachable
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.servers.kinds import kind_of
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.progress import Progress
from llm_localrun.wire import http, scoring
from llm_localrun.wire.response import decode_whole
from llm_localrun.wire.scoring import Score
from llm_localrun.wire.sse import Payload

_LEAD = 32
"""Tokens of a passage that are not scored: at a beginning, every model can only guess."""
_LENGTH = 160
_CONTEXT = 1024

_TOO_LARGE = "Close other programs before you measure what quantizing it has cost"

_END = re.compile(r"(?<=[.!?])\s+|\n+")
_SHORT = 20
"""Characters. Shorter texts say too little to be compared."""

_Decoded = TypeVar("_Decoded")


@dataclass(frozen=True, slots=True)
class TextLoss:
    """Over `tokens` tokens: perplexity before and after, and the share of equal first choices."""

    before: float
    after: float
    agreement: float
    tokens: int


@dataclass(frozen=True, slots=True)
class VectorLoss:
    """Over `texts` texts: the mean and the least cosine of the vectors before and after."""

    mean: float
    least: float
    texts: int


def passages() -> list[str]:
    """The text that all is measured on: prose, dialogue, code and instructions."""
    return (files("llm_localrun") / "quantize" / "quality.txt").read_text("utf-8").split("\n---\n")


def text_loss(before: LocalModel, after: LocalModel) -> Generator[Progress, None, TextLoss]:
    """Compares chat models. Raises a `LocalRunError`."""
    first = yield from _scores(before, 0)
    second = yield from _scores(after, 1)
    return compare(first, second)


def compare(before: Sequence[Score], after: Sequence[Score]) -> TextLoss:
    """The loss between two files' scores of the same tokens."""
    same = sum(a.likeliest == b.likeliest for a, b in zip(before, after, strict=True))
    return TextLoss(perplexity(before), perplexity(after), same / len(before), len(before))


def perplexity(scores: Sequence[Score]) -> float:
    return math.exp(-sum(score.logprob for score in scores) / len(scores))


def vector_loss(before: LocalModel, after: LocalModel) -> VectorLoss:
    """Compares embedding models. Raises a `LocalRunError`."""
    sentences = (text for passage in passages() for text in _END.split(passage))
    texts = [text for text in sentences if len(text) > _SHORT]
    for model in (before, after):
        _checked_settings(model)
    vectors = [run.embed(m, m.on_disk, texts, None) for m in (before, after) if m.on_disk]
    pairs = zip(*vectors, strict=True)
    cosines = [cosine(a, b) for a, b in pairs]
    return VectorLoss(sum(cosines) / len(cosines), min(cosines), len(cosines))


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def _scores(model: LocalModel, nth: int) -> Generator[Progress, None, list[Score]]:
    """The scores of every passage's tokens by the `nth` of two files.

    One token at a time: how the engine computes several at once depends on when they come, and so
    do the last digits of what it says.
    """
    scores: list[Score] = []
    with _engine(model) as engine:
        texts = [_tokens(engine, passage) for passage in passages()]
        total = sum(max(0, len(text) - _LEAD) for text in texts)
        for text in texts:
            for end in range(_LEAD + 1, len(text) + 1):
                yield Progress("Measuring", nth * total + len(scores), 2 * total, "tokens")
                scores.append(_score(engine, text[:end]))
    return scores


@contextmanager
def _engine(model: LocalModel) -> Iterator[AcquiredSlot]:
    """A slot in an engine for `model`. An engine that was started for this ends afterwards.

    Raises `NotEnoughMemory`, and what `find_or_start` raises.
    """
    assert model.on_disk is not None
    folder = engine_folder()
    settings, limits = _checked_settings(model, min(_CONTEXT, model.context_max or _CONTEXT))
    find = partial(
        launch.find_or_start,
        launch.EngineRequest(model.on_disk.path, model.name, settings),
        folder,
        keep_alive=0.0,
        limits=limits,
    )
    acquired = launch.acquire_slot(SlotContents(), folder, find)
    try:
        yield acquired
    except (BadReply, ServerUnreachable) as error:
        raise launch.diagnose(error, acquired.engine, folder) from None
    finally:
        acquired.slot.release()
        if acquired.is_new:
            stop(acquired.engine, folder)


def _checked_settings(
    model: LocalModel, context_size: int | None = None
) -> tuple[EngineSettings, EngineLimits]:
    """Settings and limits for an engine that there is memory for. Raises `NotEnoughMemory`."""
    assert model.on_disk is not None
    config = read_config()
    # The file alone: texts are scored without a template or a projector.
    route = OnDisk(path=model.on_disk.path)
    settings = engine_settings(model, route, {}, config, context_size=context_size)
    return ensure_fits(model, settings, read_limits(config), may_shrink=True, remedy=_TOO_LARGE)


def _tokens(acquired: AcquiredSlot, passage: str) -> tuple[int, ...]:
    body = scoring.encode_text(passage)
    return _asked(acquired, scoring.tokens_path, body, scoring.decode_tokens)[:_LENGTH]


def _score(acquired: AcquiredSlot, text: Sequence[int]) -> Score:
    """Of the last token of `text`."""
    body = scoring.encode_score(text[:-1], text[-1], acquired.slot.number)
    return _asked(acquired, scoring.score_path, body, scoring.decode_score)


def _asked(
    acquired: AcquiredSlot, path: str, body: Payload, decode: Callable[[Payload], _Decoded]
) -> _Decoded:
    engine, kind = acquired.engine, kind_of("engine")
    call = http.Call(engine.url + path, body, kind.title, kind.advice, engine.key)
    return decode_whole(kind.title, http.stream(call), decode, engine.key)
