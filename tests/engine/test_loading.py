"""A load goes on as long as it makes progress, and a failed one says only what is known."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.engine import build_logs, builds
from llm_localrun.engine.launch import find_or_start
from llm_localrun.engine.load_watch import (
    Phase,
    _Log,
    _measure,
    _measure_by_ps,
    _Measurement,
    _Progress,
    phase_in,
)
from llm_localrun.engine.settings import EngineLimits, EngineRequest
from llm_localrun.engine.state import EngineSettings, EngineState, list_hosts
from llm_localrun.engine.stop import stop_all
from llm_localrun.errors import EngineFailed, LoadFailed
from llm_localrun.system import progress
from tests.support.engines import executable, hosts, in_file, stand_in, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake llama-server is a script")

# Linux refuses memory because of the engine's own limit.
NO_MEMORY = (
    "llama.cpp needed more than the 1.0 GB of memory that this model may take: {file}. Choose"
    if sys.platform == "linux"
    else "llama.cpp cannot load {file}: insufficient memory. Free memory"
)
GRACE_S = 0.6
"""Less than half of what a slow load of the fake takes."""


@pytest.fixture
def folder(user_path: Path) -> Iterator[Path]:
    folder = user_path / "localrun" / "engine"
    yield folder
    stop_all(folder)
    wait_until(lambda: hosts(user_path) == [])


def request(model: Path, tmp_path: Path, load: str) -> EngineRequest:
    """A request for an engine whose llama-server loads as `load` says: see the fake's LOADS."""
    code = f"os.environ['STAND_IN_LOAD'] = {load!r}"
    program = tmp_path / "llama-server"
    limits = EngineLimits(llama_server=str(stand_in(program, code)))
    return EngineRequest(str(model), "x", EngineSettings(context_size=512), limits)


@pytest.mark.parametrize("load", ["logs", "reads", "compiles"])
def test_slow_load_with_progress(
    starter_model: Path, folder: Path, tmp_path: Path, load: str
) -> None:
    wanted = request(starter_model, tmp_path, load)
    engine, is_new = find_or_start(wanted, folder, 60, GRACE_S)
    assert is_new
    assert engine.url


def test_other_commands_wait_as_long(starter_model: Path, folder: Path, tmp_path: Path) -> None:
    wanted = request(starter_model, tmp_path, "logs")

    def find(_number: int) -> tuple[EngineState, bool]:
        return find_or_start(wanted, folder, 60, GRACE_S)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(find, range(3)))
    assert len({engine.id for engine, _ in found}) == 1
    assert sorted(is_new for _, is_new in found) == [False, False, True]


@pytest.mark.parametrize(
    ("load", "phase"),
    [
        ("silent", Phase.TENSORS),
        ("tokenizer", Phase.TOKENIZER),
        ("draft model's tokenizer", Phase.TOKENIZER),
        ("template", Phase.TEMPLATE),
        ("template that logs", Phase.TEMPLATE),
    ],
)
def test_load_without_progress(
    starter_model: Path, folder: Path, tmp_path: Path, load: str, phase: Phase
) -> None:
    with pytest.raises(EngineFailed) as caught:
        find_or_start(request(starter_model, tmp_path, load), folder, 60, GRACE_S)
    log = builds.failed_log(folder)
    assert str(caught.value) == (
        f"llama.cpp made no progress with {starter_model} for 0.6 s while it {phase.value}."
        f" The log is {log}. Wait longer with -o timeout SECONDS, or choose another model."
    )
    assert not isinstance(caught.value, LoadFailed)
    assert "loading model 'x'" in log.read_text()


