"""The instrument that `benchmarks/prediction.py` is: a busy machine proves nothing."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import prediction
from llm_localrun.recommended import bandwidth
from llm_localrun.recommended.bandwidth import Rates
from llm_localrun.recommended.models import ListedFile, RecommendedModel, listed_models
from llm_localrun.recommended.speed import TokenCost

COST = TokenCost(10**9, quantization="F16")


@pytest.mark.parametrize(
    ("load", "flags", "measured", "ended"),
    [
        (0.0, [], 20.0, 0),
        (0.0, [], 24.0, 0),
        (0.0, [], 25.5, 0),
        (0.0, [], 27.0, 1),
        (0.0, [], 15.9, 1),
        (1000.0, [], 20.0, "This machine is busy (load 1000.0): try again when it is idle"),
        (1000.0, ["--anyway"], 20.0, 0),
    ],
)
def test_within_25_percent_on_an_idle_machine(
    monkeypatch: pytest.MonkeyPatch,
    user_path: object,
    load: float,
    flags: list[str],
    measured: float,
    ended: int | str,
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load), raising=False)
    rates = Rates(reads={"F16": 20e9}, step=1e-6)
    monkeypatch.setattr(bandwidth, "measure", lambda _library, **_: rates)
    monkeypatch.setattr(prediction, "cost_of_file", lambda _path: COST)
    monkeypatch.setattr(prediction, "_measured", lambda _model: measured)
    monkeypatch.setattr(sys, "argv", ["prediction", __file__, *flags])
    with pytest.raises(SystemExit) as end:
        prediction.main()
    assert str(end.value.code).split(", or")[0] == str(ended)


LISTED = replace(listed_models()[0], files=(ListedFile(path="q4/a.gguf", size=1000),))


@pytest.mark.parametrize(
    ("name", "size", "by_list", "row", "ended"),
    [
        ("a.gguf", 1000, 2.0, "20.0 20.0 1.00 20.0 1.00", 0),
        ("a.gguf", 1000, 3.0, "20.0 20.0 1.00 13.3 0.67", 1),
        # Another file.
        ("a.gguf", 1001, 3.0, "20.0 20.0 1.00", 0),
        ("b.gguf", 1000, 3.0, "20.0 20.0 1.00", 0),
    ],
)
def test_what_the_list_predicts_has_to_be_within_25_percent_too(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    size: int,
    by_list: float,
    row: str,
    ended: int,
) -> None:
    (tmp_path / name).write_bytes(bytes(size))
    rates = Rates(reads={"F16": 20e9}, step=1e-6)

    def cost(model: RecommendedModel) -> TokenCost:
        assert model is LISTED
        return TokenCost(int(by_list / 2 * 10**9), quantization="F16")

    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    monkeypatch.setattr(bandwidth, "measure", lambda _library, **_: rates)
    monkeypatch.setattr(prediction, "cost_of_file", lambda _path: COST)
    monkeypatch.setattr(prediction, "cost_of", cost)
    monkeypatch.setattr(prediction, "listed_models", lambda: [LISTED])
    monkeypatch.setattr(prediction, "_measured", lambda _model: 20.0)
    monkeypatch.setattr(sys, "argv", ["prediction", str(tmp_path / name)])
    with pytest.raises(SystemExit) as end:
        prediction.main()
    shown = capsys.readouterr().out.splitlines()[1].split()
    assert (" ".join(shown[3:]), end.value.code) == (row, ended)
