"""The snapshot on disk: complete or absent, and renewed when too old; models given as paths."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import catalogue
from llm_localrun.catalogue import (
    SNAPSHOT_VERSION,
    get_catalogue,
    model_at,
    read_snapshot,
    write_snapshot,
)
from llm_localrun.errors import ConfigError
from llm_localrun.models import (
    Endpoint,
    EndpointReport,
    RunsOn,
    ScannedFile,
    ServerStatus,
    Snapshot,
)
from llm_localrun.name_cache import FRESH_S, CachePolicy, settings_stamp
from llm_localrun.system.atomic import write_atomically
from tests.conftest import CONFIG, configure
from tests.support.drive import failure
from tests.support.models import file_route, local_model
from tests.support.trees import LLAMA, MIB, field, gguf, header, write

pytestmark = pytest.mark.usefixtures("user_path")

BOX = Endpoint(name="box", kind="vllm", url="http://box:8000", key_alias="box")
SERVED = local_model(
    id="local/box/Qwen/Qwen3-8B",
    name="Qwen/Qwen3-8B",
    endpoint=BOX,
    context_max=40960,
    context_loaded=40960,
    loaded=True,
    runs_on=RunsOn.ANOTHER_MACHINE,
)
FILE = local_model(
    id="local/gguf/bge-ü-ﬁ 模型",
    name="bge-ü-ﬁ 模型",
    purpose="embedding",
    path="/models/bge-ü-ﬁ 模型.gguf",
    store="lmstudio",
    architecture="bert",
    quantization="F16",
    parameters=2**40,
    size=2**40,
    modified=1763900000.123456,
)
FULL = Snapshot(
    taken_at=1763900000.5,
    endpoints=(
        EndpointReport(
            endpoint=BOX, status=ServerStatus.ANSWERS, asked_at=1763900000.25, models=(SERVED,)
        ),
        EndpointReport(
            endpoint=Endpoint(name="ollama", kind="ollama", url="http://127.0.0.1:11434"),
            status=ServerStatus.TIMEOUT,
            asked_at=1.0,
        ),
    ),
    files=(
        ScannedFile(path="/models/bge.gguf", size=2**40, modified=1763900000.123456, model=FILE),
        ScannedFile(path="/models/mmproj.gguf", size=5, modified=0.1, model=None),
    ),
)


def store(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "catalogue.json").write_bytes(content)


@pytest.fixture
def folder(user_path: Path) -> Path:
    return user_path / "localrun"


@pytest.mark.parametrize("snapshot", [Snapshot(), FULL], ids=["empty", "full"])
def test_snapshot_is_read_as_it_was_written(snapshot: Snapshot, folder: Path) -> None:
    write_snapshot(folder, snapshot)
    assert read_snapshot(folder) == snapshot
    write_snapshot(folder, snapshot)
    assert read_snapshot(folder) == snapshot


def test_served_models_come_first() -> None:
    assert FULL.models == (SERVED, FILE)


def kept(version: int | None = SNAPSHOT_VERSION, **changes: Any) -> bytes:
    """The content of catalogue.json, with some changes."""
    snapshot = {**json.loads(FULL.model_dump_json()), **changes}
    return json.dumps({"version": version, "snapshot": snapshot}).encode()


REPORT, ENTRY = (
    json.loads(value.model_dump_json()) for value in (FULL.endpoints[0], FULL.files[0])
)

BROKEN = {
    "empty": b"",
    "blank": b"\n",
    "truncated": kept()[:-20],
    "doubled": kept() * 2,
    "not JSON": b"catalogue",
    "not Unicode": b'{"version": 1, "\xff": 2}',
    "nested deeply": b"[" * 100_000,
    "a list": b"[]",
    "null": b"null",
    "of the future": kept(SNAPSHOT_VERSION + 1),
    "of the past": kept(0),
    "of no version": kept(None),
    "of version 3": json.dumps({"version": 3, "taken_at": 1.0, "files": []}).encode(),
    "of another program": b'{"models": [{"id": "gpt-4o"}]}',
    "with more than we know": kept(more=True),
    "with a wrong type": kept(taken_at="yesterday"),
    "with a wrong value": kept(endpoints=[{**REPORT, "status": "sleeps"}]),
    "with half a model": kept(files=[{**ENTRY, "model": {"name": "m"}}]),
}


def test_defaults_are_not_written(folder: Path) -> None:
    write_snapshot(folder, FULL)
    text = (folder / "catalogue.json").read_text()
    assert "null" not in text.replace('"model":null', "")
    store(folder, kept())
    assert read_snapshot(folder) == FULL


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_unusable_file_is_replaced_in_silence(
    content: bytes, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store(folder, content)
    assert read_snapshot(folder) == Snapshot()
    gguf(folder / "models" / "m.gguf")
    assert [model.id for model in get_catalogue(CachePolicy.IF_EMPTY).models] == ["local/gguf/m"]
    assert read_snapshot(folder).models == get_catalogue(CachePolicy.CACHED).models
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("obstacle", ["no folder", "a folder of its name", "a dangling link"])
def test_file_that_cannot_be_read(obstacle: str, folder: Path) -> None:
    if obstacle == "a folder of its name":
        (folder / "catalogue.json").mkdir()
    elif obstacle == "a dangling link":
        (folder / "catalogue.json").symlink_to(folder / "nowhere")
    assert read_snapshot(folder / "missing" if obstacle == "no folder" else folder) == Snapshot()


@pytest.mark.parametrize(
    "path",
    ["a file", "a file/below", "dangling", "occupied"],
)
def test_folder_that_cannot_be_written_to_is_ignored(path: str, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("not a folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "at all")
    (tmp_path / "occupied" / "catalogue.json").mkdir(parents=True)
    write_snapshot(tmp_path / path, FULL)
    assert read_snapshot(tmp_path / path) == Snapshot()
    assert [path.name for path in (tmp_path / "occupied").iterdir()] == ["catalogue.json"]


def test_models_are_found_even_if_the_snapshot_cannot_be_written(folder: Path) -> None:
    (folder / "catalogue.json").mkdir()
    gguf(folder / "models" / "m.gguf")
    for _ in range(2):
        catalogue._memory.clear()
        assert [model.id for model in get_catalogue(CachePolicy.IF_STALE).models] == [
            "local/gguf/m"
        ]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_file_name_that_is_not_unicode_is_skipped(folder: Path) -> None:
    gguf(folder / "models" / "good.gguf")
    odd = gguf(folder / "models" / "odd.gguf")
    odd.rename(odd.with_name(os.fsdecode(b"\xff.gguf")))
    assert [model.id for model in get_catalogue(CachePolicy.REFRESH).models] == ["local/gguf/good"]
    assert [model.id for model in read_snapshot(folder).models] == ["local/gguf/good"]


def test_file_is_readable_by_its_owner_only(folder: Path) -> None:
    write_snapshot(folder, FULL)
    assert stat.S_IMODE((folder / "catalogue.json").stat().st_mode) == 0o600


def test_failed_write_leaves_only_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir() if path.is_file()] == [
        ("file", b"old")
    ]


WRITER = """
import sys
from pathlib import Path
from llm_localrun.catalogue import write_snapshot
from llm_localrun.models import ScannedFile, Snapshot

