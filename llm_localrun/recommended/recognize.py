"""Recognizes the recommended model that a file holds: by its content, repository or name."""

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.names.parse import ModelName, parse_name, without_folders
from llm_localrun.recommended.models import RecommendedModel, read_recommended

_SAME_MODEL = frozenset({"qat", "i1"})
"""Words for how it was quantized."""
_PUBLISHERS = frozenset(
    {
        *("baai", "bartowski", "deepseek-ai", "gaianet", "huggingfacetb", "ibm"),
        *("lmstudio-community", "maziyarpanahi", "meta", "meta-llama", "microsoft", "mradermacher"),
        *("nvidia", "openai", "quantfactory", "second-state", "thebloke", "thudm", "zai-org"),
    }
)
"""They publish models as their makers made them, like the owners in the list."""
# Older versions of llama.cpp name a file OWNER_REPOSITORY-GGUF_FILE.
_REPOSITORY_IN_NAME = re.compile(r"(.+-gguf)_.", re.IGNORECASE)


def recognize(model: LocalModel, route: OnDisk) -> RecommendedModel | None:
    """The recommended model that the file at `route` is a variant of; None for any other.

    A fine-tune has other words in its name or in that of its repository, or someone else's name
    before it, and counts as another model.
    """
    path = route.path.replace(os.sep, "/")
    # The hub's cache and Ollama name files after their SHA-256.
    digest = Path(os.path.realpath(route.path)).name.removeprefix("sha256-")
    listed = read_recommended()
    name = without_folders(model.name).rpartition("/")[2]
    repositories = [*path.split("/")[:-1], *_REPOSITORY_IN_NAME.findall(name)]
    parsed = parse_name(name)
    is_another = _is_owned(name, listed) or _is_of_another(repositories, parsed)
    words = parsed.words - _SAME_MODEL
    for each in listed:
        if model.architecture not in ("", each.header.architecture):
            continue
        if (
            any(digest == file.sha256 for file in each.files)
            or _is_in_repository(path.lower(), each.repository.lower())
            or (not is_another and words in _words_of(each, is_sure=bool(model.architecture)))
        ):
            return each
    return None


def _is_in_repository(path: str, repository: str) -> bool:
    """Whether a path leads into the folder of a repository; the hub's cache has other names."""
    folders = (repository, f"models--{repository.replace('/', '--')}")
    return any(f"/{folder}/" in path for folder in folders)


def _is_owned(name: str, listed: Iterable[RecommendedModel]) -> bool:
    """Whether `name` has the name of someone before it who may have changed the model."""
    owner, _, rest = name.partition("_")
    owners = _PUBLISHERS.union(each.repository.partition("/")[0].lower() for each in listed)
    is_owner = rest and parse_name(rest).words == parse_name(name).words
    return bool(is_owner) and owner.lower() not in owners


def _is_of_another(repositories: Iterable[str], name: ModelName) -> bool:
    """Whether one of `repositories` is that of a relative: its name says more."""
    for each in repositories:
        parsed = parse_name(each)
        is_model = parsed.size or each.lower().endswith("-gguf")
        says_more = not parsed.words - _SAME_MODEL <= name.words
        if is_model and says_more and parsed.family == name.family:
            return True
    return False


def _words_of(recommended: RecommendedModel, *, is_sure: bool) -> Collection[frozenset[str]]:
    """The words of the names that its makers and publishers give it.

    Those without a size count only if it `is_sure` that the architecture is the same. The name in
    the list may be shorter than what tells it from another model.
    """
    names = (recommended.repository, *(file.path for file in recommended.files[:1]))
    return [name.words - _SAME_MODEL for name in map(parse_name, names) if name.size or is_sure]
