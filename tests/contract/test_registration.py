"""What llm gets when the plugin is loaded: models, aliases, and nothing that is slow."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun import catalogue
from llm_localrun.chat.models import AsyncLocalChat
from llm_localrun.engine.state import list_running
from llm_localrun.models import LocalModel
from llm_localrun.servers import discover
from tests.conftest import OtherModel, put_starter
from tests.fakes.broken import Silent
from tests.fakes.http_server import StandIn
from tests.fakes.lmstudio import LMStudio
from tests.support.contract import NAMES, STARTER, command, ours, output, turns
from tests.support.models import file_route
from tests.support.snapshots import age, point_at

# llm leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


def outcome_in_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_import_of_the_plugin_is_light_and_without_io() -> None:
    code = """
import sys, click, llm
before, seen = set(sys.modules), []
sys.addaudithook(lambda name, arguments: seen.append((name, str(arguments[:1]))))
import llm_localrun.plugin
print(sorted(set(sys.modules) - before))
print([s for s in seen if s[0].startswith("socket") or s[0] == "open" and ".py" not in s[1]])
"""
    assert outcome_in_python(code) == "['llm_localrun', 'llm_localrun.plugin']\n[]\n"


def test_import_works_without_optional_packages(user_path: Path) -> None:
    code = """
import sys
sys.modules |= {"xllamacpp": None, "psutil": None}
import llm, llm_localrun.plugin
llm.get_models_with_aliases(), llm.get_embedding_models_with_aliases()
from click.testing import CliRunner
from llm.cli import cli
for command in ("models", "ps"):
    print(CliRunner().invoke(cli, ["localrun", command]).exit_code)
