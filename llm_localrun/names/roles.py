"""Which projectors go with a model, by their names alone.

Choosing one of several is left to the caller.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from llm_localrun.names.parse import parse_name, projected_words

Projector = TypeVar("Projector")


def matching_projectors(
    name: str, projectors: Iterable[Projector], stem_of: Callable[[Projector], str]
) -> list[Projector]:
    """The projectors for the model `name`, in the order of `projectors`.

    Those whose stem has the words of the model (`mmproj-Qwen2-VL-2B-F16`), or if there are none,
    those whose stem names no model (`mmproj-model-f16`).
    """
    words = parse_name(name).words
    words_of = [(projector, projected_words(stem_of(projector))) for projector in projectors]
    named = [projector for projector, its_words in words_of if its_words == words]
    return named or [projector for projector, its_words in words_of if not its_words]
