"""Quantizes a model's file: another file of the same model, whole or not at all.

The source is only read. What is half done lies in the folder for that, and takes its place when it
is complete. Which program does the work is `quantizers`'s business.
"""

import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

from llm_localrun.errors import QuantizeFailed
from llm_localrun.names.quantizations import quantization_in, without_quantization
from llm_localrun.pull.checksum import sha256_of
from llm_localrun.pull.folder import models_folder, partial_folder
from llm_localrun.pull.records import QUANTIZED, Pulled, PulledFile, keep
from llm_localrun.quantize.plan import Plan, tensors_of
from llm_localrun.system import locks
from llm_localrun.system.progress import Progress

_STEP = re.compile(r"\[ *(\d+)/ *\d+\] ")
_REASON = re.compile(r"(?:error|failed to quantize): (?P<text>.+)")


def run(plan: Plan) -> Generator[Progress, None, None]:
    """Makes the file. Raises `QuantizeFailed`.

    Closing the iterator stops it and leaves nothing behind.
    """
    partial = partial_folder() / f"{plan.target.name}.part"
    with _explained(plan.target):
        partial.parent.mkdir(parents=True, exist_ok=True)
        with locks.exclusive(partial.with_suffix(".lock"), timeout=0):
            try:
                yield from _make(plan, partial)
                _check_made(partial, plan)
                _put_down(partial)
                made = [plan.target, *_place_projector(plan)]
                partial.replace(plan.target)
            finally:
                partial.unlink(missing_ok=True)
        yield Progress("Noting what was made")
        keep(_record(made), models_folder())


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise QuantizeFailed(f"Another command is making {target}", "Wait for it") from None
    except OSError as error:
        raise QuantizeFailed.from_os_error("written", target, error) from None


def _make(plan: Plan, partial: Path) -> Iterator[Progress]:
    importance = ["--imatrix", str(plan.importance)] if plan.importance else []
    files = [str(plan.source.absolute()), str(partial)]
    with subprocess.Popen(
        [*plan.quantizer.command, *importance, *files, plan.quantization, str(plan.threads)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Without it a failed assertion of ggml's spends ten seconds in gdb (b11549).
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    ) as process:
        try:
            sizes = [tensor.size or 0 for tensor in tensors_of(plan.source)]
            done = [0, *accumulate(sizes)]
            for number in _steps(process):
                yield Progress("Quantizing", done[min(number, len(sizes))], done[-1])
        finally:
            process.kill()


def _steps(process: "subprocess.Popen[str]") -> Iterator[int]:
    """Follows a quantizer to its end; yields how many tensors are done."""
    assert process.stdout is not None
    last_lines: deque[str] = deque(maxlen=20)
    for line in process.stdout:
        last_lines.append(line)
        if step := _STEP.match(line):
            yield int(step[1])
    if (status := process.wait()) != 0:
        raise QuantizeFailed(
            f"The model could not be quantized: {_reason(last_lines, status)}",
            "Nothing was changed",
        )


def _reason(last_lines: Iterable[str], status: int) -> str:
    """Why a quantizer gave up: the first error is the true one."""
    if status < 0:
        return f"the quantizer was killed (signal {-status}), perhaps for lack of memory"
    lines = [line.strip() for line in last_lines if line.strip()]
    reasons = [match["text"] for line in lines if (match := _REASON.search(line))]
    return (reasons or lines[-1:] or [f"the quantizer ended with status {status}"])[0]


# What is looked at afterwards.


def _check_made(partial: Path, plan: Plan) -> None:
    """A quantizer's word that all went well is not enough to take its file for a model."""
    made, wanted = ({t.name for t in tensors_of(path)} for path in (partial, plan.source))
    if made != wanted:
        raise QuantizeFailed(
            f"What {plan.quantizer.title} made lacks a part of the model", "Try again"
        )


def _put_down(partial: Path) -> None:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())


def _place_projector(plan: Plan) -> list[Path]:
    """What lets the model see is found beside it: the same file gets a second name there."""
    projector = Path(plan.projector)
    if not plan.projector or projector.parent == plan.target.parent:
        return []
    precision = quantization_in(projector.stem) or "F16"
    beside = plan.target.with_name(
        f"mmproj-{without_quantization(plan.target.stem)}-{precision}.gguf"
    )
    if beside.exists():
        return [beside]
    try:
        beside.hardlink_to(projector.resolve())
    except OSError:
        # Another disk, or one that knows no links.
        shutil.copyfile(projector, beside)
    return [beside]


def _record(made: list[Path]) -> Pulled:
    """By which `rm` knows that the files are ours, and `verify` what they have to be."""
    files = (
        PulledFile(path=path.name, size=path.stat().st_size, sha256=sha256_of(path))
        for path in made
    )
    return Pulled(ref=f"{QUANTIZED}:{made[0].name}", source=QUANTIZED, files=tuple(files))
