"""What all tests share: a user directory and a home of their own, and the starter model."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import CliRunner, Result
from llm.cli import cli
from llm.plugins import pm

from llm_localrun import catalogue
from llm_localrun.engine.stop import stop_all
from llm_localrun.pull import starter
from llm_localrun.quantize import quality
from llm_localrun.servers.base import server_kinds
from tests.fakes.http_server import StandIn
from tests.fakes.hub import Files, Hub
from tests.support.embedding_model import FILE_NAME, build
from tests.support.outward import Guard
from tests.support.pulling import Q4, Q8, World

# Two threads that spin starve on a busy machine.
CONFIG = {"threads": 1, "default_endpoints": False}

_ELSEWHERE = (
    *("OLLAMA_HOST", "OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA", "LOCALAPPDATA"),
    *("JAN_DATA_FOLDER", "MODELS_PATH", "RAMALAMA_STORE"),
    *("LLAMA_CACHE", "LLM_MODEL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
    *("LMSTUDIO_API_BASE", "UNSLOTH_STUDIO_URL"),
    *(variable for cls in server_kinds().values() for variable in cls.key_variables),
)

PASSAGE = (
    "The lamp has to burn from dusk to dawn, in every weather, and the lens around it has to be"
    " so clean that a finger's mark\non it could be seen from a ship.\nThe keeper climbed the"
    " stairs."
)

Llm = Callable[..., "subprocess.CompletedProcess[str]"]
SetUp = Callable[..., Path]
Invoke = Callable[..., Result]

GUARD = pytest.StashKey[Guard]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[GUARD] = Guard()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    guard = config.stash[GUARD]
    terminalreporter.write_line(
        f"{guard.attempts()} attempts to reach beyond this machine, {guard.how}"
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run for what was tried after the last test."""
    if session.config.stash[GUARD].attempts() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def guard(pytestconfig: pytest.Config) -> Guard:
    return pytestconfig.stash[GUARD]


@pytest.fixture(autouse=True)
def nothing_leaves(guard: Guard) -> Iterator[None]:
    """No test reaches beyond this machine, or lets anything that it starts do so."""
    before = guard.attempts()
    yield
    assert guard.attempts() == before, "something tried to reach beyond this machine"


@pytest.fixture(autouse=True)
def user_path(
    nothing_leaves: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """llm's user directory and a home that hold nothing but a configuration for tests."""
    user = tmp_path / "user"
    monkeypatch.setenv("LLM_USER_PATH", str(user))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in _ELSEWHERE:
        monkeypatch.delenv(variable, raising=False)
    catalogue._memory.clear()
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
def starter_model(pytestconfig: pytest.Config, guard: Guard) -> Path:
    """The starter model, pulled once and kept in pytest's cache."""
    target = pytestconfig.cache.mkdir("localrun") / "models" / starter.FILE_NAME
    if not starter.is_complete(target):
        with guard.lifted():
            for _ in starter.pull(target):
                pass
    return target


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One passage, so that a test does not take as long as a user's measurement."""
    monkeypatch.setattr(quality, "passages", lambda: [PASSAGE])


@pytest.fixture(scope="session")
def embedding_model(pytestconfig: pytest.Config, guard: Guard) -> Path:
    """all-MiniLM-L6-v2, made once and kept in pytest's cache."""
    target = pytestconfig.cache.mkdir("localrun") / "models" / FILE_NAME
    if not target.exists():
        with guard.lifted():
            build(target)
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
def world(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A hub with a model in two variants; what breaks is tried again at once."""
    files = Files()
    monkeypatch.setattr("llm_localrun.pull.download._FIRST_RETRY_S", 0.0)
    with StandIn(files) as at_files:
        hub = Hub(at_files.url)
        with StandIn(hub) as at_hub:
            monkeypatch.setenv("HF_ENDPOINT", at_hub.url)
            world = World(hub, files, at_hub, at_files, user_path / "localrun" / "models")
            world.offer(q4=Q4, q8=Q8)
            yield world


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


@pytest.fixture
def invoke() -> Invoke:
    """An `llm` command in this process, which has found nothing yet."""

    def run(*arguments: str, **settings: Any) -> Result:
        catalogue._memory.clear()
        return CliRunner().invoke(cli, arguments, **settings)

    return run


def one_error(result: Result) -> str:
    """What a command that has failed as it should has said."""
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").rstrip()


class Foreign(llm.Model):
    """A model of another plugin."""

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    def execute(self, *_: Any, **__: Any) -> Iterator[str]:
        yield "I am foreign"


@pytest.fixture
def other_plugin() -> Iterator[Callable[..., None]]:
    """Registers models of another plugin, by id and aliases, for as long as the test runs."""

    class Plugin:
        __name__ = "other"
        models: dict[str, list[str]]

        @llm.hookimpl
        def register_models(self, register: Callable[..., None]) -> None:
            for model_id, aliases in self.models.items():
                register(Foreign(model_id), aliases=aliases)

    plugin = Plugin()
    plugin.models = {}
    pm.register(plugin, name="other")
    yield plugin.models.update
    pm.unregister(plugin)