number = int(sys.argv[2])
entry = ScannedFile(path=f"/models/{number}.gguf", size=number, modified=0, model=None)
for turn in range(50):
    write_snapshot(Path(sys.argv[1]), Snapshot(taken_at=turn, files=(entry,) * 400 * number))
"""


def test_many_writers_never_leave_a_broken_file(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(number)])
        for number in range(1, 5)
    ]
    seen: set[tuple[int, int]] = set()
    while any(writer.poll() is None for writer in writers) or not seen:
        try:
            content = (folder / "catalogue.json").read_bytes()
        except FileNotFoundError:
            continue
        files = json.loads(content)["snapshot"]["files"]
        seen.add((files[0]["size"], len(files)))
    assert [writer.returncode for writer in writers] == [0] * 4
    assert seen <= {(number, 400 * number) for number in range(1, 5)}
    assert [path.name for path in folder.iterdir()] == ["catalogue.json"]


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[CachePolicy]:
    """The policy of each discovery. Discovery finds nothing here."""
    asked: list[CachePolicy] = []

    def discover(before: Snapshot, policy: CachePolicy, _is_enough: object) -> Snapshot:
        asked.append(policy)
        changes = {"taken_at": time.time(), "stamp": settings_stamp([]), "is_complete": True}
        return before.model_copy(update=changes)

    monkeypatch.setattr(catalogue, "_discover", discover)
    return asked


AGES = {
    "absent": None,
    "fresh": FRESH_S / 2,
    "stale": FRESH_S + 5,
    "old": 1e7,
    "of tomorrow": -86400.0,
    "incomplete": FRESH_S / 2,
    "without models": FRESH_S / 2,
}

# For each policy, the snapshots on disk for which the first call discovers.
ROUNDS: dict[CachePolicy, set[str]] = {
    CachePolicy.CACHED: set(),
    CachePolicy.IF_EMPTY: {"absent"},
    CachePolicy.IF_STALE: {*AGES} - {"fresh", "incomplete"},
    CachePolicy.IF_NEEDED: {*AGES} - {"fresh"},
    CachePolicy.RETRY: {*AGES},
    CachePolicy.FRESH: {*AGES},
    CachePolicy.REFRESH: {*AGES},
}


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("refresh", ROUNDS)
def test_when_models_are_looked_for_again(
    refresh: CachePolicy, age: str, rounds: list[CachePolicy], folder: Path
) -> None:
    seconds = AGES[age]
    if seconds is not None:
        taken: dict[str, Any] = {
            "taken_at": time.time() - seconds,
            "stamp": settings_stamp([]),
            "is_complete": age != "incomplete",
        }
        if age == "without models":
            taken |= {"endpoints": (), "files": ()}
        before = FULL.model_copy(update=taken)
        write_snapshot(folder, before)
    found = get_catalogue(refresh)
    assert rounds == [refresh] * (age in ROUNDS[refresh])
    if age not in ("absent", "without models"):
        assert found.models == FULL.models
    if rounds:
        assert read_snapshot(folder) == found


@pytest.mark.parametrize("first", ROUNDS)
@pytest.mark.parametrize("second", [CachePolicy.CACHED, CachePolicy.IF_EMPTY, CachePolicy.IF_STALE])
def test_one_discovery_in_a_process(
    first: CachePolicy, second: CachePolicy, rounds: list[CachePolicy], folder: Path
) -> None:
    get_catalogue(CachePolicy.IF_STALE)
    get_catalogue(first)
    before = list(rounds)
    (folder / "catalogue.json").unlink()
    get_catalogue(second)
    assert rounds == before


def test_another_user_directory_is_another_catalogue(
    rounds: list[CachePolicy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_catalogue()
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "other"))
    configure(tmp_path / "other", **CONFIG)
    get_catalogue()
    assert len(rounds) == 2


def test_broken_configuration_is_an_error_only_when_it_is_read(folder: Path) -> None:
    write_snapshot(folder, FULL.model_copy(update={"taken_at": time.time()}))
    (folder / "config.json").write_text("{")
    assert get_catalogue(CachePolicy.CACHED).models == FULL.models
    with pytest.raises(ConfigError, match=r"config\.json is not valid"):
        get_catalogue(CachePolicy.IF_STALE)


@pytest.mark.parametrize("keys", ["{", "[]", '{"box": 5}', "null"])
def test_broken_keys_of_llm_are_ignored(keys: str, user_path: Path) -> None:
    endpoints = [{"name": "box", "url": "http://127.0.0.1:1", "key": "box"}]
    configure(user_path, **CONFIG, endpoints=endpoints)
    (user_path / "keys.json").write_text(keys)
    assert [report.status for report in get_catalogue(CachePolicy.REFRESH).endpoints] == [
        ServerStatus.OFFLINE
    ]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, which no scan reads."""
    (tmp_path / "disk").mkdir()
    monkeypatch.chdir(tmp_path / "disk")
    yield tmp_path / "disk"


