"""Quantizes files in tests, with the engine's own ggml."""

from dataclasses import replace
from pathlib import Path

from llm_localrun.quantize import tools
from llm_localrun.quantize.plan import QuantizePlan, check
from llm_localrun.quantize.run import run
from llm_localrun.quantize.tools import Quantizer
from llm_localrun.system.paths import models_folder


def _engine_quantizer() -> Quantizer:
    quantizer = tools.xllamacpp_quantizer()
    assert quantizer is not None
    return quantizer


ENGINE = _engine_quantizer()


def plan_for(source: Path, quantization: str, **changes: object) -> QuantizePlan:
    """The command's plan for a file without a projector, with `changes` to its fields."""
    plan = QuantizePlan(
        source=source,
        target=models_folder() / f"made.{quantization}.gguf",
        projector="",
        quantization=quantization,
        quantizer=ENGINE,
        importance=None,
        threads=2,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


def make(plan: QuantizePlan) -> Path:
    """Carries out `plan`, also for a quantized source. Returns the file that it makes."""
    check(plan, requantize=True)
    for _ in run(plan):
        pass
    return plan.target
