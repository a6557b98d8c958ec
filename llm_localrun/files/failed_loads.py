"""The files that llama.cpp could not load or run, and why, in `localrun/failed-loads.json`.

Such a file is not loaded for a name that another model can have, until it changes or answers a
prompt. Loading files is left to `engine`, what a failure means for the names to `resolve`.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from llm_localrun.files.found import FoundFile, file_at
from llm_localrun.models import OnDisk
from llm_localrun.name_cache import delete_names
from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.json_files import read_own_json, text_at, value_at
from llm_localrun.system.paths import home

_MAX_RECORDS = 100


class FailedLoads:
    """The records on disk. Of two commands that write at once, the last one wins."""

    def __init__(self) -> None:
        records = read_own_json(_path())
        self._records: dict[str, Any] = records if isinstance(records, dict) else {}

    def problem_of(self, route: OnDisk) -> str:
        """Why the file of a route is believed not to run, in half a sentence; "" if it does."""
        own = self._records.get(_key(route.path, route.manifest))
        record = own or self._records.get(route.path)
        if route.problem or record is None:
            return route.problem
        file = file_at(route.path)
        is_same = file is not None and all(
            value_at(record, name) == value for name, value in _facts(file).items()
        )
        return text_at(record, "reason") if is_same else ""

    def add(self, path: str, reason: str, manifest: str = "") -> None:
        """Records that the file at `path`, as it is now, cannot be loaded: "it is …".

        With a `manifest`, as it says to run it.
        """
        if (file := file_at(path)) is not None:
            # At the end: the oldest records are dropped.
            self._records.pop(key := _key(path, manifest), None)
            self._records[key] = {**_facts(file), "reason": reason}
            self._write()

    def remove(self, path: str, manifest: str = "") -> None:
        """Removes the records of a file that has answered, as its `manifest` says to run it."""
        if [key for key in (path, _key(path, manifest)) if self._records.pop(key, None)]:
            self._write()

    def _write(self) -> None:
        records = dict([*self._records.items()][-_MAX_RECORDS:])
        # On a full disk, the file is tried again.
        with contextlib.suppress(OSError):
            write_atomically(_path(), json.dumps(records, indent=2).encode())
        # The names depend on what can be loaded.
        delete_names()


def _key(path: str, manifest: str) -> str:
    return f"{path} {manifest}" if manifest else path


def _facts(file: FoundFile) -> dict[str, Any]:
    """What is equal as long as a file does not change."""
    return {"size": file.size, "modified": file.modified, "stamp": file.stamp}


def _path() -> Path:
    return home() / "failed-loads.json"
