"""`llm localrun engine`: which builds are listed, chosen and removed."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_localrun.config import read_config
from llm_localrun.engine import failed_builds
from llm_localrun.engine.build_probe import choice_in
from llm_localrun.engine.installed import RECORD, list_installed
from llm_localrun.engine.libraries import NO_INSTRUCTION
from llm_localrun.engine.state import list_running
from llm_localrun.engine.stop import stop_all
from llm_localrun.errors import Fault
from tests.conftest import CONFIG, Invoke, configure, one_error
from tests.support.drive import ask
from tests.support.engines import (
    executable,
    hosts,
    in_file,
    plant_build,
    stand_in,
    wait_until,
    with_gpu,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake llama-server is a script")


@pytest.fixture(autouse=True)
def builds(user_path: Path) -> Iterator[None]:
    configure(user_path, **CONFIG)
    plant_build("b11391-cuda", with_gpu)
    plant_build("b11300-cpu", stand_in)
    yield
    stop_all(user_path / "localrun" / "engine")
    wait_until(lambda: hosts(user_path) == [])


def listed(invoke: Invoke) -> dict[str, str]:
    """The reasons, by name; the build that is used first."""
    found = json.loads(invoke("localrun", "engine", "list", "--json").stdout)
    assert [each["used"] for each in found] == [True, *[False] * (len(found) - 1)]
    return {each["name"]: each["reason"] for each in found if each["name"][0] != "/"}


def test_list(invoke: Invoke) -> None:
    assert listed(invoke) == {
        "b11391-cuda": "it uses the NVIDIA RTX A2000",
        "b11300-cpu": "it uses no GPU",
        "xllamacpp": "it uses no GPU",
    }
    table = invoke("localrun", "engine").stdout
    assert table == invoke("localrun", "engine", "list").stdout
    head, first, *_ = table.splitlines()
    assert head.split()[:3] == ["name", "used", "why"]
    assert first.split()[:2] == ["b11391-cuda", "yes"]


@pytest.mark.parametrize(
    ("name", "stored", "first"),
    [
        ("xllamacpp", "", "xllamacpp"),
        ("b11300-cpu", "b11300-cpu", "b11300-cpu"),
        ("auto", None, "b11391-cuda"),
    ],
)
def test_use(name: str, stored: str | None, first: str, invoke: Invoke) -> None:
    for other in ("b11391-cuda", name):
        assert invoke("localrun", "engine", "use", other).exit_code == 0
    assert read_config().llama_server == stored
    assert next(iter(listed(invoke))) == first


def test_use_of_a_program(tmp_path: Path, invoke: Invoke) -> None:
    program = stand_in(tmp_path / "my-server")
    done = invoke("localrun", "engine", "use", str(program))
    assert done.stdout == f"{program} runs GGUF files: config.json names it\n"
    assert read_config().llama_server == str(program)


def test_use_tries_again_what_has_failed(invoke: Invoke) -> None:
    build = choice_in("b11391-cuda")
    assert build is not None
    failed_builds.add(build.key, Fault.CPU, NO_INSTRUCTION, "/m")
    assert listed(invoke)["b11391-cuda"] == NO_INSTRUCTION
    invoke("localrun", "engine", "use", "b11391-cuda")
    assert listed(invoke)["b11391-cuda"] == "config.json names it"


def test_use_auto_tries_gpus_again(invoke: Invoke) -> None:
    build = choice_in("b11391-cuda")
    assert build is not None
    failed_builds.add(build.key, Fault.GPU, "its GPU failed", "/m")
    failed_builds.add("other", Fault.CPU, NO_INSTRUCTION, "/m")
    assert listed(invoke)["b11391-cuda"] == "its GPU failed"
    invoke("localrun", "engine", "use", "auto")
    assert listed(invoke)["b11391-cuda"] == "it uses the NVIDIA RTX A2000"
    assert failed_builds.find("other") is not None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/bin/ls", "/bin/ls cannot be used: it "),
        ("b11391-cuda", "b11391-cuda cannot be used: it cannot be started (No such file"),
        ("{broken}", "cannot be used: libodd.so.1 is missing. Install the package that has it."),
    ],
)
def test_use_of_what_does_not_run(
    name: str, problem: str, user_path: Path, tmp_path: Path, invoke: Invoke
) -> None:
    (user_path / "localrun" / "engines" / "b11391-cuda" / "bin" / "llama-server").unlink()
    said = "x: error while loading shared libraries: libodd.so.1: cannot open shared object file"
    broken = executable(tmp_path / "broken", f"raise SystemExit({said!r})")
    done = invoke("localrun", "engine", "use", name.format(broken=broken))
    assert problem in one_error(done)
    assert read_config().llama_server is None


def test_use_with_rpc_servers(user_path: Path, invoke: Invoke) -> None:
    configure(user_path, **CONFIG, rpc=["box:1"])
    done = invoke("localrun", "engine", "use", "b11300-cpu")
    assert "b11300-cpu cannot use the RPC servers in config.json" in one_error(done)
    assert read_config().llama_server is None


@pytest.mark.parametrize("command", ["use", "remove"])
def test_unknown_name(command: str, invoke: Invoke) -> None:
    done = invoke("localrun", "engine", command, "b11391-cud")
    assert "b11391-cud. Nearest: b11391-cuda" in one_error(done)
    assert read_config().llama_server is None


def test_remove(user_path: Path, invoke: Invoke) -> None:
    invoke("localrun", "engine", "use", "b11391-cuda")
    folder = user_path / "localrun" / "engines"
    refused = invoke("localrun", "engine", "remove", "b11391-cuda", input="y\n")
    assert refused.exit_code == 2
    assert "To remove it: llm localrun engine remove b11391-cuda --yes" in refused.stderr
    assert (folder / "b11391-cuda").exists()
    done = invoke("localrun", "engine", "remove", "b11391-cuda", "--yes")
    assert done.stdout == "Removed b11391-cuda: 0 MB freed\n"
    assert [path.name for path in folder.iterdir()] == ["b11300-cpu"]
    assert read_config().llama_server is None
    assert "b11391-cuda" not in listed(invoke)


def test_remove_of_a_link(user_path: Path, tmp_path: Path, invoke: Invoke) -> None:
    """What it leads to stays."""
    folder = user_path / "localrun" / "engines"
    (folder / "b11300-cpu").rename(tmp_path / "elsewhere")
    (folder / "b11300-cpu").symlink_to(tmp_path / "elsewhere")
    assert invoke("localrun", "engine", "remove", "b11300-cpu", "--yes").exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["b11391-cuda"]
    assert (tmp_path / "elsewhere" / RECORD).is_file()


def test_remove_ends_its_engines(user_path: Path, starter_model: Path, invoke: Invoke) -> None:
    ask(in_file(starter_model), "Hi", max_tokens=1)
    folder = user_path / "localrun" / "engine"
    (engine,) = list_running(folder)
    assert engine.build == "llama-server b11391-cuda"
    assert invoke("localrun", "engine", "remove", "b11300-cpu", "--yes").exit_code == 0
    assert list_running(folder) == [engine]
    assert invoke("localrun", "engine", "remove", "b11391-cuda", "--yes").exit_code == 0
    assert list_running(folder) == []
    assert ask(in_file(starter_model), "Hi", max_tokens=1).output == 1
    assert list_running(folder)[0].build.startswith("xllamacpp ")


def test_build_that_was_deleted_by_hand(user_path: Path, invoke: Invoke) -> None:
    invoke("localrun", "engine", "use", "b11391-cuda")
    shutil.rmtree(user_path / "localrun" / "engines" / "b11391-cuda")
    listing = invoke("localrun", "engine")
    assert "b11391-cuda cannot be used: there is no such program" in listing.stderr


def test_installed_build_whose_program_is_gone(invoke: Invoke) -> None:
    invoke("localrun", "engine", "use", "b11391-cuda")
    (build,) = (each for each in list_installed() if each.name == "b11391-cuda")
    build.server.unlink()
    remedy = "Install it again: llm localrun engine install cuda --tag b11391."
    assert remedy in invoke("localrun", "engine").stderr
