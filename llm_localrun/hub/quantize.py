"""Quantizes a model's file: another file of the same model, whole or not at all.

The source is only read. What is half done has a name of its own beside the target's, and takes its
place when it is complete. Which program does the work is `quantizers`'s business.
"""

import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from llm_localrun.catalogue import LocalModel
from llm_localrun.engine import locks
from llm_localrun.errors import BadModelFile, QuantizeFailed
from llm_localrun.gguf.header import Header, NotGGUF, Tensor, read_header
from llm_localrun.gguf.names import (
    part_stems,
    quantization_in,
    with_quantization,
    without_quantization,
)
from llm_localrun.gguf.recipes import MIXES, NOT_COVERED, is_quantizable, shape_of, types_for
from llm_localrun.gguf.tensor_types import TensorType, type_name
from llm_localrun.hub.quantizers import Quantizer
from llm_localrun.places import home

PRECISE = frozenset({TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q8_0})
"""What a source's matrices may be stored in: quantizing what has been quantized loses twice."""
_SPARE = 2**26
"""Bytes that are to stay free on the disk."""
_STEP = re.compile(r"\[ *(\d+)/ *(\d+)\] ")
_REASON = re.compile(r"(?:error|failed to quantize): (?P<text>.+)")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be made, out of what, by whom."""

    source: Path
    """The first part of a split file."""
    target: Path
    projector: str
    quantization: str
    quantizer: Quantizer
    importance: Path | None
    threads: int


def target_for(model: LocalModel, quantization: str) -> Path:
    """Where the quantized file goes: its name says that it is the same model."""
    name = re.sub(r"[:\\]+", "-", model.name.rstrip("/").rpartition("/")[2])
    return home() / "models" / f"{with_quantization(name, quantization)}.gguf"


def tensors_of(path: Path) -> list[Tensor]:
    """The tensors of a file, all parts of it. Raises `BadModelFile`."""
    return [tensor for header in _headers(path) for tensor in header.tensors]


def check(plan: Plan, *, requantize: bool) -> None:
    """Raises a `LocalRunError` if what is planned cannot be done, or should not be.

    `requantize`: the user knows that quantizing what has been quantized before loses twice.
    """
    _check_quantization(plan)
    headers = _headers(plan.source)
    tensors = [tensor for header in headers for tensor in header.tensors]
    _check_source(plan, headers[0], tensors)
    stored = {tensor.type for tensor in tensors if is_quantizable(tensor)}
    if not requantize and not stored <= PRECISE:
        found = ", ".join(sorted(type_name(kind) for kind in stored - PRECISE))
        raise QuantizeFailed(
            f"{plan.source} has been quantized before ({found}), and would lose twice",
            "Take the model in F16, BF16, F32 or Q8_0, or give --requantize",
        )
    _check_room(plan.target, _size(plan, headers[0], tensors))


def run(plan: Plan) -> Generator[tuple[int, int], None, None]:
    """Makes the file; yields how many tensors are done, and of how many. Raises `QuantizeFailed`.

    Closing the iterator stops it and leaves nothing behind.
    """
    partial = plan.target.with_name(f".{plan.target.name}.partial")
    with _explained(plan.target):
        plan.target.parent.mkdir(parents=True, exist_ok=True)
        with locks.exclusive(plan.target.with_name(f".{plan.target.name}.lock"), timeout=0):
            try:
                yield from _make(plan, partial)
                _check_made(partial, plan)
                _put_down(partial)
                _place_projector(plan)
                partial.replace(plan.target)
            finally:
                partial.unlink(missing_ok=True)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise QuantizeFailed(f"another command is making {target}", "Wait for it") from None
    except OSError as error:
        raise QuantizeFailed(
            f"{target} cannot be written: {error.strerror}",
            "Make room there, or mend its permissions",
        ) from None


def _make(plan: Plan, partial: Path) -> Iterator[tuple[int, int]]:
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
            yield from _steps(process)
        finally:
            process.kill()


def _steps(process: "subprocess.Popen[str]") -> Iterator[tuple[int, int]]:
    """Follows a quantizer to its end."""
    assert process.stdout is not None
    last_lines: deque[str] = deque(maxlen=20)
    for line in process.stdout:
        last_lines.append(line)
        if step := _STEP.match(line):
            yield int(step[1]), int(step[2])
    if (status := process.wait()) != 0:
        raise QuantizeFailed(
            f"the model could not be quantized: {_reason(last_lines, status)}",
            "Nothing was changed",
        )


def _reason(last_lines: Iterable[str], status: int) -> str:
    """Why a quantizer gave up: the first error is the true one."""
    if status < 0:
        return f"the quantizer was killed (signal {-status}), perhaps for lack of memory"
    lines = [line.strip() for line in last_lines if line.strip()]
    reasons = [match["text"] for line in lines if (match := _REASON.search(line))]
    return (reasons or lines[-1:] or [f"the quantizer ended with status {status}"])[0]


# What is looked at before.


def _headers(path: Path) -> list[Header]:
    parts = [path.with_name(f"{stem}{path.suffix}") for stem in part_stems(path.stem)]
    return [_header(part) for part in parts]


def _header(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            return read_header(file, path.stat().st_size)
    except NotGGUF as error:
        raise BadModelFile(
            f"{path} is no GGUF model: {error}", "Fetch it again, or choose another file"
        ) from None
    except OSError as error:
        raise BadModelFile(f"{path} cannot be read: {error.strerror}", "Choose another") from None


def _check_quantization(plan: Plan) -> None:
    if plan.quantization not in plan.quantizer.types:
        raise QuantizeFailed(
            f"what quantizes here ({plan.quantizer.title}) cannot make {plan.quantization}",
            f"It can make {', '.join(plan.quantizer.types)}",
        )
    if plan.target.exists() and plan.target.samefile(plan.source):
        raise QuantizeFailed(f"{plan.source} is the {plan.quantization} already", "Use it")


def _check_source(plan: Plan, header: Header, tensors: list[Tensor]) -> None:
    if header.is_big_endian or any(tensor.size is None for tensor in tensors):
        raise QuantizeFailed(
            f"{plan.source} is stored in a way that is not known here", "Choose another file"
        )
    if not any(map(is_quantizable, tensors)):
        raise QuantizeFailed(f"{plan.source} holds no weights to quantize", "Choose another file")
    if plan.quantizer.follows_recipes and header.architecture in NOT_COVERED:
        raise QuantizeFailed(
            f"models of the architecture {header.architecture} need rules of their own",
            "Install llama.cpp: its llama-quantize knows them",
        )


def _size(plan: Plan, header: Header, tensors: list[Tensor]) -> int:
    """Bytes that the result will take; those of the source where that cannot be told."""
    if plan.quantization not in MIXES:
        return sum(tensor.size or 0 for tensor in tensors)
    types = types_for(
        plan.quantization, tensors, shape_of(header), has_importance=plan.importance is not None
    )
    return sum(replace(t, type=types[t.name]).size or 0 for t in tensors) + header.data_start


def _check_room(target: Path, size: int) -> None:
    folder = next(parent for parent in target.parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE:
        raise QuantizeFailed(
            f"the result takes {size / 1e6:,.0f} MB, and {folder} has {free / 1e6:,.0f} MB free",
            "Make room there",
        )


# What is looked at afterwards.


def _check_made(partial: Path, plan: Plan) -> None:
    """A quantizer's word that all went well is not enough to take its file for a model."""
    made, wanted = ({t.name for t in tensors_of(path)} for path in (partial, plan.source))
    if made != wanted:
        raise QuantizeFailed(
            f"what {plan.quantizer.title} made lacks a part of the model", "Try again"
        )


def _put_down(partial: Path) -> None:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())


def _place_projector(plan: Plan) -> None:
    """What lets the model see is found beside it: the same file gets a second name there."""
    projector = Path(plan.projector)
    if not plan.projector or projector.parent == plan.target.parent:
        return
    precision = quantization_in(projector.stem) or "F16"
    beside = plan.target.with_name(
        f"mmproj-{without_quantization(plan.target.stem)}-{precision}.gguf"
    )
    if beside.exists():
        return
    try:
        beside.hardlink_to(projector.resolve())
    except OSError:
        # Another disk, or one that knows no links.
        shutil.copyfile(projector, beside)
