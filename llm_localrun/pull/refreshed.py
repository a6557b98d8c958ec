"""Asks a hub for newer models to recommend, and writes the user's list of them.

Of each publisher below, the repositories that trend are looked at. A model is added if its license
is known, anyone may download it, its header can be read, and llama.cpp knows its architecture
(`architectures.txt`: the names in llama-arch.cpp that the library of b11549 holds).
"""

import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from typing import TypeVar

from pydantic import ValidationError

from llm_localrun.errors import PullFailed
from llm_localrun.files.contents import template_abilities
from llm_localrun.gguf.header import Header
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import quality_distance, without_quantization
from llm_localrun.names.roles import purpose_of_header
from llm_localrun.pull import huggingface
from llm_localrun.pull.fitting import read_remote_header
from llm_localrun.pull.huggingface import HubGGUF, HubUnreachable, TrendingRepository
from llm_localrun.pull.variants import HubFile, Variant, variants_in
from llm_localrun.recommended.models import (
    ListedFile,
    RecommendedModel,
    Use,
    is_valid,
    listed_models,
    read_recommended,
    refreshed_path,
    write_refreshed,
)
from llm_localrun.system.progress import Progress, Work, working

PUBLISHERS = (
    *("unsloth", "ggml-org", "bartowski", "lmstudio-community", "Qwen", "google", "LiquidAI"),
    *("ibm-granite", "mistralai"),
)
_Item = TypeVar("_Item")
_PER_PUBLISHER = 4
_THREADS = 4
_PREFERRED = "Q4_K_M"
_SMALL_WEIGHTS = 1_500_000_000
_ADAPTED = re.compile(r"abliterated|uncensored|heretic", re.IGNORECASE)
"""Models whose makers' safeguards others have removed are for those who look for them."""
_NOISE = re.compile(r"[-_.](gguf|qat|it|instruct)(?=[-_.]|$)")
_ACTIVE = re.compile(r"-A(\d{1,4}(?:\.\d+)?)([BM])(?:-|$)", re.IGNORECASE)
_UNITS = {"B": 1e9, "M": 1e6}
_CHAT_TASKS = ("text-generation", "image-text-to-text", "any-to-any", "audio-text-to-text")
"""The hub's names for the tasks of models that chat."""
_UNNAMED = ("", "other", "unknown")
_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT"}
_WORDS = {
    **{Use.EMBED: "embedding", Use.CODE: "code", Use.CHAT: "chat", Use.VISION: "pictures"},
    **{Use.TOOLS: "tools", Use.THINKING: "thinking", Use.SMALL: ""},
}