@pytest.mark.parametrize(
    ("load", "message", "blames_model"),
    [
        (
            "killed",
            "llama.cpp was killed (signal 9: Killed) while it loaded {file}. Try again.",
            False,
        ),
        (
            "crashes",
            "llama.cpp was killed (signal 11: Segmentation fault) while it loaded {file}. Try",
            False,
        ),
        (
            "lacks an instruction",
            "llama.cpp was killed (signal 4: Illegal instruction) while it loaded {file}. It needs",
            False,
        ),
        ("no memory", NO_MEMORY, False),
        (
            "no memory of a GPU",
            "llama.cpp cannot load {file}: out of memory. Free memory",
            False,
        ),
        ("bad adapter", "llama.cpp cannot load {file}: failed to load lora adapter", False),
        ("never begins", "llama.cpp cannot load {file}: error: no backends. Choose", False),
        ("exits", "llama.cpp cannot load {file}: the engine exited with status 3", True),
        ("bad tensor", "llama.cpp cannot load {file}: missing tensor. Download the file", True),
    ],
)
def test_failed_load(
    starter_model: Path, folder: Path, tmp_path: Path, load: str, message: str, blames_model: bool
) -> None:
    with pytest.raises(EngineFailed) as caught:
        find_or_start(request(starter_model, tmp_path, load), folder, 60)
    assert str(caught.value).startswith(message.format(file=starter_model))
    assert isinstance(caught.value, LoadFailed) == blames_model
    assert builds.failed_log(folder).exists()


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that use as much CPU time as they get."""
    code = "while True: pass"
    processes = [subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_load_on_a_busy_machine(starter_model: Path, folder: Path) -> None:
    wanted = EngineRequest(str(starter_model), "x", EngineSettings(512, threads=1))
    with busy(2 * (os.cpu_count() or 1)):
        engine, _ = find_or_start(wanted, folder, 60, 2.0)
    assert engine.url


def test_log_without_texts(user_path: Path, starter_model: Path, folder: Path) -> None:
    """The phases of a load need a verbosity at which no prompt may be logged."""
    word = "xyzzy"
    schema = {"type": "object", "properties": {word: {"type": "string", "enum": [word]}}}
    chat = LocalChat(in_file(starter_model))
    chat.prompt(word, system=f"Say {word}.", stop=[word], max_tokens=9).text()
    assert word in chat.prompt(word, schema=schema, max_tokens=30, temperature=0).text()
    (paths,) = list_hosts(folder)
    log = paths.log.read_text()
    assert "task" in log
    assert word not in log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_that_a_model_loads(
    starter_model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_DELAY_S", 0.2)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    find_or_start(request(starter_model, tmp_path, "reads tensors"), folder, 60)
    *drawn, erased, end = terminal.getvalue().split("\r")
    assert any(each.startswith("loading x, ") for each in drawn)
    assert drawn[-1].startswith("loading x: ")
    assert " of 98 MB" in drawn[-1]
    assert (erased.strip(), end) == ("", "")


@pytest.mark.parametrize(("stream", "load"), [(io.StringIO, "logs"), (Terminal, "at once")])
def test_nothing_is_shown_otherwise(
    starter_model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: type[io.StringIO],
    load: str,
) -> None:
    monkeypatch.setattr(progress, "_DELAY_S", 0.2 if load == "logs" else 60)
    monkeypatch.setattr("sys.stderr", written := stream())
    find_or_start(request(starter_model, tmp_path, load), folder, 60)
    assert written.getvalue() == ""


def test_measuring_a_process() -> None:
    before = _measure(os.getpid())
    Path(sys.executable).read_bytes()
    after = _measure(os.getpid())
    assert after.loaded - before.loaded >= Path(sys.executable).stat().st_size
    assert any(map(int.__gt__, after.counts, before.counts))
    assert _measure(2**30) == _measure_by_ps(2**30)


@pytest.mark.skipif(shutil.which("ps") is None, reason="ps is not installed")
def test_measuring_a_process_with_ps() -> None:
    measured = _measure_by_ps(os.getpid())
    assert measured.loaded == measured.counts[0] > 2**20
    assert measured.cpu_seconds == pytest.approx(time.process_time(), abs=1.5)


@pytest.mark.pure
@pytest.mark.parametrize(
    ("phase", "cpu_seconds", "expected"),
    [
        (Phase.TENSORS, [0, 1, 2, 3], [True, True, True, True]),
        (Phase.START, [0, 0.5, 1, 1.9, 2], [True, False, True, False, True]),
        (Phase.TEMPLATE, [0, 1, 2, 3], [False, False, False, False]),
        (Phase.TENSORS, [0, 3599, 3600, 3700], [True, True, False, False]),
    ],
    ids=["computes", "computes slowly", "runs a template", "only computes for an hour"],
)
def test_cpu_time_as_progress(phase: Phase, cpu_seconds: list[float], expected: list[bool]) -> None:
    progress = _Progress(60)
    assert [
        progress.is_made(_Measurement(cpu_seconds=seconds), 100, phase) for seconds in cpu_seconds
    ] == expected


@pytest.mark.pure
def test_what_a_template_logs_is_no_progress() -> None:
    """llama.cpp renders it again and again where it gets no memory for it."""
    progress = _Progress(60)
    sizes, now = (100, 200, 300), _Measurement(counts=(0, 0, 0))
    assert [progress.is_made(now, size, Phase.TOKENIZER) for size in sizes] == [True] * 3
    assert not any(progress.is_made(now, 2 * size, Phase.TEMPLATE) for size in sizes)


@pytest.mark.pure
def test_what_only_counts_once() -> None:
    progress = _Progress(60)
    steps = [(0, 5), (1, 5), (1, 5), (1, 4), (1, 5), (1, 6)]
    assert [
        progress.is_made(_Measurement(counts=(mapped, 0, 0)), log_size, Phase.TOKENIZER)
        for log_size, mapped in steps
    ] == [True, True, False, False, False, True]


@pytest.mark.pure
@pytest.mark.parametrize(
    ("log", "phase"),
    [
        (b"", Phase.START),
        (b"ggml_vulkan: Found 1 Vulkan devices:\n", Phase.START),
        (b"0.00.1 I llama_model_loader: loaded meta data with 33 key-value\n", Phase.TOKENIZER),
        (b"0.00.1 W llama_model_loader: loaded meta data with 33 key-value\n", Phase.START),
        (b"0.00.1 I load_tensors: loading model tensors, this\n0.00.2 I x\n", Phase.TENSORS),
        (b"0.00.1 I srv    load_model: initializing slots, n_slots = 4\n", Phase.TEMPLATE),
    ],
)
def test_phase_in_log(log: bytes, phase: Phase, tmp_path: Path) -> None:
    assert phase_in(log) == phase
    read = _Log(tmp_path / "log")
    read.read()
    with (tmp_path / "log").open("ab", buffering=0) as file:
        for at in range(len(log)):
            file.write(log[at : at + 1])
            read.read()
    assert (read.phase, read.size) == (phase, len(log))


@pytest.mark.pure
def test_a_log_is_read_once(tmp_path: Path) -> None:
    """What was read before may be gone: only what is added is read."""
    log = tmp_path / "log"
    read = _Log(log)
    for text, phase in (
        (b"0.1 I load_tensors: loading model tensors\n", Phase.TENSORS),
        (b"x" * 10_000, Phase.TENSORS),
        (b"0.1 I load_model: initializing", Phase.TENSORS),
        (b"\n0.1 I load_model: initializing", Phase.TEMPLATE),
        (b"\n0.1 I load_tensors: loading model tensors\n", Phase.TEMPLATE),
    ):
        log.write_bytes(bytes(read.size) + text)
        read.read()
        assert read.phase is phase


@pytest.mark.pure
@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("error loading model: unable to allocate CPU buffer", "Free memory"),
        ("CUDA error: out of memory", "Free memory"),
        ("CUDA error: no kernel image is available", "Update the driver"),
        ("failed to load lora adapter '/a.gguf'", "Choose another adapter"),
        ("failed to load draft model, '/a.gguf'", "Choose another with -o draft_model"),
        ("failed to load multimodal model, '/a.gguf'", "Download its projector again"),
        ("error: no backends are loaded", "Choose another model, or another build"),
    ],
)
def test_what_to_do_about_a_load_that_fails(reason: str, remedy: str) -> None:
    assert build_logs.remedy_for(reason).startswith(remedy)


def test_file_that_is_cut_off_while_it_loads(
    starter_model: Path, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "cut.gguf"
    shutil.copy(starter_model, file)
    cut = f"os.truncate({str(file)!r}, 40_000_000); os.kill(os.getpid(), 7)"
    program = executable(tmp_path / "server", f"import os, sys\nif '--model' in sys.argv: {cut}")
    stand_in(
        tmp_path / "llama-server", f"'--model' in sys.argv and os.execv({str(program)!r}, sys.argv)"
    )
    limits = EngineLimits(llama_server=str(tmp_path / "llama-server"))
    wanted = EngineRequest(str(file), "x", EngineSettings(context_size=512), limits)
    with pytest.raises(EngineFailed) as caught:
        find_or_start(wanted, folder, 60)
    assert str(caught.value).startswith(
        f"llama.cpp was killed (signal 7: Bus error) while it loaded {file}; meanwhile its file was"
        " cut off, from 98,362,432 to 40,000,000 bytes. Try again."
    )
