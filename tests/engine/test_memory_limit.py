"""An engine takes what its model needs and a margin, whatever the model's file holds."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_localrun.engine import limits
from llm_localrun.engine.evict import need_of
from llm_localrun.engine.launch import find_or_start
from llm_localrun.engine.limits import OUT_OF_MEMORY, is_over, is_reached, resident
from llm_localrun.engine.load_watch import OVERSIZED, watched
from llm_localrun.engine.settings import EngineLimits, EngineRequest
from llm_localrun.engine.state import EngineSettings, EngineState, list_running
from llm_localrun.engine.stop import stop
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.memory.footprint import Setting, footprint_of_files
from llm_localrun.models import OnDisk
from tests.support import memory_bombs, tiny_models
from tests.support.drive import ask, failure
from tests.support.engines import in_file, number_value, patched, stand_in, text_value
from tests.support.memory_bombs import TEMPLATES, TRIGGER, high_water_mark, measured, with_template
from tests.support.tiny_models import Tiny

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the others measure, with ps")

GB = 10**9
REACHED = "llama.cpp needed more than the 1.3 GB of memory that this model may take"


@pytest.fixture(autouse=True)
def folder(user_path: Path) -> Path:
    memory_bombs.kept_from_dumping()
    return user_path / "localrun" / "engine"


@contextmanager
def within_a_gigabyte(model: Path) -> Iterator[None]:
    """Checks that no engine took more than its model's own need and 1 GB in the block."""
    footprint = footprint_of_files(str(model))
    assert footprint is not None
    with measured() as peak:
        yield
    assert 0 < peak.size <= footprint.need(Setting(8192)).total + GB


def problem_of(file: Path) -> str:
    return FailedLoads().problem_of(OnDisk(path=str(file)))


@pytest.mark.parametrize("template", TEMPLATES)
def test_template_that_strikes_in_a_load(
    starter_model: Path, tmp_path: Path, template: str
) -> None:
    file = with_template(starter_model, tmp_path / "bomb.gguf", template, in_request=False)
    with within_a_gigabyte(starter_model):
        assert failure(lambda: ask(in_file(file), "Hi", max_tokens=1, timeout=2))
    # It is tried no more for a name that means another file too.
    assert problem_of(file)


def test_load_that_takes_all_that_it_may(starter_model: Path, tmp_path: Path) -> None:
    file = with_template(starter_model, tmp_path / "bomb.gguf", "range", in_request=False)
    with within_a_gigabyte(starter_model):
        message = failure(lambda: ask(in_file(file), "Hi", max_tokens=1, timeout=30))
    assert message.startswith(f"{REACHED}: {file}. Choose another model")
    assert problem_of(file) == REACHED


@pytest.mark.parametrize("template", ["doubled text", "multiplied text", "doubled list", "range"])
def test_template_that_strikes_in_a_request(
    starter_model: Path, folder: Path, tmp_path: Path, template: str
) -> None:
    file = with_template(starter_model, tmp_path / "bomb.gguf", template, in_request=True)
    assert ask(in_file(starter_model), "Hi", max_tokens=1).output == 1
    with within_a_gigabyte(starter_model):
        message = failure(lambda: ask(in_file(file), TRIGGER, max_tokens=1))
    assert message == (
        f"{REACHED}: {file}. Choose another model, or lift the limit with -o overcommit true."
    )
    assert problem_of(file) == REACHED
    for path in (starter_model, file):
        assert ask(in_file(path), "Hi", max_tokens=1).output == 1
    names = {engine.spec.path for engine in list_running(folder)}
    assert str(starter_model) in names


def test_tokenizer_without_end(starter_model: Path, tmp_path: Path) -> None:
    """llama.cpp's tokenizer of RWKV repeats a letter that the vocabulary lacks forever."""
    key, value = "tokenizer.ggml.model", text_value(b"rwkv")
    file = patched(starter_model, tmp_path / "bomb.gguf", key, value)
    with within_a_gigabyte(starter_model):
        assert failure(lambda: ask(in_file(file), "Größe", max_tokens=1)).startswith(REACHED)
    assert problem_of(file) == REACHED
    assert ask(in_file(starter_model), "Hi", max_tokens=1).output == 1


@pytest.mark.parametrize(
    "key",
    [
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "rope.dimension_count",
    ],
)
@pytest.mark.parametrize("count", [2**16, 2**31 - 1])
def test_count_that_is_declared(starter_model: Path, tmp_path: Path, key: str, count: int) -> None:
    file = patched(starter_model, tmp_path / "bomb.gguf", f"llama.{key}", number_value(count))
    with measured() as peak:
        assert failure(lambda: ask(in_file(file), "Hi", max_tokens=1, timeout=5))
    assert peak.size < 2 * GB


def test_template_that_is_given(starter_model: Path, tmp_path: Path) -> None:
    """The model's file is not to blame."""
    given = tmp_path / "given.jinja"
    given.write_text("{% if messages[0].content == 'Go!' %}" + TEMPLATES["range"] + "{% endif %}Hi")
    model = in_file(starter_model)
    message = failure(lambda: ask(model, TRIGGER, max_tokens=1, chat_template=str(given)))
    assert message.startswith(REACHED)
    assert problem_of(starter_model) == ""


# What must never reach the limit.


