"""Groups the files of a repository into the variants of its model, one for each quantization.

Pure: the names of the files say what they are. Choosing a variant is left to `fitting`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from llm_localrun.gguf.files import parts_of, shard_of
from llm_localrun.names.quantizations import quality, quality_distance, quantization_in
from llm_localrun.names.roles import is_projector_name, matching_projectors, other_role

_PROJECTOR_PRECISION = "F16"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository. `size` is in bytes, `sha256` is "" if the hub does not list it."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Variant:
    """A model file with all its parts, in order, and the projector that belongs to it."""

    quantization: str
    parts: tuple[HubFile, ...]
    projector: HubFile | None = None

    @property
    def files(self) -> tuple[HubFile, ...]:
        """The files to download. The model is listed from `parts[0]`, which comes last."""
        projector = (self.projector,) if self.projector else ()
        return (*projector, *reversed(self.parts))

    @property
    def size(self) -> int:
        """Bytes of weights, with those of the projector."""
        return sum(file.size for file in self.files)

    @property
    def path(self) -> str:
        """The path of the first part in the repository."""
        return self.parts[0].path


def variants_in(files: Sequence[HubFile]) -> list[Variant]:
    """The variants among `files`, in the order of their paths."""
    by_path = {file.path: file for file in files if file.path.lower().endswith(".gguf")}
    projectors = [file for path, file in by_path.items() if is_projector_name(_stem(path))]
    variants = []
    for path in sorted(by_path):
        parts = () if other_role(_stem(path)) else _parts(by_path[path], by_path)
        if parts:
            projector = _projector_for(path, projectors)
            variants.append(Variant(_quantization(path), parts, projector))
    return variants


def variant_of(path: str, files: Sequence[HubFile]) -> Variant | None:
    """The variant that the file at `path` is a part of; a projector or an adapter is one by itself.

    None if there is no such file.
    """
    for variant in variants_in(files):
        if path in (part.path for part in variant.parts):
            return variant
    return next((Variant("", (file,)) for file in files if file.path == path), None)


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _name(path: str) -> str:
    """The stem without the number of a part."""
    stem = _stem(path)
    shard = shard_of(stem)
    return shard[0] if shard else stem


def _quantization(path: str) -> str:
    """The quantization in the file's name, or else its folder's: UD-Q4_K_XL/model.gguf."""
    return quantization_in(_name(path)) or quantization_in(path.rpartition("/")[0])


def _parts(file: HubFile, by_path: dict[str, HubFile]) -> tuple[HubFile, ...]:
    """All parts of the file that `file` begins; () for a later part, or if a part is missing."""
    paths = [str(path) for path in parts_of(PurePosixPath(file.path))]
    parts = tuple(by_path[path] for path in paths if path in by_path)
    return parts if len(parts) == len(paths) else ()


def _projector_for(path: str, projectors: Iterable[HubFile]) -> HubFile | None:
    """The projector for the model at `path`: of several, the one closest to F16."""
    matching = matching_projectors(_name(path), projectors, lambda file: _stem(file.path))
    return min(matching, key=_precision_order, default=None)


def _precision_order(file: HubFile) -> tuple[int, int, str]:
    quantization = quantization_in(_stem(file.path))
    distance = quality_distance(quantization, _PROJECTOR_PRECISION)
    return distance, quality(quantization), file.path
