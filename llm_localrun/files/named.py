"""Files that users have named by path. They are remembered, so that `llm -c` finds them.

Reading a file is left to `contents`, listing it with all others to `scan`.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.errors import BadModelFile, NotRemoved
from llm_localrun.files.contents import read_model
from llm_localrun.files.folders import projector_for
from llm_localrun.files.found import (
    FoundFile,
    existing,
    file_at,
    is_text,
    listed,
    stamp_of,
    stem_of,
)
from llm_localrun.gguf.files import opened, parts_of
from llm_localrun.gguf.header import read_summary
from llm_localrun.models import NAMED_BY_PATH, ScannedFile
from llm_localrun.names.roles import is_projector_name
from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.json_files import read_own_json
from llm_localrun.system.locks import exclusive
from llm_localrun.system.paths import home

_LOCK_TIMEOUT_S = 2.0


def open_file(path: Path) -> ScannedFile:
    """The entry for the file at `path`, which a user has named. Raises `BadModelFile`."""
    with opened(path) as file:
        read_summary(file)
    found = file_at(str(path))
    if found is None:
        raise _not_whole(path)
    found = _with_projector(found)
    model = read_model(found)
    if isinstance(model, str):
        raise BadModelFile(
            f"{path} holds no model that can be run by itself: {model}",
            "Run the model that it belongs to, or choose another file",
        )
    if model.on_disk and model.on_disk.problem:
        raise BadModelFile(
            f"{path} cannot be run: {model.on_disk.problem}",
            "Download it again, or choose another file",
        )
    return ScannedFile(
        path=found.path,
        size=found.size,
        modified=found.modified,
        stamp=stamp_of(found),
        model=model,
    )


def _not_whole(path: Path) -> BadModelFile:
    parts = parts_of(path)
    if not parts:
        return BadModelFile(
            f"{path} is a later part of a split file", "Give the path of the first part"
        )
    missing = next((part for part in parts if not part.is_file()), path)
    what = "not a regular file" if missing.exists() else "missing"
    return BadModelFile(
        f"{path} cannot be run: {missing.name} is {what}",
        "Download that part into the same folder",
    )


def is_same(entry: ScannedFile) -> bool:
    """Whether the file of `entry` exists, holds a model and has not changed since."""
    found = file_at(entry.path)
    route = entry.model.on_disk if entry.model else None
    if route is None or found is None:
        return False
    manifest = listed(route.manifest)
    stamp = stamp_of(replace(found, projector=route.projector))
    now = found.size, found.modified, stamp, manifest.modified if manifest else 0.0
    return now == (entry.size, entry.modified, entry.stamp, entry.manifest_modified)


def _known_files() -> Path:
    return home() / "known-files.json"


def remember(path: Path) -> None:
    """Adds `path` to the files that every scan finds; without effect if the disk is full."""
    if str(path) not in remembered():
        with contextlib.suppress(OSError):
            _change(lambda paths: [*paths, str(path)])


def forget(path: str) -> None:
    """Removes `path` from the files that every scan finds. Raises `NotRemoved`."""
    try:
        _change(lambda paths: [each for each in paths if each != path])
    except OSError as error:
        raise NotRemoved.from_os_error("written", _known_files(), error) from None


def _change(change: Callable[[list[str]], list[str]]) -> None:
    home().mkdir(parents=True, exist_ok=True)
    # Another command may be changing it at the same time.
    with exclusive(_known_files().with_suffix(".lock"), _LOCK_TIMEOUT_S):
        paths = change(remembered())
        write_atomically(_known_files(), json.dumps(paths, indent=2).encode())


def remembered() -> list[str]:
    """The paths that users have named."""
    paths = read_own_json(_known_files())
    return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []


def remembered_files() -> Iterator[FoundFile]:
    """The files that users have named, as far as they still exist."""
    for path in filter(is_text, remembered()):
        if (found := file_at(path)) is not None:
            yield _with_projector(found)


def _with_projector(found: FoundFile) -> FoundFile:
    """A file that was named by path, with the projector in its folder."""
    neighbors = map(str, Path(found.path).parent.glob("*.gguf"))
    projectors = [path for path in neighbors if is_projector_name(stem_of(path)) and existing(path)]
    return replace(found, store=NAMED_BY_PATH, projector=projector_for(found, projectors))
