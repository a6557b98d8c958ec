"""Measuring the loss: scores are compared with the engine's probabilities of all tokens."""

import math
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from llm_localrun.engine.launch import AcquiredSlot
from llm_localrun.engine.serve import engine_server
from llm_localrun.engine.state import list_running
from llm_localrun.models import LocalModel
from llm_localrun.quantize import quality
from llm_localrun.quantize.quality import TextLoss
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.progress import Progress
from llm_localrun.wire import http, scoring
from llm_localrun.wire.response import ResponseContext, decode_whole
from llm_localrun.wire.scoring import Score
from llm_localrun.wire.shapes import ErrorReported
from tests.conftest import PASSAGE
from tests.support.drive import failure
from tests.support.models import local_model
from tests.support.quantizing import make, plan_for

_Result = TypeVar("_Result")


def model_at(path: Path, **known: Any) -> LocalModel:
    return local_model(id=f"local/gguf/{path.stem}", name=path.stem, path=str(path), **known)


def at_last(steps: Generator[Progress, None, _Result]) -> tuple[list[int], _Result]:
    """The progress of each step, and the result."""
    done = []
    while True:
        try:
            done.append(next(steps).done)
        except StopIteration as end:
            result: _Result = end.value
            return done, result


def probabilities(seated: AcquiredSlot, before: tuple[int, ...]) -> dict[int, float]:
    """The engine's log-probability of every token, by id."""
    engine = seated.engine
    body = {"prompt": list(before), "n_predict": 1, "n_probs": 10**6, "temperature": 0}
    request = engine_server(engine).http_request("POST", "/completion", body)
    payload = decode_whole("it", http.stream(request), lambda payload: payload, ResponseContext())
    (generated,) = payload["completion_probabilities"]
    return {token["id"]: token["logprob"] for token in generated["top_logprobs"]}


def test_scores_are_those_of_the_whole_vocabulary(starter_model: Path) -> None:
    with quality._engine(model_at(starter_model)) as engine:
        tokens = quality._tokens(engine, PASSAGE)
        assert len(tokens) == 46
        for end in (2, 11, 12, 39):
            of_all = probabilities(engine, tokens[:end])
            assert len(of_all) == 49_152
            assert sum(map(math.exp, of_all.values())) == pytest.approx(1, abs=1e-3)
            score = quality._score(engine, tokens[: end + 1])
            assert score.logprob == pytest.approx(of_all[tokens[end]], abs=1e-4)
            assert score.likeliest == max(of_all, key=lambda token: of_all[token])


def test_loss_of_the_starter(short: None, starter_model: Path) -> None:
    coarse = make(plan_for(starter_model, "Q2_K"))
    models = model_at(starter_model, context_max=8192), model_at(coarse, context_max=8192)
    done, loss = at_last(quality.text_loss(*models))
    assert done == list(range(28))
    assert loss.tokens == 14
    assert loss.after > loss.before > 1
    assert 0 < loss.agreement < 1
    # The result is reproducible, and a file has no loss compared with itself.
    _, same = at_last(quality.text_loss(models[0], models[0]))
    assert same == TextLoss(loss.before, loss.before, 1.0, 14)


def test_engines_end_afterwards(short: None, starter_model: Path) -> None:
    with quality._engine(model_at(starter_model)):
        (engine,) = list_running(engine_folder())
    assert engine.spec.context_size == 1024
    assert list_running(engine_folder()) == []


def test_loss_of_an_embedding_model(short: None, embedding_model: Path) -> None:
    before = model_at(embedding_model, purpose="embedding", context_max=512)
    losses = []
    for quantization in ("Q8_0", "Q4_0"):
        made = make(plan_for(embedding_model, quantization))
        losses.append(
            quality.vector_loss(before, model_at(made, purpose="embedding", context_max=512))
        )
    fine, coarse = losses
    assert fine.texts == coarse.texts == 3
    assert 1 > fine.mean > fine.least > 0.995
    assert fine.mean > coarse.mean > coarse.least > 0.8
    none = quality.vector_loss(before, before)
    assert none.least == pytest.approx(1)


def test_compare_and_cosine() -> None:
    before = [Score(math.log(1 / 2), 7), Score(math.log(1 / 8), 3)]
    after = [Score(math.log(1 / 4), 7), Score(math.log(1 / 16), 5)]
    loss = quality.compare(before, after)
    assert loss.before == pytest.approx(4)
    assert loss.after == pytest.approx(8)
    assert (loss.agreement, loss.tokens) == (0.5, 2)
    assert quality.cosine((1, 0), (1, 1)) == pytest.approx(math.sqrt(1 / 2))
    assert quality.cosine((0, 0), (1, 1)) == 0


def test_passages_have_enough_tokens(starter_model: Path) -> None:
    with quality._engine(model_at(starter_model)) as engine:
        assert [len(quality._tokens(engine, text)) for text in quality.passages()] == [160] * 4


@pytest.mark.parametrize("logprob", [-200, -3.4028234663852886e38])
def test_smallest_probability(logprob: float) -> None:
    token = {"id": 1, "logprob": logprob, "top_logprobs": [{"id": 2, "logprob": -0.1}]}
    score = scoring.decode_score({"completion_probabilities": [token]})
    assert score == Score(math.log(2.0**-126), 2)


def test_errors_of_the_server() -> None:
    with pytest.raises(ErrorReported, match="no such slot"):
        scoring.decode_score({"error": {"message": "no such slot"}})
    with pytest.raises(ErrorReported, match="broken"):
        scoring.decode_tokens({"error": "broken"})


def test_damaged_file(short: None, starter_model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(starter_model.read_bytes()[:-1000])
    said = failure(lambda: at_last(quality.text_loss(model_at(damaged), model_at(damaged))))
    assert "is not a GGUF model: it is cut off" in said
