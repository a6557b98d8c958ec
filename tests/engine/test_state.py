"""The files by which engines and commands communicate."""

import json
import time
from pathlib import Path

import pytest

from llm_localrun.engine.state import (
    EnginePaths,
    EngineSettings,
    EngineSpec,
    EngineState,
    list_engines,
    list_hosts,
    list_running,
    read_lease,
    read_state,
    write_lease,
    write_state,
)
from llm_localrun.system import locks

SPEC = EngineSpec("/m.gguf", "m", 1, 1.0, EngineSettings(context_size=512))
EARLIER = {
    "id": "1-a",
    "spec": {
        "path": "/m.gguf",
        "name": "m",
        "file_size": 1,
        "file_modified": 1.0,
        "settings": {"context_size": 512, "threads": 1, "rpc": ""},
    },
    "key": "key",
    "build": "xllamacpp 2026.10.1",
    "started_at": 1.0,
    "url": "http://127.0.0.1:1",
    "server_pid": 1,
    "load_seconds": 0.5,
}
"""A state as the version before the slot files wrote it."""


@pytest.fixture
def paths(tmp_path: Path) -> EnginePaths:
    folder = tmp_path / "engine"
    folder.mkdir()
    return EnginePaths(folder, "1-a")


def test_engine_is_running_when_it_has_a_url(paths: EnginePaths) -> None:
    with locks.create_locked(paths.lock):
        paths.slot(0).touch()
        for url in ("", "http://127.0.0.1:1"):
            state = EngineState(paths.id, SPEC, "key", "build", started_at=1.0, url=url)
            write_state(paths.folder, state)
            assert list_engines(paths.folder) == [state]
            assert list_running(paths.folder) == ([state] if url else [])


@pytest.mark.parametrize("state", [json.dumps(EARLIER), json.dumps({**EARLIER, "seats": 4})])
def test_engine_of_an_earlier_version_ends_when_idle(paths: EnginePaths, state: str) -> None:
    """It is not used, and its lease ends, on which it saves its conversations and exits."""
    paths.state.write_text(state)
    (paths.folder / "1-a.seat0").touch()
    write_lease(paths, -1)
    with locks.create_locked(paths.lock):
        assert list_engines(paths.folder) == []
        assert list_hosts(paths.folder) == [paths]
        assert (read_lease(paths) or 0) <= time.time()
    assert list_hosts(paths.folder) == []
    assert list(paths.folder.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "1-a"}', '{"id": "1-a", "spec": {}}'])
def test_state_that_cannot_be_read(paths: EnginePaths, content: str) -> None:
    paths.slot(0).touch()
    paths.state.write_text(content)
    with locks.create_locked(paths.lock):
        assert read_state(paths.state) is None
        assert list_engines(paths.folder) == []
        assert list_hosts(paths.folder) == [paths]


@pytest.mark.parametrize(("seconds", "until"), [(-1, float("inf")), (60, 60)])
def test_lease(paths: EnginePaths, seconds: float, until: float) -> None:
    assert read_lease(paths) is None
    now = time.time()
    write_lease(paths, seconds)
    lease = read_lease(paths)
    assert lease is not None
    assert lease == until or now + until <= lease <= time.time() + until
    assert paths.lease.stat().st_mode & 0o077 == 0