def refresh_list() -> tuple[list[str], list[str]]:
    """The names of the models that were added to the package's list, and of those updated.

    Raises `PullFailed` if the hub cannot be asked; then the user's list stays as it is. A
    repository that cannot be read keeps its entry there.
    """
    listed = listed_models()
    before = {each.repository: each for each in read_recommended() if each not in listed}
    with (
        working(Progress("asking the hub for newer models")) as work,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        trending = _trending(work)
        read = pool.map(lambda each: _read(each, before.get(each.id)), trending)
        counted = _count_up(read, work, "reading newer models", len(trending), "repositories")
        models = [*_without_copies(each for each in counted if each and is_valid(each))]
    try:
        write_refreshed(models)
    except OSError as error:
        raise PullFailed.from_os_error("written", refreshed_path(), error) from None
    new = [each for each in models if each is not before.get(each.repository)]
    known = {each.repository for each in listed}
    added = [each.name for each in new if each.repository not in known]
    return added, [each.name for each in new if each.repository in known]


def _trending(work: Work) -> list[TrendingRepository]:
    """The repositories to look at, those that trend most first. Raises `PullFailed`."""
    what, count = "asking the hub for newer models", len(PUBLISHERS)
    trending: list[TrendingRepository] = []
    for owner in _count_up(PUBLISHERS, work, what, count, "publishers"):
        found = huggingface.trending_repositories(owner, _PER_PUBLISHER)
        trending += (each for each in found if each.id.startswith(f"{owner}/"))
    return sorted(trending, key=lambda each: -(each.trending or 0))


def _count_up(
    items: Iterable[_Item], work: Work, what: str, total: int, unit: str
) -> Iterator[_Item]:
    """`items`, reporting how many of them are done."""
    for done, item in enumerate(items):
        work.report(Progress(what, done, total, unit))
        yield item


def _without_copies(found: Iterable[RecommendedModel]) -> Iterator[RecommendedModel]:
    """The models that are new. Several publishers have the same: the list's, or the first, wins."""
    taken = {each.name: each.repository for each in listed_models()}
    for model in found:
        if taken.setdefault(model.name, model.repository) == model.repository:
            yield model


def _read(found: TrendingRepository, before: RecommendedModel | None) -> RecommendedModel | None:
    """The model to recommend from a repository, None if there is none: `before` if the repository
    alone cannot be read.
    """
    try:
        return _model(found)
    except ValidationError:
        return None
    except PullFailed as error:
        if isinstance(error, HubUnreachable) or error.status == 429:
            raise
        return before


def _model(found: TrendingRepository) -> RecommendedModel | None:
    """The model to recommend from a repository; None if there is none.

    Raises `PullFailed` if it cannot be read, and `ValidationError`.
    """
    known = next((each for each in listed_models() if each.repository == found.id), None)
    license = known.license if known else _license(found.tags or ())
    if found.gated or not license or _ADAPTED.search(found.id):
        return None
    if known and found.sha == known.revision:
        return None
    repository = huggingface.list_repository(found.id, found.sha or "main")
    variants = variants_in(repository.files)
    variant = _nearest(variants, known.quantization if known else _PREFERRED)
    if variant is None:
        return None
    header = read_remote_header(repository, [variant])
    if not header.metadata:
        raise PullFailed(f"The header of {found.id}/{variant.path} cannot be read", "Try again")
    if not geometry_of(header) or header.architecture not in _architectures():
        return None
    described = known or _described(found, license, header, variant)
    if not described:
        return None
    sees = Use.VISION in described.uses
    return replace(
        described,
        revision=repository.commit,
        files=tuple(map(_listed, variant.parts)),
        projector=_listed(variant.projector) if sees and variant.projector else None,
        quantization=variant.quantization,
        header=_numbers(header),
        date=time.strftime("%Y-%m-%d"),
    )


def _nearest(variants: Iterable[Variant], preferred: str) -> Variant | None:
    return min(
        (each for each in variants if each.quantization),
        key=lambda each: (quality_distance(each.quantization, preferred), each.path),
        default=None,
    )


def _described(
    found: TrendingRepository, license: str, header: Header, variant: Variant
) -> RecommendedModel | None:
    """What there is to say of a model that the package's list does not have, without its files."""
    title = found.id.partition("/")[2]
    weights = (found.gguf and found.gguf.total) or parse_name(title).parameters
    if not weights or not (uses := _uses(found, header, variant, weights)):
        return None
    match = _ACTIVE.search(title)
    active = int(float(match[1]) * _UNITS[match[2].upper()]) if match else weights
    return RecommendedModel(
        name=_name(title),
        good_at=", ".join(filter(None, (_WORDS[use] for use in uses))),
        uses=uses,
        repository=found.id,
        revision="",
        files=(),
        projector=None,
        parameters=weights,
        active_parameters=max(1, min(active, weights)),
        quantization="",
        license=license,
        header=Header({}),
        source=f"https://huggingface.co/{found.id}",
    )


def _uses(
    found: TrendingRepository, header: Header, variant: Variant, weights: int
) -> tuple[Use, ...]:
    """What a model is for; () if for nothing that is recommended."""
    title = found.id.partition("/")[2]
    purpose = purpose_of_header(header, title)
    made_for = parse_name(title).made_for
    if purpose == "embedding":
        return (Use.EMBED,)
    if purpose != "chat" or made_for in ("completion", "moderation"):
        return ()
    if (found.pipeline_tag or _CHAT_TASKS[0]) not in _CHAT_TASKS:
        return ()
    can = template_abilities((found.gguf or HubGGUF()).chat_template or "")
    has = {
        Use.CODE: made_for == "code",
        Use.CHAT: made_for != "code",
        Use.VISION: variant.projector is not None,
        Use.TOOLS: can["tools"],
        Use.THINKING: can["thinking"],
        Use.SMALL: weights < _SMALL_WEIGHTS,
    }
    return tuple(use for use, is_it in has.items() if is_it)


def _license(tags: Iterable[str]) -> str:
    """The license in the tags of a repository; "" if they name none."""
    license = next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), "")
    return "" if license in _UNNAMED else _SPDX.get(license, license)


def _name(title: str) -> str:
    """`qwen3-4b` for Qwen3-4B-Instruct-GGUF."""
    name = _NOISE.sub("", without_quantization(title.lower()))
    return re.sub(r"[^a-z0-9.]+", "-", name).strip("-.")


def _listed(file: HubFile) -> ListedFile:
    return ListedFile(path=file.path, size=file.size, sha256=file.sha256)


def _numbers(header: Header) -> Header:
    """The keys that decide how much memory a model needs: the numbers of its architecture."""
    prefix = f"{header.architecture}."
    return Header(
        {
            key: value
            for key, value in header.metadata.items()
            if key == "general.architecture"
            or (key.startswith(prefix) and not isinstance(value, str | None))
        }
    )


def _architectures() -> frozenset[str]:
    return frozenset(files(__package__).joinpath("architectures.txt").read_text().split())
