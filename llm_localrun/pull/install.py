"""Installs builds of llama.cpp: downloads a release's archives, unpacks them and tries the result.

A build is made in a folder beside its place and moved there by one rename, with its record, after
it has run here. What an interruption leaves is removed by the next installation, except for what
can be resumed. Which archives a machine needs is left to `releases`, whether a build runs to
`engine.acceptance`, asking the user to `cli`.
"""

import os
import shutil
import sys
import time
from collections.abc import Collection, Generator, Sequence
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
    name_of,
    number_of,
    size_of,
)
from llm_localrun.engine.libraries import NO_INSTRUCTION, OTHER_BUILD
from llm_localrun.engine.remove import is_running, remove_tree
from llm_localrun.errors import InstallFailed, PullFailed
from llm_localrun.memory.fit import fit_of_model
from llm_localrun.memory.machine import physical_memory
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
from llm_localrun.pull.refs import StarterKind, StarterRef
from llm_localrun.pull.releases import LATEST, PINNED_TAG, Release, find_release
from llm_localrun.system.atomic import write_atomically
from llm_localrun.system.paths import builds_folder, models_folder
from llm_localrun.system.progress import Progress

_UNPACKED_RATIO = 4
"""Bytes on the disk for each byte to download, the download itself included: an estimate."""
_LOCK = "install"
_MAX_MODELS = 3
"""To try a build with, if it cannot load them."""
_OTHER_RELEASE = (
    "GGUF files run as before. Another release may run here: llm localrun engine install"
)
InstallSteps = Generator[Progress, None, InstalledBuild]


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """A build to install. `reason` is what it is for, `missing` what a better one would need."""

    release: Release
    reason: str = ""
    missing: str = ""

    @property
    def name(self) -> str:
        return name_of(self.release.tag, self.release.backend)

    @property
    def number(self) -> int:
        return number_of(self.release.tag)

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
        files = [
            FileToDownload(
                release.source(each), partial / each.name, each.size, each.sha256, "", False
            )
            for each in release.archives
        ]
        _remove_leftovers(partial, files)
        # Another installation may have made it, or was killed when it had.
        if present := plan.present:
            _remove_archives(files)
            return present
        _check_place(plan)
        for removed in folder.glob(".removed-*"):
            with suppress(OSError):
                remove_tree(removed)
        needed = _UNPACKED_RATIO * release.size
        check_free_space(folder, needed, InstallFailed, "Free space there, and try again")
        yield from _download(files, partial)
        try:
            build = yield from _make(release, files, partial)
        except InstallFailed as error:
            # No package mends that: the download is of no use.
            if NO_INSTRUCTION in error.problem:
                _remove_archives(files)
            raise
        _remove_archives(files)
    return build


def _make(release: Release, files: Sequence[FileToDownload], partial: Path) -> InstallSteps:
    """Unpacks archives, tries the build in them, and puts it in its place."""
    made = partial / "unpacked"
    try:
        root, program = yield from _unpack(files, made)
        accepted, untried = yield from _try(program, release)
        place = program.relative_to(root).as_posix()
        build = _describe(release, place, accepted, size_of(root), untried)
        write_atomically(root / RECORD, build.model_dump_json(indent=2).encode())
        _move_into_place(root, build, partial)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return build


def _remove_archives(files: Sequence[FileToDownload]) -> None:
    for file in files:
        file.target.unlink(missing_ok=True)


def _check_place(plan: InstallPlan) -> None:
    """Raises `InstallFailed` if the build could not be put in its place, or not be run there."""
    folder = builds_folder()
    place = folder / plan.name
    if place.is_dir() and any(place.iterdir()) and not (place / RECORD).exists():
        raise InstallFailed(
            f"{place} has files, and they are not those of an installed build",
            "Move or delete it, and try again",
        )
    no_programs = getattr(os, "ST_NOEXEC", 0)
    if no_programs and os.statvfs(folder).f_flag & no_programs:
        raise InstallFailed(
            f"The disk of {folder} allows no programs (noexec)",
            "Set LLM_USER_PATH to a folder of another disk",
        )


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
        _remove_archives(files)
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


def model_here(refused: Collection[Path] = ()) -> Path | None:
    """The GGUF file to try a build with: the tiny starter model, or else the smallest chat model
    that fits in memory. None of `refused`.
    """
    own = models_folder() / starter.FILE_NAME
    if own.is_file() and own not in refused:
        return own
    memory = physical_memory()
    usable = [
        (model.size or sys.maxsize, Path(model.on_disk.path))
        for model in get_catalogue().models
        if model.on_disk and model.purpose == "chat" and not model.on_disk.problem
        if fit_of_model(model, memory).fits
    ]
    return min((each for each in usable if each[1] not in refused), default=(0, None))[1]


def _try(
    program: Path, release: Release
) -> Generator[Progress, None, tuple[acceptance.Accepted, str]]:
    """What a build has shown, and why it has not answered; "" if it has. Raises `InstallFailed`."""
    refused: list[Path] = []
    why = ""
    while True:
        model, problem = yield from _model_to_try(refused)
        yield Progress("Trying it")
        try:
            return acceptance.accept(program, release.backend, model), why or problem
        except acceptance.ModelRefused as error:
            refused += [model] if model else []
            why = error.problem
        except InstallFailed as error:
            # It advises to install the build that was just tried.
            if release.backend is Backend.CPU and error.remedy == OTHER_BUILD:
                other = f"cpu --tag {LATEST if release.tag == PINNED_TAG else PINNED_TAG}"
                raise InstallFailed(error.problem, f"{_OTHER_RELEASE} {other}") from None
            raise


def _model_to_try(refused: Sequence[Path]) -> Generator[Progress, None, tuple[Path | None, str]]:
    """The model to try a build with, or else why there is none."""
    own = models_folder() / starter.FILE_NAME
    if len(refused) < _MAX_MODELS and (found := model_here(refused)):
        return found, ""
    if own in refused:
        return None, ""
    # The build may be good where the package index cannot be reached.
    try:
        yield from plan_pull(StarterRef(StarterKind.TINY)).fetch()
    except PullFailed as error:
        return None, error.problem
    return own, ""


def _describe(
    release: Release, program: str, accepted: acceptance.Accepted, size: int, untried: str
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
        untried="" if accepted.tokens_per_second else untried,
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
        with suppress(OSError):
            remove_tree(aside)
        return
    root.rename(build.folder)
