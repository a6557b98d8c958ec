"""Finds every model that this machine can run: the one way to a catalogue.

Asking servers and looking into files costs time, so what was found is kept on disk for a minute,
and in this process.
"""

import time
from pathlib import Path
from typing import Literal, TypeAlias

import llm

from llm_localrun.catalogue import Snapshot, read_snapshot, write_snapshot
from llm_localrun.config import home, read_config
from llm_localrun.discovery.endpoints import ask, probes_for
from llm_localrun.discovery.stores import find_files, scan

FRESH_SECONDS = 60.0

Refresh: TypeAlias = Literal["never", "if absent", "if stale", "now"]

_memory: dict[Path, Snapshot] = {}


def catalogue(refresh: Refresh = "if stale") -> Snapshot:
    """What can run here; the last snapshot, or a new one if `refresh` says so.

    Raises `ConfigError`.
    """
    folder = home()
    snapshot = _memory.get(folder) or read_snapshot(folder)
    if _is_good_enough(snapshot, refresh):
        _memory[folder] = snapshot
        return snapshot
    snapshot = _discover(snapshot, patient=refresh == "now")
    write_snapshot(folder, snapshot)
    _memory[folder] = snapshot
    return snapshot


def _is_good_enough(snapshot: Snapshot, refresh: Refresh) -> bool:
    if refresh == "if stale":
        return snapshot.age() < FRESH_SECONDS
    return refresh == "never" or (refresh == "if absent" and snapshot.taken_at > 0)


def _discover(before: Snapshot, *, patient: bool) -> Snapshot:
    config = read_config()
    keys = _keys() if any(each.key for each in config.endpoints) else {}
    files = scan(find_files(config.folders), before.files)
    reports = ask(probes_for(config, keys), before.endpoints, patient=patient)
    return Snapshot(taken_at=time.time(), endpoints=tuple(reports), files=tuple(files))


def _keys() -> dict[str, str]:
    """What `llm keys` holds; nothing if its file is damaged, which llm itself reports on use."""
    try:
        keys: dict[str, str] = llm.load_keys()  # type: ignore[no-untyped-call]
    except (OSError, ValueError):
        return {}
    return keys
