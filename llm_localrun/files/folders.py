"""Walks folders for GGUF files, and decides from names alone what each file is.

Which parts make one file, which projector goes with which model, and which files hold no model.
Opening a file is left to `contents`.
"""

import operator
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llm_localrun.files.found import (
    NOT_TEXT,
    QUANTIZATION,
    FoundFile,
    ListedFile,
    from_parts,
    is_text,
    listed_entry,
    name_of,
    stem_of,
    with_stem,
)
from llm_localrun.gguf.files import part_stem, shard_of
from llm_localrun.names.quantizations import quality, quantization_in
from llm_localrun.names.roles import is_projector_name, matching_projectors, other_role
from llm_localrun.system.text import printable

_MIN_MODEL_SIZE = 2**20
"""Bytes; a smaller file is a vocabulary or an unfinished download."""
_MAX_DEPTH = 6
_MAX_FOLDERS = 20_000


@dataclass(frozen=True, slots=True)
class FolderListing:
    """The GGUF files in one folder.

    `fingerprints` are those that every file in it has. With `has_sizes`, each has fingerprints by
    its size too: with the projector and without, because it is not known which one LM Studio lists.
    """

    files: list[ListedFile]
    fingerprints: tuple[str, ...] = ()
    has_sizes: bool = False

    def found_files(self, store: str) -> Iterator[FoundFile]:
        """Each file with all its parts and its projector, or the reason why it is not a model."""
        by_path = {file.path: file for file in self.files}
        projectors = [path for path in by_path if is_projector_name(stem_of(path))]
        earliest = _earliest_parts(self.files)
        for file in self.files:
            found = _with_parts(file, by_path, earliest)
            if found is None:
                continue
            reason = found.reason or _reason(found)
            projector = projector_for(found, projectors) if projectors and not reason else ""
            extra = by_path[projector].size if projector else 0
            sizes = (found.size, found.size + extra) if self.has_sizes else ()
            fingerprints = (
                f"name:{store}:{name_of(file.path)}",
                *self.fingerprints,
                *(f"size:{size}:{QUANTIZATION}" for size in sizes),
            )
            yield replace(
                found, store=store, fingerprints=fingerprints, reason=reason, projector=projector
            )


def walk(root: Path, problems: list[str], depth: int = _MAX_DEPTH) -> Iterator[FolderListing]:
    """The GGUF files of `root` and of the folders below it, folder by folder.

    Follows each link to another folder once, and none that leads back. What cannot be read is
    skipped and added to `problems`.
    """
    real_root = os.path.realpath(root)
    linked: set[str] = set()
    ahead = [(str(root), depth)]
    for _ in range(_MAX_FOLDERS):
        if not ahead:
            return
        folder, levels = ahead.pop()
        files, below = _read(folder, problems)
        if files:
            yield FolderListing(files)
        if levels:
            ahead += [
                (entry.path, levels - 1)
                for entry in below
                if not entry.is_symlink() or _leads_elsewhere(entry.path, real_root, linked)
            ][::-1]
    problems.append(f"it has more than {_MAX_FOLDERS:,} folders: the rest was skipped")


def _read(folder: str, problems: list[str]) -> tuple[list[ListedFile], list["os.DirEntry[str]"]]:
    """The GGUF files and the subfolders of `folder`, both sorted by name."""
    files, below = [], []
    for entry in entries_of(folder, problems):
        name = entry.name
        try:
            if name[-5:].lower() == ".gguf" and entry.is_file():
                files.append(listed_entry(entry))
            elif name[0] != "." and entry.is_dir():
                below.append(entry)
        except OSError:
            # A link to itself, or a file that was deleted just now.
            continue
    return files, below


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself.
        return False


def entries_of(folder: str, problems: list[str]) -> list["os.DirEntry[str]"]:
    """The entries of `folder` whose names are text, sorted by name; [] if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            by_name = sorted(entries, key=operator.attrgetter("name"))
            return [entry for entry in by_name if _has_text_name(entry, problems)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        problems.append(f"{folder}: {getattr(error, 'strerror', None) or error}")
        return []


def _has_text_name(entry: "os.DirEntry[str]", problems: list[str]) -> bool:
    """Whether the name of an entry is text; if not, a file or folder that matters is a problem."""
    if entry.name.isascii() or is_text(entry.name):
        return True
    if entry.name.lower().endswith(".gguf") or is_folder(entry):
        problems.append(f"{printable(entry.path)}: {NOT_TEXT}")
    return False


def entries_below(
    folder: str, levels: int, problems: list[str], skip: Collection[str] = ()
) -> Iterator["os.DirEntry[str]"]:
    """The entries of `folder` and of those below it, down to `levels`; none in a `skip`."""
    for entry in entries_of(folder, problems):
        yield entry
        if levels > 1 and entry.name not in skip and is_folder(entry):
            yield from entries_below(entry.path, levels - 1, problems, skip)


def _leads_elsewhere(link: str, root: str, linked: set[str]) -> bool:
    """Whether a link leads to a folder that the walk does not reach otherwise."""
    real = os.path.realpath(link)
    if real in linked or _is_within(real, root) or _is_within(root, real):
        return False
    linked.add(real)
    return is_text(real)


def _is_within(path: str, folder: str) -> bool:
    return f"{path}{os.sep}".startswith(folder.rstrip(os.sep) + os.sep)


def _earliest_parts(files: Iterable[ListedFile]) -> dict[tuple[str, int], int]:
    """The lowest number of the parts that are here, by the path of the first part and the count."""
    earliest: dict[tuple[str, int], int] = {}
    for file in files:
        if shard := shard_of(stem_of(file.path)):
            key = _part(file, 1), shard[2]
            earliest[key] = min(shard[1], earliest.get(key, shard[1]))
    return earliest


def _with_parts(
    file: ListedFile, by_path: dict[str, ListedFile], earliest: Mapping[tuple[str, int], int]
) -> FoundFile | None:
    """The file that `file` is, or is the first part of; None for the other parts."""
    shard = shard_of(stem_of(file.path))
    if shard is None:
        return from_parts([file])
    _, number, count = shard
    if earliest[_part(file, 1), count] < number:
        return None
    parts: list[ListedFile] = []
    for each in range(1, count + 1):
        part = by_path.get(_part(file, each))
        if part is None:
            return replace(from_parts([file]), reason=f"part {each} of {count} is missing")
        parts.append(part)
    return from_parts(parts)


def _part(file: ListedFile, number: int) -> str:
    return with_stem(file.path, part_stem(stem_of(file.path), number))


def _reason(found: FoundFile) -> str:
    """Why a file holds no model, as far as its name and size say; "" if they do not."""
    too_small = "it is smaller than a megabyte" if found.size < _MIN_MODEL_SIZE else ""
    return other_role(stem_of(found.path)) or too_small


def projector_for(found: FoundFile, projectors: Iterable[str]) -> str:
    """The projector in the folder of a model, or "".

    Of several, the one with the highest precision, as in llama.cpp.
    """
    folder = os.path.dirname(found.path)  # noqa: PTH120  # for 10,000 files
    neighbors = [path for path in projectors if os.path.dirname(path) == folder]  # noqa: PTH120
    matching = matching_projectors(found.name, neighbors, stem_of)
    return sorted(matching, key=_precision)[-1] if matching else ""


def _precision(projector: str) -> int:
    return quality(quantization_in(stem_of(projector)))
