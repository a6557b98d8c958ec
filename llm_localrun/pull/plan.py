"""A REF to a model on this machine: what has to be fetched, and fetching it.

`plan` asks who has the model and fetches nothing of it; `Plan.fetch` does, and notes it in the
records. How far that is comes as `Progress` values; showing them is the commands' business.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from llm_localrun.errors import PullFailed
from llm_localrun.models import LocalModel
from llm_localrun.pull import http_files, huggingface, starter
from llm_localrun.pull.download import Wanted, claim, download, explained, hold
from llm_localrun.pull.folder import delete, models_folder, partial_folder, place_in
from llm_localrun.pull.http_files import BrokenOff, Source
from llm_localrun.pull.huggingface import Repository
from llm_localrun.pull.recommend import named
from llm_localrun.pull.records import Pulled, PulledFile, keep, read_records
from llm_localrun.pull.refs import HubRef, LMStudioRef, OllamaRef, Ref, StarterRef, UrlRef
from llm_localrun.pull.safety import parts_of
from llm_localrun.pull.variants import Variant, variants_in
from llm_localrun.servers import lmstudio_admin, ollama_admin
from llm_localrun.servers.admin import Server, server_of
from llm_localrun.system.progress import Progress

Fetching: TypeAlias = Generator[Progress, None, Pulled]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pull is going to do: `fetch` does it, and `record` is what it will leave in short.

    `files` are what we fetch ourselves; a server fetches what it serves.
    """

    record: Pulled
    fetch: Callable[[], Fetching]
    files: tuple[Wanted, ...] = ()

    @property
    def title(self) -> str:
        """What is pulled, in a word."""
        return self.record.ref.rpartition("/")[2]

    def brings_news(self, record: Pulled) -> bool | None:
        """Whether it would bring other bytes than `record` has; None if that cannot be told."""
        if self.record.mark:
            return self.record.mark != record.mark
        if not self.record.files:
            return None
        then = {file.path: file for file in record.files}
        is_same = all(_is_same(file, then.pop(file.path, None)) for file in self.record.files)
        return not is_same or bool(then)


def _is_same(now: PulledFile, then: PulledFile | None) -> bool:
    """Whether a file is what it was; not every hub tells a small file's SHA-256."""
    return then is not None and now.size == then.size and now.sha256 in ("", then.sha256)


def plan(ref: Ref) -> Plan:
    """What pulling `ref` is going to do. Raises a `LocalRunError`."""
    if isinstance(ref, HubRef):
        repository = huggingface.repository(ref.repo, ref.revision)
        return plan_variant(ref, repository, named(ref, repository))
    if isinstance(ref, UrlRef):
        return _plan_url(ref)
    if isinstance(ref, OllamaRef):
        return _plan_served(ref, "ollama", lambda server: ollama_admin.pull(ref.name, server))
    if isinstance(ref, LMStudioRef):
        return _plan_served(ref, "lmstudio", lambda server: lmstudio_admin.pull(ref, server))
    return _plan_starter(ref)


def same_content(plan: Plan, models: Iterable[LocalModel]) -> LocalModel | None:
    """The model in another tool's store that has every byte of what `plan` would fetch.

    Told by the names of its files: the hub's cache and Ollama call them by their SHA-256.
    """
    needed = {file.sha256 for file in plan.files}
    if not needed or "" in needed:
        return None
    return next((model for model in models if needed <= _contents(model)), None)


def _contents(model: LocalModel) -> set[str]:
    """What the names of the model's files, and of those beside them, say that they hold."""
    if model.path is None:
        return set()
    path = Path(model.path)
    files = (
        path,
        *path.parent.glob("*.gguf"),
        *([Path(model.projector)] if model.projector else []),
    )
    return {Path(os.path.realpath(file)).name.removeprefix("sha256-") for file in files}


def plan_variant(ref: HubRef, repository: Repository, variant: Variant) -> Plan:
    """What pulling `variant` out of `repository` is going to do. Raises `PullFailed`."""
    folder = models_folder()
    beside = (*ref.repo.split("/"), *parts_of(variant.path)[:-1])
    files = tuple(
        Wanted(
            repository.source(file),
            place_in(folder, (*beside, parts_of(file.path)[-1])),
            file.size,
            file.sha256,
        )
        for file in variant.files
    )
    record = Pulled(
        ref=_settled(ref, repository, variant).text,
        source="huggingface",
        files=tuple(_pulled(file.target, file.size or 0, file.sha256) for file in reversed(files)),
        commit=repository.commit,
    )
    return Plan(record, lambda: _fetch(record, files), files)