@pytest.mark.parametrize("given", ["m.gguf", "./m.gguf", "../disk/m.gguf", "link.gguf", "absolute"])
def test_model_given_as_a_path_stays_known(given: str, disk: Path, folder: Path) -> None:
    file = gguf(disk / "m.gguf", size=4096)
    (disk / "link.gguf").symlink_to("m.gguf")
    model = model_at(file if given == "absolute" else Path(given))
    assert (model.id, file_route(model).path, file_route(model).store) == (
        "local/gguf/m",
        str(file),
        "files",
    )
    assert model in read_snapshot(folder).models
    for refresh in ROUNDS:
        catalogue._memory.clear()
        assert get_catalogue(refresh).models == (model,)
    assert model_at(file) == model
    assert get_catalogue(CachePolicy.CACHED).models == (model,)


def test_file_in_a_store_keeps_its_id(disk: Path, folder: Path) -> None:
    file = gguf(folder / "models" / "m.gguf")
    (disk / "another-name.gguf").symlink_to(file)
    model = model_at(disk / "another-name.gguf")
    assert (model.id, file_route(model).store) == ("local/gguf/m", "localrun")
    assert get_catalogue(CachePolicy.REFRESH).models == (model,)


def test_second_model_of_the_same_name_has_another_id(disk: Path, folder: Path) -> None:
    gguf(folder / "models" / "m.gguf")
    model = model_at(gguf(disk / "m.gguf"))
    assert model.id.startswith("local/gguf/m@")
    assert [found.id for found in get_catalogue(CachePolicy.REFRESH).models] == [
        "local/gguf/m",
        model.id,
    ]


