"""The files that llama.cpp could not load, and why, in `localrun/failed-loads.json`.

Such a file is not loaded for a name that another model can have, until it changes or a load
succeeds. Loading files is left to `engine`, what a failure means for the names to `resolve`.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_localrun.files.found import file_at
from llm_localrun.models import OnDisk
from llm_localrun.name_cache import delete_names
from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.json_files import read_json, text_at, value_at
from llm_localrun.system.paths import home

_MAX_RECORDS = 100


class FailedLoads:
    """The records on disk. Of two commands that write at once, the last one wins."""

    def __init__(self) -> None:
        records = read_json(_path())
        self._records: dict[str, Any] = records if isinstance(records, dict) else {}

    def problem_of(self, route: OnDisk) -> str:
        """Why the file of a route is believed not to load, in half a sentence; "" if it does."""
        record = self._records.get(route.path)
        if route.problem or record is None:
            return route.problem
        reason = text_at(record, "reason")
        return f"llama.cpp cannot load it: {reason}" if _is_current(record, route.path) else ""

    def add(self, path: str, reason: str) -> None:
        """Records that the file at `path`, as it is now, cannot be loaded."""
        if (file := file_at(path)) is not None:
            record = {"size": file.size, "modified": file.modified, "reason": reason}
            others = {key: value for key, value in self._records.items() if key != path}
            self._write({**others, path: record})

    def remove(self, path: str) -> None:
        """Removes the record of a file that has been loaded."""
        if path in self._records:
            self._write({key: value for key, value in self._records.items() if key != path})

    def _write(self, records: Mapping[str, Any]) -> None:
        self._records = dict([*records.items()][-_MAX_RECORDS:])
        # On a full disk, the file is tried again.
        with contextlib.suppress(OSError):
            write_atomically(_path(), json.dumps(self._records, indent=2).encode())
        # The names depend on what can be loaded.
        delete_names()


def _is_current(record: Any, path: str) -> bool:
    """Whether the file at `path` is still as it was when it could not be loaded."""
    file = file_at(path)
    recorded = value_at(record, "size"), value_at(record, "modified")
    return file is not None and recorded == (file.size, file.modified)


def _path() -> Path:
    return home() / "failed-loads.json"