def test_all_slots_with_a_full_context(starter_model: Path, folder: Path) -> None:
    """Each conversation is followed by another, so the cache of prefixes fills as well."""
    model = in_file(starter_model, context_max=8192)
    for word in ("fox", "hen"):
        with ThreadPoolExecutor(4) as pool:
            prompts = [f"{number} {word} " * 40 for number in range(4)]
            answers = pool.map(
                lambda prompt: ask(model, prompt, max_tokens=8, context_size=512), prompts
            )
            assert all(answer.output for answer in answers)
    (engine,) = list_running(folder)
    assert high_water_mark(engine.server_pid) < engine.memory_limit - 600 * 2**20


@pytest.mark.parametrize(
    ("tiny", "context_size"),
    [(tiny_models.llama, 65536), (tiny_models.gemma3, 32768), (tiny_models.lfm2, 32768)],
)
def test_large_context(
    folder: Path, tmp_path: Path, tiny: Callable[[], Tiny], context_size: int
) -> None:
    path = tiny().build(tmp_path / "tiny.gguf")
    settings = EngineSettings(context_size, threads=1)
    engine, _ = find_or_start(EngineRequest(str(path), "x", settings), folder, 60)
    assert high_water_mark(engine.server_pid) < engine.memory_limit - 600 * 2**20


def test_draft_model(starter_model: Path, folder: Path) -> None:
    model = in_file(starter_model)
    outcome = ask(model, "Hi", max_tokens=8, draft_model=str(starter_model), context_size=2048)
    assert outcome.output
    (engine,) = list_running(folder)
    assert high_water_mark(engine.server_pid) < engine.memory_limit - 600 * 2**20


def test_texts_to_embed(embedding_model: Path, folder: Path) -> None:
    settings = EngineSettings(512, threads=1, embedding=True)
    engine, _ = find_or_start(EngineRequest(str(embedding_model), "x", settings), folder, 60)
    assert high_water_mark(engine.server_pid) < engine.memory_limit - 200 * 2**20


# How the limit is set.


def start(model: Path, folder: Path, **more: object) -> EngineState:
    given = EngineLimits(**{"llama_server": "", **more})  # type: ignore[arg-type]
    request = EngineRequest(str(model), "x", EngineSettings(512, threads=1), given)
    return find_or_start(request, folder, 60)[0]


@pytest.mark.parametrize("program", ["xllamacpp", "llama-server"])
def test_limits_of_a_process(
    starter_model: Path, folder: Path, tmp_path: Path, program: str
) -> None:
    server = str(stand_in(tmp_path / "llama-server")) if program == "llama-server" else ""
    engine = start(starter_model, folder, llama_server=server)
    assert need_of(engine.spec).total + GB / 2 < engine.memory_limit
    assert engine.memory_limit < need_of(engine.spec).total + GB
    # Files in memory are not data; the stacks of threads are.
    assert 0 < memory_bombs.data_limit(engine.server_pid) - engine.memory_limit < GB
    assert {memory_bombs.oom_score(pid) for pid in (engine.pid, engine.server_pid)} == {1000}
    assert memory_bombs.data_limit(os.getpid()) == memory_bombs.data_limit(os.getppid())


def test_overcommit_lifts_the_limit(starter_model: Path, folder: Path) -> None:
    engine = start(starter_model, folder, overcommit=True)
    assert engine.memory_limit == 0
    assert memory_bombs.data_limit(engine.server_pid) == memory_bombs.data_limit(os.getpid())
    stop(engine, folder)
    assert ask(in_file(starter_model), "Hi", max_tokens=1, overcommit=True).output == 1
    (engine,) = list_running(folder)
    assert engine.memory_limit == 0


# Where the system does not refuse memory: measuring.

ALLOCATE = (
    "import sys; print(flush=True); sys.stdin.readline(); b = bytearray(10**8); sys.stdin.read()"
)


def test_watcher_ends_a_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "_GPU_BYTES", 0)
    received, output = os.pipe()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", ALLOCATE], stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        limit = resident(process.pid) + 50_000_000
        with watched(process.pid, tmp_path / "log", 60, output, limit):
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.wait(30) == -9
            while OVERSIZED not in os.read(received, 4096).decode():
                pass
    os.close(received)
    os.close(output)


SERVE = """
import os, sys, threading
from types import SimpleNamespace
from llm_localrun.engine import host, limits
limits._GPU_BYTES = 0
class Server:
    pid = os.getpid()
    def end(self): print("ended", flush=True)
    def has_ended(self): return False
instructions = SimpleNamespace(folder=".", memory_limit=1, max_preparation=20)
host._serve(Server(), SimpleNamespace(id="1-x"), instructions, threading.Event())
"""


def test_host_ends_an_engine() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVE],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"ended\n", OUT_OF_MEMORY)
    assert is_reached(OUT_OF_MEMORY.decode(), has_gpu=True)


def test_no_limit_is_never_reached() -> None:
    assert not is_over(os.getpid(), 0)
    assert is_over(os.getpid(), 1 - limits._GPU_BYTES)
    assert not is_over(2**30, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'", True),
        ("ggml_aligned_malloc: insufficient memory (attempted to allocate 99.00 MB)", True),
        ("ggml_gallocr_reserve_n_impl: failed to allocate CPU buffer of size 1", True),
        ("error loading model: unable to allocate CPU buffer", True),
        ("libgomp: Thread creation failed: Resource temporarily unavailable", True),
        ("The model's chat template refuses these messages: std::bad_alloc", True),
        ("error loading model: missing tensor 'x'", False),
    ],
)
def test_texts_about_memory(text: str, expected: bool) -> None:
    assert is_reached(text, has_gpu=False) == expected
    # A GPU is refused more by its driver, and not because of the engine's limit.
    assert not is_reached(text, has_gpu=True)
