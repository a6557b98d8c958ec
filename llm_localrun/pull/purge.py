"""What llm-localrun has put on this machine, and its removal.

Only what it has made is removed: files with names that it gives, builds with a record and without
other files, and models that `pulled.json` lists and that have the size that it says. Everything
else in its folders stays, and is named. A folder may be a link to another disk: our own files there
are removed, and then the link.

Whether to remove is left to `cli`; what llm itself stores stays, and so do the models of other
programs.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

from llm_localrun.engine.installed import list_installed, size_of
from llm_localrun.engine.state import list_hosts
from llm_localrun.engine.stop import Announce, end, name_of, occupation, stop_when_idle
from llm_localrun.errors import PullFailed
from llm_localrun.pull.download import unfinished_files
from llm_localrun.pull.records import (
    PullRecord,
    bytes_on_disk,
    delete,
    is_safe_name,
    read_records,
)
from llm_localrun.pull.refs import STARTER
from llm_localrun.system import locks
from llm_localrun.system.paths import (
    builds_folder,
    engine_folder,
    home,
    models_folder,
    partial_folder,
)

ENGINE, BUILD, MODEL, SERVER_MODEL = (
    "model in memory",
    "build of llama.cpp",
    "model",
    "model in a server",
)
KEPT = "--models removes it"
IN_USE = "a command that runs uses it"
_NOT_OURS = "not made by llm-localrun"
_NOT_LISTED = "not pulled by llm-localrun"
_OUTSIDE = "its files are not in the models folder"
_CHANGED = "its files have changed: llm localrun rm removes it"
_HAS_MORE = "it has files that were not installed"
_UNREADABLE = "it cannot be read: Permission denied"
_LIST = "list of models"

# `write_atomically` adds eight digits while it writes.
_UNFINISHED = r"(\.[0-9a-f]{8})?"
_SETTINGS = re.compile(rf"config\.json{_UNFINISHED}")
_STATE = re.compile(
    r"(config|known-files|bench)\.lock|engine-failed\.log|(catalogue|names|registry|tokens|speed|"
    rf"known-files|recommended|failed-builds|failed-loads|builds)\.json{_UNFINISHED}"
)
_ENGINE_ID = r"\d+-[0-9a-f]{8}"
_ENGINE_FILE = re.compile(rf"{_ENGINE_ID}\..+")
_PROMPT = re.compile(rf"({_ENGINE_ID}|[0-9a-f]{{32}}\.[0-9a-f]{{32}})\..+")
_TOOL = re.compile(r"libggml-python-.+")
_BUILD = re.compile(r"\w+-(cpu|cuda|rocm|vulkan|metal)")
_REMOVED_BUILD = re.compile(rf"\.removed-{_BUILD.pattern}-\d+")
_UNFINISHED_BUILD = re.compile(r"unpacked|replaced|.+\.(part|lock|zip|tar\.gz)")
_UNFINISHED_PULL = re.compile(r"(.+\.gguf|[0-9a-f]{32})\.(part|lock)|" + f"{STARTER}\\.lock")
_PULLED = re.compile(rf"pulled\.json{_UNFINISHED}|pulled\.lock")


@dataclass(frozen=True, slots=True)
class Item:
    """Something that llm-localrun keeps, or that lies among it.

    `path` is the name of a model or an engine. `parts` are removed, in this order; `reason` says
    why it stays, "" if it is removed.
    """

    what: str
    path: str
    size: int | None = None
    parts: tuple[Path, ...] = ()
    reason: str = ""

    @property
    def is_engine(self) -> bool:
        return self.what == ENGINE

    @property
    def name(self) -> str:
        """What it is called, or where it is if it stays; "" for the rest."""
        if self.reason or self.what in (ENGINE, MODEL):
            return self.path
        return Path(self.path).name if self.what == BUILD else ""


@dataclass(frozen=True, slots=True)
class Removed:
    """What became of an item. `problem` says why some or all of it is still there."""

    item: Item
    freed: int
    problem: str = ""


def find_items(*, with_models: bool) -> list[Item]:
    """Everything that llm-localrun has put here, and what stays in its folders.

    Engines come first; their only part is the lock that they hold. Raises OSError.
    """
    found = [*_engines(), *_builds(), *_own_files(), *_unfinished(), *_models(with_models)]
    found += _unreadable()
    return [item for item in found if item.parts or item.reason]


def remove_all(announce: Announce, *, with_models: bool, force: bool) -> Iterator[Removed]:
    """Ends the engines and removes what `find_items` finds then, those that stay excepted.

    An engine ends when it is idle, with `force` at once: see `stop_when_idle` for `announce`. What
    cannot be removed does not keep the rest from being removed. Raises OSError.
    """
    if not home().exists():
        return
    yield from _end_engines(announce, force)
    with _no_engine_starts():
        yield from _end_engines(announce, force)
        # An engine that ends saves its conversations.
        items = find_items(with_models=with_models)
        yield from (_remove(item) for item in items if not item.reason)
    _remove_folders(with_models)


@contextmanager
def _no_engine_starts() -> Iterator[None]:
    """Holds the lock that an engine needs to start: see `launch`."""
    folder = engine_folder()
    with ExitStack() as held:
        # A file in its place, or a link to nothing: no engine can start.
        while folder.is_dir() or not _exists(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Another purge may be removing the folder.
            with suppress(FileNotFoundError):
                held.enter_context(locks.exclusive(folder / "memory.starting", inf))
                break
        yield


def _end_engines(announce: Announce, force: bool) -> Iterator[Removed]:
    for paths in sorted(list_hosts(engine_folder()), key=occupation):
        # Its state, which holds the name, is removed with it.
        item = Item(ENGINE, name_of(paths))
        if force:
            end(paths)
        else:
            stop_when_idle(paths, announce)
        yield Removed(item, 0)


# Finding


def _engines() -> Iterator[Item]:
    for paths in list_hosts(engine_folder()):
        yield Item(ENGINE, name_of(paths), None, (paths.lock,))


def _builds() -> Iterator[Item]:
    """Installed builds, what installations left, and what else is in their folder."""
    folder = builds_folder()
    sizes = {build.folder: build.size for build in list_installed()}
    others = []
    for path in _entries(folder):
        if _BUILD.fullmatch(path.name) and path in sizes:
            # Records of old versions have no size.
            has_more = not path.is_symlink() and 0 < sizes[path] < size_of(path)
            yield _item(BUILD, path, [path], _HAS_MORE * has_more)
        elif _REMOVED_BUILD.fullmatch(path.name):
            yield _item("removed build", path, [path])
        elif path.name != ".partial":
            others.append(path)
    partial = folder / ".partial"
    if _is_locked(partial):
        yield Item("unfinished build", str(partial), _size([partial]), reason=IN_USE)
    elif partial.is_dir() and not partial.is_symlink():
        inside = _entries(partial)
        ours = [path for path in inside if _UNFINISHED_BUILD.fullmatch(path.name)]
        yield _item("unfinished build", partial, ours)
        yield from _others(partial, [path for path in inside if path not in ours])
    elif _exists(partial):
        yield _item("unfinished build", partial, [partial])
    yield from _others(folder, others)


def _own_files() -> Iterator[Item]:
    """Settings, lists, logs, saved prompts and tools."""
    folders = {"engine", "engines", "models", "prompts", "tools"}
    entries = [path for path in _entries(home()) if path.name not in folders or not path.is_dir()]
    yield from _matching("settings", home(), entries, _SETTINGS)
    yield from _matching("lists and logs", home(), entries, _STATE)
    yield from _others(
        home(),
        [each for each in entries if not _is_file_like(each, _SETTINGS, _STATE)],
    )
    for what, name, pattern in (
        ("saved prompts", "prompts", _PROMPT),
        ("engine files", "engine", _ENGINE_FILE),
    ):
        folder = home() / name
        # These are locks that commands hold now.
        inside = [path for path in _entries(folder) if path.suffix != ".starting"]
        yield from _matching(what, folder, inside, pattern)
        yield from _others(folder, [each for each in inside if not _is_file_like(each, pattern)])
    tools = home() / "tools"
    inside = _entries(tools)
    ours = [path for path in inside if _TOOL.fullmatch(path.name)]
    if ours:
        yield _item("tools to quantize", tools, ours)
    yield from _others(tools, [path for path in inside if path not in ours])


def _unfinished() -> Iterator[Item]:
    """Unfinished downloads, except for those that go on now."""
    partial = partial_folder()
    if not _exists(partial):
        return
    if partial.is_symlink() or not partial.is_dir():
        yield _item("unfinished downloads", partial, [partial])
        return
    files = unfinished_files(partial)
    ours = [file for file in files if _is_unfinished_pull(file.relative_to(partial).parts)]
    if _is_locked(partial):
        yield Item("running downloads", str(partial), reason=IN_USE)
    yield _item("unfinished downloads", partial, ours)
    yield from _others(partial, [file for file in files if file not in ours])


def _is_unfinished_pull(parts: Sequence[str]) -> bool:
    """Whether a path below the partial folder is one that pulls write."""
    if len(parts) > 1:
        return parts[0] == STARTER
    return _UNFINISHED_PULL.fullmatch(parts[0]) is not None


def _models(with_models: bool) -> Iterator[Item]:
    """The models that were pulled or made, and what else is in their folder."""
    folder = models_folder()
    try:
        records = read_records()
    except PullFailed as error:
        yield Item("models", str(folder), _size([folder]), reason=error.problem)
        return
    files = [file for record in records for file in record.files]
    for record in records:
        size = _size(folder / each.path for each in record.files)
        if not record.files:
            yield Item(SERVER_MODEL, record.shown_ref, reason="it is the server's")
        elif not with_models:
            yield Item(MODEL, record.shown_ref, size, reason=KEPT)
    if with_models or not files:
        reasons = set()
        for record in filter(lambda record: record.files, records):
            paths, reason = _safe(record), _why_kept(record)
            reasons.add(reason)
            yield Item(MODEL, record.shown_ref, _size(paths), tuple(paths), reason)
        lists = [path for path in _entries(folder) if _is_file_like(path, _PULLED)]
        if _CHANGED not in reasons:
            yield from _matching(_LIST, folder, lists, _PULLED)
    yield from _unlisted(folder, {folder / each.path for each in files})


def _safe(record: PullRecord) -> list[Path]:
    """The files of `record` that are in the models folder, whatever the list says."""
    folder = models_folder()
    paths = [folder / file.path for file in record.files if is_safe_name(file.path)]
    root = folder.resolve()
    return [
        path
        for path in paths
        if path.parent.resolve().is_relative_to(root)
        if path.is_symlink() or not path.is_dir()
    ]


def _why_kept(record: PullRecord) -> str:
    """Why the files of a record stay; "" if they are removed."""
    paths = _safe(record)
    if not paths:
        return _OUTSIDE
    sizes = {models_folder() / file.path: file.size for file in record.files}
    is_changed = any(_is_changed(path, sizes[path]) for path in paths)
    return _CHANGED if is_changed else ""


def _is_changed(path: Path, size: int) -> bool:
    """Whether a file has got another size since it was pulled."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size != size


