"""The instrument that `benchmarks/prediction.py` is: a busy machine proves nothing."""

import os
import sys

import pytest

from benchmarks import prediction
from llm_localrun.recommended import bandwidth
from llm_localrun.recommended.bandwidth import Rates
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