def test_split_file_is_given_as_its_first_part(disk: Path) -> None:
    for part in (1, 2):
        gguf(disk / f"Big-{part:05}-of-00002.gguf")
    model = model_at(disk / "Big-00001-of-00002.gguf")
    assert (model.id, model.size) == ("local/gguf/Big", 4 * MIB)


Make = Callable[[Path], object]

REJECTED: dict[str, tuple[Make, str]] = {
    "missing": (lambda _: None, "m.gguf does not exist. Check the path;"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "does not exist. Check the path;"),
    "a folder": (
        lambda path: path.mkdir(),
        "m.gguf is a directory. Give the path of a .gguf file in it.",
    ),
    "a pipe": (os.mkfifo, "m.gguf is not a regular file. Give the path of a .gguf file."),
    "a link to itself": (
        lambda path: path.symlink_to("m.gguf"),
        "m.gguf cannot be opened: Too many levels of symbolic links. Check the path.",
    ),
    "empty": (lambda path: write(path, ""), "is not a GGUF model: it is empty"),
    "a text": (
        lambda path: write(path, "text"),
        "is not a GGUF model: it does not begin with GGUF",
    ),
    "cut off": (
        lambda path: write(path, header(count=9)),
        "it is cut off in the middle of its header",
    ),
    "a LoRA": (
        lambda path: write(path, header(LLAMA, field("general.type", "adapter"))),
        "holds no model that can be run by itself",
    ),
    "a projector": (
        lambda path: gguf(path, architecture="clip"),
        "holds no model that can be run by itself",
    ),
}


@pytest.mark.parametrize(("make", "said"), REJECTED.values(), ids=REJECTED)
def test_path_without_a_model(make: Make, said: str, disk: Path, folder: Path) -> None:
    make(disk / "m.gguf")
    assert said in failure(lambda: model_at(Path("m.gguf")))
    assert not (folder / "known-files.json").exists()
    assert get_catalogue(CachePolicy.REFRESH).models == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (1, "cannot be run: Big-00002-of-00002.gguf is missing. Download that part into the"),
        (2, "is a later part of a split file. Give the path of the first part."),
    ],
)
def test_split_file_that_lacks_a_part(given: int, said: str, disk: Path) -> None:
    path = gguf(disk / f"Big-{given:05}-of-00002.gguf")
    assert said in failure(lambda: model_at(path))


def test_known_file_that_was_deleted_is_missing(disk: Path) -> None:
    file = gguf(disk / "m.gguf")
    model_at(file)
    file.unlink()
    assert f"{file} does not exist." in failure(lambda: model_at(file))


def test_file_that_changed_is_read_again(disk: Path) -> None:
    file = gguf(disk / "m.gguf", {"llama.context_length": 2048})
    assert model_at(file).context_max == 2048
    gguf(file, {"llama.context_length": 4096}, size=3 * MIB)
    os.utime(file, (1e9, 1e9))
    assert model_at(file).context_max == 4096
