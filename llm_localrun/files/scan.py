"""One look through every store: each file once, and into those only that are new or have changed.

Files are the same if they are the same on the disk, whatever links lead there; then the first
store's name for it counts, and the fingerprints of all. Ollama's tags are models of their own even
where they share a blob: each says in its own way how that is to be run.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

from llm_localrun.files.contents import UNREADABLE, filled, look_into
from llm_localrun.files.folders import files_in
from llm_localrun.files.found import Found, Group, Identity, Known, Listed, Unchanged, is_text
from llm_localrun.files.locations import Place, places
from llm_localrun.files.named import remembered_files
from llm_localrun.models import LocalModel, ScannedFile, ScannedStore


def scan(
    folders: Iterable[str], before: Iterable[ScannedFile]
) -> tuple[list[ScannedFile], list[ScannedStore]]:
    """An entry for each file in the stores and in `folders`, and a report on each store."""
    looked = _Look(before)
    reports = [report for place in places(folders) if (report := looked.through(place))]
    for found in remembered_files():
        looked.add(found)
    return looked.entries(), reports


class _Look:
    """What has been come upon so far: entries that still hold, and files to look into."""

    def __init__(self, before: Iterable[ScannedFile]) -> None:
        entries = list(before)
        run_by_manifest = [entry for entry in entries if entry.manifest_modified]
        self._known = Known(
            {entry.path: entry for entry in reversed(entries)},
            {entry.model.manifest: entry for entry in run_by_manifest if entry.model is not None},
        )
        self._all: list[ScannedFile | Found] = []
        self._at: dict[Identity, int] = {}
        self._tags: dict[Identity, list[int]] = {}
        """More tags of Ollama's for the same blob."""
        self._roots: set[Identity] = set()

    def through(self, place: Place) -> ScannedStore | None:
        """Looks through `place`; None if that is one that has been looked through."""
        report = ScannedStore(store=place.store, path=str(place.path), status="missing")
        if not is_text(report.path):
            return None
        try:
            with os.scandir(place.path):
                stat = place.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return report
        except OSError as error:
            problem = error.strerror or str(error)
            return report.model_copy(update={"status": "unreadable", "problem": problem})
        if (stat.st_dev, stat.st_ino) in self._roots:
            return None
        self._roots.add((stat.st_dev, stat.st_ino))
        problems: list[str] = []
        unchanged = 0
        others: set[Identity] = set()
        for item in place.look(place, self._known, problems):
            if isinstance(item, Group) and self._add_unchanged_group(item, place.store):
                unchanged += len(item.files)
                continue
            others.update(file.identity for file in _files_of(item))
            self._take(item, place.store)
        return report.model_copy(
            update={
                "status": "read",
                "files": unchanged + len(others),
                "problem": f"{problems[0]}{_more(problems)}" if problems else "",
            }
        )

    def _take(self, item: Found | Group | Unchanged, store: str) -> None:
        if isinstance(item, Unchanged):
            self._add_unchanged(item)
        elif isinstance(item, Found):
            self.add(item)
        else:
            for found in files_in(item, store):
                self.add(found)

    def _add_unchanged_group(self, group: Group, store: str) -> bool:
        """Takes over the entries of a folder in which nothing has changed: most of them."""
        known, entries, projectors = self._known.by_path, [], set()
        for path, size, modified, _ in group.files:
            entry = known.get(path)
            if entry is None or entry.size != size or entry.modified != modified:
                return False
            model = entry.model
            if model is not None:
                if model.store != store:
                    return False
                if model.projector:
                    projectors.add(model.projector)
            entries.append(entry)
        if projectors and not projectors <= {file.path for file in group.files}:
            return False
        identities = [file.identity for file in group.files]
        if not self._at.keys().isdisjoint(identities):
            return False
        self._at.update(zip(identities, itertools.count(len(self._all))))
        self._all.extend(entries)
        return True

    def _add_unchanged(self, item: Unchanged) -> None:
        at = self._at.get(item.identity)
        if at is None:
            self._at[item.identity] = len(self._all)
            self._all.append(item.entry)
        elif self._all[at] is not item.entry:
            self.add(_again(item.entry, item.identity))

    def add(self, found: Found) -> None:
        """Takes in a file, with what is the same on the disk if there is such a one."""
        first = self._at.get(found.identity)
        if first is None:
            self._at[found.identity] = len(self._all)
            self._all.append(found)
            return
        slots = [first, *self._tags.get(found.identity, ())]
        at = next((slot for slot in slots if _is_way_to_run(self._all[slot], found)), None)
        if at is not None:
            self._all[at] = _joined(self._all[at], found)
        else:
            self._tags.setdefault(found.identity, []).append(len(self._all))
            self._all.append(found)

    def entries(self) -> list[ScannedFile]:
        """All files, looked into; an id stays with its file, whatever comes or goes beside it."""
        kept = [slot for slot in self._all if isinstance(slot, ScannedFile)]
        if len(kept) == len(self._all):
            return kept
        lasts = [self._last(slot) if isinstance(slot, Found) else slot for slot in self._all]
        taken = {last.model.id for last in lasts if last is not None and last.model is not None}
        return [
            _entry(slot, last, taken) if isinstance(slot, Found) else slot
            for slot, last in zip(self._all, lasts, strict=True)
        ]

    def _last(self, found: Found) -> ScannedFile | None:
        """What the last scan has made of a file."""
        entry = self._known.by_manifest.get(found.manifest)
        if entry is not None and entry.path == found.path:
            return entry
        entry = self._known.by_path.get(found.path)
        if entry is None or (found.manifest and entry.model is not None and entry.model.manifest):
            return None
        return entry


