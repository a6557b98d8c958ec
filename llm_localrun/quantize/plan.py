"""What is to be quantized, into what, by whom; and whether that can be done, and should be."""

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from llm_localrun.errors import BadModelFile, QuantizeFailed
from llm_localrun.gguf.files import part_stems
from llm_localrun.gguf.header import Header, NotGGUF, Tensor, read_header
from llm_localrun.gguf.tensor_types import TensorType, type_name
from llm_localrun.models import LocalModel
from llm_localrun.names.quantizations import with_quantization
from llm_localrun.pull.folder import models_folder
from llm_localrun.quantize.recipes import (
    MIXES,
    NOT_COVERED,
    in_order,
    is_quantizable,
    shape_of,
    types_for,
)
from llm_localrun.quantize.tools import Quantizer

_PRECISE = frozenset({TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q8_0})
"""What a source's matrices may be stored in: quantizing what has been quantized loses twice."""
_SPARE = 2**26
"""Bytes that are to stay free on the disk."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be made. `source` is the first part of a split file; no `projector` is ""."""

    source: Path
    target: Path
    projector: str
    quantization: str
    quantizer: Quantizer
    importance: Path | None
    threads: int


def target_for(model: LocalModel, quantization: str) -> Path:
    """Where the quantized file goes: its name says that it is the same model."""
    name = re.sub(r"[:\\]+", "-", model.name.rstrip("/").rpartition("/")[2])
    return models_folder() / f"{with_quantization(name, quantization)}.gguf"


def tensors_of(path: Path) -> list[Tensor]:
    """The tensors of a file, all parts of it, in llama.cpp's order. Raises `BadModelFile`."""
    return in_order(tensor for header in _headers(path) for tensor in header.tensors)


def check(plan: Plan, *, requantize: bool) -> None:
    """Raises a `LocalRunError` if what is planned cannot be done, or should not be.

    `requantize`: the user knows that quantizing what has been quantized before loses twice.
    """
    _check_quantization(plan)
    headers = _headers(plan.source)
    tensors = [tensor for header in headers for tensor in header.tensors]
    _check_source(plan, headers[0], tensors)
    stored = {tensor.type for tensor in tensors if is_quantizable(tensor)}
    if not requantize and not stored <= _PRECISE:
        found = ", ".join(sorted(type_name(kind) for kind in stored - _PRECISE))
        raise QuantizeFailed(
            f"{plan.source} has been quantized before ({found}), and would lose twice",
            "Take the model in F16, BF16, F32 or Q8_0, or give --requantize",
        )
    _check_room(plan.target, _size(plan, headers[0], tensors))


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
        raise BadModelFile.from_os_error("read", path, error) from None


def _check_quantization(plan: Plan) -> None:
    if plan.quantization not in plan.quantizer.types:
        raise QuantizeFailed(
            f"What quantizes here ({plan.quantizer.title}) cannot make {plan.quantization}",
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
            f"Models of the architecture {header.architecture} need rules of their own",
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
            f"The result takes {size / 1e6:,.0f} MB, and {folder} has {free / 1e6:,.0f} MB free",
            "Make room there",
        )
