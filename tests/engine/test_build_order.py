"""Which build runs a model where several can, why, and how often they are asked."""

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_localrun.engine import build_probe, builds, failed_builds
from llm_localrun.engine.build_probe import Build, Device
from llm_localrun.engine.installed import RECORD
from llm_localrun.engine.libraries import NO_INSTRUCTION
from llm_localrun.errors import EngineFailed, Fault
from tests.support.engines import executable, plant_build, stand_in, with_gpu

scripts = pytest.mark.skipif(sys.platform == "win32", reason="the fake llama-server is a script")

GPU = Device(name="CUDA0", title="RTX 4090", memory=24 * 2**30)
KINDS = {
    "installed": Build(kind="llama-server", path="/e", installed="b2-cuda", key="e"),
    "xllamacpp": Build(kind="xllamacpp", path="/x", key="x"),
    "on PATH": Build(kind="llama-server", path="/p", key="p", can_rpc=True),
}
ORDER = [
    *("installed with GPU", "xllamacpp with GPU", "on PATH with GPU"),
    *("installed with CPU", "xllamacpp with CPU", "on PATH with CPU"),
]
STATES = ["absent", "with CPU", "with GPU", "whose GPU has failed", "whose CPU part has failed"]


@pytest.fixture
def folder(user_path: Path) -> Path:
    (folder := user_path / "localrun" / "engine").mkdir()
    return folder


def present(monkeypatch: pytest.MonkeyPatch, found: list[Build]) -> None:
    """Lets `found` be the builds of this machine, and what probing them gives."""
    monkeypatch.setattr(builds, "find_builds", lambda _named: found)
    monkeypatch.setattr(builds, "probe_all", lambda given, _folder: [*given])


