"""Which variant of a model fits a machine's memory, and up to which context.

Pure: reckons with the sizes that a hub reports and, where its header was read, with what the model
needs for each token of context.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from llm_localrun.gguf.header import Header
from llm_localrun.memory.footprint import bytes_per_token
from llm_localrun.memory.geometry import geometry_of as whole_geometry_of
from llm_localrun.names.quantizations import quality_distance
from llm_localrun.pull.variants import Variant

_COMFORTABLE = 8192
"""Tokens; a variant that leaves room for less is only taken if none leaves more."""
_LEAST = 2048


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a model needs for its context: bytes for each token, and the tokens it was trained for.

    None where its header does not tell.
    """

    bytes_per_token: int | None = None
    trained: int | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """The largest context, in tokens, at which a variant fits.

    0: it does not fit; None: it fits, and nobody knows up to which.
    """

    variant: Variant
    context: int | None

    @property
    def fits(self) -> bool:
        return self.context != 0


Fits = Callable[[int], bool]
"""Whether so many bytes, weights and context together, fit the machine."""


def geometry_of(header: Header) -> Geometry:
    """The geometry that a model's metadata tell.

    Too much rather than too little: layers that only look a little way back count in full.
    """
    known, trained = whole_geometry_of(header), header.of_architecture("context_length")
    if known is not None:
        known = replace(known, kept=known.kept + known.kept_in_window)
    per_token = round(bytes_per_token(known)) if known else None
    return Geometry(per_token or None, trained if trained and trained > 0 else None)


def largest_context(weights: int, geometry: Geometry, fits: Fits) -> int | None:
    """The `context` of a `Fit`: the largest of the usual sizes at which so many bytes fit."""
    if geometry.bytes_per_token is None:
        return None if fits(weights) else 0
    per_token = geometry.bytes_per_token
    usual = _contexts(geometry.trained)
    return max((tokens for tokens in usual if fits(weights + tokens * per_token)), default=0)


def _contexts(trained: int | None) -> Iterable[int]:
    """From the least that is worth having, doubling, up to what the model was trained for."""
    tokens = min(_LEAST, trained or _LEAST)
    while tokens < (trained or _COMFORTABLE):
        yield tokens
        tokens *= 2
    yield trained or _COMFORTABLE


def best(fits: Sequence[Fit], preferred: str) -> Fit | None:
    """The one to take: of those with room to work in, the nearest to the `preferred` quantization.

    None if none fits.
    """
    fitting = [fit for fit in fits if fit.fits]
    roomy = [fit for fit in fitting if fit.context is None or fit.context >= _COMFORTABLE]
    largest = max((fit.context or 0 for fit in fitting), default=0)
    roomy = roomy or [fit for fit in fitting if fit.context == largest]
    return min(
        roomy,
        key=lambda fit: (quality_distance(fit.variant.quantization, preferred), fit.variant.path),
        default=None,
    )
