"""How many tokens a second a model will generate: by what a token reads, and by what ran here."""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.errors import BadModelFile
from llm_localrun.gguf.header import Tensor
from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.recommended import speed
from llm_localrun.recommended.bandwidth import Rates
from llm_localrun.recommended.log import logged_runs, logged_speeds
from llm_localrun.recommended.speed import (
    Run,
    TokenCost,
    cost_of_file,
    expected_speed,
    speed_by,
)
from tests.conftest import Llm
from tests.support.contract import STARTER
from tests.support.gguf_files import Value, write
from tests.support.llm_log import WITHOUT_ANSWERS, write_without_answers

GB = 10**9
READS = {"F16": 20e9, "Q4_K": 10e9, "Q8_0": 8e9, "Q6_K": 5e9, "Q5_0": 4e9}
RATES = Rates(reads=READS, step=1e-6)

pytestmark = pytest.mark.usefixtures("user_path")


@pytest.mark.parametrize(
    ("cost", "seconds"),
    [
        (TokenCost(GB, quantization="F16"), 0.05),
        (TokenCost(GB, quantization="fp16"), 0.05),
        (TokenCost(GB, quantization="Q4_K_S"), 0.1),
        (TokenCost(GB, quantization="Q4_K_M"), 0.07 + 0.06),
        (TokenCost(GB, quantization="UD-Q4_K_XL"), 0.07 + 0.06),
        (TokenCost(GB, quantization="Q6_K"), 0.2),
        (TokenCost(GB, quantization="MXFP4_MOE"), 0.25),
        (TokenCost(GB), 0.25),
        (TokenCost(GB, GB, "F16"), 0.1),
        (TokenCost(GB, quantization="F16", layers=100), 0.05 + 100 * 110e-6),
        (TokenCost(GB, quantization="Q6_K", types={"Q4_K": GB // 2, "F16": GB // 2}), 0.075),
        (TokenCost(GB, quantization="Q4_K_M", width=1536), 0.07 + 0.06),
        # Blocks of 256 weights do not divide such a row.
        (TokenCost(GB, quantization="Q4_K_M", width=896), 0.7 / 4 + 0.3 / 8),
        (TokenCost(GB, quantization="Q6_K", width=896), 0.125),
        (TokenCost(GB, quantization="F16", width=896), 0.05),
    ],
    ids=str,
)
def test_seconds_of_a_token(cost: TokenCost, seconds: float) -> None:
    assert cost.seconds(RATES) == pytest.approx(seconds)
    assert speed_by(RATES, cost, ()) == pytest.approx(1 / seconds)


SMALL, LARGE = TokenCost(GB, quantization="F16"), TokenCost(10 * GB, quantization="F16")


@pytest.mark.parametrize(
    ("rates", "speeds", "expected"),
    [
        (RATES, [], 2),
        (RATES, [20], 2),  # as predicted
        (RATES, [10], 1),
        (RATES, [10, 40, 12], 1.2),  # the median
        (RATES, [1], 1),  # at least half of what is predicted
        (RATES, [90], 4),  # at most twice
        (None, [], None),
        (None, [50], 5),  # of a GPU only what ran there is known
        (None, [5000], 500),
    ],
    ids=str,
)
def test_what_ran_here_corrects(
    rates: Rates | None, speeds: list[float], expected: float | None
) -> None:
    runs = [Run(SMALL, tokens_per_second) for tokens_per_second in speeds]
    assert speed_by(rates, LARGE, runs) == pytest.approx(expected)


def test_nothing_is_known_of_a_model_that_reads_nothing() -> None:
    assert speed_by(RATES, TokenCost(0), ()) is None


def test_the_processor_is_not_measured_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "rates_of", lambda _machine: RATES)
    assert expected_speed(SMALL) == pytest.approx(20)
    assert expected_speed(SMALL, has_gpu=True) is None
    assert expected_speed(LARGE, [Run(SMALL, 500.0)], has_gpu=True) == pytest.approx(50)


def tensors(**types: int) -> list[Tensor]:
    """Tensors of 256 x 64 weights, with `__` for each `.` in their names."""
    return [Tensor(name.replace("__", "."), (256, 64), kind, 0) for name, kind in types.items()]


F16, Q8, Q4 = TensorType.F16, TensorType.Q8_0, TensorType.Q4_K
F16_BYTES, Q8_BYTES, Q4_BYTES = 256 * 64 * 2, 256 * 64 // 32 * 34, 64 * 144
EMBEDDINGS = tensors(token_embd__weight=F16)
LAYER = tensors(blk__0__attn_q__weight=Q4, blk__0__ffn_up_exps__weight=Q8)


@pytest.mark.parametrize(
    ("keys", "listed", "types"),
    [
        ({}, [*EMBEDDINGS, *LAYER], {"F16": F16_BYTES, "Q4_K": Q4_BYTES, "Q8_0": Q8_BYTES}),
        # The table is read whole only if it is the output matrix too.
        (
            {},
            [*EMBEDDINGS, *LAYER, *tensors(output__weight=Q4)],
            {"Q4_K": 2 * Q4_BYTES, "Q8_0": Q8_BYTES},
        ),
        (
            {"llama.expert_count": 8, "llama.expert_used_count": 2},
            [*LAYER, *tensors(output__weight=Q4)],
            {"Q4_K": 2 * Q4_BYTES, "Q8_0": Q8_BYTES // 4},
        ),
        (
            {},
            tensors(output__weight=Q4, per_layer_token_embd__weight=Q8, position_embd__weight=F16),
            {"Q4_K": Q4_BYTES},
        ),
        # A layer that predicts further tokens.
        (
            {"llama.block_count": 2, "llama.nextn_predict_layers": 1},
            [*LAYER, *tensors(output__weight=Q4, blk__1__attn_q__weight=Q4)],
            {"Q4_K": 2 * Q4_BYTES, "Q8_0": Q8_BYTES},
        ),
    ],
    ids=["tied", "untied", "experts", "tables", "further"],
)
def test_what_a_token_reads_of_a_file(
    tmp_path: Path, keys: dict[str, int], listed: list[Tensor], types: dict[str, int]
) -> None:
    path = tmp_path / "model.gguf"
    header: dict[str, Value] = {"general.architecture": "llama", "llama.block_count": 1, **keys}
    write(path, header, listed, {})
    cost = cost_of_file(str(path))
    assert (cost.types, cost.active_bytes, cost.layers) == (types, sum(types.values()), 1)


def test_real_models_read_less_than_they_weigh(coder_model: Path, starter_model: Path) -> None:
    coder, starter = cost_of_file(str(coder_model)), cost_of_file(str(starter_model))
    # The coder's table of embeddings is 94 MB; the starter's is its output matrix too.
    assert 391e6 < coder.active_bytes < 393e6 < coder_model.stat().st_size
    assert 96e6 < starter.active_bytes < 97e6
    assert (coder.layers, starter.layers) == (24, 30)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile):
        cost_of_file(str(tmp_path / "missing.gguf"))


COLUMNS = "model, response_json, options_json, input_tokens, output_tokens"


def log(user: Path, rows: Iterable[tuple[object, ...]], table: str = "turns") -> None:
    """Writes a log of llm, the oldest row first."""
    with sqlite3.connect(user / "logs.db") as database:
        database.execute(f"CREATE TABLE {table} (id TEXT PRIMARY KEY, {COLUMNS})")
        numbered = ((f"{number:026}", *row) for number, row in enumerate(rows))
        database.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?)", numbered)
    database.close()


def row(speed: object, model: object = "local/gguf/a", **changes: Any) -> tuple[object, ...]:
    logged = {"endpoint": changes.get("endpoint", "gguf"), "generation_tokens_per_second": speed}
    return (
        model,
        changes.get("json", json.dumps(logged)),
        changes.get("options", "{}"),
        changes.get("read", 30),
        changes.get("generated", 100),
    )


ODD_ROWS = {
    "a server": row(9, endpoint="ollama"),
    "a short answer": row(9, generated=3),
    "a long prompt": row(9, read=10_000),
    "guessed tokens": row(9, options='{"draft_model": "auto"}'),
    "no speed": row(None),
    "zero": row(0),
    "negative": row(-1),
    "not finite": row(float("inf")),
    "no number": row(float("nan")),
    "a text": row("9"),
    "a boolean": row(True),
    "no model": row(9, model=None),
    "no counts": row(9, read=None, generated=None),
    "no statistics": row(9, json=None),
    "broken JSON": row(9, json='{"endpoint": "gguf", '),
    "another value": row(9, json="[1]"),
    "a number": row(9, json=9),
    "bytes": row(9, json=b"\xff\xfe"),
}


@pytest.mark.parametrize("odd", ODD_ROWS.values(), ids=ODD_ROWS)
def test_an_odd_row_counts_for_nothing(user_path: Path, odd: tuple[object, ...]) -> None:
    log(user_path, [row(20), odd, row(30)])
    assert logged_speeds() == {"local/gguf/a": [30, 20]}


def test_the_newest_answers_of_each_model_count(user_path: Path) -> None:
    rows = [*(row(1000 + number) for number in range(9)), row(50, "local/gguf/b")]
    log(user_path, rows + [row(speed) for speed in (9, 1, 5, 2, 8)])
    assert logged_speeds() == {"local/gguf/a": [8, 2, 5, 1, 9], "local/gguf/b": [50]}


def test_of_a_long_log_only_the_end_is_read(user_path: Path) -> None:
    log(user_path, [row(7, "local/gguf/old"), *(row(20) for _ in range(1000))])
    assert logged_speeds() == {"local/gguf/a": [20] * 5}


def test_the_log_of_an_older_llm(user_path: Path) -> None:
    log(user_path, [row(20)], "responses")
    assert logged_speeds() == {"local/gguf/a": [20]}


@pytest.mark.parametrize("content", WITHOUT_ANSWERS)
def test_a_log_without_answers(user_path: Path, content: bytes | str | None) -> None:
    path = write_without_answers(user_path, content)
    assert logged_speeds() == {}
    assert path.exists() is (content is not None)


def test_runs_are_those_whose_files_are_here(
    user_path: Path, starter_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    models = {"starter": str(starter_model), "broken": str(broken)}
    log(user_path, [row(20, name) for name in ("gone", "starter", "broken") for _ in range(3)])
    assert logged_runs(models.get) == [Run(cost_of_file(str(starter_model)), 20)]


@pytest.mark.parametrize(
    ("speeds", "fastest"),
    [
        # A busy machine slows answers down; nothing makes one faster than the machine is.
        ([20, 4, 20], 20),
        ([4, 4, 20, 4, 4], 20),
        ([90, 4, 5, 6, 7, 8], 8),  # the oldest is not one of five
        ([4, 5], None),
        ([], None),
    ],
    ids=str,
)
def test_the_fastest_of_some_answers_counts(
    user_path: Path, starter_model: Path, speeds: list[float], fastest: float | None
) -> None:
    log(user_path, [row(speed, "starter") for speed in speeds])
    found = logged_runs({"starter": str(starter_model)}.get)
    assert [run.tokens_per_second for run in found] == ([fastest] if fastest else [])


def test_llm_logs_what_is_read(warm: Path, run_llm: Llm) -> None:
    options = ("-o", "max_tokens", "20", "-o", "temperature", "0")
    assert run_llm("-m", STARTER, *options, "Tell a long story.").returncode == 0
    assert logged_speeds()[STARTER][0] > 0