@pytest.mark.parametrize("states", [*itertools.product(STATES, repeat=3)], ids=" ".join)
def test_order(states: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, usable = [], []
    for (name, build), state in zip(KINDS.items(), states, strict=True):
        if state == "absent":
            continue
        devices = (GPU,) * state.endswith(("GPU", "GPU has failed"))
        found.append(build.model_copy(update={"devices": devices}))
        if state == "whose CPU part has failed":
            failed_builds.add(build.key, Fault.CPU, NO_INSTRUCTION, "/m")
            continue
        if state == "whose GPU has failed":
            failed_builds.add(build.key, Fault.GPU, "its GPU failed", "/m")
        runs = "with GPU" if state == "with GPU" else "with CPU"
        usable.append((f"{name} {runs}", build.path))
    present(monkeypatch, found)
    if not usable:
        with pytest.raises(EngineFailed):
            builds.choose(folder, None, "", "/m")
        return
    best, path = min(usable, key=lambda each: ORDER.index(each[0]))
    chosen = builds.choose(folder, None, "", "/m")
    assert (chosen.path, chosen.uses_gpu) == (path, best.endswith("GPU"))
    assert builds.report(folder, None).chosen == chosen


@pytest.mark.parametrize(
    ("named", "rpc", "failed", "expected"),
    [
        ("/named", "", None, "/named"),
        ("/named", "", Fault.GPU, "/named"),
        # Its owner could not know that.
        ("/named", "", Fault.CPU, "/e"),
        ("", "", None, "/x"),
        (None, "box:1", None, "/p"),
        ("/named", "box:1", None, ""),
        ("", "box:1", None, ""),
    ],
)
def test_what_config_says_comes_first(
    named: str | None,
    rpc: str,
    failed: Fault | None,
    expected: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = Build(kind="llama-server", path="/named", key="n", devices=(GPU,))
    others = [KINDS["installed"].model_copy(update={"devices": (GPU,)}), *[*KINDS.values()][1:]]
    present(monkeypatch, [*([own] if named else []), *others])
    if failed:
        failed_builds.add("n", failed, NO_INSTRUCTION, "/m")
    if not expected:
        with pytest.raises(EngineFailed):
            builds.choose(folder, named, rpc)
    else:
        assert builds.choose(folder, named, rpc).path == expected


def test_reasons(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = KINDS["installed"].model_copy(update={"devices": (GPU,)})
    present(monkeypatch, [installed, *[*KINDS.values()][1:]])
    auto = {"/e": "it uses the RTX 4090", "/x": "it uses no GPU", "/p": "it uses no GPU"}
    assert builds.report(folder, None).reasons == auto
    failed_builds.add("e", Fault.GPU, "its GPU failed: device lost", "/m")
    failed_builds.add("p", Fault.CPU, NO_INSTRUCTION, "/m")
    assert builds.report(folder, None).reasons == {
        "/e": "its GPU failed: device lost",
        "/x": "b2-cuda comes before it",
        "/p": NO_INSTRUCTION,
    }
    assert builds.report(folder, "").reasons["/x"] == "config.json names it"
    failed_builds.add("x", Fault.GPU, "its GPU failed", "/m")
    assert builds.report(folder, "").reasons["/x"] == "config.json names it, and its GPU failed"
    assert builds.report(folder, "").reasons["/e"] == "config.json names another one"
    assert "RPC" in builds.report(folder, None, "box:1").reasons["/e"]


@pytest.mark.parametrize(
    ("fault", "model", "driver", "seconds", "holds"),
    [
        (Fault.CPU, "/other", "new", 10**9, True),
        (Fault.GPU, "/other", "", 60, True),
        (Fault.GPU, "/m", "new", 60, False),
        (Fault.GPU, "/m", "", 86_500, False),
        (Fault.GPU_MEMORY, "/m", "", 60, True),
        (Fault.GPU_MEMORY, "/other", "", 60, False),
    ],
)
def test_how_long_a_failure_holds(
    fault: Fault,
    model: str,
    driver: str,
    seconds: float,
    holds: bool,
    user_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed_builds.add("key", fault, "why", "/m")
    now = time.time() + seconds
    monkeypatch.setattr(time, "time", lambda: now)
    if driver:
        monkeypatch.setattr(failed_builds, "gpu_state", lambda: driver)
    assert (failed_builds.find("key", model) is not None) is holds
    assert failed_builds.find("key of the changed build", model) is None
    failed_builds.forget("key")
    assert failed_builds.find("key", "/m") is None


# Probing.


def counted(path: Path, asked: Path) -> Path:
    return stand_in(path, f"open({str(asked)!r}, 'a').write('x')")


@scripts
def test_an_installed_build_is_probed_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    asked.touch()
    build = plant_build("b11391-cpu", lambda path: counted(path, asked))
    # The user wants xllamacpp: nothing is asked.
    assert builds.choose(folder, "", "").name == "xllamacpp"
    assert asked.stat().st_size == 0
    for _ in range(2):
        assert builds.choose(folder, None, "").title == "llama-server b11391-cpu"
        assert asked.stat().st_size == 3
    # What another command asks, too, does not make it be asked again.
    monkeypatch.setenv(
        "PATH", str(counted(tmp_path / "bin" / "llama-server", tmp_path / "x").parent)
    )
    builds.report(folder, None)
    builds.choose(folder, "b11391-cpu", "")
    assert asked.stat().st_size == 3
    os.utime(build.folder / RECORD, (0, 0))
    builds.choose(folder, None, "")
    assert asked.stat().st_size == 6


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (("Vulkan0", "CUDA0", ""), "/2"),
        (("Vulkan0", "Vulkan0", "ROCm0"), "/3"),
        (("Vulkan0", "Vulkan0", ""), "/1"),
        (("", "Vulkan0", ""), "/2"),
        (("Vulkan0", "", "MTL0"), "/3"),
    ],
)
def test_vendors_interfaces_come_before_vulkan(
    devices: tuple[str, ...], expected: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        Build(
            kind="llama-server",
            path=f"/{number}",
            installed="x" * (number < 3),
            devices=(GPU.model_copy(update={"name": name}),) if name else (),
        )
        for number, name in enumerate(devices, 1)
    ]
    present(monkeypatch, found)
    assert builds.choose(folder, None, "").path == expected


LIBRARY = "x: error while loading shared libraries: libodd.so.1: cannot open shared object file"


@scripts
@pytest.mark.parametrize(
    ("code", "problem", "is_kept"),
    [
        (f"raise SystemExit({LIBRARY!r})", "libodd.so.1 is missing", False),
        ("raise SystemExit(1)", "it exited with status 1", False),
        ("raise SystemExit(132)", NO_INSTRUCTION, True),
        ("print('--model')", "it is too old: it lacks --kv-unified", True),
        ("print('usage: ls')", "it is no llama-server", True),
        ("import time; time.sleep(60)", "it made no progress for 0.5 s", True),
    ],
)
def test_problem_that_can_be_remedied_is_not_kept(
    code: str,
    problem: str,
    is_kept: bool,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build_probe.output_of, "__kwdefaults__", {"grace": 0.5})
    asked = tmp_path / "asked"
    program = executable(tmp_path / "llama-server", f"open({str(asked)!r}, 'a').write('x')\n{code}")
    for _ in range(2):
        report = builds.report(folder, str(program))
        (found,) = (build for build in report.builds if build.path == str(program))
        assert found.problem.startswith(problem)
        assert found.remedy
    assert len(asked.read_text()) == (1 if is_kept else 2)


@scripts
def test_other_gpus_are_probed_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_build("b11391-cuda", with_gpu)
    asked = tmp_path / "asked"
    plant_build("b11390-cpu", lambda path: counted(path, asked))
    for number in ("0", "0", "1"):
        monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", number)
        builds.choose(folder, None, "")
    assert asked.stat().st_size == 6


@pytest.mark.parametrize(
    ("title", "shares"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", True),
        ("Intel(R) UHD Graphics 620 (KBL GT2)", True),
        ("Intel(R) Arc(tm) Graphics (MTL)", True),
        ("Intel(R) Arc(tm) A770 Graphics (DG2)", False),
        ("Intel(R) Arc(tm) B580 Graphics (BMG G21)", False),
        ("AMD Radeon Graphics (RADV RENOIR)", True),
        ("AMD Radeon 780M Graphics (RADV PHOENIX)", True),
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", False),
        ("NVIDIA GeForce RTX 4090", False),
    ],
)
def test_gpu_whose_memory_is_ram(title: str, shares: bool) -> None:
    listed = f"Available devices:\n  Vulkan0: {title} (9000 MiB, 8000 MiB free)\n"
    ((device, free),) = build_probe.devices_in(listed)
    assert (device.title, device.shares_ram, free) == (title, shares, 8000 * 2**20)


def test_xllamacpp_alone_is_not_probed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(build_probe, "output_of", lambda *_: pytest.fail("it was run"))
    assert builds.choose(folder, None, "").kind == "xllamacpp"


def dies(path: Path) -> Path:
    return executable(path, "import os, signal\nos.kill(os.getpid(), signal.SIGILL)")


def dies_in_a_shell(path: Path) -> Path:
    return executable(path, "raise SystemExit(132)")


@scripts
@pytest.mark.parametrize("program", [dies, dies_in_a_shell])
def test_build_whose_cpu_part_does_not_run(
    folder: Path, tmp_path: Path, program: Callable[[Path], Path]
) -> None:
    path = str(program(tmp_path / "llama-server"))
    assert builds.choose(folder, path, "").name == "xllamacpp"
    report = builds.report(folder, path)
    assert report.reasons[path] == NO_INSTRUCTION
    assert report.chosen is not None


@scripts
def test_a_gpu_makes_an_installed_build_the_first(folder: Path) -> None:
    plant_build("b11400-cpu", stand_in)
    plant_build("b11391-vulkan", with_gpu)
    assert builds.choose(folder, None, "").name == "b11391-vulkan"
    assert builds.choose(folder, "b11400-cpu", "").name == "b11400-cpu"
