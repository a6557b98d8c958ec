"""Deletes models: those that llm-localrun has pulled, and others only with --force.

The record of pulls is kept in `records`. Which files make up a model of another tool is left to its
store in `files`, deleting a model of a server to `servers`.
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from llm_localrun.engine.state import EnginePaths, list_engines
from llm_localrun.engine.stop import Announce, stop_when_idle
from llm_localrun.errors import NotRemoved
from llm_localrun.files import store_named
from llm_localrun.models import LocalModel
from llm_localrun.pull.records import (
    PullRecord,
    delete,
    drop_record,
    read_records,
    unshared_paths,
)
from llm_localrun.servers.base import Server, open_with_stored_key, server_class
from llm_localrun.system.paths import engine_folder, models_folder


def records_of(model: LocalModel, records: Iterable[PullRecord]) -> list[PullRecord]:
    """The records of the pulls that brought `model`."""
    return [record for record in records if _is_record_of(record, model)]


def _is_record_of(record: PullRecord, model: LocalModel) -> bool:
    if record.files:
        path = model.on_disk.path if model.on_disk else ""
        return path != "" and os.path.realpath(path) == os.path.realpath(record.paths[0])
    if model.served is None:
        return False
    source, _, name = record.ref.partition(":")
    return source == model.served.endpoint.kind and model.name in (name, f"{name}:latest")


def remove(model: LocalModel, announce: Announce, *, force: bool) -> int | None:
    """Deletes `model`; returns the bytes freed, None if a server deletes it.

    An engine that runs it ends first, when it is idle: see `stop_when_idle` for `announce`.
    Refuses what llm-localrun has not pulled, unless `force`. Raises a `LocalRunError`.
    """
    records = read_records()
    ours = records_of(model, records)
    server = _deleting_server(model, ours)
    files = [] if server else _files(model, ours, records)
    if not ours and not force:
        location = f": its file is {model.on_disk.path}" if model.on_disk else ""
        raise NotRemoved(
            f"{model.id} was not pulled by llm-localrun{location}",
            "Delete it where it came from, or with --force if you are sure",
        )
    _stop_engines(model, announce)
    if server:
        server.delete(model.name)
    freed = None if server else delete_files(files, models_folder())
    for record in ours:
        drop_record(record.ref)
    return freed


def _deleting_server(model: LocalModel, ours: Iterable[PullRecord]) -> Server | None:
    """The server that is to delete `model`; None if its files are to be deleted here."""
    if model.served is None or any(record.files for record in ours):
        return None
    server = open_with_stored_key(model.served.endpoint)
    return server if server.can_delete else None


def remove_unlisted(record: PullRecord) -> None:
    """Deletes the record of a model that is not listed, and the rest of its files.

    Raises a `LocalRunError`.
    """
    others = (other for other in read_records() if other.ref != record.ref)
    delete_files(unshared_paths([record], others), models_folder())
    drop_record(record.ref)


def _stop_engines(model: LocalModel, announce: Announce) -> None:
    if model.on_disk is None:
        return
    path = os.path.realpath(model.on_disk.path)
    for engine in list_engines(engine_folder()):
        if os.path.realpath(engine.spec.path) == path:
            stop_when_idle(EnginePaths(engine_folder(), engine.id), announce)


def _files(
    model: LocalModel, ours: list[PullRecord], records: Iterable[PullRecord]
) -> Collection[Path]:
    """The files to delete so that `model` is gone. Raises `NotRemoved`."""
    if any(record.files for record in ours):
        return unshared_paths(ours, (record for record in records if record not in ours))
    if route := model.on_disk:
        return store_named(route.store).files_to_delete(model, route)
    title = server_class(model.served.endpoint.kind).title if model.served else model.id
    raise NotRemoved(f"{title} has no way for other programs to delete a model", "Delete it there")


def delete_files(files: Iterable[Path], folder: Path) -> int:
    """Deletes `files` and the folders below `folder` that this empties; returns the bytes freed.

    Raises `NotRemoved`.
    """
    try:
        return delete(files, folder)
    except OSError as error:
        raise NotRemoved.from_os_error("deleted", error.filename, error) from None
