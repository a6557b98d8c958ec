"""Files of ours: which are never opened, and which are not believed because others can write them.

The owners are only tested as root, who can give a file to another user.
"""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.catalogue import get_catalogue, read_snapshot, write_snapshot
from llm_localrun.config import read_config, update_config
from llm_localrun.engine import builds, failed_builds, slots
from llm_localrun.engine.launch import find_or_start
from llm_localrun.engine.settings import EngineRequest, given_template
from llm_localrun.engine.state import (
    EnginePaths,
    EngineSettings,
    EngineSpec,
    EngineState,
    check_folders,
    list_hosts,
    list_running,
    read_lease,
    read_state,
    write_lease,
    write_state,
)
from llm_localrun.engine_defaults import SLOTS
from llm_localrun.errors import Fault
from llm_localrun.files import named
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.models import OnDisk
from llm_localrun.name_cache import CachedName, CachePolicy, NameCache, read_names, write_names
from llm_localrun.pull import download
from llm_localrun.pull.records import read_records
from llm_localrun.registration import user_aliases
from llm_localrun.servers.base import stored_keys
from llm_localrun.system import atomic, locks
from llm_localrun.system.json_files import read_text
from llm_localrun.system.paths import engine_folder, home
from llm_localrun.tokens import learned
from tests.conftest import Invoke, one_error
from tests.support.drive import failure
from tests.support.special_files import NOT_REGULAR

pytestmark = [
    pytest.mark.usefixtures("user_path"),
    pytest.mark.skipif(sys.platform == "win32", reason="it has neither modes nor such files"),
]

OTHER = 65534
"""The id of another user."""
ENGINE = EnginePaths(Path("engine"), "99999999-0a0b0c0d")
SPEC = EngineSpec("/m.gguf", "m", 1, 1.0, EngineSettings(context_size=512))
STATE = EngineState(ENGINE.id, SPEC, "key", "build", started_at=1.0, url="http://127.0.0.1:1")
NAMES = [CachedName("local/a/m", "chat", ["local-m"], None)]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")

Plant = Callable[[Path], None]


@pytest.fixture
def engine() -> Iterator[EnginePaths]:
    """An engine that runs, as far as its files say."""
    paths = EnginePaths(engine_folder(), ENGINE.id)
    paths.prompts.mkdir(parents=True)
    paths.folder.mkdir()
    slots.create_slots(paths)
    write_state(paths.folder, STATE)
    write_lease(paths, 1000.0)
    with locks.create_locked(paths.lock):
        yield paths


_guarded: list[Path] = []


def _refuse_to_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _guarded and isinstance(arguments[0], str):
        path = Path(arguments[0])
        assert path not in _guarded or path.is_file(), f"{path} was opened"


@pytest.fixture
def never_opened() -> Iterator[Callable[[Path], None]]:
    """Makes opening a path an error as long as there is a special file."""
    if not hasattr(_refuse_to_open, "installed"):
        sys.addaudithook(_refuse_to_open)
        _refuse_to_open.installed = True  # type: ignore[attr-defined]
    yield _guarded.append
    _guarded.clear()


def read_engine() -> EnginePaths:
    return EnginePaths(engine_folder(), ENGINE.id)


def count_free_slots() -> int:
    acquired = slots.acquire_free(read_engine())
    for slot in acquired:
        slot.release()
    return len(acquired)


def problem_of(path: str) -> str:
    return FailedLoads().problem_of(OnDisk(path=path))


