"""The catalogue: every model that this machine can run, from servers and files together.

Asking servers and scanning folders takes time, so the last snapshot is kept on disk, in
`localrun/catalogue.json`, and in this process. `name_cache.CachePolicy` says when it is renewed.
`servers` and `files` are imported only to take a new one. Finding the models is left to
`servers.discover` and `files.scan`, choosing one to `resolve`.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from llm_localrun.config import read_config
from llm_localrun.errors import BadModelFile, ServerUnreachable
from llm_localrun.models import (
    NAMED_BY_PATH,
    Endpoint,
    EndpointReport,
    LocalModel,
    RunsOn,
    ServerStatus,
    Snapshot,
)
from llm_localrun.name_cache import CachePolicy, delete_names, is_current, is_fresh, settings_stamp
from llm_localrun.privacy import is_loopback, shown_host
from llm_localrun.system.atomic import read_own, write_atomically
from llm_localrun.system.paths import home
from llm_localrun.system.progress import Progress, working

if TYPE_CHECKING:
    from llm_localrun.servers.base import Server

IsEnough: TypeAlias = Callable[[Snapshot], bool]
"""Whether a snapshot has what is looked for, so that the search can end."""
_memory: dict[Path, Snapshot] = {}
_LONG_AGO = 1.0
"""When a snapshot was taken that is not to be relied on."""


class _TakenHere(NamedTuple):
    """A snapshot that this process took itself: taking another one would find no more."""

    snapshot: Snapshot
    is_patient: bool
    """Whether every server had its time."""


_taken_here: list[_TakenHere] = []
"""The last one, if there is one."""


def get_catalogue(
    policy: CachePolicy = CachePolicy.IF_STALE, is_enough: IsEnough | None = None
) -> Snapshot:
    """The last snapshot, or a new one if `policy` asks for it. Raises `ConfigError`."""
    folder = home()
    snapshot = _memory.get(folder) or read_snapshot(folder)
    if _is_usable(snapshot, policy):
        _memory[folder] = snapshot
        return snapshot
    found = _discover(snapshot, policy, is_enough)
    if policy is CachePolicy.REFRESH:
        found = _locate_models(found)
    is_quick = policy in (CachePolicy.IF_EMPTY, CachePolicy.IF_STALE)
    _taken_here[:] = [_TakenHere(found, is_patient=not is_quick and not found.is_partial)]
    return _keep(found)


def locate(model: LocalModel) -> LocalModel:
    """The model with the place where it runs; if that is unknown, asks the server's own tools."""
    if model.runs_on is not RunsOn.UNKNOWN:
        return model
    found = _keep(_locate_models(get_catalogue(CachePolicy.CACHED)))
    return next((other for other in found.models if other.id == model.id), model)


def check_place(model: LocalModel, key: str | None, *, reply_tells: bool) -> LocalModel:
    """The model with the place where it runs now, where its name can come to mean another model.

    A file here may show it. Otherwise its server is asked: at most once a minute, and not while its
    list is younger, if the reply to what is sent tells it too (`reply_tells`). Raises a
    `LocalRunError` if the server does not say.
    """
    from llm_localrun.files import store_named
    from llm_localrun.servers.base import open_server, server_class
    from llm_localrun.tokens import learned

    served, route = model.served, model.on_disk
    if served is None or not server_class(served.endpoint.kind).may_pass_on:
        return model
    reports = get_catalogue(CachePolicy.CACHED).endpoints
    report = next((each for each in reports if each.endpoint == served.endpoint), None)
    listed = report.models if report else ()
    # A program may hold the model as it was when it began.
    known = next((each for each in listed if each.id == model.id), model)
    if report is None or known.runs_on is RunsOn.CLOUD:
        return known
    host = store_named(route.store).remote_host_of(model, route) if route else None
    if host is None:
        # A file that is not the listed model any more contradicts the list.
        times = learned.read_facts(model.id).asked_at, 0.0 if route else report.asked_at
        if reply_tells and any(map(is_fresh, times)):
            return model
        host = open_server(served.endpoint, key).remote_host_of(model)
        learned.record_asked(model.id, time.time())
    return record_place(model, host) if host else model


def record_place(model: LocalModel, remote_host: str) -> LocalModel:
    """Records that a model has come to run in a cloud, at a host, and that no file here is it."""
    place = {"runs_on": RunsOn.CLOUD, "remote_host": shown_host(remote_host)}

    def moved(model: LocalModel) -> LocalModel:
        return model.with_served(**place, digest="").model_copy(update={"fingerprints": ()})

    _change_model(model, moved)
    return moved(model)