def _settled(ref: HubRef, repository: Repository, variant: Variant) -> HubRef:
    """A REF that means `variant`, by its quantization if that is enough."""
    same = [v for v in variants_in(repository.files) if v.quantization == variant.quantization]
    if ref.file or not variant.quantization or len(same) > 1:
        return replace(ref, quantization="", file=variant.path)
    return replace(ref, quantization=variant.quantization)


def _plan_url(ref: UrlRef) -> Plan:
    source = Source(ref.url)
    target = place_in(models_folder(), parts_of(f"{ref.host.replace(':', '-')}/{ref.file_name}"))
    try:
        start = http_files.look_at(source)
    except BrokenOff as error:
        raise PullFailed(
            f"{source.server} cannot be reached: {error}", "Check the address and the network"
        ) from None
    record = Pulled(ref=ref.text, source="url", mark=start.mark)
    files = (Wanted(source, target, start.total, ref.sha256, start.mark),)
    return Plan(record, lambda: _fetch(record, files), files)


def _plan_served(ref: Ref, kind: str, run: Callable[[Server], Iterator[Progress]]) -> Plan:
    record = Pulled(ref=ref.text, source=kind)

    def fetch() -> Fetching:
        yield from run(server_of(kind))
        with explained(models_folder()):
            return keep(record, models_folder())

    return Plan(record, fetch)


def _plan_starter(ref: StarterRef) -> Plan:
    target = models_folder() / starter.FILE_NAME
    file = _pulled(target, starter.SIZE, starter.SHA256)
    record = Pulled(ref=ref.text, source="starter", files=(file,))

    def fetch() -> Fetching:
        with explained(models_folder()), ExitStack() as held:
            partial_folder().mkdir(parents=True, exist_ok=True)
            yield from hold(held, partial_folder() / ref.text)
            if not starter.is_there(target):
                yield from starter.pull(target)
            return keep(record, models_folder())

    return Plan(record, fetch)


def _fetch(record: Pulled, files: Sequence[Wanted]) -> Fetching:
    """Puts `files` into their places, and notes what they are."""
    folder, partial = models_folder(), partial_folder()
    with explained(folder), ExitStack() as held:
        yield from claim(files, partial, held)
        # Another pull of the same may have ended just now.
        records = read_records(folder)
        known = [_as_known(file, record, records) for file in files]
        placed = yield from download(known, partial, _ours(record, records, folder))
        files_now = tuple(
            _pulled(place.target, place.size, place.sha256) for place in reversed(placed)
        )
        kept = keep(record.model_copy(update={"files": files_now}), folder)
        delete(_left_behind(kept, records, folder), folder)
    return kept


def _as_known(file: Wanted, record: Pulled, records: Iterable[Pulled]) -> Wanted:
    """With the SHA-256 that an address had when its server said the same of it."""
    if file.sha256 or not file.mark:
        return file
    same = (r.files[0] for r in records if r.ref == record.ref and r.mark == file.mark and r.files)
    last = next(same, None)
    return replace(file, sha256=last.sha256) if last and last.size == file.size else file


def _ours(record: Pulled, records: Iterable[Pulled], folder: Path) -> set[Path]:
    """What a pull of `record` may replace: what its REF, or its hub, has brought before."""
    return {
        path
        for other in records
        if other.ref == record.ref or (other.source == record.source == "huggingface")
        for path in other.paths(folder)
    }


def _left_behind(kept: Pulled, records: Iterable[Pulled], folder: Path) -> set[Path]:
    """What the same REF has brought before, and nothing needs any more."""
    before = {path for r in records if r.ref == kept.ref for path in r.paths(folder)}
    others = (r for r in records if r.ref != kept.ref)
    return before - {path for r in (kept, *others) for path in r.paths(folder)}


def _pulled(target: Path, size: int, sha256: str) -> PulledFile:
    return PulledFile(path=target.relative_to(models_folder()).as_posix(), size=size, sha256=sha256)
