"""Which variant of a repository's model is meant: the one that is named, or the best that fits."""

import io
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from llm_localrun.errors import PullFailed
from llm_localrun.gguf.header import NotGGUF, read_summary
from llm_localrun.pull import http_files, huggingface
from llm_localrun.pull.http_files import BrokenOff, Source
from llm_localrun.pull.huggingface import Repository
from llm_localrun.pull.recommend import Fit, Fits, Geometry, best, geometry_of, largest_context
from llm_localrun.pull.refs import HubRef
from llm_localrun.pull.variants import Variant, variant_of, variants_in

_HEADER = 2**18
"""Bytes at the beginning of a file, which hold what its model needs for its context."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The variants of a repository's model, and how each fits this machine."""

    ref: HubRef
    repository: Repository
    fits: tuple[Fit, ...]

    def chosen(self, preferred: str) -> Variant:
        """The variant that the REF names; else the best that fits. Raises `PullFailed`."""
        if self.ref.file or self.ref.quantization:
            return named(self.ref, self.repository)
        if found := best(self.fits, preferred):
            return found.variant
        smallest = min((fit.variant for fit in self.fits), key=lambda variant: variant.size)
        raise PullFailed(
            f"No variant of {self.ref.repo} fits the memory of this machine: the smallest has"
            f" {smallest.size / 1e9:.1f} GB",
            f"Choose another model, or name it: hf:{self.ref.repo}/{smallest.path}",
        )


def offer(ref: HubRef, fits: Fits) -> Offer:
    """What the repository of `ref` offers, `fits` telling what this machine holds.

    Raises `PullFailed`.
    """
    repository = huggingface.repository(ref.repo, ref.revision)
    variants = variants_in(repository.files)
    if not variants and not ref.file:
        raise PullFailed(
            f"{ref.repo} holds no GGUF files",
            "Repositories that do mostly have a name that ends in -GGUF",
        )
    geometry = _geometry(repository, variants)
    found = [Fit(each, largest_context(each.size, geometry, fits)) for each in variants]
    return Offer(ref, repository, tuple(found))


def _geometry(repository: Repository, variants: Sequence[Variant]) -> Geometry:
    """What the model needs for its context, from the beginning of one of its files."""
    unknown = Geometry(None, repository.context_max)
    if not variants:
        return unknown
    try:
        head = _beginning(repository.source(variants[0].parts[0]))
        found = geometry_of(read_summary(io.BytesIO(head)))
    except (BrokenOff, NotGGUF):
        return unknown
    return replace(found, trained=found.trained or repository.context_max)


def _beginning(source: Source) -> bytes:
    head = bytearray()
    with closing(http_files.get(source, 0, _HEADER - 1)) as pieces:
        for piece in pieces:
            head += piece if isinstance(piece, bytes) else b""
            if len(head) >= _HEADER:
                break
    return bytes(head)


def named(ref: HubRef, repository: Repository) -> Variant:
    """The variant that `ref` names. Raises `PullFailed`."""
    variants = variants_in(repository.files)
    if ref.file:
        found = variant_of(ref.file, repository.files)
        fitting = [found] if found else []
    else:
        # Unsloth's own mixes bear a mark that people leave out.
        marked = (ref.quantization, f"UD-{ref.quantization}")
        named = ([v for v in variants if v.quantization == name] for name in marked)
        fitting = next(filter(None, named), [])
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        several = ", ".join(f"hf:{ref.repo}/{variant.path}" for variant in fitting)
        raise PullFailed(f"{ref.text} can be several files", f"Name one: {several}")
    present = ", ".join(dict.fromkeys(v.quantization or v.path for v in variants)) or "nothing"
    raise PullFailed(f"{ref.repo} has no {ref.file or ref.quantization}", f"There is {present}")
