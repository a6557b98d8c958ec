"""Finds models by words: repositories of the hub, and recommended models.

Each comes with the variant that fits this machine, which `fitting` chooses. Showing them is left to
`cli`, asking the hub to `huggingface`.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Thread

from llm_localrun.engine_defaults import CONTEXT_SIZE
from llm_localrun.errors import PullFailed
from llm_localrun.memory.fit import UNLIMITED
from llm_localrun.pull.fitting import VariantFit, best_variant, find_variant, fitted_variants
from llm_localrun.pull.huggingface import FoundRepository, search_repositories
from llm_localrun.pull.refs import HubRef, is_repository
from llm_localrun.recommended.models import RecommendedModel, read_recommended
from llm_localrun.system.progress import Progress, working

_CANDIDATES = 4
"""Repositories to ask for, for each one to show: the hub orders them by downloads alone."""
_PATIENCE_S = 20.0
"""The longest wait for what repositories say of their files."""
_TOKEN = re.compile(r"\d+(?:\.\d+)?[bm](?![a-z])|\d+(?:\.\d+)?|[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Match:
    """A model that words have found; `ref` gets it.

    `quantization` and `size` (in bytes) are those of the variant that fits, or of the smallest one
    if none fits. `downloads` are those of the last 30 days. What is not known is None or "", and
    `problem` says why.
    """

    ref: str
    quantization: str = ""
    size: int | None = None
    fits: bool | None = None
    context_size: int | None = None
    downloads: int | None = None
    license: str = ""
    problem: str = ""

    @property
    def command(self) -> str:
        """The line that gets it."""
        return f"llm localrun pull {self.ref}"


def search_hub(
    words: str, limit: int, memory: int | None, preferred: str, wanted: str = ""
) -> list[Match]:
    """At most `limit` repositories that match `words`, the best first.

    `memory` is the bytes that there are, `preferred` the quantization. Of those without the one
    that is `wanted`, their `problem` says so. Raises `PullFailed`.
    """
    # The hub knows llama 3.2, and not our llama3.2.
    query = " ".join(_tokens(words)) or words
    with working(Progress(f"searching the hub for {words}")):
        found = search_repositories(query, limit * _CANDIDATES)
    usable = [each for each in found if is_repository(each.id)]
    ranked = sorted(
        usable, key=lambda each: (-_exact_words(words, each.id), -(each.downloads or 0))
    )
    matches = {each.id: _unknown(each) for each in ranked[:limit]}

    def fit(name: str) -> None:
        matches[name] = _fitted(matches[name], memory, preferred, wanted)

    threads = [
        Thread(target=fit, args=(name,), name=f"fit {name}", daemon=True) for name in matches
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _PATIENCE_S
    with working(Progress("reading what was found")) as work:
        for done, thread in enumerate(threads):
            work.report(Progress("reading what was found", done, len(threads), "repositories"))
            thread.join(max(0.0, deadline - time.monotonic()))
    return [*matches.values()]


def recommended_matching(words: str, memory: int | None) -> list[Match]:
    """The recommended models that have all of `words` in their names, those that fit first.

    As in `recommend`, those with too little room for a useful context fit only where none has it.
    """
    models = [model for model in read_recommended() if _has_all(words, model)]
    found: list[Match] = []
    for context_size in (CONTEXT_SIZE, CONTEXT_SIZE // 2):
        found = [_recommended(model, memory, context_size) for model in models]
        if any(each.fits for each in found):
            break
    return sorted(found, key=lambda match: not match.fits)


def _recommended(model: RecommendedModel, memory: int | None, context_size: int) -> Match:
    fit = UNLIMITED if memory is None else model.fit_in(memory)
    return Match(
        model.name,
        model.quantization,
        model.size,
        fit.fits_with(min(context_size, model.context_max or context_size)),
        fit.context_size,
        license=model.license,
    )


def _unknown(found: FoundRepository) -> Match:
    """What is known before the repository is asked."""
    problem = f"it did not answer within {_PATIENCE_S:.0f} s"
    return Match(found.id, downloads=found.downloads, license=found.license, problem=problem)


def _fitted(match: Match, memory: int | None, preferred: str, wanted: str) -> Match:
    """`match` with its variant, from the repository's list of files."""
    ref = HubRef(match.ref, quantization=wanted)
    try:
        repository = fitted_variants(ref, memory)
        found = repository.variants
        chosen = (
            find_variant(ref, repository.repository) if wanted else best_variant(found, preferred)
        )
    except PullFailed as error:
        return replace(match, problem=error.problem)
    each = next((v for v in found if v.variant == chosen), None) or min(found, key=_size)
    return replace(
        match,
        quantization=each.variant.quantization,
        size=each.variant.size,
        fits=each.fit.fits,
        context_size=each.fit.context_size,
        problem="",
    )


def _size(found: VariantFit) -> int:
    return found.variant.size


def _has_all(words: str, model: RecommendedModel) -> bool:
    """Whether each of `words` begins a part of its name or of its repository's name."""
    parts = _tokens(f"{model.name} {model.repository}")
    return all(any(part.startswith(word) for part in parts) for word in _tokens(words))


def _exact_words(words: str, name: str) -> int:
    """How many of `words` are parts of `name`: 3 and 4b are of Qwen3-4B, and not of Qwen2.5-14B."""
    return len({*_tokens(words)} & {*_tokens(name)})


def _tokens(text: str) -> Sequence[str]:
    return _TOKEN.findall(text.lower())
