"""What quantizing the starter model saves and costs: the table in docs/quantization.md.

    python benchmarks/quantize.py [--write]

Expands the starter model to F16 and quantizes that in a temporary folder, with the quantizer that
`llm localrun quantize` would choose. All engines run at the same time and are measured in turn, so
that other work on the machine affects them equally. --write puts the table into the document.
"""

import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from llm_localrun.engine import launch
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.state import EngineSettings, EngineState
from llm_localrun.engine.stop import stop
from llm_localrun.models import LocalModel
from llm_localrun.pull import starter, wheels
from llm_localrun.quantize import quality, tools
from llm_localrun.quantize.plan import QuantizePlan, check, target_for
from llm_localrun.quantize.quality import TextLoss
from llm_localrun.quantize.run import run
from llm_localrun.system.paths import models_folder
from llm_localrun.system.progress import Progress
from llm_localrun.wire import http
from llm_localrun.wire.response import ResponseContext, decode_whole
from tests.support.models import file_route, local_model

DOCUMENT = Path(__file__).parent.parent / "docs" / "quantization.md"
BETWEEN = re.compile(r"(?<=<!-- quantize -->\n\n).*(?=\n<!-- /quantize -->)", re.DOTALL)
COLUMNS = ("", "bytes", "memory", "tokens per second", "perplexity", "same most likely token")
QUANTIZATIONS = ("Q8_0", "Q4_K_M", "Q4_0")

_Result = TypeVar("_Result")

_THREADS = 1
_ROUNDS = 9
_ANSWER = 64
_PROMPT = "Once upon a time there was a lighthouse, and the man who kept it"


@dataclass
class Measured:
    """A file, and its measurements."""

    model: LocalModel
    loss: TextLoss
    memory: int = 0
    speeds: list[float] = field(default_factory=list)

    def row(self, nth: int) -> tuple[str, ...]:
        is_source = nth == 0
        return (
            self.model.quantization,
            f"{self.model.size:,}",
            f"{self.memory / 1e6:.0f} MB",
            f"{statistics.median(self.speeds):.1f}",
            f"{self.loss.before if is_source else self.loss.after:.3f}",
            "" if is_source else f"{self.loss.agreement:.1%}",
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLM_USER_PATH"] = folder
        (Path(folder) / "localrun").mkdir()
        (Path(folder) / "localrun" / "config.json").write_text(f'{{"threads": {_THREADS}}}')
        rows = list(_measure(Path(folder)))
    table = _caption() + "\n\n" + _as_table([COLUMNS, ("---",) * len(COLUMNS), *rows])
    sys.stdout.write(table)
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(BETWEEN.sub(lambda _: table, DOCUMENT.read_text("utf-8")), "utf-8")


def _measure(folder: Path) -> Iterator[tuple[str, ...]]:
    pulled = models_folder() / starter.FILE_NAME
    pulled.parent.mkdir()
    for _ in wheels.fetch(starter.TINY, pulled, pulled.parent / ".partial"):
        pass
    source = _make(_model_at(pulled), "F16")
    made = [_make(source, quantization) for quantization in QUANTIZATIONS]
    measured = [
        Measured(model, _result(quality.text_loss(source, model))) for model in (source, *made)
    ]
    with ExitStack() as stack:
        engines = [stack.enter_context(_running(each.model, folder)) for each in measured]
        for _ in range(_ROUNDS):
            for each, engine in zip(measured, engines, strict=True):
                each.speeds.append(_speed(engine))
        for each, engine in zip(measured, engines, strict=True):
            each.memory = psutil.Process(engine.pid).memory_info().rss
    return (each.row(nth) for nth, each in enumerate(measured))


def _make(model: LocalModel, quantization: str) -> LocalModel:
    quantizer = tools.find_quantizer()
    assert quantizer is not None
    plan = QuantizePlan(
        source=Path(file_route(model).path),
        target=target_for(model, quantization),
        projector="",
        quantization=quantization,
        quantizer=quantizer,
        importance=None,
        threads=os.cpu_count() or 1,
    )
    check(plan, requantize=True)
    _result(run(plan))
    return _model_at(plan.target)


def _model_at(path: Path) -> LocalModel:
    return local_model(
        id=path.stem,
        name=path.stem,
        path=str(path),
        quantization=path.stem.rpartition(".")[2],
        size=path.stat().st_size,
        context_max=8192,
    )


def _result(steps: Generator[Progress, None, _Result]) -> _Result:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result


@contextmanager
def _running(model: LocalModel, folder: Path) -> Iterator[EngineState]:
    settings = EngineSettings(context_size=1024, threads=_THREADS)
    request = EngineRequest(file_route(model).path, model.name, settings)
    engine, _ = launch.find_or_start(request, folder / "engine", keep_alive=600)
    try:
        yield engine
    finally:
        stop(engine, folder / "engine")


def _speed(engine: EngineState) -> float:
    """Tokens generated per second."""
    body = {"prompt": _PROMPT, "n_predict": _ANSWER, "ignore_eos": True, "temperature": 0}
    request = http.HttpRequest(f"{engine.url}/completion", body, "llama.cpp", "Wait", engine.key)
    payload = decode_whole(
        "llama.cpp", http.stream(request), lambda payload: payload, ResponseContext()
    )
    return float(payload["timings"]["predicted_per_second"])


def _caption() -> str:
    return (
        "SmolLM2-135M-Instruct, with its weights expanded to F16 as the source, measured by"
        f" `benchmarks/quantize.py` with {_THREADS} thread on a shared {platform.machine()} server."
        " Memory is that of the engine's process with a context of 1,024 tokens, including the"
        f" mapped file; speeds are those of generation, as medians of {_ROUNDS} rounds in turn."
    )


def _as_table(rows: list[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