READERS: dict[str, tuple[Callable[[], object], object]] = {
    "localrun/names.json": (read_names, None),
    "localrun/catalogue.json": (lambda: read_snapshot(home()).models, ()),
    "localrun/failed-loads.json": (lambda: problem_of("/m.gguf"), ""),
    "localrun/known-files.json": (named.remembered, []),
    "localrun/tokens.json": (lambda: learned.read_facts("m").usual_context, 0),
    "localrun/failed-builds.json": (lambda: failed_builds.find("key"), None),
    "localrun/builds.json": (lambda: builds.report(engine_folder(), "").chosen is None, False),
    "localrun/engine/99999999-0a0b0c0d.json": (lambda: read_state(read_engine().state), None),
    "localrun/engine/99999999-0a0b0c0d.lease": (lambda: read_lease(read_engine()), None),
    "localrun/engine/99999999-0a0b0c0d.lock": (lambda: list_hosts(engine_folder()), []),
    "localrun/engine/99999999-0a0b0c0d.slot0": (count_free_slots, SLOTS - 1),
    "localrun/engine/99999999-0a0b0c0d.ending": (
        lambda: locks.is_locked(read_engine().ending),
        False,
    ),
    "localrun/engine/a.starting": (lambda: len(list_hosts(engine_folder())), 1),
    "aliases.json": (user_aliases, {}),
    "keys.json": (stored_keys, {}),
    "settings of another program": (lambda: read_text(home().parent / OTHERS), ""),
}
OTHERS = "settings of another program"
"""What is read of each file, and what that is if there is no such file."""

ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "localrun/config.json": (read_config, "read"),
    "localrun/config.lock": (lambda: update_config(lambda settings: None), "written"),
    "localrun/models/pulled.json": (read_records, "read"),
    "template": (lambda: given_template(str(home().parent / "template")), "read"),
}
"""Files without which a command cannot go on."""


@pytest.mark.parametrize("kind", NOT_REGULAR)
@pytest.mark.parametrize("name", [*READERS, *ERRORS])
def test_special_file_is_never_opened(
    name: str,
    kind: str,
    user_path: Path,
    engine: EnginePaths,
    never_opened: Callable[[Path], None],
) -> None:
    path = user_path / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    NOT_REGULAR[kind](path)
    never_opened(path)
    if name in READERS:
        read, absent = READERS[name]
        assert read() == absent
    else:
        act, action = ERRORS[name]
        shown = path.with_name("config.json") if name.endswith(".lock") else path
        assert failure(act) == (
            f"{shown} cannot be {action}: it is not a regular file."
            " Replace it with one, or remove it."
        )


def test_special_file_is_replaced_when_it_is_written(user_path: Path) -> None:
    files = ("names.json", "catalogue.json", "failed-loads.json", "known-files.json", "tokens.json")
    for name in files:
        os.mkfifo(home() / name)
    model = user_path / "m.gguf"
    model.touch()
    write_snapshot(home(), get_catalogue(CachePolicy.FRESH))
    named.remember(model)
    learned.learn_context("m", 4096)
    write_names(NameCache(5.0, "stamp", False, True, NAMES))
    names = read_names()
    assert names is not None
    assert names.names == NAMES
    FailedLoads().add(str(model), "it is odd")
    assert problem_of(str(model)) == "it is odd"
    assert named.remembered() == [str(model)]
    assert learned.read_facts("m").usual_context == 4096
    assert read_snapshot(home()).taken_at > 0


def test_commands_while_the_settings_are_a_fifo(user_path: Path, invoke: Invoke) -> None:
    (user_path / "localrun" / "config.json").unlink()
    os.mkfifo(user_path / "localrun" / "config.json")
    for command in ("localrun", "localrun models", "prompt -m local hi"):
        assert "config.json cannot be read: it is not a regular" in one_error(
            invoke(*command.split())
        )
    assert "it is not a regular file" in " ".join(invoke("localrun", "doctor").stdout.split())
    assert invoke("models").exit_code == 0
    assert invoke("logs", "list").exit_code == 0


