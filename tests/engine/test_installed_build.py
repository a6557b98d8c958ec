"""The whole way with a real build: a release's archive, one command, an answer by its program.

The build is for Linux with the instructions of a recent server, and its wheel has to be fetched
once: see `tests.support.llama_build`. It is tried with a model in F16, because the processor may
lack what it uses for quantized ones.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_localrun.engine.installed import list_installed
from llm_localrun.engine.remove import is_running, remove_if_unused
from llm_localrun.engine.state import list_hosts
from llm_localrun.engine.stop import stop_all
from tests.conftest import GUARD, Llm
from tests.support import environment, llama_build
from tests.support.coder_model import Unavailable, cache_folder
from tests.support.installing import PLATFORM, Mirror, archive_name, mirrored
from tests.support.quantizing import make, plan_for

pytestmark = pytest.mark.llama_build
TAG = llama_build.TAG


@pytest.fixture(scope="module")
def archive(pytestconfig: pytest.Config) -> Path:
    """The archive of the build. Skips the test where it cannot be had, or cannot run."""
    if problem := llama_build.problem_here():
        pytest.skip(problem)
    with pytestconfig.stash[GUARD].lifted(), environment.original():
        try:
            return llama_build.fetched(cache_folder())
        except Unavailable as error:
            pytest.skip(str(error))


@pytest.fixture
def mirror(user_path: Path, archive: Path, starter_model: Path) -> Iterator[Mirror]:
    """A mirror of the release, for a user with a model in F16."""
    made = make(plan_for(starter_model, "F16"))
    made.rename(made.with_name("smol-F16.gguf"))
    with mirrored(user_path) as mirror:
        mirror.offer(TAG, archive.read_bytes())
        yield mirror


def test_from_the_release_to_an_answer(mirror: Mirror, user_path: Path, run_llm: Llm) -> None:
    done = run_llm("localrun", "engine", "install", "cpu", "--tag", TAG, "--yes")
    assert done.returncode == 0, done.stderr
    assert f"{mirror.at.url}/ggml-org/llama.cpp/releases/download/{TAG}" in done.stderr
    assert f"Installed: {TAG}-cpu (" in done.stdout
    (build,) = list_installed()
    assert build.is_whole
    assert build.tokens_per_second
    answer = run_llm("-m", "local-smol", "Hi", "-o", "max_tokens", "4", "-o", "temperature", "0")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()
    (engine,) = json.loads(run_llm("localrun", "ps", "--json").stdout)
    assert (engine["build"], engine["build_path"]) == (
        f"llama-server {build.name}",
        str(build.server),
    )
    folder = user_path / "localrun" / "engine"
    (paths,) = list_hosts(folder)
    first = paths.log.read_text().splitlines()[0]
    assert first == f"llm-localrun runs llama-server {build.name}: {build.server}"
    assert is_running(build)

    # A running build is neither replaced nor removed.
    (build.folder / "more").write_bytes(b"damage")
    again = run_llm("localrun", "engine", "install", "cpu", "--tag", TAG, "--yes", "--quiet")
    assert again.returncode == 1
    assert "is damaged, and a model runs on it" in again.stderr
    assert not remove_if_unused(build)
    assert run_llm("-m", "local-smol", "Hi", "-o", "max_tokens", "4").returncode == 0
    stop_all(folder)
    assert remove_if_unused(build)
    assert mirror.installed == []


def test_a_build_without_a_gpu_is_not_installed(mirror: Mirror, run_llm: Llm) -> None:
    """It would run, on the CPU: it is no build for GPUs if it finds none."""
    mirror.releases.content[TAG][archive_name(TAG, "ubuntu-vulkan-x64")] = mirror.releases.content[
        TAG
    ][archive_name(TAG, PLATFORM)]
    done = run_llm(
        *("localrun", "engine", "install", "vulkan", "--tag", TAG, "--yes", "--quiet"),
        env={"VK_DRIVER_FILES": "/nothing"},
    )
    assert done.returncode == 1
    assert "it finds no GPU that it can use" in done.stderr
    assert (mirror.installed, list_installed()) == ([], [])
