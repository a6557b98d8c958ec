"""Looks through folders, and tells the files in one apart by their names.

Which parts make one file, which projector goes with which model, and what is no model at all.
"""

import operator
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.files.found import (
    SIZE,
    SIZE_WITH_PROJECTOR,
    Found,
    Group,
    Listed,
    from_parts,
    is_text,
    listed_entry,
    name_of,
    stem_of,
    with_stem,
)
from llm_localrun.gguf.files import is_projector_name, part_stem, shard_of
from llm_localrun.names.parse import parse_name, projected_words
from llm_localrun.names.quantizations import other_role, quality, quantization_in

_MIN_SIZE = 2**20
"""Bytes; less is no model but a vocabulary or an unfinished download."""
_MAX_DEPTH = 6
_MAX_FOLDERS = 20_000


def walk(root: Path, problems: list[str], depth: int = _MAX_DEPTH) -> Iterator[Group]:
    """The GGUF files of `root` and of the folders below it, folder by folder.

    Links to other folders are followed, each once and none back. What cannot be read is passed over
    and said in `problems`.
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
            yield Group(files)
        if levels:
            ahead += [
                (entry.path, levels - 1)
                for entry in below
                if not entry.is_symlink() or _leads_elsewhere(entry.path, real_root, linked)
            ][::-1]
    problems.append(f"it has more than {_MAX_FOLDERS:,} folders: the rest was passed over")


def _read(folder: str, problems: list[str]) -> tuple[list[Listed], list["os.DirEntry[str]"]]:
    """The GGUF files and the subfolders of `folder`, both by name."""
    files, below = [], []
    for entry in _entries(folder, problems):
        name = entry.name
        try:
            if name[-5:].lower() == ".gguf" and entry.is_file():
                files.append(listed_entry(entry))
            elif name[0] != "." and entry.is_dir():
                below.append(entry)
        except OSError:
            # A link to itself, or a file that went away just now.
            continue
    return sorted(files), sorted(below, key=_by_name)


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder, or leads to one."""
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself.
        return False


def entries_of(folder: str, problems: list[str]) -> list["os.DirEntry[str]"]:
    """What lies in `folder`, by name, as far as the names are text; [] if it cannot be read."""
    return sorted(_entries(folder, problems), key=_by_name)


_by_name = operator.attrgetter("name")


def _entries(folder: str, problems: list[str]) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name.isascii() or is_text(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        problems.append(f"{folder}: {getattr(error, 'strerror', None) or error}")
        return []


def _leads_elsewhere(link: str, root: str, linked: set[str]) -> bool:
    """Whether a link leads to a folder that is not looked through anyway."""
    real = os.path.realpath(link)
    if real in linked or _is_within(real, root) or _is_within(root, real):
        return False
    linked.add(real)
    return is_text(real)


def _is_within(path: str, folder: str) -> bool:
    return f"{path}{os.sep}".startswith(folder.rstrip(os.sep) + os.sep)


def files_in(group: Group, store: str) -> Iterator[Found]:
    """The files of a group, each whole, with its projector, or why it is no model."""
    by_path = {file.path: file for file in group.files}
    projectors = [path for path in by_path if is_projector_name(stem_of(path))]
    for file in group.files:
        found = _whole(file, by_path, store)
        if found is not None:
            reason = found.reason or _reason(found)
            projector = projector_for(found, projectors) if projectors and not reason else ""
            more = by_path[projector].size if projector else 0
            fingerprints = (
                f"name:{store}:{name_of(file.path)}",
                *_sized(group.fingerprints, found.size, more),
            )
            yield replace(found, fingerprints=fingerprints, reason=reason, projector=projector)


def _sized(fingerprints: Iterable[str], size: int, more: int) -> Iterator[str]:
    for mark in fingerprints:
        yield mark.replace(SIZE, str(size)).replace(SIZE_WITH_PROJECTOR, str(size + more))


def _whole(file: Listed, by_path: dict[str, Listed], store: str) -> Found | None:
    """The file that `file` is, or is the first part of; None for the other parts."""
    stem = stem_of(file.path)
    _, number, count = shard_of(stem) or (stem, 1, 1)
    if any(_part(file, earlier) in by_path for earlier in range(1, number)):
        return None
    parts: list[Listed] = []
    for each in range(1, count + 1):
        part = by_path.get(_part(file, each))
        if part is None:
            reason = f"part {each} of {count} is missing"
            return replace(from_parts([file], store), reason=reason)
        parts.append(part)
    return from_parts(parts, store)


def _part(file: Listed, number: int) -> str:
    return with_stem(file.path, part_stem(stem_of(file.path), number))


def _reason(found: Found) -> str:
    """Why a file can be no model, as far as it can be told from without."""
    reason = other_role(stem_of(found.path))
    return reason or ("it is smaller than a megabyte" if found.size < _MIN_SIZE else "")


def projector_for(found: Found, projectors: Iterable[str]) -> str:
    """The projector beside a model, or "": one that bears its name, else one that bears none.

    Where there are several the one of the highest precision is taken, as llama.cpp does.
    """
    words = parse_name(found.name).words
    here = Path(found.path).parent
    beside = [file for file in map(Path, projectors) if file.parent == here]
    named = [file for file in beside if projected_words(file.stem) == words]
    nameless = [file for file in beside if not projected_words(file.stem)]
    best = sorted(named or nameless, key=lambda file: quality(quantization_in(file.stem)))
    return str(best[-1]) if best else ""