CONTENTS = {
    "nothing": b"",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "NUL": b"\0" * 100,
    "lone surrogate": b'{"\\ud800": "\\udfff"}',
    "half a character": b'"\xc3',
    "byte order mark": b"\xef\xbb\xbf[]",
    "huge": b"",
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", [*READERS, *ERRORS])
def test_odd_content_is_absent_or_an_error(
    name: str, content: str, user_path: Path, engine: EnginePaths
) -> None:
    path = user_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONTENTS[content])
    if content == "huge":
        os.truncate(path, 100 * 2**30)
    if name in READERS:
        READERS[name][0]()
    elif content == "huge" and not name.endswith(".lock"):
        assert f"{path} cannot be read: it is larger than 64 MiB" in failure(ERRORS[name][0])
    elif name in ("localrun/config.json", "localrun/models/pulled.json"):
        assert str(path) in failure(ERRORS[name][0])


# Who else can write


def give_away(path: Path) -> None:
    os.chown(path, OTHER, -1, follow_symlinks=False)


def move_and_link(path: Path) -> Path:
    """Moves a folder to another place, as a user with a small disk does."""
    target = home().parent / f"the real {path.name}"
    path.rename(target)
    path.symlink_to(target)
    return target


def link_of_another(path: Path) -> None:
    move_and_link(path)
    give_away(path)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o757, 0o2775])
@pytest.mark.parametrize("is_link", [False, True])
@pytest.mark.parametrize("name", ["localrun", "localrun/engine", "localrun/prompts"])
def test_folder_that_others_can_write_to_is_repaired(
    name: str, is_link: bool, mode: int, user_path: Path, engine: EnginePaths
) -> None:
    folder = user_path / name
    if is_link:
        move_and_link(folder)
    folder.chmod(mode)
    read_names()
    check_folders(engine_folder())
    assert mode_of(folder) == mode & ~0o022
    assert read_config().threads == 1
    assert list_running(engine_folder()) == [STATE]


