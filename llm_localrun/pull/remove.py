"""Deletes models: what llm-localrun has pulled, and what others have only if the user insists."""

import os
from collections.abc import Iterable
from pathlib import Path

from llm_localrun.engine.state import list_running
from llm_localrun.engine.stop import stop
from llm_localrun.errors import NotRemoved
from llm_localrun.gguf.files import part_stems
from llm_localrun.models import LocalModel
from llm_localrun.pull.folder import delete, models_folder
from llm_localrun.pull.records import Pulled, forget, read_records
from llm_localrun.servers import ollama_admin
from llm_localrun.servers.admin import server_at
from llm_localrun.servers.kinds import kind_of
from llm_localrun.system.paths import engine_folder


def records_of(model: LocalModel, records: Iterable[Pulled]) -> list[Pulled]:
    """Those that say that we have pulled `model`."""
    folder = models_folder()
    return [record for record in records if _has_brought(record, model, folder)]


def _has_brought(record: Pulled, model: LocalModel, folder: Path) -> bool:
    if record.files:
        first = os.path.realpath(folder / record.files[0].path)
        return model.path is not None and os.path.realpath(model.path) == first
    if model.endpoint is None:
        return False
    source, _, name = record.ref.partition(":")
    return source == model.endpoint.kind and model.name in (name, f"{name}:latest")


def remove(model: LocalModel, *, force: bool) -> int | None:
    """Deletes `model`; the bytes that this frees here, None if a server deletes it.

    Only what we have pulled, unless `force`. Raises a `LocalRunError`.
    """
    records = read_records(models_folder())
    ours = records_of(model, records)
    if not ours and not force:
        raise NotRemoved(
            f"{model.id} was not pulled by llm-localrun{_whose(model)}",
            "Delete it where it came from, or with --force if you are sure",
        )
    if model.path is not None:
        _stop_engines(model.path)
    is_in_folder = any(record.files for record in ours)
    if not is_in_folder and model.endpoint is not None and model.endpoint.kind == "ollama":
        ollama_admin.delete(model.name, server_at(model.endpoint))
        freed = None
    else:
        freed = delete_files(_files(model, ours, records), models_folder())
    for record in ours:
        forget(record.ref, models_folder())
    return freed


def forget_gone(record: Pulled) -> None:
    """Drops a record whose model is not listed, with what is left of its files.

    Raises a `LocalRunError`.
    """
    others = (other for other in read_records(models_folder()) if other.ref != record.ref)
    delete_files(_unshared([record], others), models_folder())
    forget(record.ref, models_folder())


def _whose(model: LocalModel) -> str:
    return f": its file is {model.path}" if model.path else ""


def _stop_engines(path: str) -> None:
    for engine in list_running(engine_folder()):
        if os.path.realpath(engine.spec.path) == os.path.realpath(path):
            stop(engine, engine_folder())


def _files(model: LocalModel, ours: list[Pulled], records: Iterable[Pulled]) -> set[Path]:
    """What has to go for `model` to be gone. Raises `NotRemoved`."""
    if any(record.files for record in ours):
        return _unshared(ours, (record for record in records if record not in ours))
    if model.path is None:
        title = kind_of(model.endpoint.kind).title if model.endpoint else model.id
        raise NotRemoved(f"{title} lets nobody delete a model from outside", "Delete it there")
    if model.store == "ollama":
        raise NotRemoved(
            f"{model.name} lies in Ollama's store, and Ollama does not answer",
            f"{kind_of('ollama').advice}, and try again",
        )
    path = Path(model.path)
    parts = [path.with_name(f"{stem}{path.suffix}") for stem in part_stems(path.stem)]
    return {file for part in parts for file in _with_blob(part, model.store)}


def _unshared(records: Iterable[Pulled], others: Iterable[Pulled]) -> set[Path]:
    """The files of `records` that no other one has brought too: a projector serves several."""
    folder = models_folder()
    needed = {path for record in others for path in record.paths(folder)}
    return {path for record in records for path in record.paths(folder)} - needed


def _with_blob(path: Path, store: str) -> set[Path]:
    """In the hub's cache a file is a link to its content; all links to that go with it."""
    if store != "huggingface" or not path.is_symlink():
        return {path}
    blob = path.resolve()
    snapshots = next(parent for parent in path.parents if parent.name == "snapshots")
    links = {link for link in snapshots.rglob(path.name) if link.resolve() == blob}
    return {path, blob, *links}


def delete_files(files: Iterable[Path], folder: Path) -> int:
    """Deletes `files`, and what that empties in `folder`; the bytes freed. Raises `NotRemoved`."""
    try:
        return delete(files, folder)
    except OSError as error:
        raise NotRemoved.from_os_error("deleted", error.filename, error) from None
