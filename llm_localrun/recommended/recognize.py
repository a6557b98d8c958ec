"""Recognizes the recommended model that a file holds: by its content, repository or name."""

import os
from collections.abc import Collection
from pathlib import Path

from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.names.parse import parse_name
from llm_localrun.recommended.models import RecommendedModel, read_recommended


def recognize(model: LocalModel, route: OnDisk) -> RecommendedModel | None:
    """The recommended model that the file at `route` is a variant of; None for any other.

    A fine-tune has other words in its name, and counts as another model.
    """
    path = route.path.replace(os.sep, "/").lower()
    # The hub's cache and Ollama name files after their SHA-256.
    digest = Path(os.path.realpath(route.path)).name.removeprefix("sha256-")
    words = parse_name(model.name).words
    for each in read_recommended():
        is_other = model.architecture not in ("", each.header.architecture)
        if not is_other and (
            any(digest == file.sha256 for file in each.files)
            or _is_in_repository(path, each.repository.lower())
            or words in _words_of(each)
        ):
            return each
    return None


def _is_in_repository(path: str, repository: str) -> bool:
    """Whether a path leads into the folder of a repository; the hub's cache has other names."""
    folders = (repository, f"models--{repository.replace('/', '--')}")
    return any(f"/{folder}/" in path for folder in folders)


def _words_of(recommended: RecommendedModel) -> Collection[frozenset[str]]:
    """The words of the names that its makers and publishers give it, if they have its size.

    The name in the list may be shorter than what tells it from another model.
    """
    names = (recommended.repository, *(file.path for file in recommended.files[:1]))
    parsed = map(parse_name, names)
    return [name.words for name in parsed if name.size]
