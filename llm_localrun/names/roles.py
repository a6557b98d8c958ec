"""What a model is for, what a GGUF file is if it is not a model, and which projectors a model uses.

All of it by names, and a purpose also by the header of a file. What else the header says is left to
`files.contents`.
"""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from llm_localrun.gguf.header import Header
from llm_localrun.models import Purpose, surer_purpose
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

_BY_NAME: tuple[tuple[re.Pattern[str], Purpose], ...] = (
    (re.compile(r"rerank|cross[-_]?encoder", re.IGNORECASE), "rerank"),
    (re.compile(r"whisper|parakeet|kokoro|(?:^|[/_-])tts(?:$|[_-])", re.IGNORECASE), "other"),
    (
        re.compile(r"embed|(?:^|[/_-])(?:bge|e5|gte|minilm)(?:$|[_-])", re.IGNORECASE),
        "embedding",
    ),
)
# By `llama_pooling_type` in llama.h: MEAN, CLS, LAST and RANK; 0 is NONE.
_POOLING: dict[int, Purpose] = {**dict.fromkeys((1, 2, 3), "embedding"), 4: "rerank"}


def purpose_of_name(name: str) -> Purpose:
    """The purpose of a model by its name, where nothing else says it."""
    return next((purpose for pattern, purpose in _BY_NAME if pattern.search(name)), "chat")


def rank_in_name(name: str) -> Purpose:
    """`rerank` if the name says so. Servers and headers know many of these as other models."""
    return "rerank" if purpose_of_name(name) == "rerank" else "chat"


def purpose_of_header(header: Header, name: str = "") -> Purpose:
    """The purpose of a model by the header of its file, and by the names of both."""
    named = rank_in_name(f"{name} {header.text('general.name')}")
    return surer_purpose(_purpose_of_keys(header), named)


def _purpose_of_keys(header: Header) -> Purpose:
    architecture = header.architecture
    if f"{architecture}.decision.type" in header.metadata:
        return "decision"
    if (pooling := header.of_architecture("pooling_type") or 0) > 0:
        return _POOLING.get(pooling, "other")
    if "bert" not in architecture and not architecture.endswith("-embedding"):
        return "chat"
    # llama.cpp's converter writes labels for some embedding models too, but with their pooling.
    has_labels = f"{architecture}.classifier.output_labels" in header.metadata
    return "rerank" if has_labels else "embedding"


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
