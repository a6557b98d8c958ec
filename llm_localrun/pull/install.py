"""Installs builds of llama.cpp: downloads a release's archives, unpacks them and tries the result.

A build is made in a folder beside its place and moved there by one rename, with its record, after
it has run here. What an interruption leaves is removed by the next installation, except for what
can be resumed. Which archives a machine needs is left to `releases`, whether a build runs to
`engine.acceptance`, asking the user to `cli`.
"""

import shutil
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from llm_localrun.catalogue import get_catalogue
from llm_localrun.engine import acceptance, hardware
from llm_localrun.engine.installed import (
    RECORD,
    SERVER,
    Backend,
    InstalledBuild,
    list_installed,
    size_of,
)
from llm_localrun.engine.remove import is_running
from llm_localrun.errors import InstallFailed, PullFailed
from llm_localrun.pull import starter
from llm_localrun.pull.archive import unpack
from llm_localrun.pull.download import (
    FileToDownload,
    check_free_space,
    download,
    lock_partials,
    translate_disk_errors,
)
from llm_localrun.pull.plan import plan_pull
from llm_localrun.pull.refs import StarterRef
from llm_localrun.pull.releases import Release, find_release
from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.paths import builds_folder, models_folder
from llm_localrun.system.progress import Progress

_UNPACKED_RATIO = 4
"""Bytes on the disk for each byte to download, the download itself included: an estimate."""
_LOCK = "install"
InstallSteps = Generator[Progress, None, InstalledBuild]


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """A build to install. `reason` is what it is for, `missing` what a better one would need."""

    release: Release
    reason: str = ""
    missing: str = ""

    @property
    def name(self) -> str:
        return f"{self.release.tag}-{self.release.backend.value}"

    @property
    def number(self) -> int:
        """Of the release: newer ones have larger numbers."""
        return int(self.release.tag.removeprefix("b"))

    @property
    def present(self) -> InstalledBuild | None:
        """The build, if it is installed and whole."""
        same = (build for build in list_installed() if build.name == self.name)
        return next((build for build in same if build.is_whole), None)


def plan_install(backend: Backend | None, tag: str) -> InstallPlan:
    """The plan for a build of the release `tag`; for the backend that fits best if it is None.

    Raises a `LocalRunError`.
    """
    machine = hardware.detect()
    fitting = hardware.suggest(machine)
    release = find_release(machine, backend or fitting.backend, tag)
    if backend in (None, fitting.backend):
        return InstallPlan(release, fitting.reason, fitting.missing)
    return InstallPlan(release)


def install(plan: InstallPlan) -> InstallSteps:
    """Installs a build unless it is installed already. Raises a `LocalRunError`."""
    folder, release = builds_folder(), plan.release
    partial = folder / ".partial"
    with translate_disk_errors(folder), ExitStack() as held:
        yield from lock_partials([_LOCK], partial, held, "another installation")
        # It may have installed the same build.
        if present := plan.present:
            return present
        files = [
            FileToDownload(
                release.source(each), partial / each.name, each.size, each.sha256, "", False
            )
            for each in release.archives
        ]
        _remove_leftovers(partial, files)
        for removed in folder.glob(".removed-*"):
            shutil.rmtree(removed, ignore_errors=True)
        needed = _UNPACKED_RATIO * release.size
        check_free_space(folder, needed, InstallFailed, "Free space there, and try again")
        yield from _download(files, partial)
        made = partial / "unpacked"
        try:
            root, program = yield from _unpack(files, made)
            model = yield from _model_to_try()
            yield Progress("Trying it")
            accepted = acceptance.accept(program, release.backend, model)
            build = _describe(
                release, program.relative_to(root).as_posix(), accepted, size_of(root)
            )
            write_atomically(root / RECORD, build.model_dump_json(indent=2).encode())
            _move_into_place(root, build, partial)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        for file in files:
            file.target.unlink(missing_ok=True)
    return build


