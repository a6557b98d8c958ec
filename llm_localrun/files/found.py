"""What a look through the stores comes to, before any file is opened."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm_localrun.gguf.files import part_stems, shard_of
from llm_localrun.models import ScannedFile

Identity = tuple[int, int]
"""Device and inode: the same for every name, link and hard link of a file."""

# What stands in a mark until it is known.
QUANTIZATION, SIZE, SIZE_WITH_PROJECTOR = "{quantization}", "{size}", "{size with projector}"


class Listed(NamedTuple):
    """A GGUF file as its folder lists it; links are followed."""

    path: str
    size: int
    modified: float
    identity: Identity


@dataclass(frozen=True, slots=True)
class Found:
    """A file in somebody's store that may hold a model; a split one under its first part's path.

    `size` is the sum of all parts, `modified` the time of the newest. Each store writes the
    fingerprints (see `catalogue.merged`) by which a server of its kind would know the file.
    """

    path: str
    name: str
    store: str
    size: int
    modified: float
    identity: Identity
    projector: str = ""
    manifest: str = ""
    manifest_modified: float = 0.0
    fingerprints: tuple[str, ...] = ()
    reason: str = ""
    """Why it holds no model that can be run, where that can be told from without."""


@dataclass(frozen=True, slots=True)
class Group:
    """Files that lie in one folder; `fingerprints` are those of each file."""

    files: Sequence[Listed]
    fingerprints: tuple[str, ...] = ()


class Unchanged(NamedTuple):
    """An entry of the last scan that still holds."""

    entry: ScannedFile
    identity: Identity


@dataclass(frozen=True, slots=True)
class Known:
    """What the last scan found, by what the next one comes upon."""

    by_path: dict[str, ScannedFile]
    by_manifest: dict[str, ScannedFile]


def is_text(path: str) -> bool:
    """Whether a path can be kept in a file and shown: Linux lets names be any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in path


def listed(path: str) -> Listed | None:
    """The file at `path`; None if there is none."""
    try:
        stat = os.stat(path)  # noqa: PTH116  # a Path costs as much as the call
    except (OSError, ValueError):
        return None
    return Listed(path, stat.st_size, stat.st_mtime, (stat.st_dev, stat.st_ino))


# On Windows a folder's entries know no inodes.
_stat = os.stat if sys.platform == "win32" else os.DirEntry.stat


def listed_entry(entry: "os.DirEntry[str]") -> Listed:
    """`listed`, of what a folder names. Raises OSError."""
    stat = _stat(entry)
    return Listed(entry.path, stat.st_size, stat.st_mtime, (stat.st_dev, stat.st_ino))


def existing(path: str) -> str:
    """`path`, or "" if there is nothing."""
    return path if path and listed(path) is not None else ""


def name_of(path: str) -> str:
    """The last part of a path; a Path would take as long as all else that is done to a file."""
    return path.rpartition(os.sep)[2]


def stem_of(path: str) -> str:
    """The name of a GGUF file without its ending, if it has one."""
    name = name_of(path)
    return name[:-5] if name[-5:].lower() == ".gguf" else name


def file_at(path: str, store: str, name: str = "") -> Found | None:
    """The file at `path` with all its parts; None if it, or one of them, is missing.

    A part other than the first is no file of its own.
    """
    parts = [listed(with_stem(path, stem)) for stem in part_stems(stem_of(path))]
    whole = [part for part in parts if part is not None]
    return from_parts(whole, store, name) if whole and len(whole) == len(parts) else None


def with_stem(path: str, stem: str) -> str:
    """The file of another name beside the one at `path`, of the same ending."""
    name = name_of(path)
    return path[: len(path) - len(name)] + stem + name[len(stem_of(path)) :]


def from_parts(parts: Sequence[Listed], store: str, name: str = "") -> Found:
    """A file of one part or more, the first one first, called `name` or as it calls itself."""
    first = parts[0]
    stem = name_of(first.path).removesuffix(".gguf")
    shard = shard_of(stem)
    return Found(
        path=first.path,
        name=name or (shard[0] if shard else stem),
        store=store,
        size=sum(part.size for part in parts),
        modified=max(part.modified for part in parts),
        identity=first.identity,
    )
