"""Which variant of a repository's model to pull: the one that is named, or the best that fits.

Whether a variant fits is decided in `memory.fit`, from the sizes that the hub lists and the header
at the beginning of one of its files.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from llm_localrun.engine_defaults import CONTEXT_SIZE
from llm_localrun.errors import PullFailed
from llm_localrun.gguf.header import Header, NotGGUF, read_summary
from llm_localrun.memory.fit import UNLIMITED, Fit, default_setting, fit_of
from llm_localrun.memory.footprint import Footprint
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.names.quantizations import quality_distance
from llm_localrun.names.roles import purpose_of_header
from llm_localrun.pull import http_files, huggingface
from llm_localrun.pull.http_files import DownloadInterrupted, FileSource
from llm_localrun.pull.huggingface import Repository
from llm_localrun.pull.refs import HubRef
from llm_localrun.pull.variants import Variant, variant_of, variants_in

_HEADER_BYTES = 2**18
"""Read from the beginning of a file. They hold the numbers for its model's memory per context."""


@dataclass(frozen=True, slots=True)
class VariantFit:
    """A variant, and how it fits this machine."""

    variant: Variant
    fit: Fit


@dataclass(frozen=True, slots=True)
class FittedVariants:
    """The variants of a repository's model, and how each fits this machine."""

    ref: HubRef
    repository: Repository
    variants: tuple[VariantFit, ...]

    def choose(self, preferred: str) -> Variant:
        """The variant that the REF names, else the best that fits. Raises `PullFailed`."""
        if self.ref.file or self.ref.quantization:
            return find_variant(self.ref, self.repository)
        if found := best_variant(self.variants, preferred):
            return found
        smallest = min((each.variant for each in self.variants), key=lambda variant: variant.size)
        raise PullFailed(
            f"No variant of {self.ref.repo} fits the memory of this machine: the smallest has"
            f" {smallest.size / 1e9:.1f} GB",
            f"Choose another model, or name it: hf:{self.ref.repo}/{smallest.path}",
        )


def fitted_variants(ref: HubRef, memory: int | None) -> FittedVariants:
    """The variants in the repository of `ref`, and how each fits into `memory` bytes.

    Raises `PullFailed`.
    """
    repository = huggingface.list_repository(ref.repo, ref.revision)
    variants = variants_in(repository.files)
    if not variants and not ref.file:
        raise PullFailed(
            f"{ref.repo} holds no GGUF files",
            "Repositories that do mostly have a name that ends in -GGUF",
        )
    header = read_remote_header(repository, variants)
    fitted = (VariantFit(each, fit_of_variant(each, header, memory)) for each in variants)
    return FittedVariants(ref, repository, tuple(fitted))


def fit_of_variant(variant: Variant, header: Header, memory: int | None) -> Fit:
    """How a variant fits into `memory` bytes once it is on this machine.

    `header` is that of any variant: they differ in their weights only.
    """
    if memory is None:
        return UNLIMITED
    trained = header.of_architecture("context_length")
    setting = default_setting(trained, purpose_of_header(header))
    return fit_of(Footprint(geometry_of(header), variant.size), setting, memory)


def read_remote_header(repository: Repository, variants: Sequence[Variant]) -> Header:
    """The header at the beginning of a variant's file; an empty one if it cannot be read."""
    try:
        head = _beginning(repository.source(variants[0].parts[0])) if variants else b""
        return read_summary(io.BytesIO(head))
    except (DownloadInterrupted, NotGGUF):
        return Header({})


def _beginning(source: FileSource) -> bytes:
    head = bytearray()
    with http_files.request_file(source, 0, _HEADER_BYTES - 1) as (_, chunks):
        for chunk in chunks:
            head += chunk
            # A server that ignores the range sends the whole file.
            if len(head) >= _HEADER_BYTES:
                break
    return bytes(head)


def best_variant(variants: Sequence[VariantFit], preferred: str) -> Variant | None:
    """Of the variants with room for `CONTEXT_SIZE`, the nearest to the `preferred` quantization.

    If none has so much room, the choice is among those with the largest context. None if no variant
    fits.
    """
    fitting = [each for each in variants if each.fit.fits]
    largest = max((each.fit.context_size or 0 for each in fitting), default=0)
    enough = min(CONTEXT_SIZE, largest)
    return min(
        (each.variant for each in fitting if each.fit.fits_with(enough)),
        key=lambda variant: (quality_distance(variant.quantization, preferred), variant.path),
        default=None,
    )


def find_variant(ref: HubRef, repository: Repository) -> Variant:
    """The variant that `ref` names. Raises `PullFailed`."""
    variants = variants_in(repository.files)
    if ref.file:
        found = variant_of(ref.file, repository.files)
        fitting = [found] if found else []
    else:
        # Unsloth's own mixes have a prefix that people leave out.
        names = (ref.quantization, f"UD-{ref.quantization}")
        groups = ([v for v in variants if v.quantization == name] for name in names)
        fitting = next(filter(None, groups), [])
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        several = ", ".join(f"hf:{ref.repo}/{variant.path}" for variant in fitting)
        raise PullFailed(f"{ref.text} matches several files", f"Name one: {several}")
    present = ", ".join(dict.fromkeys(v.quantization or v.path for v in variants)) or "nothing"
    raise PullFailed(f"{ref.repo} has no {ref.file or ref.quantization}", f"There is {present}")
