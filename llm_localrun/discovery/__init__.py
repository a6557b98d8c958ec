"""Finds every model that this machine can run: the one way to a catalogue.

Asking servers and looking into files costs time, so what was found is kept on disk for a minute,
and in this process.
"""

import os
import time
from pathlib import Path
from typing import Literal, TypeAlias

import llm

from llm_localrun.catalogue import LocalModel, Snapshot, read_snapshot, write_snapshot
from llm_localrun.config import home, read_config

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
    return _keep(_discover(snapshot, patient=refresh == "now"))


def model_at(path: Path) -> LocalModel:
    """The model in the file at `path`, which is in the catalogue from now on.

    Raises `BadModelFile` and `ConfigError`.
    """
    from llm_localrun.discovery.stores import open_file, remember, unique_id

    real = Path(os.path.realpath(path))
    snapshot = catalogue("if absent")
    for model in snapshot.models:
        if model.path is not None and os.path.realpath(model.path) == str(real):
            return model
    entry = open_file(real)
    assert entry.model is not None
    model_id = unique_id(entry.model, {model.id for model in snapshot.models})
    model = entry.model.model_copy(update={"id": model_id})
    remember(real)
    entry = entry.model_copy(update={"model": model})
    _keep(snapshot.model_copy(update={"files": (*snapshot.files, entry)}))
    return model


def _keep(snapshot: Snapshot) -> Snapshot:
    write_snapshot(home(), snapshot)
    _memory[home()] = snapshot
    return snapshot


def _is_good_enough(snapshot: Snapshot, refresh: Refresh) -> bool:
    if refresh == "if stale":
        return snapshot.age() < FRESH_SECONDS
    return refresh == "never" or (refresh == "if absent" and snapshot.taken_at > 0)


def _discover(before: Snapshot, *, patient: bool) -> Snapshot:
    begun = time.monotonic()
    from llm_localrun.discovery.endpoints import ask, deadline_from, probes_for
    from llm_localrun.discovery.stores import find_files, scan

    config = read_config()
    keys = _keys() if any(each.key for each in config.endpoints) else {}
    files = scan(find_files(config.folders), before.files)
    probes = probes_for(config, keys)
    reports = ask(probes, before.endpoints, deadline_from(begun), patient=patient)
    return Snapshot(taken_at=time.time(), endpoints=tuple(reports), files=tuple(files))


def _keys() -> dict[str, str]:
    """What `llm keys` holds; nothing if its file is damaged, which llm itself reports on use."""
    try:
        keys: dict[str, str] = llm.load_keys()  # type: ignore[no-untyped-call]
    except (OSError, ValueError):
        return {}
    return keys
