"""A build counts as installed only if it runs: its version, its devices, and an answer."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pydantic_core
import pytest

from llm_localrun.engine import acceptance
from llm_localrun.engine.acceptance import ModelRefused, accept
from llm_localrun.engine.hardware import Hardware
from llm_localrun.engine.installed import Backend
from llm_localrun.errors import InstallFailed
from llm_localrun.system.paths import builds_folder
from tests.support.engines import executable, stand_in, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs are scripts")

VERSION = "0.6.0-dev (build 11434, commit abcdef0)"
GPU = "os.environ['STAND_IN_DEVICES'] = '  Vulkan0: RTX A2000 (12032 MiB, 11800 MiB free)'"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a build is. Nothing of it may run when the test ends."""
    # As in an engine: threads that spin are slow on a busy machine.
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    path = tmp_path / "llama-server"
    yield path
    assert running(path) == []


def running(program: Path) -> list[psutil.Process]:
    return [
        each
        for each in psutil.process_iter(["cmdline", "status"])
        if str(program) in (each.info["cmdline"] or [])
        and each.info["status"] != psutil.STATUS_ZOMBIE
    ]


def failure(program: Path, backend: Backend, model: Path | None) -> str:
    with pytest.raises(InstallFailed) as caught:
        accept(program, backend, model)
    assert str(caught.value).startswith("This build of llama.cpp does not run here: ")
    return str(caught.value).partition("here: ")[2]


def loads(load: str) -> str:
    """Code that lets the stand-in load in one of the ways that it knows."""
    return f"os.environ['STAND_IN_LOAD'] = {load!r}"


def test_a_build_for_the_cpu(program: Path, starter_model: Path) -> None:
    stand_in(program)
    found = accept(program, Backend.CPU, starter_model)
    assert (found.version, found.devices) == (VERSION, ())
    assert found.tokens_per_second is not None
    assert found.tokens_per_second > 0


def test_a_build_for_a_gpu_gets_all_layers(
    program: Path, starter_model: Path, tmp_path: Path
) -> None:
    noted = tmp_path / "arguments"
    stand_in(program, f"{GPU}; open({str(noted)!r}, 'w').write(' '.join(sys.argv))")
    found = accept(program, Backend.VULKAN, starter_model)
    assert found.devices == ("RTX A2000",)
    assert "--n-gpu-layers 99" in noted.read_text()
    assert "--fit on" in noted.read_text()


def test_without_a_model(program: Path, tmp_path: Path) -> None:
    noted = tmp_path / "arguments"
    stand_in(program, f"{GPU}; open({str(noted)!r}, 'a').write(sys.argv[1] + ' ')")
    assert accept(program, Backend.CUDA, None).tokens_per_second is None
    assert noted.read_text() == "--version --list-devices "


