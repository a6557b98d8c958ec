"""Fixtures that all packages share: user directories, commands, and models pulled once.

No fixture for single tests is autouse here. The packages whose tests read or write files, start
engines or open sockets say in their own conftest.py that each test has a `user_path`; modules
there that do none of it are marked `pure`.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import CliRunner, Result
from llm.cli import cli
from llm.plugins import pm

from llm_localrun import catalogue
from llm_localrun.engine.stop import stop_all
from llm_localrun.pull.starter import TINY
from llm_localrun.pull.wheels import fetch
from llm_localrun.quantize import quality
from llm_localrun.system.progress import Progress, Work
from tests.fakes.http_server import StandIn
from tests.fakes.hub import Files, Hub
from tests.support import coder_model as coder
from tests.support import environment
from tests.support.embedding_model import FILE_NAME, build
from tests.support.outward import Guard
from tests.support.pulling import Q4, Q8, World

# Two threads that spin starve on a busy machine.
CONFIG = {"threads": 1, "default_endpoints": False}

PASSAGE = (
    "The lamp has to burn from dusk to dawn, in every weather, and the lens around it has to be"
    " so clean that a finger's mark\non it could be seen from a ship.\nThe keeper climbed the"
    " stairs."
)

Llm = Callable[..., "subprocess.CompletedProcess[str]"]
SetUp = Callable[..., Path]
Invoke = Callable[..., Result]

GUARD = pytest.StashKey[Guard]()
NO_CODER = pytest.StashKey[str]()
"""Why tests of the coder model were skipped."""
EXAMPLES = pytest.StashKey[Counter[str]]()
"""How many of the documents' examples were run (under `""`), and how many were not, by reason."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[GUARD] = Guard()
    config.addinivalue_line("markers", "pure: needs neither files of a user nor the network")
    config.addinivalue_line("markers", "coder: needs the coder model, which is 491 MB")
    config.stash[EXAMPLES] = Counter()
    config.addinivalue_line("markers", "examples: runs the examples of the documents")
    config.addinivalue_line("markers", "llama_build: needs a real build of llama.cpp, 68 MB")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs the coder model, so that `-m "not coder"` leaves all of it out."""
    for item in items:
        if "coder_model" in getattr(item, "fixturenames", ()):
            item.add_marker("coder")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    guard = config.stash[GUARD]
    terminalreporter.write_line(
        f"{guard.attempts()} attempts to reach beyond this machine, {guard.how}"
    )
    if examples := config.stash[EXAMPLES]:
        terminalreporter.write_line(counted(examples))
    if reason := config.stash.get(NO_CODER, ""):
        terminalreporter.write_line(f"Tests were skipped: {reason}")


def counted(examples: Counter[str]) -> str:
    """One line about the documents' examples."""
    others = [(reason, count) for reason, count in examples.most_common() if reason]
    reasons = ", ".join(f"{count} {reason}" for reason, count in others)
    left_out = sum(count for _, count in others)
    return f"{examples['']} examples of the documents ran, {left_out} did not: {reasons or 'none'}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run if anything tried to reach beyond this machine, in a test or after the last."""
    if session.config.stash[GUARD].attempts() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def guard(pytestconfig: pytest.Config) -> Guard:
    return pytestconfig.stash[GUARD]


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hides the developer's settings and models from all tests.

    The user directory does not exist, and a test that needs one takes `user_path`.
    """
    user, home = (tmp_path_factory.getbasetemp() / name for name in ("no-user", "no-home"))
    with environment.cleaned(user, home):
        yield
    assert not user.exists(), "a test without `user_path` wrote to the user directory"
    assert not home.exists(), "a test without `user_path` wrote to the home directory"


@pytest.fixture
def nothing_leaves(guard: Guard) -> Iterator[None]:
    """Fails a test that tries to reach beyond this machine, or starts something that does."""
    before = guard.attempts()
    yield
    assert guard.attempts() == before, "something tried to reach beyond this machine"


@pytest.fixture
def user_path(
    nothing_leaves: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A user directory of llm with only a configuration for tests, and an empty home directory.

    Engines that the test has started there are stopped at its end.
    """
    user = tmp_path / "user"
    monkeypatch.setenv("LLM_USER_PATH", str(user))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    catalogue._memory.clear()
    configure(user, **CONFIG)
    yield user
    stop_engines(user)


