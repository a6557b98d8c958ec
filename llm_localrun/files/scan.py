"""Scans every store: lists each file once, and opens only those that are new or have changed.

Names and links that lead to the same file on the disk are one file: the first store's name counts,
and it has the fingerprints of all. Ollama's tags are models of their own even where they share a
blob, because each has its own template and parameters. Where a tool keeps its files is left to the
module of its store, what is in a file to `contents`.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from llm_localrun.files.base import StoreFolder, StoreItem, store_folders
from llm_localrun.files.contents import UNREADABLE, filled, forget_folders, read_model
from llm_localrun.files.found import NOT_TEXT, FoundFile, Identity, is_text, stamp_of, stem_of
from llm_localrun.files.named import remembered_files
from llm_localrun.models import ScannedFile, ScannedStore, Snapshot
from llm_localrun.system.text import id_part, printable


def scan(folders: Sequence[str], before: Snapshot) -> Snapshot:
    """`before` with the files that the stores and `folders` hold now, and a report per store.

    If nothing in any store has changed since, `before` itself is returned.
    """
    listings = list(_listings(folders))
    named = list(remembered_files())
    digest = hashlib.sha256(repr((listings, named)).encode()).hexdigest()
    if digest == before.scan_digest:
        return before
    forget_folders()
    by_store = [(listing.report, listing.found_files()) for listing in listings]
    found = _merge_same([file for _, files in by_store for file in files] + named)
    files = _entries(found, before.files)
    # Permissions can change while the times of files do not, so unreadable files are tried again.
    is_final = not any(file.reason.startswith(UNREADABLE) for file in files)
    reports = tuple(_with_count(report, files) for report, files in by_store)
    return before.model_copy(
        update={"files": files, "stores": reports, "scan_digest": digest if is_final else ""}
    )


class _Listing(NamedTuple):
    """What a store has in a folder. Its `repr` changes if a file in it may have changed."""

    report: ScannedStore
    """Without the number of files."""
    items: Sequence[StoreItem] = ()

    def found_files(self) -> list[FoundFile]:
        return [file for item in self.items for file in item.found_files(self.report.store)]


def _with_count(report: ScannedStore, files: Iterable[FoundFile]) -> ScannedStore:
    parts = {file.identity: file.parts for file in files}
    return report.model_copy(update={"files": sum(parts.values())})


def _listings(folders: Sequence[str]) -> Iterator[_Listing]:
    """What each store lists, without a folder that was already read under another name."""
    read: set[Identity] = set()
    for folder in store_folders(folders):
        if listing := _listing(folder, read):
            yield listing


def _listing(folder: StoreFolder, read: set[Identity]) -> _Listing | None:
    path = str(folder.path)
    report = partial(ScannedStore, store=folder.store.name, path=printable(path))
    try:
        with os.scandir(path):
            stat = folder.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _Listing(report(status="missing"))
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        return _Listing(report(status="unreadable", problem=problem))
    if not is_text(path):
        return _Listing(report(status="unreadable", problem=NOT_TEXT))
    if (stat.st_dev, stat.st_ino) in read:
        return None
    read.add((stat.st_dev, stat.st_ino))
    problems: list[str] = []
    items = list(folder.store.scan(folder.path, problems))
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    problem = f"{problems[0]}{others}" if problems else ""
    return _Listing(report(status="read", problem=problem), items)


def _merge_same(found: Iterable[FoundFile]) -> list[FoundFile]:
    """Each file on the disk once, with the values that each of its names has."""
    by_identity: dict[Identity, list[FoundFile]] = {}
    for file in found:
        same = by_identity.setdefault(file.identity, [])
        at = next((at for at, other in enumerate(same) if _run_alike(other, file)), None)
        if at is None:
            same.append(file)
        else:
            same[at] = _merged(same[at], file)
    return [file for same in by_identity.values() for file in same]


def _run_alike(first: FoundFile, second: FoundFile) -> bool:
    """Whether two names for a file are run alike: by equal manifests, or one without any."""
    digests = first.manifest_digest, second.manifest_digest
    return bool(first.reason) or "" in digests or digests[0] == digests[1]


def _merged(first: FoundFile, second: FoundFile) -> FoundFile:
    """One file, found twice: the values of `first`, with those of `second` where it has none."""
    if first.reason:
        return second
    return replace(
        first,
        projector=first.projector or second.projector,
        manifest=first.manifest or second.manifest,
        manifest_modified=first.manifest_modified or second.manifest_modified,
        manifest_digest=first.manifest_digest or second.manifest_digest,
        fingerprints=tuple(dict.fromkeys((*first.fingerprints, *second.fingerprints))),
    )


def _entries(found: Sequence[FoundFile], before: Sequence[ScannedFile]) -> tuple[ScannedFile, ...]:
    """An entry for each file, that of the last scan if the file has not changed.

    A file keeps its id, whichever other files come and go.
    """
    by_path = {entry.path: entry for entry in reversed(before)}
    # Ollama's tags can share a file: each has an entry with its own manifest.
    by_manifest = {(entry.path, _manifest_of(entry)): entry for entry in reversed(before)}
    lasts = []
    for file in found:
        other = by_manifest.get((file.path, "")) if file.manifest else by_path.get(file.path)
        lasts.append(by_manifest.get((file.path, file.manifest)) or other)
    taken = {last.model.id for last in lasts if last and last.model}
    return tuple(_entry(file, last, taken) for file, last in zip(found, lasts, strict=True))


def _manifest_of(entry: ScannedFile) -> str:
    route = entry.model.on_disk if entry.model else None
    return route.manifest if route else ""


def _entry(found: FoundFile, last: ScannedFile | None, taken: set[str]) -> ScannedFile:
    stamp = stamp_of(found)
    if last and last.stamp == stamp and _is_unchanged(last, found):
        return last
    kept_id = last.model.id if last and last.model else ""
    model_id = kept_id or unique_id(found.name, found.path, taken)
    result = found.reason or read_model(found, model_id)
    model, reason = (None, result) if isinstance(result, str) else (result, "")
    if model is not None:
        taken.add(model_id)
    is_named_alike = stem_of(found.path).startswith(found.name)
    return ScannedFile(
        path=found.path,
        size=found.size,
        # An unreadable file counts as changed in the next scan.
        modified=0.0 if reason.startswith(UNREADABLE) else found.modified,
        stamp=stamp,
        model=model,
        reason=reason,
        name="" if model or is_named_alike else found.name,
        manifest_modified=found.manifest_modified,
    )


def _is_unchanged(last: ScannedFile, found: FoundFile) -> bool:
    if (last.size, last.modified) != (found.size, found.modified):
        return False
    if last.model is None or found.reason:
        return last.model is None and found.reason in ("", last.reason)
    route = last.model.on_disk
    return (
        route is not None
        and last.manifest_modified == found.manifest_modified
        and (route.store, route.projector) == (found.store, found.projector)
        and route.manifest == found.manifest
        # The first fingerprint is that of the path.
        and list(last.model.fingerprints[1:]) == filled(found.fingerprints, last.model.quantization)
    )


def unique_id(name: str, path: str, taken: set[str]) -> str:
    """The id of a file's model: `local/gguf/NAME`, with a hash of `path` if that is `taken`."""
    model_id = f"local/gguf/{id_part(name)}"
    if model_id in taken:
        model_id += "@" + hashlib.sha256(path.encode()).hexdigest()[:6]
    return model_id
