"""The parts that are for Windows, with a fake of its kernel. They have never run there."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.engine import llama_server, windows_job
from llm_localrun.engine.state import EnginePaths, EngineSettings, EngineSpec, HostInstructions
from tests.support.engines import executable, stand_in, wait_until

CALLS = [
    *("CreateJobObjectW", "SetInformationJobObject", "AssignProcessToJobObject", "CloseHandle"),
]


class Kernel32:
    """Answers as `results` says; notes the calls, and the flags of the job."""

    def __init__(self, **results: int) -> None:
        self.results, self.calls, self.flags = results, list[Any](), 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append((name, *(each for each in arguments if isinstance(each, int))))
            if name == "SetInformationJobObject":
                self.flags = arguments[2]._obj.BasicLimitInformation.LimitFlags
            return self.results.get(name, 77)

        return call


@pytest.mark.pure
def test_child_is_tied_to_a_job() -> None:
    kernel = Kernel32()
    assert windows_job.tie(5, kernel) == 77
    size = ctypes.sizeof(windows_job._ExtendedLimits)
    assert kernel.calls == [
        ("CreateJobObjectW",),
        ("SetInformationJobObject", 77, 9, size),
        ("AssignProcessToJobObject", 77, 5),
    ]
    assert kernel.flags == 0x2000
    # As on 64-bit Windows.
    assert size == 144 or sys.maxsize < 2**32


@pytest.mark.pure
@pytest.mark.parametrize("number", range(3))
def test_child_that_cannot_be_tied(number: int) -> None:
    kernel = Kernel32(**{CALLS[number]: 0})
    with pytest.raises(OSError, match="cannot be tied"):
        windows_job.tie(5, kernel)
    closed = [call for call in kernel.calls if call[0] == "CloseHandle"]
    assert closed == ([("CloseHandle", 77)] if number else [])


@pytest.mark.pure
@pytest.mark.parametrize(
    ("code", "status"),
    [(0, 0), (3, 3), (0xC000001D, 132), (0xC000001D - 2**32, 132), (0xC0000005, 139)],
)
def test_status(code: int, status: int) -> None:
    assert windows_job.shell_status(code) == status


class _Popen(subprocess.Popen[bytes]):
    _handle = 5


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The handles of processes that were tied."""
    tied: list[int] = []
    monkeypatch.setattr(subprocess, "Popen", _Popen)

    def tie(handle: int) -> int:
        tied.append(handle)
        return 77

    monkeypatch.setattr(windows_job, "tie", tie)
    return tied


def instructions(tmp_path: Path, program: Path, model: Path) -> HostInstructions:
    spec = EngineSpec(str(model), "x", 1, 1.0, EngineSettings(context_size=512))
    return HostInstructions(
        *(str(tmp_path), spec, "key", "a build", str(program), "", False, 60.0, 60.0, 0)
    )


@pytest.mark.skipif(sys.platform == "win32", reason="the fake llama-server is a script")
def test_llama_server_as_on_windows(
    tmp_path: Path, starter_model: Path, started: list[int]
) -> None:
    program = stand_in(tmp_path / "llama-server")
    given = instructions(tmp_path, program, starter_model)
    paths = EnginePaths(tmp_path, "1-0a0b0c0d")
    arguments = [str(program), *llama_server._arguments(given, paths)]
    environment = {**os.environ, "LLAMA_API_KEY": "key"}
    server = llama_server.start_on_windows(given, paths, arguments, environment)
    assert server.url.startswith("http://127.0.0.1:")
    assert (started, server.has_ended()) == ([5], False)
    server.end()
    wait_until(server.has_ended)


@pytest.mark.skipif(sys.platform == "win32", reason="the fake llama-server is a script")
def test_llama_server_that_ends_as_on_windows(
    tmp_path: Path, starter_model: Path, started: list[int]
) -> None:
    program = executable(tmp_path / "llama-server", "raise SystemExit(3)")
    paths = EnginePaths(tmp_path, "1-0a0b0c0d")
    given = instructions(tmp_path, program, starter_model)
    with pytest.raises(SystemExit) as ended:
        llama_server.start_on_windows(given, paths, [str(program)], dict(os.environ))
    assert ended.value.code == 3
