"""The names that are ready made on disk: read without a doubt, or made anew."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.name_cache import (
    FRESH_SECONDS,
    CachePolicy,
    Offer,
    Registry,
    drop_registry,
    is_ours,
    read_registry,
    write_registry,
)
from llm_localrun.system.paths import settings_stamp
from tests.conftest import CONFIG, configure

pytestmark = pytest.mark.usefixtures("user_path")

OFFERS = [
    Offer("local/ollama/qwen3:8b", "chat", ["local-qwen3", "local"], ["tools"]),
    Offer("local/vllm/m", "embedding", [], None),
]


def test_registry_comes_back_as_it_was() -> None:
    write_registry(5.0, "stamp", OFFERS)
    assert read_registry() == Registry(5.0, "stamp", OFFERS)
    drop_registry()
    assert read_registry() is None
    drop_registry()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff", b"null", b"[]", b"{}", b"[" * 100_000, b'[1, 5.0, "s"]'),
        *(b'[0, 5.0, "s", []]', b'[2, 5.0, "s", []]', b'[1, "x", "s", []]', b'[1, 5.0, "s", 5]'),
        *(b'[1, 5.0, "s", [["id", "chat", []]]]', b'[1, 5.0, "s", [[5, "chat", [], null]]]'),
        *(b'[1, 5.0, "s", [["id", "chat", [5], null]]]', b'[1, 5.0, "s", [["id", "chat", 5, 5]]]'),
        b'[1, 5.0, "s", [["id", "chat", [], {"tools": 1}, "more"]]]',
    ],
)
def test_unusable_file_is_no_registry(content: bytes, user_path: Path) -> None:
    (user_path / "localrun" / "registry.json").write_bytes(content)
    assert read_registry() is None


def test_folder_that_cannot_be_written_to(user_path: Path) -> None:
    (user_path / "localrun" / "registry.json").mkdir()
    write_registry(5.0, "stamp", OFFERS)
    drop_registry()
    assert read_registry() is None


AGES = {"fresh": 1.0, "stale": FRESH_SECONDS + 1, "of tomorrow": -86400.0}
GOOD: dict[tuple[str, bool], set[CachePolicy]] = {
    ("fresh", True): {CachePolicy.CACHED, CachePolicy.IF_EMPTY, CachePolicy.IF_STALE},
    ("fresh", False): {CachePolicy.CACHED},
    ("stale", True): {CachePolicy.CACHED, CachePolicy.IF_EMPTY},
    ("stale", False): {CachePolicy.CACHED},
    ("of tomorrow", True): {CachePolicy.CACHED, CachePolicy.IF_EMPTY},
}


@pytest.mark.parametrize(("age", "same_settings"), GOOD)
def test_when_it_will_do(age: str, same_settings: bool) -> None:
    registry = Registry(time.time() - AGES[age], "stamp", OFFERS)
    stamp = "stamp" if same_settings else "another"
    asked: tuple[CachePolicy, ...] = (
        CachePolicy.CACHED,
        CachePolicy.IF_EMPTY,
        CachePolicy.IF_STALE,
    )
    good = {refresh for refresh in asked if registry.is_good_enough(refresh, stamp)}
    assert good == GOOD[age, same_settings]


def _configured(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(user, **CONFIG, folders=["/more"])


def _elsewhere(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:5")


@pytest.mark.parametrize("settle", [_configured, _elsewhere])
def test_stamp_changes_with_the_settings(
    settle: Any, user_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settings_stamp()
    assert settings_stamp() == before
    settle(user_path, monkeypatch)
    assert settings_stamp() != before


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *(("local", True), ("local-qwen", True), ("local/ollama/qwen3:8b", True)),
        *(("./m.gguf", True), ("../m", True), ("~/m", True), ("/m", True), ("m.GGUF", True)),
        *(("gpt-4o", False), ("localhost", False), ("locally", False), ("ollama/m", False)),
        ("", False),
    ],
)
def test_names_that_can_only_be_ours(name: str, ours: bool) -> None:
    assert is_ours(name) == ours


def test_file_is_small(user_path: Path) -> None:
    write_registry(5.0, settings_stamp(), OFFERS * 100)
    text = (user_path / "localrun" / "registry.json").read_text()
    assert json.loads(text)[3][0] == list(OFFERS[0])
    assert len(text) < 100 * 200