def _locate_models(snapshot: Snapshot) -> Snapshot:
    from llm_localrun.servers.discover import locate_models

    with working(Progress("asking where models run")):
        reports = locate_models(snapshot.endpoints, thorough=True)
    return snapshot.model_copy(update={"endpoints": tuple(reports)})


def find_server(kind: str) -> "Server":
    """The first server of a kind that answers, one on this machine if there is one.

    Raises `ServerUnreachable`.
    """
    from llm_localrun.servers.base import open_with_stored_key, server_class

    for policy in (CachePolicy.IF_STALE, CachePolicy.RETRY):
        found = [
            report.endpoint
            for report in get_catalogue(policy).endpoints
            if report.endpoint.kind == kind and _takes_requests(report)
        ]
        if found:
            return open_with_stored_key(min(found, key=lambda each: not is_loopback(each.url)))
    cls = server_class(kind)
    raise ServerUnreachable(f"No {cls.title} answers on this machine", cls.start_hint)


def _takes_requests(report: EndpointReport) -> bool:
    """Whether a server is there and its kind is known."""
    if report.status is ServerStatus.BUSY:
        return report.has_answered
    return report.status in (ServerStatus.ANSWERS, ServerStatus.NEEDS_KEY)


def drop_model(model: LocalModel) -> None:
    """Removes a model that its server says it does not have, until the server lists it again."""
    _change_model(model, lambda _: None)


def drop_renamed_model(model: LocalModel) -> None:
    """Removes a model in whose name another one answers; the next command asks the servers."""
    drop_model(model)
    _keep(get_catalogue(CachePolicy.CACHED).model_copy(update={"taken_at": _LONG_AGO}))


def add_name(model: LocalModel, name: str) -> None:
    """Records that replies of its server call a model `name`, until the server is asked again."""
    known = model.served.also_named if model.served else ()
    _change_model(model, lambda each: each.with_served(also_named=(*known, name)))


def note_offline(endpoint: Endpoint) -> None:
    """Records that nothing listens at `endpoint` any more."""
    _change_reports(
        lambda report: {"status": ServerStatus.OFFLINE} if report.endpoint == endpoint else {}
    )


def _change_model(model: LocalModel, change: Callable[[LocalModel], LocalModel | None]) -> None:
    """Replaces a model of a server by what `change` returns for it; None removes it."""

    def changed(report: EndpointReport) -> Mapping[str, object]:
        models = (change(each) if each.id == model.id else each for each in report.models)
        return {"models": tuple(filter(None, models))}

    _change_reports(changed)


def _change_reports(change: Callable[[EndpointReport], Mapping[str, object]]) -> None:
    """Applies the changes that `change` returns for each report of the last snapshot."""
    snapshot = get_catalogue(CachePolicy.CACHED)
    reports = tuple(each.model_copy(update=change(each)) for each in snapshot.endpoints)
    if reports != snapshot.endpoints:
        _keep(snapshot.model_copy(update={"endpoints": reports}))


def model_at(path: Path) -> LocalModel:
    """The model in the file at `path`, which becomes part of the catalogue.

    Raises `BadModelFile` and `ConfigError`.
    """
    from llm_localrun.files import is_same, open_file, remember, unique_id
    from llm_localrun.files.found import NOT_TEXT, is_text

    real = Path(os.path.realpath(path)) if is_text(str(path)) else path
    if not is_text(str(real)):
        raise BadModelFile(f"{real} cannot be run: {NOT_TEXT}", "Rename it")
    snapshot = get_catalogue(CachePolicy.IF_EMPTY)
    last = next((f for f in snapshot.files if os.path.realpath(f.path) == str(real)), None)
    known = last.model if last else None
    if last and known and is_same(last):
        return known
    file = open_file(real)
    assert file.model is not None
    taken = {model.id for model in snapshot.models}
    model_id = known.id if known else unique_id(file.model.name, file.path, taken)
    model = file.model.model_copy(update={"id": model_id})
    remember(real)
    file = file.model_copy(update={"model": model})
    others = [other for other in snapshot.files if other is not last]
    _keep(snapshot.model_copy(update={"files": (*others, file), "scan_digest": ""}))
    return model


