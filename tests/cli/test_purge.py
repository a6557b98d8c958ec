"""`llm localrun purge` removes what this plugin has made, and nothing else."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import llm_localrun
from llm_localrun.engine.state import EnginePaths, list_hosts, list_running
from llm_localrun.pull import purge, records
from llm_localrun.pull.records import PulledFile, PullRecord, save_record
from llm_localrun.system import locks
from llm_localrun.system.paths import home, models_folder
from tests.conftest import Invoke, Llm, one_error, put_starter, store_key
from tests.support.engines import hosts, wait_until
from tests.support.special_files import NOT_REGULAR

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")

DIGEST = "0" * 32
STATE = (
    "config.json",
    "names.json",
    "catalogue.json",
    "builds.json",
    "engine-failed.log",
    "names.json.0a1b2c3d",
)
OTHERS = (
    "engine/1234-0a1b2c3d.log",
    f"prompts/{DIGEST}.{DIGEST}.{DIGEST}",
    "engines/.partial/llama.tar.gz.part",
    "engines/.removed-b2-cpu-77/llama-server",
    "tools/libggml-python-0.20.2.post1/libggml.so",
    "models/.partial/m.gguf.part",
)
OURS = (*STATE, *OTHERS)
MODEL = "org/name/m.gguf"
REF = "hf:org/name"


def plant(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")


def plant_build(name: str, size: int = 5) -> None:
    tag, _, backend = name.rpartition("-")
    record = {"tag": tag, "backend": backend, "program": "bin/llama-server", "size": size}
    plant(home(), f"engines/{name}/bin/llama-server")
    (home() / "engines" / name / "installed.json").write_text(json.dumps(record))


def plant_model(name: str = MODEL, ref: str = REF) -> Path:
    path = models_folder() / name
    plant(models_folder(), name)
    save_record(
        PullRecord(ref=ref, source="url", files=(PulledFile(path=name, size=5, sha256=""),))
    )
    return path


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def reasons(invoke: Invoke, *arguments: str) -> dict[str, str]:
    """Why each thing stays, by where it is."""
    items = json.loads(invoke("localrun", "purge", "--json", *arguments).stdout)
    return {item["path"]: item["reason"] for item in items if item["reason"]}


@pytest.fixture
def full(user_path: Path) -> Path:
    """A user directory with everything that the plugin writes, and a model."""
    plant(home(), *OURS)
    plant_build("b1-vulkan")
    plant_model()
    return user_path


def test_everything_but_models(full: Path, invoke: Invoke) -> None:
    result = invoke("localrun", "purge", "--yes")
    assert result.exit_code == 0, result.output
    assert tree(full) == {f"localrun/models/{MODEL}", "localrun/models/pulled.json"}
    assert not (home() / "engines").exists()
    assert "stays: --models removes it" in result.stdout
    assert "llm uninstall llm-localrun" in result.stdout
    again = invoke("localrun", "purge", "--yes")
    assert again.exit_code == 0
    assert again.stderr.startswith("Nothing to remove. Models stay")


def test_models_too_and_nothing_is_left(full: Path, invoke: Invoke) -> None:
    assert invoke("localrun", "purge", "--yes", "--models").exit_code == 0
    assert not home().exists()
    again = invoke("localrun", "purge")
    assert (again.exit_code, again.stdout) == (0, "")
    assert again.stderr == "Nothing to remove\n"
    assert not home().exists()


def test_it_shows_and_removes_nothing_without_consent(full: Path, invoke: Invoke) -> None:
    before = tree(full)
    for arguments in ([], ["--json"], ["--models"]):
        result = invoke("localrun", "purge", *arguments)
        assert result.exit_code == 1
        more = " --models" if arguments == ["--models"] else ""
        assert result.stderr == (
            f"Nothing was removed. To remove it: llm localrun purge{more} --yes\n"
        )
        assert "saved prompts" in result.stdout
        assert tree(full) == before


def test_json_says_what_was_removed(full: Path, invoke: Invoke) -> None:
    shown = json.loads(invoke("localrun", "purge", "--json").stdout)
    assert not any(item["removed"] for item in shown)
    items = json.loads(invoke("localrun", "purge", "--json", "--yes").stdout)
    assert {item["what"] for item in items if item["removed"]} == {
        *("settings", "lists and logs", "engine files", "saved prompts", "tools to quantize"),
        *("build of llama.cpp", "removed build", "unfinished build", "unfinished downloads"),
    }
    assert [item["path"] for item in items if not item["removed"]] == [REF]


FOREIGN = (
    "notes.txt",
    "names.json.bak",
    "engine/notes.txt",
    "prompts/poem.md",
    "engines/my-build/llama-server",
    "engines/b9-cpu/no-record",
    "tools/hammer",
    "models/copied.gguf",
)


def test_what_the_plugin_did_not_make_stays_and_is_named(full: Path, invoke: Invoke) -> None:
    plant(home(), *FOREIGN)
    assert invoke("localrun", "purge", "--yes", "--models").exit_code == 0
    assert tree(home()) == {*FOREIGN}
    named = reasons(invoke)
    assert {*named.values()} == {"not made by llm-localrun", "not pulled by llm-localrun"}
    assert str(home() / "models/copied.gguf") in named


@pytest.mark.parametrize(
    "name",
    [
        *("models/.partial/notes.txt", "models/.partial/mine/a.part", "engines/.partial/notes.txt"),
        *("engines/.partial/mine/a", "engines/b1-vulkan/notes.txt", "engines/b1-vulkan/bin/x/y"),
        *("engines/my-cpu/installed.json", "engines/b1-cpu/installed.json"),
    ],
)
def test_what_others_put_into_inner_folders_stays(full: Path, invoke: Invoke, name: str) -> None:
    plant(home(), name)
    assert invoke("localrun", "purge", "--yes", "--models").exit_code == 0
    assert (home() / name).exists()
    assert len(reasons(invoke, "--models")) == 1


def test_a_model_that_has_changed_stays_with_its_record(full: Path, invoke: Invoke) -> None:
    (models_folder() / MODEL).write_text("a file of the user's")
    assert invoke("localrun", "purge", "--yes", "--models").exit_code == 0
    assert tree(home()) == {f"models/{MODEL}", "models/pulled.json"}
    assert "llm localrun rm removes it" in reasons(invoke, "--models")[REF]
    assert invoke("localrun", "rm", REF).exit_code == 0
    assert not (models_folder() / MODEL).exists()


def test_a_folder_in_the_place_of_a_model_stays(full: Path, invoke: Invoke) -> None:
    (models_folder() / MODEL).unlink()
    plant(models_folder(), f"{MODEL}/mine.txt")
    assert invoke("localrun", "purge", "--yes", "--models").exit_code == 0
    assert tree(home()) == {f"models/{MODEL}/mine.txt"}


@pytest.mark.parametrize("kind", ["a file", "a link to nothing"])
def test_no_folder_for_engines(full: Path, invoke: Invoke, kind: str) -> None:
    shutil.rmtree(home() / "engine")
    if kind == "a file":
        (home() / "engine").write_text("mine")
    else:
        (home() / "engine").symlink_to(full / "nothing")
    result = invoke("localrun", "purge", "--yes", "--models")
    assert result.exit_code == 0, result.output
    assert tree(home()) <= {"engine"}
    assert (home() / "engine").is_file() == (kind == "a file")


def test_a_list_stays_as_long_as_its_models(
    full: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(files: list[Path], _folder: Path) -> int:
        if files[0].name == "m.gguf":
            raise PermissionError(13, "Permission denied", str(files[0]))
        return delete(files, _folder)

    delete = records.delete
    with monkeypatch.context() as patch:
        patch.setattr(purge, "delete", refuse)
        result = invoke("localrun", "purge", "--yes", "--models")
    assert result.exit_code == 1
    assert "Removed the rest: " in result.stdout
    assert tree(home()) == {f"models/{MODEL}", "models/pulled.json"}
    assert invoke("localrun", "purge", "--yes", "--models").exit_code == 0
    assert not home().exists()


def test_folders_that_cannot_be_read_are_named(
    full: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, folder = os.access, home() / "prompts"
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
    assert reasons(invoke)[str(folder)] == "it cannot be read: Permission denied"


def test_two_at_once(full: Path) -> None:
    """The second waits for the lock in a folder that the first one removes."""
    with ThreadPoolExecutor() as threads:
        both = [
            threads.submit(lambda: [*purge.remove_all(print, with_models=True, force=False)])
            for _ in range(8)
        ]
        removed = [step for each in both for step in each.result()]
    assert not any(step.problem for step in removed)
    assert not (home() / "models").exists()


@pytest.mark.parametrize("name", ["", "models", "prompts", "engine", "engines", "tools"])
def test_linked_folders_lose_what_is_ours_and_the_link(
    full: Path, invoke: Invoke, tmp_path: Path, name: str
) -> None:
    disk, folder = tmp_path / "disk", home() / name
    folder.rename(disk)
    folder.symlink_to(disk)
    (disk / "mine").write_text("precious")
    (disk / "sub").mkdir()
    (disk / "sub" / "config.json").write_text("precious")
    assert invoke("localrun", "purge", "--yes", "--models").exit_code == 0
    assert not os.path.lexists(folder)
    assert tree(disk) == {"mine", "sub/config.json"}


@pytest.mark.parametrize("name", ["", "models"])
def test_a_link_stays_as_long_as_models_do(
    full: Path, invoke: Invoke, tmp_path: Path, name: str
) -> None:
    disk, folder = tmp_path / "disk", home() / name
    folder.rename(disk)
    folder.symlink_to(disk)
    assert invoke("localrun", "purge", "--yes").exit_code == 0
    assert (models_folder() / MODEL).exists()


LINKS = (
    "models/.partial",
    "engines/.partial",
    "engines/b2-vulkan",
    f"prompts/{DIGEST}.{DIGEST}.x",
    "engine/7-0a1b2c3d.lock",
    "tools/libggml-python-1",
    "config.json",
    "engines/b1-vulkan/bin/lib",
)


@pytest.mark.parametrize("name", LINKS)
def test_links_inside_are_not_followed(
    user_path: Path, invoke: Invoke, tmp_path: Path, name: str
) -> None:
    """A folder and a file of somebody else, to which what looks like ours leads."""
    plant_build("b1-vulkan")
    precious = tmp_path / "precious"
    plant(precious, "a.part", "below/b.gguf")
    record = {"tag": "b2", "backend": "vulkan", "program": "a.part", "size": 5}
    (precious / "installed.json").write_text(json.dumps(record))
    link = home() / name
    link.unlink(missing_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(precious)
    result = invoke("localrun", "purge", "--yes", "--models")
    assert result.exit_code == 0, result.output
    assert tree(precious) == {"a.part", "installed.json", "below/b.gguf"}
    assert not os.path.lexists(link)


@pytest.mark.parametrize("name", ["../../victim", "out/victim", "/etc/hostname", "a/../../victim"])
def test_a_list_that_leads_out_of_the_folder(
    user_path: Path, invoke: Invoke, tmp_path: Path, name: str
) -> None:
    plant(user_path, "victim")
    plant(tmp_path / "elsewhere", "victim")
    models_folder().mkdir()
    (models_folder() / "out").symlink_to(tmp_path / "elsewhere")
    file = {"path": name, "size": 5, "sha256": ""}
    record = {"ref": "evil", "source": "url", "files": [file]}
    (models_folder() / "pulled.json").write_text(json.dumps({"pulled": [record]}))
    assert reasons(invoke, "--models")["evil"] == "its files are not in the models folder"
    assert invoke("localrun", "purge", "--yes", "--models").exit_code == 0
    assert (user_path / "victim").exists()
    assert (tmp_path / "elsewhere" / "victim").exists()
    assert Path("/etc/hostname").exists()


@pytest.mark.parametrize("name", [*STATE, "engine/7-0a1b2c3d.json", "prompts", "models/.partial"])
@pytest.mark.parametrize("kind", sorted({*NOT_REGULAR} - {"a folder"}))
def test_special_files_with_our_names(
    user_path: Path, invoke: Invoke, name: str, kind: str
) -> None:
    path = home() / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    NOT_REGULAR[kind](path)
    result = invoke("localrun", "purge", "--yes")
    assert result.exit_code == 0, result.output
    assert not os.path.lexists(path) or str(path) in reasons(invoke)


def test_one_failure_does_not_stop_the_rest(
    full: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refuse(path: Path, *arguments: Any, **named: Any) -> None:
        if path.name == "catalogue.json":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, *arguments, **named)

    monkeypatch.setattr(Path, "unlink", refuse)
    result = invoke("localrun", "purge", "--yes", "--models")
    assert result.exit_code == 1
    problem = f"{home() / 'catalogue.json'}: Permission denied. The rest goes on."
    assert result.stderr == f"{problem} Fix that, and run this again.\n"
    assert tree(home()) == {"catalogue.json"}


def test_a_damaged_list_of_models_keeps_them(full: Path, invoke: Invoke) -> None:
    (models_folder() / "pulled.json").write_text("{")
    assert "is damaged" in reasons(invoke, "--models")[str(models_folder())]
    assert invoke("localrun", "purge", "--yes", "--models").exit_code == 0
    assert (models_folder() / MODEL).exists()


def test_running_downloads_stay(full: Path, invoke: Invoke) -> None:
    for folder in ("models/.partial", "engines/.partial"):
        plant(home() / folder, "running.part")
        with locks.exclusive(home() / folder / "running.lock", 1.0):
            named = reasons(invoke)
            assert named[str(home() / folder)] == "a command that runs uses it"
            assert invoke("localrun", "purge", "--yes").exit_code == 0
            assert (home() / folder / "running.part").exists()


def test_models_of_servers_stay_and_are_named(user_path: Path, invoke: Invoke) -> None:
    save_record(PullRecord(ref="ollama:qwen3:8b", source="ollama"))
    assert reasons(invoke, "--models") == {"ollama:qwen3:8b": "it is the server's"}


def test_what_llm_stores_stays_and_its_commands_work(
    user_path: Path, starter_model: Path, invoke: Invoke
) -> None:
    put_starter(user_path, starter_model)
    store_key(user_path, "localrun-box", "secret")
    model = "local-smollm2"
    for arguments in (
        ("aliases", "set", "my model", model),
        ("models", "options", "set", model, "temperature", "0"),
        ("models", "default", model),
    ):
        assert invoke(*arguments).exit_code == 0
    kept = {path.name: path.read_bytes() for path in user_path.glob("*.*")}
    said = invoke("localrun", "purge", "--yes").stdout
    assert {path.name: path.read_bytes() for path in user_path.glob("*.*")} == kept
    assert f"keys (localrun-box). To remove them, edit {user_path / 'keys.json'}" in said
    assert "secret" not in said
    commands = re.findall(r"^  llm (.+)$", said, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        words = command.replace("'my model'", "my_model").split()
        words = [word.replace("my_model", "my model") for word in words]
        assert invoke(*words).exit_code == 0, command
    store_key(user_path, "openai", "secret")
    plant(home(), "names.json")
    assert "llm itself" not in invoke("localrun", "purge", "--yes").stdout


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_bytes(b"\xff")])
@pytest.mark.parametrize("name", ["default_model.txt", "default_embedding_model.txt"])
def test_defaults_that_llm_cannot_read(
    user_path: Path, invoke: Invoke, make: Callable[[Path], object], name: str
) -> None:
    make(user_path / name)
    plant(home(), "names.json")
    for command in ("purge", "--yes"), ("status",), ():
        assert invoke("localrun", *command).exit_code == 0


def test_the_alias_that_begins_as_an_option(user_path: Path, invoke: Invoke) -> None:
    (user_path / "aliases.json").write_text(json.dumps({"-x": "local-a"}))
    plant(home(), "names.json")
    assert "  llm aliases remove -- -x\n" in invoke("localrun", "purge", "--yes").stdout


def test_an_engine_that_never_ends_by_itself(
    user_path: Path, starter_model: Path, run_llm: Llm
) -> None:
    put_starter(user_path, starter_model)
    asked = ("-m", "local-smollm2", "Hi", "-o", "max_tokens", "3", "-o", "keep_alive", "-1")
    assert run_llm(*asked).returncode == 0
    (engine,) = list_running(home() / "engine")
    shown = run_llm("localrun", "purge")
    assert shown.returncode == 1
    assert f"model in memory: {engine.spec.name}" in shown.stdout
    assert len(list_hosts(home() / "engine")) == 1
    done = run_llm("localrun", "purge", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Unloaded {engine.spec.name}\n" in done.stdout
    assert not locks.is_locked(EnginePaths(home() / "engine", engine.id).lock)
    wait_until(lambda: hosts(user_path) == [])
    assert tree(home()) == {f"models/{starter_model.name}"}


def test_errors_have_one_sentence(
    full: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Iterator[object]:
        raise PermissionError(13, "Permission denied", str(home() / "engine"))

    monkeypatch.setattr("llm_localrun.cli.purge.find_items", fail)
    assert one_error(invoke("localrun", "purge")) == (
        f"{home() / 'engine'} cannot be removed: Permission denied. Fix its permissions."
    )


def test_every_file_in_our_folder_is_known() -> None:
    """A file that the package names and `purge` does not know would stay for ever."""
    names = set()
    for path in Path(llm_localrun.__file__).parent.rglob("*.py"):
        text = path.read_text("utf-8")
        names |= {*re.findall(r'(?:(?<!_)home\(\)|folder\.parent) / "([^"]+)"', text)}
    folders = {"engine", "engines", "models", "prompts", "tools"}
    assert len(names) > 12
    for name in names - folders - {"aliases.json", "keys.json", "gguf"}:
        known = (purge._SETTINGS, purge._STATE)
        assert any(pattern.fullmatch(name) for pattern in known), name