def configure(user: Path, **settings: Any) -> None:
    """Writes config.json."""
    (user / "localrun").mkdir(parents=True, exist_ok=True)
    (user / "localrun" / "config.json").write_text(json.dumps(settings))


def store_key(user: Path, alias: str, key: str) -> None:
    """Stores a key as `llm keys set` does."""
    (user / "keys.json").write_text(json.dumps({alias: key}))


def stop_engines(user: Path) -> None:
    """Stops the engines of a user directory, if any has been started there."""
    folder = user / "localrun" / "engine"
    if folder.exists():
        stop_all(folder)


@pytest.fixture(scope="session")
def starter_model(pytestconfig: pytest.Config, guard: Guard) -> Path:
    """The tiny starter model, pulled once and kept in pytest's cache."""
    target = pytestconfig.cache.mkdir("localrun") / "models" / TINY.file_name
    if not TINY.is_complete(target):
        with guard.lifted(), environment.original():
            for _ in fetch(TINY, target, target.parent / ".partial"):
                pass
    return target


@pytest.fixture(scope="session")
def coder_model(pytestconfig: pytest.Config, guard: Guard) -> Path:
    """Qwen2.5-Coder-0.5B-Instruct, fetched once and kept outside the checkout.

    Skips the test where it cannot be had.
    """
    with guard.lifted(), environment.original():
        try:
            return coder.fetched(coder.cache_folder())
        except coder.Unavailable as error:
            pytestconfig.stash[NO_CODER] = str(error)
            pytest.skip(str(error))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One passage, so that a test does not take as long as a user's measurement."""
    monkeypatch.setattr(quality, "passages", lambda: [PASSAGE])


@pytest.fixture(scope="session")
def embedding_model(pytestconfig: pytest.Config, guard: Guard) -> Path:
    """all-MiniLM-L6-v2, made once and kept in pytest's cache."""
    target = pytestconfig.cache.mkdir("localrun") / "models" / FILE_NAME
    if not target.exists():
        with guard.lifted(), environment.original():
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
def warm(user_path: Path, warm_user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `warm_user` the user directory of this test."""
    monkeypatch.setenv("LLM_USER_PATH", str(warm_user))
    return warm_user


@pytest.fixture(scope="session")
def coder_user(coder_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user directory with the coder model, whose engine stays warm from test to test."""
    user = tmp_path_factory.mktemp("coder")
    configure(user, **CONFIG)
    target = user / "localrun" / "models" / coder_model.name
    target.parent.mkdir()
    # A hard link could not leave the disk of the cache.
    target.symlink_to(coder_model)
    yield user
    stop_engines(user)


@pytest.fixture
def with_coder(user_path: Path, coder_user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `coder_user` the user directory of this test."""
    monkeypatch.setenv("LLM_USER_PATH", str(coder_user))
    return coder_user


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
def reported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the steps of commands in this process report, as a terminal would show it at once."""
    texts: list[str] = []

    class Reporter(Work):
        def report(self, progress: Progress) -> None:
            text = Work(progress, lambda: 0.0).text(0.0, 200).removesuffix(", 1 s")
            texts.extend([text] if texts[-1:] != [text] else [])

    @contextmanager
    def working(progress: Progress) -> Iterator[Work]:
        yield Reporter(progress)

    monkeypatch.setattr("llm_localrun.cli.progress.working", working)
    return texts


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


class OtherModel(llm.Model):
    """A model of another plugin."""

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    def execute(self, *_: Any, **__: Any) -> Iterator[str]:
        yield "I am another plugin's"


@pytest.fixture
def other_plugin() -> Iterator[Callable[..., None]]:
    """Registers models of another plugin, by id and aliases, for as long as the test runs."""

    class Plugin:
        __name__ = "other"
        models: dict[str, list[str]]

        @llm.hookimpl
        def register_models(self, register: Callable[..., None]) -> None:
            for model_id, aliases in self.models.items():
                register(OtherModel(model_id), aliases=aliases)

    plugin = Plugin()
    plugin.models = {}
    pm.register(plugin, name="other")
    yield plugin.models.update
    pm.unregister(plugin)
