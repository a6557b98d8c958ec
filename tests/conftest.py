"""What all tests share: a user directory and a home of their own, and the starter model."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import discovery
from llm_localrun.engine.stop import stop_all
from llm_localrun.hub import starter

# Two threads that spin starve on a busy machine.
CONFIG = {"threads": 1, "default_endpoints": False}

_ELSEWHERE = (
    *("OLLAMA_HOST", "OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"),
    *("LLAMA_CACHE", "XDG_CACHE_HOME", "LLM_MODEL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
)

Llm = Callable[..., "subprocess.CompletedProcess[str]"]
SetUp = Callable[..., Path]


@pytest.fixture(autouse=True)
def user_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """llm's user directory and a home that hold nothing but a configuration for tests."""
    user = tmp_path / "user"
    monkeypatch.setenv("LLM_USER_PATH", str(user))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in _ELSEWHERE:
        monkeypatch.delenv(variable, raising=False)
    discovery._memory.clear()
    configure(user, **CONFIG)
    yield user
    stop_engines(user)


def configure(user: Path, **settings: Any) -> None:
    """Writes config.json."""
    (user / "localrun").mkdir(parents=True, exist_ok=True)
    (user / "localrun" / "config.json").write_text(json.dumps(settings))


def stop_engines(user: Path) -> None:
    stop_all(user / "localrun" / "engine")


@pytest.fixture(scope="session")
def starter_model(pytestconfig: pytest.Config) -> Path:
    """The starter model, pulled once and kept in pytest's cache."""
    target = pytestconfig.cache.mkdir("localrun") / "models" / starter.FILE_NAME
    if not starter.is_there(target):
        for _ in starter.pull(target):
            pass
    return target


@pytest.fixture(scope="session")
def warm_user(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user directory with the starter model, whose engine stays warm from test to test."""
    user = tmp_path_factory.mktemp("warm")
    configure(user, **CONFIG)
    put_starter(user, starter_model)
    yield user
    stop_engines(user)


def put_starter(user: Path, starter_model: Path) -> Path:
    """Puts the starter model where `pull` would."""
    target = user / "localrun" / "models" / starter_model.name
    target.parent.mkdir(parents=True)
    target.hardlink_to(starter_model)
    return target


@pytest.fixture
def warm(warm_user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `warm_user` the user directory of this test."""
    monkeypatch.setenv("LLM_USER_PATH", str(warm_user))
    return warm_user


@pytest.fixture
def run_llm() -> Llm:
    """The real `llm` command, in a process of its own."""

    def run(*arguments: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, **settings.pop("env", {})},
            **{"stdin": subprocess.DEVNULL if "input" not in settings else None, **settings},
        )

    return run
