"""The names on disk: used if they are fresh and made for the same settings, replaced otherwise."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_localrun.name_cache import (
    FRESH_S,
    CachedName,
    CachePolicy,
    NameCache,
    delete_names,
    is_current,
    is_ours,
    read_names,
    settings_stamp,
    write_names,
)
from tests.conftest import CONFIG, configure

pytestmark = pytest.mark.usefixtures("user_path")

NAMES = [
    CachedName("local/ollama/qwen3:8b", "chat", ["local-qwen3", "local"], ["tools"]),
    CachedName("local/vllm/m", "embedding", [], None),
]


def test_names_are_read_as_they_were_written() -> None:
    write_names(NameCache(5.0, "stamp", False, True, NAMES))
    assert read_names() == NameCache(5.0, "stamp", False, True, NAMES)
    delete_names()
    assert read_names() is None
    delete_names()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff", b"null", b"[]", b"{}", b"[" * 100_000, b'[4, 5.0, "s", false, true]'),
        *(
            b'[0, 5.0, "s", false, true, []]',
            b'[1, 5.0, "s", []]',
            b'[2, 5.0, "s", false, true, []]',
            b'[3, 5.0, "s", false, true, []]',
        ),
        *(b'[4, "x", "s", false, true, []]', b'[4, 5.0, "s", false, true, 5]'),
        *(b'[4, 5.0, "s", false, true, [["id", "chat", []]]]',),
        *(b'[4, 5.0, "s", false, true, [[5, "chat", [], null]]]',),
        *(b'[4, 5.0, "s", false, true, [["id", "chat", [5], null]]]',),
        *(b'[4, 5.0, "s", false, true, [["id", "chat", 5, 5]]]',),
        b'[4, 5.0, "s", false, true, [["id", "chat", [], {"tools": 1}, "more"]]]',
    ],
)
def test_unusable_file_is_ignored(content: bytes, user_path: Path) -> None:
    (user_path / "localrun" / "names.json").write_bytes(content)
    assert read_names() is None


def test_folder_that_cannot_be_written_to(user_path: Path) -> None:
    (user_path / "localrun" / "names.json").mkdir()
    write_names(NameCache(5.0, "stamp", False, True, NAMES))
    delete_names()
    assert read_names() is None


@pytest.mark.parametrize("is_folder", [False, True])
def test_file_of_an_earlier_version_is_ignored_and_removed(
    is_folder: bool, user_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    earlier = user_path / "localrun" / "registry.json"
    if is_folder:
        earlier.mkdir()
    else:
        earlier.write_text(json.dumps([1, time.time(), "stamp", []]))
    assert read_names() is None
    write_names(NameCache(5.0, "stamp", False, True, NAMES))
    assert read_names() == NameCache(5.0, "stamp", False, True, NAMES)
    assert earlier.exists() == is_folder
    assert capfd.readouterr() == ("", "")


AGES = {"fresh": 1.0, "stale": FRESH_S + 1, "of tomorrow": -86400.0}
KNOWN = {CachePolicy.CACHED, CachePolicy.IF_EMPTY}
USABLE: dict[tuple[str, str], set[CachePolicy]] = {
    ("fresh", "complete"): {*KNOWN, CachePolicy.IF_STALE, CachePolicy.IF_NEEDED},
    ("fresh", "incomplete"): {*KNOWN, CachePolicy.IF_STALE},
    ("fresh", "partial"): KNOWN,
    ("fresh", "empty"): KNOWN,
    ("fresh", "of other settings"): {CachePolicy.CACHED},
    ("stale", "complete"): KNOWN,
    ("stale", "of other settings"): {CachePolicy.CACHED},
    ("of tomorrow", "complete"): KNOWN,
}


@pytest.mark.parametrize(("age", "what"), USABLE)
def test_policies_for_which_names_are_usable(age: str, what: str, user_path: Path) -> None:
    names = NameCache(
        time.time() - AGES[age],
        settings_stamp([]),
        what == "partial",
        what != "incomplete",
        [] if what == "empty" else NAMES,
    )
    if what == "of other settings":
        configure(user_path, **CONFIG, folders=["/more"])
    policies = (*KNOWN, CachePolicy.IF_STALE, CachePolicy.IF_NEEDED)
    assert {policy for policy in policies if names.is_usable(policy)} == USABLE[age, what]


Change = Callable[[Path, pytest.MonkeyPatch], object]
CHANGES: dict[str, Change] = {
    "config.json changes": lambda user, _: configure(user, **CONFIG, folders=["/more"]),
    "config.json is removed": lambda user, _: (user / "localrun" / "config.json").unlink(),
    "a variable is set": lambda _, patch: patch.setenv("OLLAMA_HOST", "127.0.0.1:5"),
    "a variable changes": lambda _, patch: patch.setenv("HF_HOME", "/other"),
    "a variable is removed": lambda _, patch: patch.delenv("HF_HOME"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_stamp_is_not_current_after_a_change(
    change: Change, user_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", "/models")
    stamp = settings_stamp(["OLLAMA_HOST", "HF_HOME"])
    assert is_current(stamp)
    change(user_path, monkeypatch)
    assert not is_current(stamp)


@pytest.mark.parametrize("value", ["", "=", "a=b", "two\nlines", "'quoted'", "\udcff", "\\n"])
def test_stamp_holds_any_value(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", value)
    stamp = settings_stamp(["HF_HOME", "OLLAMA_HOST"])
    assert is_current(stamp)
    json.dumps(stamp).encode()
    monkeypatch.setenv("HF_HOME", f"{value}x")
    assert not is_current(stamp)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("http://me:hunter/2@box:1", "http://box:1"),
        ("http://me:a,b@box", "http://box"),
        ("http://box/v1?api_key=secret", "http://box/v1?api_key=…"),
        (
            "http://box:1/v1, http://me:a,b/c@box:2,http://me:d@box:3",
            "http://box:1/v1, http://box:2,http://box:3",
        ),
        ("/data/me@home", "/data/me@home"),
    ],
)
def test_stamp_holds_no_login(value: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", value)
    assert settings_stamp(["OLLAMA_HOST"]).splitlines()[1] == f"OLLAMA_HOST={kept!r}"


def test_other_variables_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = settings_stamp(["HF_HOME"])
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:5")
    assert is_current(stamp)


@pytest.mark.parametrize("stamp", ["", "stamp", "0 0", "\n\n", "absent\nHF_HOME=''"])
def test_stamp_of_other_settings_is_not_current(stamp: str) -> None:
    assert not is_current(stamp)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *(("local", True), ("local-qwen", True), ("local/ollama/qwen3:8b", True)),
        *(("./m.gguf", True), ("../m", True), ("~/m", True), ("/m", True), ("m.GGUF", True)),
        *(("gpt-4o", False), ("localhost", False), ("locally", False), ("ollama/m", False)),
        ("", False),
    ],
)
def test_names_that_only_this_plugin_can_have(name: str, ours: bool) -> None:
    assert is_ours(name) == ours


def test_file_is_small(user_path: Path) -> None:
    write_names(NameCache(5.0, settings_stamp(["OLLAMA_HOST"]), False, True, NAMES * 100))
    text = (user_path / "localrun" / "names.json").read_text()
    assert json.loads(text)[5][0] == list(NAMES[0])
    assert len(text) < 100 * 200
