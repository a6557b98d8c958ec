"""What a scan of the stores finds before any file is opened: paths, sizes, names, fingerprints.

Reading a file's header is left to `contents`.
"""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from llm_localrun.gguf.files import part_stems, shard_of

Identity = tuple[int, int]
"""Device and inode: the same for every name, link and hard link of a file."""

QUANTIZATION = "{quantization}"
"""In a fingerprint: replaced when the header has been read."""


class ListedFile(NamedTuple):
    """A file as its folder lists it; links are followed."""

    path: str
    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch."""
    identity: Identity
    changed: int
    """When its content, name or mode last changed, in nanoseconds: no program can set that.

    0 for a file with several hard links: each new one, and the end of one, changes it.
    """

    @property
    def stamp(self) -> str:
        """Equal only for the same file with the same content."""
        return f"{self.identity[0]}.{self.identity[1]}.{self.changed}"

    def __repr__(self) -> str:
        # Faster than that of namedtuple: every scan makes a digest of these.
        return tuple.__repr__(self)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file in a store that may hold a model. A split one goes by the path of its first part.

    `size` is the sum of all parts, `modified` the time of the newest. Each store writes the
    fingerprints (see `models.merge_routes`) by which a server of its kind would know the file.
    """

    path: str
    name: str
    size: int
    modified: float
    identity: Identity
    stamp: str = ""
    """The stamps of all parts (see `ListedFile`)."""
    parts: int = 1
    store: str = ""
    projector: str = ""
    manifest: str = ""
    manifest_modified: float = 0.0
    manifest_digest: str = ""
    """SHA-256 of what the manifest says: equal for tags that are run alike."""
    fingerprints: tuple[str, ...] = ()
    reason: str = ""
    """Why it holds no model that can be run, where that is known without opening it."""

    def found_files(self, store: str) -> Iterator["FoundFile"]:
        """The file itself, in `store`: see `base.StoreItem`."""
        yield replace(self, store=store)


NOT_TEXT = "its name is not UTF-8 text"


def stamp_of(found: FoundFile) -> str:
    """The stamps of all its parts and of its projector, which other files can replace."""
    projector = listed(found.projector) if found.projector else None
    return f"{found.stamp} {projector.stamp}" if projector else found.stamp


def is_text(path: str) -> bool:
    """Whether a path can be kept in a file: on Linux a name can be any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in path


def listed(path: str, *, special: bool = False) -> ListedFile | None:
    """The regular file at `path`, or with `special` whatever is there; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  # a Path costs as much as the call
    except (OSError, ValueError):
        return None
    return _listed(path, found) if special or stat.S_ISREG(found.st_mode) else None


def _listed(path: str, found: os.stat_result) -> ListedFile:
    identity = found.st_dev, found.st_ino
    changed = found.st_ctime_ns if found.st_nlink == 1 else 0
    return ListedFile(path, found.st_size, found.st_mtime, identity, changed)


# On Windows the entries of a folder have no inodes.
_stat = os.stat if sys.platform == "win32" else os.DirEntry.stat


def listed_entry(entry: "os.DirEntry[str]") -> ListedFile:
    """`listed`, for an entry of a folder that is a regular file. Raises OSError."""
    return _listed(entry.path, _stat(entry))


def existing(path: str) -> str:
    """`path`, or "" if no regular file is there."""
    return path if path and listed(path) is not None else ""


def name_of(path: str) -> str:
    """The last part of a path; a Path would take as long as everything else done to a file."""
    return path.rpartition(os.sep)[2]


def stem_of(path: str) -> str:
    """The name of a GGUF file without its suffix, if it has one."""
    name = name_of(path)
    return name[:-5] if name[-5:].lower() == ".gguf" else name


def with_stem(path: str, stem: str) -> str:
    """The path with another stem, in the same folder and with the same suffix."""
    name = name_of(path)
    return path[: len(path) - len(name)] + stem + name[len(stem_of(path)) :]


def file_at(path: str, name: str = "") -> FoundFile | None:
    """The file at `path` with all its parts; None if it, or one of them, is missing.

    Also None for a part other than the first.
    """
    parts = []
    for stem in part_stems(stem_of(path)):
        if (part := listed(with_stem(path, stem))) is None:
            return None
        parts.append(part)
    return from_parts(parts, name) if parts else None


def from_parts(parts: Sequence[ListedFile], name: str = "") -> FoundFile:
    """A file of one part or more, the first one first; `name` defaults to its stem."""
    first = parts[0]
    stem = name_of(first.path).removesuffix(".gguf")
    shard = shard_of(stem)
    return FoundFile(
        path=first.path,
        name=name or (shard[0] if shard else stem),
        size=sum(part.size for part in parts),
        modified=max(part.modified for part in parts),
        identity=first.identity,
        stamp=" ".join([part.stamp for part in parts]),
        parts=len(parts),
    )