def test_folder_that_cannot_be_repaired(
    user_path: Path, engine: EnginePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that keeps no permissions."""
    home().chmod(0o777)
    monkeypatch.setattr(Path, "chmod", lambda path, mode: None)
    command = f"`chmod go-w {home()}`"
    assert failure(read_config) == (
        f"{home() / 'config.json'} cannot be read: other users can write to the folder {home()}."
        f" Set LLM_USER_PATH to another disk, or run as its owner {command}."
    )


BELONGS = "belongs to another user (uid 65534). Run this command as that user, or `chown -R 0 {}`."

TAKEN: dict[str, Plant] = {
    "folder": give_away,
    "link": link_of_another,
    "target": lambda path: give_away(move_and_link(path)),
}


def taken(kind: str, folder: Path) -> str:
    """What is said of a folder that another user has taken."""
    if kind == "link":
        return f"the link {folder} was made by another user (uid 65534). Remove it."
    return f"the folder {folder} {BELONGS.format(folder)}"


@as_root
@pytest.mark.parametrize("kind", TAKEN)
def test_home_of_another_user(
    kind: str, user_path: Path, engine: EnginePaths, invoke: Invoke
) -> None:
    write_names(NameCache(time.time(), "stamp", False, True, NAMES))
    TAKEN[kind](home())
    assert read_names() is None
    said_of_it = taken(kind, home())
    assert failure(read_config) == f"{home() / 'config.json'} cannot be read: {said_of_it}"
    before = sorted(home().iterdir())
    for command in ("localrun", "localrun endpoints", "prompt -m local hi", "localrun allow x"):
        said = one_error(invoke(*command.split()))
        assert said_of_it in said
    assert sorted(home().iterdir()) == before
    doctor = invoke("localrun", "doctor")
    assert (doctor.exit_code, "another user (uid" in doctor.stdout) == (1, True)
    # The commands of llm go on without our models.
    for command in ("models", "logs list", "aliases list"):
        assert invoke(*command.split()).exit_code == 0
    assert "local-m" not in invoke("models").output


@as_root
@pytest.mark.parametrize("kind", TAKEN)
@pytest.mark.parametrize("name", ["engine", "prompts"])
def test_folder_of_engines_of_another_user(
    name: str, kind: str, user_path: Path, engine: EnginePaths, invoke: Invoke
) -> None:
    folder = home() / name
    TAKEN[kind](folder)
    model = user_path / "m.gguf"
    model.touch()
    said = failure(lambda: find_or_start(EngineRequest(str(model), "m"), engine_folder(), 0.0))
    assert said == f"{engine_folder()} cannot be written to: {taken(kind, folder)}"
    if name == "engine":
        assert list_running(engine_folder()) == []
        assert invoke("localrun", "unload", "--all").exit_code == 0
        assert read_state(engine.state) is None
    shown = " ".join(invoke("localrun", "doctor").stdout.split())
    assert "another user (uid" in shown
    assert "models can run" not in shown


PLANTED = [
    *("localrun/names.json", "localrun/catalogue.json", "localrun/failed-loads.json"),
    *("localrun/known-files.json", "localrun/tokens.json", "localrun/builds.json"),
    "localrun/failed-builds.json",
    *("localrun/engine/99999999-0a0b0c0d.json", "localrun/engine/99999999-0a0b0c0d.lease"),
    *("localrun/engine/99999999-0a0b0c0d.lock",),
]
"""The files of ours that are treated as absent."""


def fill(user_path: Path) -> None:
    """Writes every file of `PLANTED` that an engine does not write."""
    (user_path / "m.gguf").touch()
    write_snapshot(home(), get_catalogue(CachePolicy.FRESH))
    named.remember(user_path / "m.gguf")
    learned.learn_context("m", 4096)
    FailedLoads().add(str(user_path / "m.gguf"), "it is odd")
    builds.report(engine_folder(), "")
    failed_builds.add("key", Fault.CPU, "it is old", "/m.gguf")
    # Last, because what changes the models deletes the names.
    write_names(NameCache(5.0, "stamp", False, True, NAMES))


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(give_away, marks=as_root),
        pytest.param(link_of_another, marks=as_root),
        lambda path: path.chmod(0o666),
    ],
)
def test_state_that_another_user_can_have_written(
    name: str, spoil: Plant, user_path: Path, engine: EnginePaths
) -> None:
    fill(user_path)
    path = user_path / name
    assert atomic.is_own(path)
    spoil(path)
    assert not atomic.is_own(path)
    read, absent = READERS[name]
    assert read() == absent


@pytest.mark.parametrize(
    ("mode", "kept", "problem"),
    [
        (0o600, 0o600, ""),
        (0o644, 0o644, ""),
        # As editors make it where each user has a group.
        (0o664, 0o644, ""),
        (0o666, 0o666, "other users can write to it. Check what it holds, and run `chmod go-w {}`"),
    ],
)
def test_mode_of_the_settings(mode: int, kept: int, problem: str, user_path: Path) -> None:
    path = home() / "config.json"
    path.chmod(mode)
    if problem:
        assert f"{path} cannot be read: {problem.format(path)}" in failure(read_config)
    else:
        assert read_config().threads == 1
    assert mode_of(path) == kept


@as_root
def test_settings_of_another_user(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home() / "config.json"
    give_away(path)
    assert f"it {BELONGS.format(path)}" in failure(read_config)
    # As `sudo` sets it: the files are those of the user who runs it.
    monkeypatch.setenv("SUDO_UID", str(OTHER))
    give_away(home())
    assert read_config().threads == 1
    monkeypatch.setenv("SUDO_UID", "1000")
    assert "belongs to another user" in failure(read_config)


@as_root
def test_partial_downloads_in_a_folder_of_another_user(user_path: Path) -> None:
    folder = home() / "models" / ".partial"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    lock = list(download.lock_partials(["a"], folder, ExitStack()))
    assert (lock, mode_of(folder)) == ([], 0o755)
    give_away(folder)
    with pytest.raises(atomic.UnsafeFile, match="belongs to another user"):
        list(download.lock_partials(["a"], folder, ExitStack()))
