"""What all tests of the contract with llm share: backends, and an empty log."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils
from llm.migrations import migrate

from llm_localrun.models import LocalModel
from llm_localrun.servers import discover
from tests.fakes.http_server import StandIn
from tests.fakes.lmstudio import LMStudio
from tests.fakes.says import Says
from tests.support.contract import NAMES, SERVERS, STARTER, THINKING, Backend, found, respond_as
from tests.support.snapshots import point_at
from tests.support.trees import put_lmstudio_files


@pytest.fixture(scope="session")
def empty_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llm's database without a turn; creating one takes long."""
    path = tmp_path_factory.mktemp("log") / "logs.db"
    database = sqlite_utils.Database(path)
    migrate(database)  # type: ignore[no-untyped-call]
    database.close()
    return path


@pytest.fixture(autouse=True)
def surroundings(user_path: Path, empty_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the fakes time on a busy machine, and hides the key of a real provider."""
    shutil.copy(empty_log, user_path)
    monkeypatch.setattr(discover, "QUICK_S", 10.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(autouse=True)
def lmstudio_files(user_path: Path, tmp_path: Path) -> None:
    """Puts the files of LM Studio's models on this machine, so that they may run."""
    put_lmstudio_files(tmp_path / "home")


@pytest.fixture(params=[*SERVERS, "engine"])
def backend(request: pytest.FixtureRequest, user_path: Path, empty_log: Path) -> Iterator[Backend]:
    """Each of the backends, as discovery finds it."""
    if request.param == "engine":
        user: Path = request.getfixturevalue("warm")
        shutil.copy(empty_log, user)
        # What is in the cache decides how the rest is cut into batches, and so the last digits.
        alike = {"temperature": 0, "extra_body": {"cache_prompt": False}}
        yield Backend("engine", found(STARTER), {**alike, "grammar": THINKING})
        return
    with StandIn(respond_as(request.param, lambda _: Says("Hello.", reasoning="Hm."))) as server:
        point_at(user_path, server.url)
        model = found(f"local/box/{NAMES[request.param]}")
        yield Backend(request.param, model, {}, server)


@pytest.fixture
def box(user_path: Path) -> Iterator[StandIn]:
    """A configured LM Studio."""
    with StandIn(LMStudio()) as server:
        point_at(user_path, server.url)
        yield server


@pytest.fixture
def plain(warm: Path) -> LocalModel:
    """The starter model, whose engine is warm."""
    return found(STARTER)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses that this process connects to."""
    addresses: list[Any] = []
    connect = socket.socket.connect

    def recorded(self: socket.socket, address: Any) -> None:
        addresses.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", recorded)
    return addresses