def _unreadable() -> Iterator[Item]:
    """Folders of ours in which this user cannot look."""
    folders = (home(), *(home() / name for name in ("engine", "engines", "prompts", "tools")))
    for folder in folders:
        if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            yield Item("folder", str(folder), reason=_UNREADABLE)


def _unlisted(folder: Path, listed: set[Path]) -> Iterator[Item]:
    """Files in the models folder that were not pulled; ours in its top folder are known."""
    found = [
        path
        for path in _walk(folder)
        if path not in listed
        if not (path.parent == folder and _is_file_like(path, _PULLED))
        if path.relative_to(folder).parts[0] != ".partial"
    ]
    yield from _others(folder, found, _NOT_LISTED)


def _matching(
    what: str, folder: Path, entries: Iterable[Path], pattern: "re.Pattern[str]"
) -> Iterator[Item]:
    ours = [path for path in entries if _is_file_like(path, pattern)]
    if ours:
        yield _item(what, ours[0] if len(ours) == 1 else folder, ours)


def _others(folder: Path, paths: list[Path], reason: str = _NOT_OURS) -> Iterator[Item]:
    if paths:
        shown = paths[0] if len(paths) == 1 else folder
        what = "other file" if len(paths) == 1 else f"{len(paths)} other files"
        yield Item(what, str(shown), _size(paths), reason=reason)


