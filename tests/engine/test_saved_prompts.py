"""Conversations continue after their engine has ended."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.chat.models import AsyncLocalChat, LocalChat
from llm_localrun.engine import saved_prompts, slots
from llm_localrun.engine.state import EnginePaths, EngineSettings, EngineSpec, EngineState, new_id
from llm_localrun.engine.stop import stop_all
from tests.conftest import CONFIG, Llm, configure, put_starter
from tests.support.engines import SHORT_ANSWER, STORY, converse, in_file


def saved(user: Path) -> list[Path]:
    """The files with saved prompts."""
    return sorted((user / "localrun" / "prompts").glob("*"))


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.fixture(scope="module")
def expected(starter_model: Path, warm_user: Path) -> Iterator[str]:
    """The second answer if the engine keeps running."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_USER_PATH", str(warm_user))
        tokens, reused, text = converse(starter_model, lambda: None, {})
        assert reused >= tokens
        yield text


@pytest.mark.parametrize(
    ("harm", "later", "is_reused"),
    [
        (None, {}, True),
        (None, {"context_size": 8192}, True),
        (cut_off, {}, False),
        (flip_a_byte, {}, False),
        (None, {"kv_cache_type": "q8_0"}, False),
    ],
    ids=["whole", "another context size", "cut off", "flipped", "another cache type"],
)
def test_next_engine_restores_it(
    user_path: Path,
    starter_model: Path,
    expected: str,
    harm: Callable[[Path], None] | None,
    later: dict[str, Any],
    is_reused: bool,
) -> None:
    def between() -> None:
        assert stop_all(user_path / "localrun" / "engine") == [starter_model.stem]
        (file,) = saved(user_path)
        assert file.stat().st_mode & 0o077 == 0
        assert file.parent.stat().st_mode & 0o077 == 0
        if harm:
            harm(file)

    tokens, reused, text = converse(starter_model, between, later)
    assert (reused >= tokens) == is_reused
    assert reused == 0 or is_reused
    assert text == expected or "kv_cache_type" in later


def test_engine_with_a_larger_context_restores_it(user_path: Path, starter_model: Path) -> None:
    model = LocalChat(in_file(starter_model, context_max=8192))
    conversation = model.conversation()
    first = conversation.prompt(STORY, **SHORT_ANSWER, context_size=512)
    first.text()
    second = conversation.prompt("And then?", **SHORT_ANSWER, context_size=1024)
    second.text()
    assert second.response_json is not None
    assert second.response_json["context_size"] == 1024
    assert second.response_json["cached_tokens"] >= (first.usage().input or 0)


@pytest.mark.parametrize("reason", ["logs off", "no space", "no conversation", "short"])
def test_nothing_is_saved(user_path: Path, starter_model: Path, reason: str) -> None:
    model = LocalChat(in_file(starter_model))
    prompt = model.prompt if reason == "no conversation" else model.conversation().prompt
    if reason == "logs off":
        (user_path / "logs-off").touch()
    if reason == "no space":
        configure(user_path, **CONFIG, prompt_cache=1000)
    prompt("Hi" if reason == "short" else STORY, **SHORT_ANSWER).text()
    stop_all(user_path / "localrun" / "engine")
    assert saved(user_path) == []


def test_commands(user_path: Path, starter_model: Path, run_llm: Llm) -> None:
    """Turns of one `llm chat`, of `llm -c` while the engine is warm, and after it has ended."""
    put_starter(user_path, starter_model)
    short = ("-o", "max_tokens", "2")
    run_llm("-m", "local", STORY, "--no-log", *short)
    run_llm("localrun", "unload", "--all")
    assert saved(user_path) == []
    run_llm("chat", "-m", "local", *short, input=f"{STORY}\nAnd then?\nquit\n")
    run_llm("-c", "Go on.", *short)
    run_llm("localrun", "unload", "--all")
    assert len(saved(user_path)) == 1
    run_llm("-c", "Go on.", *short)
    turns = json.loads(run_llm("logs", "--json", "-n", "4").stdout)
    assert len(turns) == 4
    for before, after in pairwise(turns):
        assert after["response_json"]["cached_tokens"] >= before["input_tokens"]
    assert ["load_seconds" in turn["response_json"] for turn in turns] == [True, False, False, True]


