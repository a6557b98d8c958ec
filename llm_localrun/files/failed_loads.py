"""The files that llama.cpp could not load, and why, in `localrun/failed-loads.json`.

Such a file is not loaded for a name that another model can have, until it changes or a load
succeeds. Loading files is left to `engine`, what a failure means for the names to `resolve`.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from llm_localrun.files.found import file_at
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
        """Why the file of a route is believed not to load, in half a sentence; "" if it does."""
        record = self._records.get(route.path)
        if route.problem or record is None:
            return route.problem
        file = file_at(route.path)
        recorded = value_at(record, "size"), value_at(record, "modified")
        if file is None or recorded != (file.size, file.modified):
            return ""
        return text_at(record, "reason")

    def add(self, path: str, reason: str) -> None:
        """Records that the file at `path`, as it is now, cannot be loaded: "it is …"."""
        if (file := file_at(path)) is not None:
            # At the end: the oldest records are dropped.
            self._records.pop(path, None)
            record = {"size": file.size, "modified": file.modified, "reason": reason}
            self._records[path] = record
            self._write()

    def remove(self, path: str) -> None:
        """Removes the record of a file that has been loaded."""
        if self._records.pop(path, None) is not None:
            self._write()

    def _write(self) -> None:
        records = dict([*self._records.items()][-_MAX_RECORDS:])
        # On a full disk, the file is tried again.
        with contextlib.suppress(OSError):
            write_atomically(_path(), json.dumps(records, indent=2).encode())
        # The names depend on what can be loaded.
        delete_names()


def _path() -> Path:
    return home() / "failed-loads.json"
