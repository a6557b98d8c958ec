"""Finds every model that this machine can run: the one way to a catalogue.

Asking servers and looking into files costs time, so what was found is kept on disk for a minute,
and in this process.
"""

import os
import time
from pathlib import Path

from llm_localrun.catalogue import LocalModel, Snapshot, read_snapshot, write_snapshot
from llm_localrun.config import read_config, stored_keys
from llm_localrun.places import home, settings_stamp
from llm_localrun.registry import FRESH_SECONDS, Refresh, age_of, drop_registry

_memory: dict[Path, Snapshot] = {}
_own: list[Snapshot] = []
"""The last one that this process has made itself: looking again would find no more."""


def catalogue(refresh: Refresh = "if stale") -> Snapshot:
    """What can run here; the last snapshot, or a new one if `refresh` says so.

    Raises `ConfigError`.
    """
    folder = home()
    snapshot = _memory.get(folder) or read_snapshot(folder)
    if _is_good_enough(snapshot, refresh):
        _memory[folder] = snapshot
        return snapshot
    found = _discover(snapshot, patient=refresh in ("now", "if missing"))
    if refresh == "now":
        found = _with_devices(found)
    _own[:] = [found]
    return _keep(found)


def located(model: LocalModel) -> LocalModel:
    """`model`, after `lms` has been asked where it runs if nobody else was able to tell."""
    if model.runs_on != "unknown" or model.endpoint is None or model.endpoint.kind != "lmstudio":
        return model
    found = _keep(_with_devices(catalogue("never")))
    return next((other for other in found.models if other.id == model.id), model)


def _with_devices(snapshot: Snapshot) -> Snapshot:
    from llm_localrun.discovery.lm_link import with_devices

    reports = with_devices(snapshot.endpoints)
    return snapshot.model_copy(update={"endpoints": reports})


def model_at(path: Path) -> LocalModel:
    """The model in the file at `path`, which is in the catalogue from now on.

    Raises `BadModelFile` and `ConfigError`.
    """
    from llm_localrun.discovery.stores import is_same, open_file, remember, unique_id

    real = Path(os.path.realpath(path))
    snapshot = catalogue("if absent")
    last = next((e for e in snapshot.files if os.path.realpath(e.path) == str(real)), None)
    entry = open_file(real) if last is None or not is_same(last) else last
    assert entry.model is not None
    if entry is last:
        return entry.model
    if last is not None and last.model is not None:
        model_id = last.model.id
    else:
        model_id = unique_id(entry.model, {model.id for model in snapshot.models})
    model = entry.model.model_copy(update={"id": model_id})
    remember(real)
    entry = entry.model_copy(update={"model": model})
    others = [other for other in snapshot.files if other is not last]
    _keep(snapshot.model_copy(update={"files": (*others, entry)}))
    return model


def _keep(snapshot: Snapshot) -> Snapshot:
    drop_registry()
    write_snapshot(home(), snapshot)
    _memory[home()] = snapshot
    return snapshot


def _is_good_enough(snapshot: Snapshot, refresh: Refresh) -> bool:
    if refresh == "if stale":
        is_fresh = age_of(snapshot.taken_at) < FRESH_SECONDS
        return is_fresh and snapshot.stamp == settings_stamp()
    if refresh == "if missing":
        return any(snapshot is own for own in _own)
    return refresh == "never" or (refresh == "if absent" and snapshot.taken_at > 0)


def _discover(before: Snapshot, *, patient: bool) -> Snapshot:
    begun = time.monotonic()
    from llm_localrun.discovery.endpoints import ask, deadline_from, probes_for
    from llm_localrun.discovery.stores import scan

    stamp = settings_stamp()
    config = read_config()
    files, stores = scan(config.folders, before.files)
    probes = probes_for(config, stored_keys())
    reports = ask(probes, before.endpoints, deadline_from(begun), patient=patient)
    return Snapshot(
        taken_at=time.time(),
        stamp=stamp,
        endpoints=tuple(reports),
        files=tuple(files),
        stores=tuple(stores),
    )