def _download(files: Sequence[FileToDownload], partial: Path) -> Generator[Progress, None, None]:
    try:
        yield from download(files, partial, {file.target for file in files})
    except PullFailed as error:
        if error.status != 404:
            raise
        raise InstallFailed(
            f"{files[0].source.server} does not have {files[0].target.name}",
            "Choose another release: `llm localrun engine install --tag latest`",
        ) from None


def _remove_leftovers(partial: Path, files: Sequence[FileToDownload]) -> None:
    """Removes what earlier installations left in `partial`, except for what `files` continue."""
    kept = {f"{file.partial_name}.part" for file in files} | {file.target.name for file in files}
    for path in partial.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in {*kept, f"{_LOCK}.lock"}:
            path.unlink()


def _unpack(
    files: Sequence[FileToDownload], made: Path
) -> Generator[Progress, None, tuple[Path, Path]]:
    """Unpacks archives into one folder: that, and the program in it.

    Archives that are of no use are removed. What CUDA needs lies beside the program.
    """
    made.mkdir(mode=0o700)
    total = sum(file.size or 0 for file in files)
    before = 0
    try:
        for number, file in enumerate(files):
            for done in unpack(file.target, made / str(number)):
                yield Progress("Unpacking", before + done, total)
            before += file.size or 0
        root = made / "0"
        program = _find_program(root, files[0].target.name)
    except InstallFailed:
        for file in files:
            file.target.unlink()
        raise
    for number in range(1, len(files)):
        for path in _content(made / str(number)).iterdir():
            # Both archives may have a license.
            if not (program.parent / path.name).exists():
                path.rename(program.parent / path.name)
    return root, program


def _content(folder: Path) -> Path:
    """What an archive has inside the folder that all of it is in, if there is one."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _find_program(root: Path, archive: str) -> Path:
    """The program llama-server in an unpacked archive. Raises `InstallFailed`."""
    found = sorted((p for p in root.rglob(SERVER) if p.is_file()), key=lambda p: len(p.parts))
    if not found:
        raise InstallFailed(f"{archive} has no {SERVER}", "Choose another release with --tag")
    return found[0]


def model_here() -> Path | None:
    """The GGUF file to try a build with: the starter model, or else the smallest chat model."""
    own = models_folder() / starter.FILE_NAME
    if own.is_file():
        return own
    models = (m for m in get_catalogue().models if m.on_disk and m.purpose == "chat")
    usable = [m for m in models if m.on_disk and not m.on_disk.problem]
    smallest = min(usable, key=lambda model: model.size or sys.maxsize, default=None)
    return Path(smallest.on_disk.path) if smallest and smallest.on_disk else None


def _model_to_try() -> Generator[Progress, None, Path | None]:
    if found := model_here():
        return found
    # The build may be good where the package index cannot be reached.
    with suppress(PullFailed):
        yield from plan_pull(StarterRef()).fetch()
    return model_here()


def _describe(
    release: Release, program: str, accepted: acceptance.Accepted, size: int
) -> InstalledBuild:
    return InstalledBuild(
        tag=release.tag,
        backend=release.backend,
        program=program,
        urls=tuple(release.source(archive).url for archive in release.archives),
        sha256=tuple(archive.sha256 for archive in release.archives),
        hash_origin=release.hash_origin,
        version=accepted.version,
        devices=accepted.devices,
        tokens_per_second=accepted.tokens_per_second,
        size=size,
        installed_at=time.time(),
    )


def _move_into_place(root: Path, build: InstalledBuild, partial: Path) -> None:
    """Gives the folder its name. A damaged build of that name makes way, unless it runs."""
    if build.folder.exists():
        if is_running(build):
            raise InstallFailed(
                f"{build.folder} is damaged, and a model runs on it",
                "End it with `llm localrun unload --all`, and try again",
            )
        aside = partial / "replaced"
        build.folder.rename(aside)
        root.rename(build.folder)
        shutil.rmtree(aside, ignore_errors=True)
        return
    root.rename(build.folder)
