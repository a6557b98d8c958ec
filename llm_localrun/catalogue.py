"""Finds every model that this machine can run: the one way to a catalogue.

Asking servers and looking into files costs time, so what was found is kept on disk for a minute,
and in this process.
"""

import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from llm_localrun.config import read_config
from llm_localrun.models import LocalModel, RunsOn, Snapshot
from llm_localrun.name_cache import FRESH_SECONDS, CachePolicy, age_of, drop_registry
from llm_localrun.servers.keys import stored_keys
from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.paths import home, settings_stamp

_memory: dict[Path, Snapshot] = {}
_own: list[Snapshot] = []
"""The last one that this process has made itself: looking again would find no more."""


def get_catalogue(refresh: CachePolicy = CachePolicy.IF_STALE) -> Snapshot:
    """What can run here; the last snapshot, or a new one if `refresh` says so.

    Raises `ConfigError`.
    """
    folder = home()
    snapshot = _memory.get(folder) or read_snapshot(folder)
    if _is_good_enough(snapshot, refresh):
        _memory[folder] = snapshot
        return snapshot
    found = _discover(snapshot, patient=refresh in (CachePolicy.REFRESH, CachePolicy.RETRY))
    if refresh == CachePolicy.REFRESH:
        found = _with_devices(found)
    _own[:] = [found]
    return _keep(found)


def located(model: LocalModel) -> LocalModel:
    """`model`, after `lms` has been asked where it runs if nobody else was able to tell."""
    if (
        model.runs_on != RunsOn.UNKNOWN
        or model.endpoint is None
        or model.endpoint.kind != "lmstudio"
    ):
        return model
    found = _keep(_with_devices(get_catalogue(CachePolicy.CACHED)))
    return next((other for other in found.models if other.id == model.id), model)


def _with_devices(snapshot: Snapshot) -> Snapshot:
    from llm_localrun.servers.lm_link import with_devices

    reports = with_devices(snapshot.endpoints)
    return snapshot.model_copy(update={"endpoints": reports})


def model_at(path: Path) -> LocalModel:
    """The model in the file at `path`, which is in the catalogue from now on.

    Raises `BadModelFile` and `ConfigError`.
    """
    from llm_localrun.files import is_same, open_file, remember, unique_id

    real = Path(os.path.realpath(path))
    snapshot = get_catalogue(CachePolicy.IF_EMPTY)
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
    _keep(snapshot.model_copy(update={"files": (*others, entry), "scan_digest": ""}))
    return model


def _keep(snapshot: Snapshot) -> Snapshot:
    drop_registry()
    write_snapshot(home(), snapshot)
    _memory[home()] = snapshot
    return snapshot


def _is_good_enough(snapshot: Snapshot, refresh: CachePolicy) -> bool:
    if refresh == CachePolicy.IF_STALE:
        is_fresh = age_of(snapshot.taken_at) < FRESH_SECONDS
        return is_fresh and snapshot.stamp == settings_stamp()
    if refresh == CachePolicy.RETRY:
        return any(snapshot is own for own in _own)
    return refresh == CachePolicy.CACHED or (
        refresh == CachePolicy.IF_EMPTY and snapshot.taken_at > 0
    )


def _discover(before: Snapshot, *, patient: bool) -> Snapshot:
    begun = time.monotonic()
    from llm_localrun.files import scan
    from llm_localrun.servers.discover import ask, deadline_from, probes_for

    stamp = settings_stamp()
    config = read_config()
    scanned = scan(config.folders, before)
    probes = probes_for(config, stored_keys())
    reports = ask(probes, before.endpoints, deadline_from(begun), patient=patient)
    return scanned.model_copy(
        update={"taken_at": time.time(), "stamp": stamp, "endpoints": tuple(reports)}
    )


# A snapshot of another version is rebuilt, never read.
SNAPSHOT_VERSION = 6


class _Kept(BaseModel):
    """The file on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    snapshot: Snapshot


def read_snapshot(folder: Path) -> Snapshot:
    """The snapshot in `folder`; an empty one if there is none that this version can use."""
    try:
        text = (folder / "catalogue.json").read_bytes()
    except OSError:
        return Snapshot()
    try:
        kept = _Kept.model_validate_json(text)
    except ValidationError:
        return Snapshot()
    return kept.snapshot if kept.version == SNAPSHOT_VERSION else Snapshot()


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Puts `snapshot` in place of the last one, whole or not at all.

    A folder that cannot be written to costs a new discovery each time, and nothing else.
    """
    kept = _Kept(version=SNAPSHOT_VERSION, snapshot=snapshot)
    # What is as it is by default goes without saying: a third of the time to read it all again.
    text = kept.model_dump_json(exclude_defaults=True)
    try:
        write_atomically(folder / "catalogue.json", text.encode())
    except OSError:
        return