def _files_of(item: Found | Group | Unchanged) -> Sequence[Listed | Found | Unchanged]:
    return item.files if isinstance(item, Group) else (item,)


def _more(problems: list[str]) -> str:
    return f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""


def _again(entry: ScannedFile, identity: Identity) -> Found:
    """What an entry was made of."""
    model = entry.model
    assert model is not None
    return Found(
        path=entry.path,
        name=model.name,
        store=model.store,
        size=entry.size,
        modified=entry.modified,
        identity=identity,
        projector=model.projector,
        manifest=model.manifest,
        manifest_modified=entry.manifest_modified,
        fingerprints=tuple(mark for mark in model.fingerprints if not mark.startswith("path:")),
    )


def _is_way_to_run(slot: ScannedFile | Found, found: Found) -> bool:
    """Whether `found` is run as the file in `slot` is: one of them says nothing, or both alike."""
    given = slot.model if isinstance(slot, ScannedFile) else slot
    if given is None or not (given.manifest and found.manifest):
        return True
    digests = {mark for mark in found.fingerprints if mark.startswith("ollama:")}
    return given.manifest == found.manifest or not digests.isdisjoint(given.fingerprints)


def _joined(slot: ScannedFile | Found, found: Found) -> ScannedFile | Found:
    """The file in `slot`, with what else is known of it as `found`."""
    if isinstance(slot, ScannedFile):
        if slot.model is None or _tells(slot, slot.model, found):
            return slot
        slot = _again(slot, found.identity)
    if slot.reason:
        return found
    is_run_so = found.manifest and slot.manifest in ("", found.manifest)
    return replace(
        slot,
        projector=slot.projector or found.projector,
        manifest=found.manifest if is_run_so else slot.manifest,
        manifest_modified=found.manifest_modified if is_run_so else slot.manifest_modified,
        fingerprints=tuple(dict.fromkeys((*slot.fingerprints, *found.fingerprints))),
    )


def _tells(entry: ScannedFile, model: LocalModel, found: Found) -> bool:
    """Whether an entry tells already what is known of its file as `found`."""
    is_run_so = not found.manifest or (model.manifest, entry.manifest_modified) == (
        found.manifest,
        found.manifest_modified,
    )
    return is_run_so and set(filled(found.fingerprints, model.quantization)) <= {
        *model.fingerprints
    }


def _entry(found: Found, last: ScannedFile | None, taken: set[str]) -> ScannedFile:
    if last is not None and _still_holds(last, found):
        return last
    kept = last.model.id if last is not None and last.model is not None else ""
    model_id = kept or _free_id(found.name, found.path, taken)
    seen = found.reason or look_into(found, model_id)
    model, reason = (None, seen) if isinstance(seen, str) else (seen, "")
    if model is not None:
        taken.add(model_id)
    # Permissions change without the file's time changing: it is tried again.
    is_final = not reason.startswith(UNREADABLE)
    return ScannedFile(
        path=found.path,
        size=found.size,
        modified=found.modified if is_final else 0.0,
        model=model,
        reason=reason,
        manifest_modified=found.manifest_modified,
    )


def _still_holds(last: ScannedFile, found: Found) -> bool:
    if (last.size, last.modified) != (found.size, found.modified):
        return False
    if last.model is None or found.reason:
        return last.model is None and found.reason in ("", last.reason)
    model = last.model
    return (model.store, model.projector) == (found.store, found.projector) and _tells(
        last, model, found
    )


def unique_id(model: LocalModel, taken: set[str]) -> str:
    """An id for a file's model that no other has."""
    return _free_id(model.name, str(model.path), taken)


def _free_id(name: str, path: str, taken: set[str]) -> str:
    """A file's name is its id; a second file of the name adds what tells its path."""
    model_id = f"local/gguf/{name}"
    if model_id in taken:
        model_id += "@" + hashlib.sha256(path.encode()).hexdigest()[:6]
    return model_id
