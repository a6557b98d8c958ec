"""The engine: it is shared, stays warm, ends by itself, and its failures affect nothing else."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_localrun.engine.build_logs import reason_in
from llm_localrun.engine.launch import find_or_start, renew_lease
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.slots import SlotContents, acquire
from llm_localrun.engine.state import (
    EnginePaths,
    EngineSettings,
    EngineState,
    list_running,
    read_lease,
    write_lease,
)
from llm_localrun.engine.stop import stop
from llm_localrun.errors import BadModelFile, ConfigError, EngineFailed
from llm_localrun.system import locks
from tests.conftest import Llm, put_starter
from tests.support.drive import WAYS, ask, failure
from tests.support.engines import (
    ENDLESS_TEMPLATE,
    in_file,
    number_value,
    patched,
    text_value,
    wait_until,
)


@pytest.fixture
def folder(user_path: Path) -> Path:
    return user_path / "localrun" / "engine"


@contextlib.contextmanager
def started(model: Path, folder: Path, keep_alive: float = 60.0) -> Iterator[EngineState]:
    """A new engine with a context of 512 tokens, which is stopped afterwards."""
    settings = EngineSettings(context_size=512, threads=1)
    request = EngineRequest(str(model), model.stem, settings)
    engine, is_new = find_or_start(request, folder, keep_alive)
    assert is_new
    try:
        yield engine
    finally:
        stop(engine, folder)


@pytest.mark.parametrize("way", WAYS)
def test_all_ways_give_the_same_response(warm: Path, starter_model: Path, way: str) -> None:
    model = in_file(warm / "localrun" / "models" / starter_model.name)
    options = {"temperature": 0, "max_tokens": 12}
    expected = ask(model, "Name the primary colours", "sync", **options)
    outcome = ask(model, "Name the primary colours", way, **options)
    assert outcome.parts == expected.parts == [{"type": "text", "text": expected.text}]
    assert (outcome.input, outcome.output) == (34, 12)
    assert outcome.resolved_model == model.name
    assert outcome.json is not None
    assert {"finish_reason": "length", "endpoint": "gguf", "cached_tokens": 33}.items() <= (
        outcome.json.items()
    )


def test_second_command_uses_the_same_engine(
    user_path: Path, starter_model: Path, run_llm: Llm, folder: Path
) -> None:
    put_starter(user_path, starter_model)
    for _ in range(2):
        assert run_llm("-m", "local", "Hi", "-o", "max_tokens", "2").returncode == 0
    cold, warm = json.loads(run_llm("logs", "--json", "-n", "2").stdout)
    assert cold["response_json"]["load_seconds"] > 0
    assert "load_seconds" not in warm["response_json"]
    assert warm["response_json"]["cached_tokens"] == cold["input_tokens"] - 1
    assert len(list_running(folder)) == 1


def test_simultaneous_prompts_share_an_engine(starter_model: Path, folder: Path) -> None:
    model = in_file(starter_model)

    async def prompt_all() -> None:
        prompts = (asyncio.to_thread(ask, model, "Hi", "sync", max_tokens=2) for _ in range(6))
        await asyncio.gather(*prompts)

    asyncio.run(prompt_all())
    assert len(list_running(folder)) == 1
    assert not list(folder.glob("*.starting"))


def test_async_start_does_not_block_the_loop(starter_model: Path, folder: Path) -> None:
    from llm_localrun.chat.models import AsyncLocalChat

    async def ticks_while_starting() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticker = asyncio.create_task(tick())
        await AsyncLocalChat(in_file(starter_model)).prompt("Hi", max_tokens=1).text()
        ticker.cancel()
        return ticks

    assert asyncio.run(ticks_while_starting()) > 20


SAME, MORE, OTHER = EngineSettings(), EngineSettings(1024), EngineSettings(kv_cache_type="q8_0")


@pytest.mark.parametrize(
    ("settings", "in_use", "sizes"),
    [
        (SAME, False, {512}),
        (EngineSettings(256), False, {512}),
        (MORE, False, {1024}),
        (MORE, True, {512, 1024}),
        (OTHER, False, {8192}),
    ],
)
def test_other_settings_are_another_engine(
    starter_model: Path, folder: Path, settings: EngineSettings, in_use: bool, sizes: set[int]
) -> None:
    with started(starter_model, folder) as engine:
        paths = EnginePaths(folder, engine.id)
        slot = acquire(paths, SlotContents(), False, 1) if in_use else None
        find_or_start(EngineRequest(str(starter_model), "x", settings), folder, 60)
        assert {engine.spec.context_size for engine in list_running(folder)} == sizes
        if slot:
            slot.release()


@pytest.mark.parametrize(
    "options",
    [
        {"kv_cache_type": "q8_0"},
        {"flash_attention": True},
        {"flash_attention": False},
        {"gpu_layers": 0},
        {"context_size": "max"},
        {"draft_model": "{file}"},
        {"draft_model": "ngram"},
        {"draft_model": "auto"},
    ],
    ids=str,
)
def test_settings_reach_llama_cpp(
    starter_model: Path, folder: Path, options: dict[str, Any]
) -> None:
    given = {
        name: value.format(file=starter_model) if isinstance(value, str) else value
        for name, value in options.items()
    }
    model = in_file(starter_model, context_max=8192)
    outcome = ask(model, "Name the primary colours", max_tokens=8, temperature=0, **given)
    (engine,) = list_running(folder)
    expected = {**given, "context_size": 8192} if "context_size" in given else given
    settings = asdict(engine.spec.settings)
    assert {name: settings[name] for name in given} == expected
    assert outcome.output == 8


@pytest.mark.parametrize("size", [5, 10**12])
@pytest.mark.parametrize("option", ["lora", "draft_model"])
def test_additional_file_that_is_no_model(
    starter_model: Path, folder: Path, tmp_path: Path, option: str, size: int
) -> None:
    """However large it is: that is no lack of memory."""
    file = tmp_path / "other.gguf"
    file.write_bytes(b"hello")
    os.truncate(file, size)
    message = failure(
        lambda: ask(in_file(starter_model), "Hi", max_tokens=1, **{option: str(file)})
    )
    assert message.startswith(f"{file} is not a GGUF model: it does not begin with GGUF.")
    assert not folder.exists()


def test_requests_need_the_key(starter_model: Path, folder: Path) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    with started(starter_model, folder) as engine:
        assert engine.url.startswith("http://127.0.0.1:")
        url = f"{engine.url}/v1/chat/completions"
        for key, status in ((None, 401), ("wrong", 401), (engine.key, 200)):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            assert httpx.post(url, json=body, headers=headers, timeout=30).status_code == status
        files = [folder, *folder.iterdir()]
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_ends_when_its_lease_expires(starter_model: Path, folder: Path) -> None:
    with started(starter_model, folder) as engine:
        renew_lease(engine, folder, keep_alive=0)
        wait_until(lambda: not locks.is_locked(EnginePaths(folder, engine.id).lock))
        assert list(folder.iterdir()) == []


def test_option_keep_alive(starter_model: Path, folder: Path) -> None:
    ask(in_file(starter_model), "Hi", max_tokens=1, keep_alive="0")
    wait_until(lambda: list_running(folder) == [])
    ask(in_file(starter_model), "Hi", max_tokens=1, keep_alive=-1)
    (engine,) = list_running(folder)
    assert read_lease(EnginePaths(folder, engine.id)) == float("inf")


def test_busy_engine_survives_its_lease(starter_model: Path, folder: Path) -> None:
    with started(starter_model, folder) as engine:
        paths = EnginePaths(folder, engine.id)
        slot = acquire(paths, SlotContents(), False, 1)
        assert slot is not None
        write_lease(paths, 0)
        time.sleep(1.5)
        assert list_running(folder) == [engine]
        slot.release()
        wait_until(lambda: list_running(folder) == [])


def test_ends_when_its_files_are_gone(starter_model: Path, folder: Path) -> None:
    with started(starter_model, folder) as engine:
        EnginePaths(folder, engine.id).state.unlink()
        with pytest.raises(ProcessLookupError):
            for _ in range(200):
                time.sleep(0.05)
                os.waitpid(-1, os.WNOHANG)
                os.kill(engine.pid, 0)


def test_survives_its_parent_and_a_closed_terminal(
    user_path: Path, starter_model: Path, run_llm: Llm, folder: Path
) -> None:
    put_starter(user_path, starter_model)
    run_llm("-m", "local", "Hi", "-o", "max_tokens", "1", start_new_session=True)
    (engine,) = list_running(folder)
    os.kill(engine.pid, signal.SIGINT)
    os.kill(engine.pid, signal.SIGHUP)
    time.sleep(0.2)
    assert list_running(folder) == [engine]


def test_dead_engine_is_replaced(starter_model: Path, folder: Path) -> None:
    model = in_file(starter_model)
    ask(model, "Hi", max_tokens=1)
    (first,) = list_running(folder)
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not locks.is_locked(EnginePaths(folder, first.id).lock))
    ask(model, "Hi", max_tokens=1)
    (second,) = list_running(folder)
    assert second.pid != first.pid
    assert {path.stem for path in folder.iterdir()} == {second.id}


@pytest.mark.parametrize("way", WAYS)
def test_killed_during_an_answer(starter_model: Path, folder: Path, way: str) -> None:
    model = in_file(starter_model)
    ask(model, "Hi", max_tokens=1)
    (engine,) = list_running(folder)
    killer = threading.Timer(0.3, os.kill, (engine.pid, signal.SIGKILL))
    killer.start()
    message = failure(lambda: ask(model, "Count to a thousand, slowly. " * 60, way))
    killer.join()
    assert message.startswith(f"The engine ended while it ran {starter_model}: it was killed")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (
            "llama.block_count",
            number_value(0),
            "llama.cpp cannot load {file}: GGML_ASSERT(hparams.n_layer_all",
        ),
        (
            "llama.block_count",
            number_value(10_000),
            "llama.cpp cannot load {file}: GGML_ASSERT(hparams.n_layer",
        ),
        (
            "llama.context_length",
            number_value(0),
            "The engine ended while it ran {file}: GGML_ASSERT(n_ctx > 0",
        ),
        (
            "general.architecture",
            text_value(b"lamma"),
            "llama.cpp cannot load {file}: unknown model architecture",
        ),
        (
            "tokenizer.chat_template",
            ENDLESS_TEMPLATE,
            "llama.cpp made no progress with {file} for 1 s while it ran the chat template. ",
        ),
    ],
)
def test_hostile_file(
    starter_model: Path, folder: Path, tmp_path: Path, key: str, value: bytes, reason: str
) -> None:
    file = patched(starter_model, tmp_path / "hostile.gguf", key, value)
    options: dict[str, Any] = {"timeout": 1} if value is ENDLESS_TEMPLATE else {}
    message = failure(lambda: ask(in_file(file), "Hi", max_tokens=1, **options))
    assert message.startswith(reason.format(file=file))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "it does not begin with GGUF"),
        (b"GGUF\x03\0\0\0", "it is cut off in the middle of its header"),
        (b"GGUF\x63\0\0\0" + b"\0" * 40, "its version is 99; 2 and 3 are known"),
    ],
)
def test_file_that_is_no_model(folder: Path, tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "bad.gguf"
    file.write_bytes(content)
    with pytest.raises(BadModelFile, match=reason):
        find_or_start(EngineRequest(str(file), "bad"), folder, 60)
    assert not folder.exists()


def test_truncated_file(starter_model: Path, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(starter_model.read_bytes()[:90_000_000])
    with pytest.raises(BadModelFile, match="it is cut off: 90,000,000 bytes of at least 98,"):
        find_or_start(EngineRequest(str(file), "cut"), folder, 60)


def test_missing_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="No such file"):
        find_or_start(EngineRequest(str(tmp_path / "none.gguf"), "none"), folder, 60)


def test_context_beyond_what_it_was_trained_for(starter_model: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="trained for a context of 8,192 tokens, not 10,000"):
        find_or_start(
            EngineRequest(str(starter_model), "x", EngineSettings(context_size=10_000)), folder, 60
        )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (EngineSettings(context_size=1), "a context of 1 tokens is too small"),
        (EngineSettings(threads=0), "it takes 1 to 512 threads, not 0"),
        (EngineSettings(threads=10_000), "it takes 1 to 512 threads, not 10000"),
        (EngineSettings(kv_cache_type="i8"), "it has no KV cache of type i8"),
        (
            EngineSettings(kv_cache_type="q8_0", flash_attention=False),
            "a KV cache of type q8_0 needs flash_attention",
        ),
    ],
)
def test_settings_that_make_llama_cpp_crash_are_refused(
    starter_model: Path, folder: Path, settings: EngineSettings, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        find_or_start(EngineRequest(str(starter_model), "x", settings), folder, 60)
    assert reason in str(caught.value)
    assert not folder.exists()


def test_prompt_that_does_not_fit(starter_model: Path) -> None:
    model = in_file(starter_model, context_max=8192)
    for size, way_out in ((1024, "with -o context_size 4096"), (8192, "was trained")):
        prompt = "hello " * (size + 100)
        message = failure(lambda p=prompt, s=size: ask(model, p, context_size=s))  # type: ignore[misc]
        assert f"tokens and llama.cpp holds {size:,}." in message
        assert way_out in message


def test_without_the_engine_installed(
    starter_model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EngineFailed, match=r"Install it with `llm install 'llm-localrun\[gguf\]'`"):
        find_or_start(EngineRequest(str(starter_model), "x"), folder, 60)


def test_folder_that_cannot_be_written(starter_model: Path, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(EngineFailed, match="cannot be written to"):
        find_or_start(EngineRequest(str(starter_model), "x"), in_the_way / "engine", 60)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", ""),
        (
            "0.00.01 E llama_model_load: error loading model: missing tensor 'x'\n"
            "0.00.02 E cmn  common_init_: failed to load model 'f'\n",
            "missing tensor 'x'",
        ),
        (
            "0.00.01 E early\n/src/llama-model.cpp:12: GGML_ASSERT(n > 0) failed\n",
            "GGML_ASSERT(n > 0) failed",
        ),
        (
            "Traceback\nImportError: libcuda.so.1: cannot open shared object file\n",
            "libcuda.so.1 is missing. Install NVIDIA's driver",
        ),
        (
            "server: error while loading shared libraries: libodd.so.1: cannot open shared object"
            " file: No such file or directory\n",
            "libodd.so.1 is missing. Install the package that has it",
        ),
        (
            "0.00.1 I srv: x\n/src/ggml-rpc.cpp:509: Remote RPC server crashed or returned"
            " malformed response\n",
            "Remote RPC server crashed or returned malformed response",
        ),
        ("Traceback\nTypeError: nonsense\n", "TypeError: nonsense"),
        ("error: invalid argument: --new\n", "error: invalid argument: --new"),
        ("0.00.1 I srv: model loaded\n0.00.2 W srv: slow\n", ""),
        ("0.00.1 I srv: chat template, example_format: 'Hello\nHow are you?'\n", ""),
        (
            "0.00.1 I srv: x\nterminate called after throwing\n  what():  std::bad_alloc\n",
            "what(): std::bad_alloc",
        ),
    ],
)
def test_reason_in_log(log: str, reason: str) -> None:
    assert reason_in(log) == reason


def test_lock_is_released_when_its_holder_dies(tmp_path: Path) -> None:
    import subprocess

    file = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from llm_localrun.system import locks\n"
        f"with locks.exclusive(Path({str(file)!r}), 1): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(TimeoutError), locks.exclusive(file, 0.1):
            pass
        holder.kill()
        with locks.exclusive(file, 5):
            assert file.exists()
    assert not file.exists()