def test_asynchronous_conversation(user_path: Path, starter_model: Path) -> None:
    async def second_turn() -> dict[str, Any] | None:
        conversation = AsyncLocalChat(in_file(starter_model)).conversation()
        await conversation.prompt(STORY, **SHORT_ANSWER).text()
        stop_all(user_path / "localrun" / "engine")
        response = conversation.prompt("And then?", **SHORT_ANSWER)
        await response.text()
        return response.response_json

    facts = asyncio.run(second_turn())
    assert facts is not None
    assert facts["cached_tokens"] > 150


@pytest.fixture
def paths(tmp_path: Path) -> EnginePaths:
    paths = EnginePaths(tmp_path / "engine", new_id(1))
    paths.prompts.mkdir()
    return paths


def engine(paths: EnginePaths, build: str = "build", **settings: Any) -> EngineState:
    spec = EngineSpec("/m.gguf", "m", 1, 1.0, EngineSettings(**{"context_size": 512, **settings}))
    return EngineState(paths.id, spec, "key", build, started_at=0.0)


def store(paths: EnginePaths, conversation: str, size: int, max_bytes: int = 10**9) -> None:
    partial = saved_prompts.partial_path(paths, 0)
    partial.write_bytes(b"x" * size)
    saved_prompts.keep(paths, partial, conversation, max_bytes)
    saved_prompts.seal(paths, engine(paths))


def test_conversation_is_saved_once(paths: EnginePaths) -> None:
    for size in (10, 20):
        store(paths, "a", size)
    (file,) = paths.prompts.iterdir()
    assert file.stat().st_size == 20
    assert saved_prompts.find_saved(paths, engine(paths), "a") == file
    assert saved_prompts.is_intact(file)


@pytest.mark.parametrize(
    ("build", "settings", "conversation", "is_found"),
    [
        ("build", {}, "a", True),
        ("build", {"context_size": 1024, "threads": 2}, "a", True),
        ("build", {}, "b", False),
        ("build", {}, "", False),
        ("another", {}, "a", False),
        ("build", {"lora": "/l.gguf"}, "a", False),
        ("build", {"kv_cache_type": "q8_0"}, "a", False),
    ],
)
def test_what_must_match(
    paths: EnginePaths, build: str, settings: dict[str, Any], conversation: str, is_found: bool
) -> None:
    store(paths, "a", 10)
    found = saved_prompts.find_saved(paths, engine(paths, build, **settings), conversation)
    assert (found is not None) == is_found


@pytest.mark.parametrize(("size", "kept"), [(60, "abc"), (20, "acd"), (15, "bcd"), (5, "abcd")])
def test_a_large_file_costs_no_more_than_it_has_to(
    paths: EnginePaths, size: int, kept: str
) -> None:
    for number, (conversation, its_size) in enumerate(zip("abc", (5, 15, 20), strict=True)):
        store(paths, conversation, its_size)
        found = saved_prompts.find_saved(paths, engine(paths), conversation)
        assert found is not None
        os.utime(found, (0, 1000 + number))
    store(paths, "d", size, max_bytes=50)
    found_now = [each for each in "abcd" if saved_prompts.find_saved(paths, engine(paths), each)]
    assert "".join(found_now) == kept


@pytest.mark.parametrize(
    ("characters", "token_bytes", "file_bytes", "is_written"),
    [(800, 1000, 95_000, False), (800, 1000, 97_000, True), (10, 1000, 1, True)],
)
def test_what_is_certainly_too_large_is_not_written(
    characters: int, token_bytes: float, file_bytes: int, is_written: bool
) -> None:
    limits = saved_prompts.KeepLimits(file_bytes, token_bytes)
    assert limits.may_take(slots.contents_for("a", "x" * characters)) == is_written


def test_oldest_files_are_removed(paths: EnginePaths) -> None:
    for number, conversation in enumerate("abc"):
        store(paths, conversation, 10)
        found = saved_prompts.find_saved(paths, engine(paths), conversation)
        assert found is not None
        os.utime(found, (0, 1000 + number))
    store(paths, "d", 10, max_bytes=25)
    found_now = [each for each in "abcd" if saved_prompts.find_saved(paths, engine(paths), each)]
    assert found_now == ["c", "d"]
