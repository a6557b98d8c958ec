"""The files of a repository to the variants of its model: one a quantization, parts together.

Pure; what a repository holds is told by the names of its files alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_localrun.gguf.files import is_projector_name, part_stems, shard_of
from llm_localrun.names.quantizations import other_role, quality, quality_distance, quantization_in
from llm_localrun.names.roles import matching_projectors

_ENDING = ".gguf"
_PROJECTOR_PRECISION = "F16"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository: bytes, and what they have to come to; "" if the hub does not say."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Variant:
    """A model file with all its parts, in order, and the projector that comes along."""

    quantization: str
    parts: tuple[HubFile, ...]
    projector: HubFile | None = None

    @property
    def files(self) -> tuple[HubFile, ...]:
        """What has to be fetched; the file that makes the model be listed comes last."""
        projector = (self.projector,) if self.projector else ()
        return (*projector, *reversed(self.parts))

    @property
    def size(self) -> int:
        """Bytes of weights, the projector's included."""
        return sum(file.size for file in self.files)

    @property
    def path(self) -> str:
        return self.parts[0].path


def variants_in(files: Sequence[HubFile]) -> list[Variant]:
    """The variants among `files`, in the order of their paths."""
    by_path = {file.path: file for file in files if file.path.lower().endswith(_ENDING)}
    projectors = [file for path, file in by_path.items() if is_projector_name(_stem(path))]
    variants = []
    for path in sorted(by_path):
        parts = () if other_role(_stem(path)) else _parts(by_path[path], by_path)
        if parts:
            projector = _projector_for(path, projectors)
            variants.append(Variant(_quantization(path), parts, projector))
    return variants


def variant_of(path: str, files: Sequence[HubFile]) -> Variant | None:
    """The one that the file at `path` makes; a projector or an adapter is one by itself."""
    for variant in variants_in(files):
        if path in (part.path for part in variant.parts):
            return variant
    return next((Variant("", (file,)) for file in files if file.path == path), None)


def _stem(path: str) -> str:
    return path.rpartition("/")[2][: -len(_ENDING)]


def _name(path: str) -> str:
    """The stem less what numbers a part."""
    stem = _stem(path)
    shard = shard_of(stem)
    return shard[0] if shard else stem


def _quantization(path: str) -> str:
    """As the file's name says, or else its folder's: UD-Q4_K_XL/model-00001-of-00002.gguf."""
    return quantization_in(_name(path)) or quantization_in(path.rpartition("/")[0])


def _parts(file: HubFile, by_path: dict[str, HubFile]) -> tuple[HubFile, ...]:
    """The parts of what `file` begins; () if it begins nothing, or some are missing."""
    stem = _stem(file.path)
    folder, ending = file.path[: file.path.rindex(stem)], file.path[-len(_ENDING) :]
    paths = [f"{folder}{part}{ending}" for part in part_stems(stem)]
    parts = tuple(by_path[path] for path in paths if path in by_path)
    return parts if len(parts) == len(paths) else ()


def _projector_for(path: str, projectors: Iterable[HubFile]) -> HubFile | None:
    """The projector for the model at `path`: of several, the one closest to F16."""
    matching = matching_projectors(_name(path), projectors, lambda file: _stem(file.path))
    return min(matching, key=_by_precision, default=None)


def _by_precision(file: HubFile) -> tuple[int, int, str]:
    quantization = quantization_in(_stem(file.path))
    distance = quality_distance(quantization, _PROJECTOR_PRECISION)
    return distance, quality(quantization), file.path