def test_no_device(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a build starts and answers, on the CPU."""
    monkeypatch.setattr("llm_localrun.engine.hardware.detect", lambda: Hardware("linux", "x64"))
    stand_in(program)
    assert failure(program, Backend.VULKAN, None).startswith("it finds no GPU that it can use. Ins")


@pytest.mark.skipif(sys.platform != "linux", reason="the library is patched as Linux's are")
def test_library_of_the_part_for_the_gpu(program: Path) -> None:
    """The build says nothing if it cannot load that part."""
    stand_in(program)
    real = Path(pydantic_core._pydantic_core.__file__).read_bytes()
    part = program.with_name("libggml-vulkan.so")
    part.write_bytes(real.replace(b"\0libc.so.6\0", b"\0libq.so.6\0"))
    assert failure(program, Backend.VULKAN, None).startswith(
        "libq.so.6 is missing. Install the pac"
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "raise SystemExit('x: error while loading shared libraries: libodd.so.1: cannot open"
            " shared object file: No such file or directory')",
            "libodd.so.1 is missing. Install the package that has it.",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "it uses instructions that this CPU lacks. Install another build",
        ),
        ("raise SystemExit(132)", "it uses instructions that this CPU lacks."),
        ("raise SystemExit(3)", "it exited with status 3. Install another build, such as: llm"),
        ("import time; time.sleep(60)", "it made no progress for 1 s. Install another"),
    ],
    ids=["a library", "an instruction", "an instruction, by a shell", "exits", "hangs"],
)
def test_a_program_that_does_not_run(
    program: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    monkeypatch.setattr(acceptance, "GRACE_S", 1.0)
    executable(program, code)
    assert failure(program, Backend.CPU, None).startswith(told)


def test_a_program_that_cannot_be_started(program: Path) -> None:
    """One for musl names a loader that is missing."""
    assert "it cannot be started (No such file" in failure(program, Backend.CPU, None)
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    assert "it cannot be started (Exec format error)" in failure(program, Backend.CPU, None)


@pytest.mark.parametrize(
    ("load", "told"),
    [
        ("lacks an instruction", "it uses instructions that this CPU lacks."),
        ("no memory of a GPU", "out of memory. Install another build"),
        ("exits", "it exited with status 3. "),
        ("never begins", "error: no backends. "),
        ("silent", "it made no progress for 1 s. "),
    ],
)
def test_a_server_that_does_not_load(
    program: Path, starter_model: Path, monkeypatch: pytest.MonkeyPatch, load: str, told: str
) -> None:
    monkeypatch.setattr(acceptance, "GRACE_S", 1.0)
    stand_in(program, loads(load))
    assert failure(program, Backend.CPU, starter_model).startswith(told)


def test_a_model_that_cannot_be_loaded(program: Path, starter_model: Path) -> None:
    """Nothing is known about the build then."""
    stand_in(program, loads("bad tensor"))
    with pytest.raises(ModelRefused) as caught:
        accept(program, Backend.CPU, starter_model)
    assert caught.value.problem == f"llama.cpp cannot load {starter_model}: missing tensor"


def test_files_of_a_trial_are_on_the_disk_of_builds(
    program: Path, starter_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/proc/full")
    monkeypatch.setattr(tempfile, "tempdir", "/proc/full")
    monkeypatch.setattr(acceptance, "version_of", lambda *_: "")
    stand_in(program)
    assert accept(program, Backend.CPU, starter_model).tokens_per_second
    assert [*(builds_folder() / ".partial").iterdir()] == []


@pytest.mark.parametrize("load", ["logs", "compiles"])
def test_a_slow_load(
    program: Path, starter_model: Path, monkeypatch: pytest.MonkeyPatch, load: str
) -> None:
    """It takes longer than it may make no progress."""
    monkeypatch.setattr(acceptance, "GRACE_S", 1.0)
    stand_in(program, loads(load))
    assert accept(program, Backend.CPU, starter_model).tokens_per_second


def test_arguments_that_a_build_does_not_know(program: Path, starter_model: Path) -> None:
    stand_in(program, "sys.argv += ['--gone'] if len(sys.argv) > 2 else []")
    assert failure(program, Backend.CPU, starter_model).startswith(
        "error: invalid argument: --gone"
    )


ANSWERS = """
import os, signal, socket, sys, time
if "--version" in sys.argv:
    raise SystemExit(print("version: 1"))
server = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{server.getsockname()[1]}"
print(f"0.00.1 I srv  llama_server: listening on {url}", flush=True)
client = server.accept()[0]
client.recv(9999)
"""


@pytest.mark.parametrize(
    ("answer", "told", "grace"),
    [
        ("os.kill(os.getpid(), signal.SIGILL)", "it uses instructions that this CPU lacks", 60),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "it was ended by signal 11 (Segmentation", 60),
        (
            "client.sendall(b'HTTP/1.1 500 x\\r\\n\\r\\n{}'); client.close(); time.sleep(60)",
            "it did not answer a prompt",
            60,
        ),
        (
            "client.sendall(b'odd'); client.close(); time.sleep(60)",
            "it did not answer a prompt",
            60,
        ),
        ("time.sleep(60)", "it made no progress for 1 s", 1),
    ],
    ids=["lacks an instruction", "crashes", "an error", "no HTTP", "hangs"],
)
def test_a_server_that_does_not_answer(
    program: Path,
    starter_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    told: str,
    grace: float,
) -> None:
    monkeypatch.setattr(acceptance, "GRACE_S", grace)
    executable(program, ANSWERS + answer)
    assert failure(program, Backend.CPU, starter_model).startswith(told)


def test_a_server_that_takes_too_much_memory(
    program: Path, starter_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_localrun.engine.limits.is_over", lambda pid, limit: limit > 0)
    stand_in(program, loads("silent"))
    assert failure(program, Backend.CPU, starter_model).startswith("it took more memory than its")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_remains_of_a_command_that_ends(
    program: Path, starter_model: Path, number: signal.Signals
) -> None:
    stand_in(program, loads("silent"))
    code = (
        "from pathlib import Path\n"
        "from llm_localrun.engine.acceptance import Backend, accept\n"
        f"accept(Path({str(program)!r}), Backend.CPU, Path({str(starter_model)!r}))"
    )
    command = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: any("--model" in each.info["cmdline"] for each in running(program)), 30)
    finally:
        os.kill(command.pid, number)
        command.wait(10)
    wait_until(lambda: running(program) == [])