"""
    assert outcome_in_python(code) == "0\n0\n"


NONSENSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


SERVER_SAYS = {
    "nothing": [],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.6\r\n"],
    "half a head": [b"HTTP/1.1 200"],
    "no JSON": [NONSENSE, b"<html>"],
    "no object": [NONSENSE, b"[[1]]"],
    "another object": [NONSENSE, b'{"data": [{"id": 3}], "models": "all"}'],
    "depths": [NONSENSE, b"[" * 100_000],
}


@pytest.mark.parametrize("says", SERVER_SAYS)
def test_registration_survives_servers_that_answer_nonsense(
    says: str, user_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with StandIn(lambda _: SERVER_SAYS[says]) as server:
        point_at(user_path, server.url)
        llm.get_models_with_aliases()
        llm.get_embedding_models_with_aliases()
        assert server.requests
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["catalogue.json", "config.json", "known-files.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"version": 2}', None])
def test_registration_survives_damaged_files(
    name: str, content: bytes | None, user_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = user_path / "localrun" / name
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    llm.get_models_with_aliases()
    llm.get_embedding_models_with_aliases()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [("--version",), ("logs",), ("models", "default")])
def test_no_connection_for_commands_without_a_model(
    arguments: tuple[str, ...], box: StandIn, connections: list[Any]
) -> None:
    output(*arguments)
    assert connections == []


def test_no_connection_for_a_model_of_another_plugin(box: StandIn, connections: list[Any]) -> None:
    assert "No key found" in command("-m", "gpt-4o", "hi").stderr
    assert connections == []


def test_all_hooks_share_one_discovery(box: StandIn) -> None:
    for _ in range(3):
        llm.get_models_with_aliases()
        llm.get_embedding_models_with_aliases()
    assert [request.path for request in box.requests].count("/v1/models") == 1


def test_hanging_servers_are_asked_once(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "QUICK_S", 0.25)
    with Silent() as first, Silent() as second:
        point_at(user_path, first.url, second.url, "http://127.0.0.1:1")
        assert command("models").exit_code == 0
        assert first.connections() > 0
        assert second.connections() > 0
        age(user_path)
        assert command("models").exit_code == 0
        assert first.connections() == second.connections() == 0


def test_ids_are_unique_stable_and_prefixed(
    box: StandIn, user_path: Path, other_plugin: Callable[..., None]
) -> None:
    taken = "local-gemma4"
    first = {each.model.model_id: each.aliases for each in ours()}
    assert taken in [alias for aliases in first.values() for alias in aliases]
    catalogue._memory.clear()
    (user_path / "localrun" / "catalogue.json").unlink()
    other_plugin({taken: []})
    again = ours()
    assert isinstance(llm.get_model(taken), OtherModel)
    assert [each.model.model_id for each in again] == list(first)
    names = [name for each in again for name in (each.model.model_id, *each.aliases)]
    assert len(set(names)) == len(names)
    assert taken not in names
    assert all(name == "local" or name.startswith(("local-", "local/")) for name in names)


def test_every_model_has_an_async_model(box: StandIn) -> None:
    models = ours()
    assert len(models) > 5
    assert all(isinstance(each.async_model, AsyncLocalChat) for each in models)
    assert all(each.async_model.model_id == each.model.model_id for each in models)
    assert all(each.async_model.local == each.model.local for each in models)


def test_models_stay_resolvable_when_their_server_is_off(user_path: Path) -> None:
    with StandIn(LMStudio()) as server:
        point_at(user_path, server.url)
        output("-m", "local-gemma4", "hi")
        output("aliases", "set", "mine", "local-gemma4")
        output("models", "default", "local-gemma4")
    age(user_path)
    model_id = f"local/box/{NAMES['lmstudio']}"
    for arguments in (("-m", model_id), ("-m", "mine"), ("-c",), ()):
        done = command(*arguments, "hi")
        assert done.exit_code == 1
        assert done.stderr.startswith(f"Error: LM Studio at {server.url} does not answer. Start")
    assert output("models", "default").strip() == model_id
    assert f"mine : {model_id}" in " ".join(output("aliases").split())
    assert json.loads(output("logs", "-m", "mine", "--json"))[0]["model"] == model_id


def test_path_runs_and_is_continued(
    warm: Path,
    starter_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user_path: Path,
) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(user_path))
    (tmp_path / "mine.gguf").hardlink_to(starter_model)
    monkeypatch.chdir(tmp_path)
    options = ("-o", "max_tokens", "4")
    output("-m", "./mine.gguf", "My name is Ada.", *options)
    monkeypatch.chdir("/")
    output("-c", "What is my name?", *options)
    first, second = turns(2)
    assert first["model"] == second["model"] == "local/gguf/mine"
    assert first["conversation_id"] == second["conversation_id"]
    assert second["input_tokens"] > first["input_tokens"] + 4
    assert str(tmp_path / "mine.gguf") in (user_path / "localrun/known-files.json").read_text()


@pytest.mark.parametrize(
    ("flags", "chats", "starter"),
    [
        ((), True, True),
        (("--options",), True, True),
        (("--json",), True, True),
        (("--tools",), True, True),  # A template without a place for them reads them as text.
        (("--schemas",), True, True),
        (("--async",), True, True),
        (("-q", "gemma"), True, False),
    ],
)
def test_listings_are_truthful(
    flags: tuple[str, ...],
    chats: bool,
    starter: bool,
    box: StandIn,
    user_path: Path,
    starter_model: Path,
) -> None:
    put_starter(user_path, starter_model)
    listed = output("models", *flags)
    assert (NAMES["lmstudio"] in listed, STARTER in listed) == (chats, starter)
    assert "nomic" not in listed
    assert "nomic" in output("embed-models")


def test_two_instances_share_the_weights(plain: LocalModel, warm: Path) -> None:
    assert llm.get_model(STARTER) is not llm.get_model(STARTER)

    def prompt(_: int) -> str:
        return str(llm.get_model(STARTER).prompt("Hi", max_tokens=2, temperature=0).text())

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(prompt, range(4)))) == 1
    engines = [
        each
        for each in list_running(warm / "localrun/engine")
        if each.spec.path == file_route(plain).path
    ]
    assert len(engines) == 1
