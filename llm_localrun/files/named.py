"""Files that users have named by their paths: they stay known, so that `-c` finds them again."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.errors import BadModelFile
from llm_localrun.files.contents import look_into
from llm_localrun.files.folders import projector_for
from llm_localrun.files.found import Found, file_at, is_text, listed, stem_of
from llm_localrun.gguf.files import is_projector_name, opened
from llm_localrun.gguf.header import read_summary
from llm_localrun.models import ScannedFile
from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.json_files import read_json
from llm_localrun.system.locks import exclusive
from llm_localrun.system.paths import home

_LOCK_SECONDS = 2.0


def open_file(path: Path) -> ScannedFile:
    """The entry for the file at `path`, which a user has named. Raises `BadModelFile`."""
    found = file_at(str(path), "files")
    if found is None:
        raise BadModelFile(
            f"There is no model file {path}, or a part of it is missing",
            "Check the path; `llm localrun models` lists the files that were found",
        )
    with opened(path) as file:
        read_summary(file)
    seen = look_into(_with_projector(found))
    if isinstance(seen, str):
        raise BadModelFile(
            f"{path} holds no model that can be run by itself: {seen}",
            "Run the model that it belongs to, or choose another file",
        )
    return ScannedFile(path=found.path, size=found.size, modified=found.modified, model=seen)


def is_same(entry: ScannedFile) -> bool:
    """Whether the file of `entry` is there, holds a model and has not changed since."""
    found = file_at(entry.path, "files")
    if entry.model is None or found is None:
        return False
    manifest = listed(entry.model.manifest) if entry.model.manifest else None
    return (found.size, found.modified, manifest.modified if manifest else 0.0) == (
        entry.size,
        entry.modified,
        entry.manifest_modified,
    )


def _known_files() -> Path:
    return home() / "known-files.json"


def remember(path: Path) -> None:
    """Keeps the file at `path` in the catalogue; on a full disk, for this once only."""
    if str(path) in remembered():
        return
    with contextlib.suppress(OSError):
        home().mkdir(parents=True, exist_ok=True)
        # Another command may be adding one at the same time.
        with exclusive(_known_files().with_suffix(".lock"), _LOCK_SECONDS):
            paths = [*remembered(), str(path)]
            write_atomically(_known_files(), json.dumps(paths, indent=2).encode())


def remembered() -> list[str]:
    """The paths that users have named."""
    paths = read_json(_known_files())
    return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []


def remembered_files() -> Iterator[Found]:
    """The files that users have named, as far as they are there."""
    for path in filter(is_text, remembered()):
        if (found := file_at(path, "files")) is not None:
            yield _with_projector(found)


def _with_projector(found: Found) -> Found:
    """A file that was named by itself, with the projector beside it."""
    beside = map(str, Path(found.path).parent.glob("*.gguf"))
    projectors = [path for path in beside if is_projector_name(stem_of(path))]
    return replace(found, projector=projector_for(found, projectors))
