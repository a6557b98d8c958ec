"""Plans a quantization: source, target and program, and whether they can and should be used.

Carrying a plan out is left to `run`.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from llm_localrun.errors import QuantizeFailed
from llm_localrun.gguf.files import opened, parts_of
from llm_localrun.gguf.header import Header, Tensor, read_header
from llm_localrun.gguf.tensor_types import TensorType, type_name
from llm_localrun.models import LocalModel
from llm_localrun.names.quantizations import with_quantization
from llm_localrun.pull.download import check_free_space
from llm_localrun.quantize.recipes import (
    MIXES,
    NOT_COVERED,
    in_order,
    is_quantizable,
    shape_of,
    types_for,
)
from llm_localrun.quantize.tools import Quantizer
from llm_localrun.system.paths import models_folder

_SOURCE_TYPES = frozenset({TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q8_0})
"""The types of a source's matrices: quantizing others would lose quality a second time."""


@dataclass(frozen=True, slots=True)
class QuantizePlan:
    """A quantization to carry out.

    `source` is the first part of a split file, `projector` is "" for none, `importance` is the file
    of an importance matrix.
    """

    source: Path
    target: Path
    projector: str
    quantization: str
    quantizer: Quantizer
    importance: Path | None
    threads: int


def target_for(model: LocalModel, quantization: str) -> Path:
    """The path of the quantized file: the model's name with the new quantization."""
    name = re.sub(r"[:\\]+", "-", model.name.rstrip("/").rpartition("/")[2])
    return models_folder() / f"{with_quantization(name, quantization)}.gguf"


def tensors_of(path: Path) -> list[Tensor]:
    """The tensors in all parts of a file, in llama.cpp's order. Raises `BadModelFile`."""
    return in_order(tensor for header in _read_headers(path) for tensor in header.tensors)


def check(plan: QuantizePlan, *, requantize: bool) -> None:
    """Raises a `LocalRunError` if `plan` cannot be carried out, or should not be.

    `requantize` allows a source that is quantized already.
    """
    _check_quantization(plan)
    if plan.importance is not None:
        # A quantizer would wait for what comes out of a FIFO.
        with opened(plan.importance):
            pass
    headers = _read_headers(plan.source)
    tensors = [tensor for header in headers for tensor in header.tensors]
    _check_source(plan, headers[0], tensors)
    stored = {tensor.type for tensor in tensors if is_quantizable(tensor)}
    if not requantize and not stored <= _SOURCE_TYPES:
        found = ", ".join(sorted(type_name(kind) for kind in stored - _SOURCE_TYPES))
        raise QuantizeFailed(
            f"{plan.source} is quantized already ({found}) and would lose quality a second time",
            "Use the model in F16, BF16, F32 or Q8_0, or add --requantize",
        )
    folder = next(parent for parent in plan.target.parents if parent.exists())
    size = _result_size(plan, headers[0], tensors)
    check_free_space(folder, size, QuantizeFailed, "Free space there")


def _read_headers(path: Path) -> list[Header]:
    headers = []
    for part in parts_of(path):
        with opened(part) as file:
            headers.append(read_header(file, part.stat().st_size))
    return headers


def _check_quantization(plan: QuantizePlan) -> None:
    if plan.quantization not in plan.quantizer.quantizations:
        raise QuantizeFailed(
            f"The quantizer on this machine ({plan.quantizer.title}) cannot make"
            f" {plan.quantization}",
            f"It can make {', '.join(plan.quantizer.quantizations)}",
        )
    if plan.target.exists() and plan.target.samefile(plan.source):
        raise QuantizeFailed(f"{plan.source} is {plan.quantization} already", "Use it as it is")


def _check_source(plan: QuantizePlan, header: Header, tensors: list[Tensor]) -> None:
    if header.is_big_endian or any(tensor.size is None for tensor in tensors):
        raise QuantizeFailed(
            f"{plan.source} has tensors of a type or byte order that is not supported",
            "Choose another file",
        )
    if not any(map(is_quantizable, tensors)):
        raise QuantizeFailed(f"{plan.source} has no weights to quantize", "Choose another file")
    if plan.quantizer.follows_recipes and header.architecture in NOT_COVERED:
        raise QuantizeFailed(
            f"The rules for models of the architecture {header.architecture} are not supported",
            "Install llama.cpp: its llama-quantize has them",
        )


def _result_size(plan: QuantizePlan, header: Header, tensors: list[Tensor]) -> int:
    """The bytes of the result; those of the source for quantizations that are not in `MIXES`."""
    if plan.quantization not in MIXES:
        return sum(tensor.size or 0 for tensor in tensors)
    types = types_for(
        plan.quantization, tensors, shape_of(header), has_importance=plan.importance is not None
    )
    return sum(replace(t, type=types[t.name]).size or 0 for t in tensors) + header.data_start