def forget_file(path: str) -> str:
    """Removes the file at `path` from the catalogue, unless a store has it: returns that store."""
    snapshot = get_catalogue(CachePolicy.CACHED)
    file = next((file for file in snapshot.files if file.path == path), None)
    route = file.model.on_disk if file and file.model else None
    if route is not None and route.store != NAMED_BY_PATH:
        return route.store
    drop_file(path)
    return ""


def drop_file(path: str) -> None:
    """Removes the file at `path` from the catalogue, until a scan finds it."""
    snapshot = get_catalogue(CachePolicy.CACHED)
    others = tuple(file for file in snapshot.files if file.path != path)
    _keep(snapshot.model_copy(update={"files": others, "scan_digest": ""}))


def _keep(snapshot: Snapshot) -> Snapshot:
    delete_names()
    write_snapshot(home(), snapshot)
    _memory[home()] = snapshot
    return snapshot


def _is_usable(snapshot: Snapshot, policy: CachePolicy) -> bool:
    """Whether `policy` allows `snapshot` to be used. An empty one is only used by who took it."""
    if policy in (CachePolicy.CACHED, CachePolicy.FRESH, CachePolicy.REFRESH):
        return policy is CachePolicy.CACHED
    if not (snapshot.taken_at > 0 and is_current(snapshot.stamp)):
        return False
    if policy is CachePolicy.IF_EMPTY or not is_fresh(snapshot.taken_at):
        return policy is CachePolicy.IF_EMPTY
    own = next((each for each in _taken_here if each.snapshot is snapshot), None)
    if own is not None:
        return own.is_patient or policy is not CachePolicy.RETRY
    if not snapshot.models or snapshot.is_partial:
        return False
    allowed = (CachePolicy.IF_STALE, *([CachePolicy.IF_NEEDED] if snapshot.is_complete else []))
    return policy in allowed


def _discover(before: Snapshot, policy: CachePolicy, is_enough: IsEnough | None) -> Snapshot:
    from llm_localrun import files
    from llm_localrun.servers import base as servers
    from llm_localrun.servers.discover import Discovery, candidates_for, is_complete

    stamp = settings_stamp(sorted({*files.variables(), *servers.variables()}))
    config = read_config()
    candidates = candidates_for(config, servers.stored_keys())
    discovery = Discovery(candidates, before.endpoints, policy)

    def with_reports(reports: Iterable[EndpointReport]) -> Snapshot:
        return scanned.model_copy(update={"endpoints": tuple(reports)})

    def show_waiting(reports: Iterable[EndpointReport]) -> None:
        work.report(Progress(f"waiting for {', '.join(map(describe_server, reports))}"))

    with working(Progress("looking for model files")) as work:
        scanned = files.scan(config.folders, before)
        work.report(Progress("asking servers for their models"))
        reports = discovery.run(
            lambda so_far: is_enough is not None and is_enough(with_reports(so_far)), show_waiting
        )
    return with_reports(reports).model_copy(
        update={
            "taken_at": time.time(),
            "stamp": stamp,
            "is_partial": discovery.has_stopped_early,
            "is_complete": not discovery.has_stopped_early and is_complete(reports),
        }
    )


def describe_server(report: EndpointReport) -> str:
    """How messages call a server: by its kind only if that is known."""
    from llm_localrun.servers.base import server_class

    endpoint = report.endpoint
    title = server_class(endpoint.kind).title if report.is_kind_known else "the server"
    return f"{title} at {endpoint.address}"


SNAPSHOT_VERSION = 10
"""A file of another version is ignored and replaced."""


class _CatalogueFile(BaseModel):
    """The content of catalogue.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    snapshot: Snapshot


def read_snapshot(folder: Path) -> Snapshot:
    """The snapshot in `folder`; an empty one if there is none that this version can use."""
    try:
        kept = _CatalogueFile.model_validate_json(read_own(folder / "catalogue.json"))
    except (OSError, ValidationError):
        return Snapshot()
    return kept.snapshot if kept.version == SNAPSHOT_VERSION else Snapshot()


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Replaces the snapshot in `folder`. If that fails, every command looks for models again."""
    kept = _CatalogueFile(version=SNAPSHOT_VERSION, snapshot=snapshot)
    # Without the defaults, reading the file takes a third of the time.
    text = kept.model_dump_json(exclude_defaults=True)
    with contextlib.suppress(OSError):
        write_atomically(folder / "catalogue.json", text.encode())