def _item(what: str, path: Path, parts: Iterable[Path], reason: str = "") -> Item:
    parts = tuple(parts)
    return Item(what, str(path), _size(parts), parts, reason)


def _is_file_like(path: Path, *patterns: "re.Pattern[str]") -> bool:
    """Whether `path` has a name of ours and is no folder; a link is none."""
    is_named = any(pattern.fullmatch(path.name) for pattern in patterns)
    return is_named and (path.is_symlink() or not path.is_dir())


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing if it is none or cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below `folder`; links inside are listed and not followed."""
    for top, folders, files in os.walk(folder):
        links = [name for name in folders if Path(top, name).is_symlink()]
        for name in sorted([*files, *links]):
            yield Path(top) / name


def _size(paths: Iterable[Path]) -> int:
    """The bytes of files and folders on the disk; a link has none."""
    return sum(_size_of(path) for path in set(paths))


def _size_of(path: Path) -> int:
    try:
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            return sum(map(_size_of, _walk(path)))
    except OSError:
        return 0
    return bytes_on_disk(found) if stat.S_ISREG(found.st_mode) else 0


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _is_locked(partial: Path) -> bool:
    """Whether a command downloads to the folder `partial`."""
    if partial.is_symlink():
        return False
    return any(map(locks.is_locked, partial.glob("*.lock")))


# Removing


def _remove(item: Item) -> Removed:
    if item.what == _LIST and any(map(_exists, _listed())):
        # Without it, the next purge would not know them.
        return Removed(item, 0, f"{item.path} stays: models in it are still there")
    freed, problem = 0, ""
    for path in item.parts:
        size = _size_of(path)
        try:
            _remove_one(path, item)
        except OSError as error:
            problem = problem or f"{error.filename or path}: {error.strerror or error}"
        freed += size - _size_of(path)
    return Removed(item, freed, problem)


def _listed() -> Iterator[Path]:
    """The files of all models in the list."""
    with suppress(PullFailed):
        for record in read_records():
            yield from _safe(record)


def _remove_one(path: Path, item: Item) -> None:
    if path.is_dir() and not path.is_symlink():
        # It does not follow links, also not those that are made meanwhile.
        shutil.rmtree(path)
    else:
        delete([path], _top_of(item))


def _top_of(item: Item) -> Path:
    """The folder up to which folders are removed that an item leaves empty."""
    return models_folder() if item.what == MODEL else partial_folder()


def _remove_folders(with_models: bool) -> None:
    """Removes our folders that are empty, and links to folders in which nothing of ours is left."""
    names = ("models/.partial", "engines/.partial", "engines", "engine", "prompts", "tools")
    for folder in (*(home() / name for name in names), models_folder(), home()):
        is_kept = folder == models_folder() and not with_models and any(True for _ in _walk(folder))
        holds_models = folder == home() and _exists(models_folder())
        with suppress(OSError):
            if not folder.is_symlink():
                folder.rmdir()
            elif not (is_kept or holds_models):
                folder.unlink()
