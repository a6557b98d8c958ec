"""What a GGUF file is if it is not a model, and which projectors a model uses, by names alone.

What the header of a file says is left to `files.contents`.
"""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import quantization_in, without_quantization

Projector = TypeVar("Projector")

IS_PROJECTOR = "it is a projector, which lets another model see or hear"
IS_IMPORTANCE_MATRIX = "it is an importance matrix"
# By the names, in lower case, that llama.cpp and its tools give to files next to models.
_ROLES = (
    (re.compile(r"^\._"), "it is what macOS keeps beside a file"),
    (re.compile(r"mmproj"), IS_PROJECTOR),
    (re.compile(r"^(?:mtp|eagle3|dflash|dspark)-"), "it drafts for another model"),
    (re.compile(r"^ggml-vocab-"), "it is a vocabulary without weights"),
)


def other_role(stem: str) -> str:
    """What a file of this name is instead of a model, in half a sentence; "" for a model."""
    name = stem.lower()
    before, imatrix, _ = name.partition("imatrix")
    if imatrix and not quantization_in(before):
        # "Qwen3-8B.imatrix" is a matrix, "Qwen3-8B-Q4_K_M-imatrix" was made with one.
        return IS_IMPORTANCE_MATRIX
    return next((role for pattern, role in _ROLES if pattern.search(name)), "")


def is_projector_name(stem: str) -> bool:
    """Whether a file of this name is a projector, which lets another model see or hear."""
    return "mmproj" in stem.lower()


def projected_words(stem: str) -> frozenset[str]:
    """The `words` of the model that a projector is for; none for `mmproj-model-f16`."""
    rest = re.sub(r"[-_.]?mmproj[-_.]?", "-", without_quantization(stem), flags=re.IGNORECASE)
    rest = rest.strip("-_.")
    return parse_name(rest).words if rest.lower() not in ("", "model") else frozenset()


def matching_projectors(
    name: str, projectors: Iterable[Projector], stem_of: Callable[[Projector], str]
) -> list[Projector]:
    """The projectors for the model `name`, in the order of `projectors`.

    Those whose stem has the words of the model (`mmproj-Qwen2-VL-2B-F16`), or if there are none,
    those whose stem names no model (`mmproj-model-f16`). The caller chooses one of them.
    """
    words = parse_name(name).words
    words_of = [(projector, projected_words(stem_of(projector))) for projector in projectors]
    named = [projector for projector, its_words in words_of if its_words == words]
    return named or [projector for projector, its_words in words_of if not its_words]
