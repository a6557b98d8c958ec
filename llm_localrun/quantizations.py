"""What a user calls a quantization, and how a variant of a model that is not there can be had.

Pure: told by where the model is from, and by what else of it there is.
"""

import re
from collections.abc import Sequence

from llm_localrun.catalogue import LocalModel
from llm_localrun.gguf.names import quality, quantization_in, without_quantization

# From these llama.cpp makes all others without losing more than the target itself loses.
_SOURCES = ("F32", "BF16", "F16")
_PARTS = re.compile(r"[/\\]")
_REPOSITORY = re.compile(r"models--(?P<owner>[^/\\]+?)--(?P<name>[^/\\]+)")


def canonical(quantization: str) -> str:
    """A quantization as the user writes it, in the spelling that models bear: FP16 is F16."""
    return (quantization_in(quantization) or quantization).upper()


def how_to_get(model: LocalModel, others: Sequence[LocalModel], wanted: str) -> str:
    """The command that makes the variant of `model` that is wanted out of one of `others`, or gets
    it."""
    variants = (model, *others)
    sources = [each for each in variants if each.path and each.quantization in _SOURCES]
    if sources and wanted not in _SOURCES and quality(wanted) >= 0:
        return f"llm localrun quantize {sources[0].id} {wanted}"
    return f"llm localrun pull {_reference(model, wanted)}"


def _reference(model: LocalModel, wanted: str) -> str:
    """What `pull` calls the variant, as far as the model tells where it is from."""
    if model.endpoint is not None and model.endpoint.kind == "lmstudio":
        return f"lmstudio:{model.name.partition('@')[0]}@{wanted.lower()}"
    if model.endpoint is not None and model.endpoint.kind == "ollama":
        base = without_quantization(model.name)
        is_repository = base.startswith(("hf.co/", "huggingface.co/"))
        return f"ollama:{base.rstrip(':')}{':' if is_repository else '-'}{wanted.lower()}"
    if model.path and (found := _REPOSITORY.search(model.path)):
        return f"{found['owner']}/{found['name']} -q {wanted}"
    if model.path and model.store == "lmstudio":
        return f"{'/'.join(_PARTS.split(model.path)[-3:-1])} -q {wanted}"
    return f"OWNER/REPO -q {wanted}"
