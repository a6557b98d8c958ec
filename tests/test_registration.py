"""Which models llm's registry contains, and that commands for other models ask no server."""

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import llm
import pytest
import sqlite_utils
from llm.migrations import migrate

from llm_localrun import catalogue
from llm_localrun.catalogue import write_snapshot
from llm_localrun.chat.models import AsyncLocalChat, LocalChat
from llm_localrun.models import Snapshot
from llm_localrun.name_cache import settings_stamp
from llm_localrun.servers import discover
from tests.conftest import CONFIG, Invoke, Llm, OtherModel, configure, one_error
from tests.fakes.broken import Off, Silent
from tests.fakes.http_server import Request, Respond, StandIn, events, json_reply, transcript, whole
from tests.support.snapshots import age, point_at
from tests.support.trees import gguf

pytestmark = [
    pytest.mark.usefixtures("user_path"),
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
]

QWEN, SMOLLM, NOMIC = "qwen3:8b", "smollm2:135m", "nomic-embed-text:latest"
OURS = {f"local/box/{QWEN}", f"local/box/{SMOLLM}"}
ANSWER = "The capital of France is Paris."


def ollama(*names: str) -> Respond:
    """An Ollama that answers every prompt as a real one did, in the name that it was sent."""
    chat = transcript("chat_stream")[0]
    tags = [
        {
            "name": name,
            "digest": f"0a{name}",
            "size": 5_000_000_000,
            "details": {"quantization_level": "Q4_K_M", "parameter_size": "8B"},
            "capabilities": ["embedding" if "embed" in name else "completion"],
        }
        for name in names
    ]
    replies = {
        "/v1/models": json_reply({"data": [{"id": n, "owned_by": "library"} for n in names]}),
        "/": whole(b"Ollama is running", "text/plain"),
        "/api/tags": json_reply({"models": tags}),
    }

    def respond(request: Request) -> Iterator[bytes]:
        if request.path == "/api/chat":
            body = chat.body.replace(b"smollm2:135m", request.body["model"].encode())
            yield whole(body, chat.content_type)
        else:
            yield replies.get(request.path, json_reply({"error": "not found"}, 404))

    return respond


def rounds(box: StandIn) -> int:
    """How often the server was asked for its models."""
    return sum(request.path == "/v1/models" for request in box.requests)


def names(models: Iterable[Any]) -> list[str]:
    return [name for each in models for name in (each.model.model_id, *each.aliases)]


def ours() -> list[Any]:
    return [each for each in llm.get_models_with_aliases() if isinstance(each.model, LocalChat)]


@pytest.fixture(scope="session")
def other_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llm's database with one answer of another plugin's model; creating it is slow."""
    response = OtherModel("gpt-4o").prompt("hi")
    response.text()
    path = tmp_path_factory.mktemp("log") / "logs.db"
    database = sqlite_utils.Database(path)
    migrate(database)  # type: ignore[no-untyped-call]
    response.log_to_db(database)  # type: ignore[no-untyped-call]
    database.close()
    return path


@pytest.fixture(autouse=True)
def surroundings(user_path: Path, other_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the fake servers more time on a busy machine, and keeps tests from a real provider."""
    shutil.copy(other_log, user_path)
    monkeypatch.setattr(discover, "QUICK_S", 10.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def box(user_path: Path) -> Iterator[StandIn]:
    """A configured Ollama."""
    with StandIn(ollama(QWEN, SMOLLM, NOMIC)) as server:
        point_at(user_path, server.url)
        yield server


@pytest.fixture
def silent(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Silent]:
    """A configured server that accepts connections and does not answer."""
    monkeypatch.setattr(discover, "QUICK_S", 0.25)
    with Silent() as server:
        point_at(user_path, server.url)
        yield server


# Commands that use no model of this plugin


@pytest.mark.parametrize(
    "command",
    [
        ("--version",),
        ("--help",),
        ("logs",),
        ("models", "default"),
        ("-m", "gpt-4o", "hi"),
        ("-c", "hi"),
    ],
)
def test_command_for_other_models_makes_no_connection(
    command: tuple[str, ...], silent: Silent, user_path: Path, run_llm: Llm
) -> None:
    if "-c" in command:
        empty = Snapshot(taken_at=1.0, stamp=settings_stamp([]))
        write_snapshot(user_path / "localrun", empty)
    done = run_llm(*command)
    assert silent.connections() == 0
    if "hi" in command:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: No key found")
    else:
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("snapshot", ["absent", "stale"])
@pytest.mark.parametrize(
    "command",
    [
        ("hi",),
        ("-m", "gpt-4o", "hi"),
        ("-m", "gpt-4o", "--async", "hi"),
        ("-m", "no-such-model", "hi"),
        ("chat", "-m", "gpt-4o"),
        ("logs", "-m", "gpt-4o"),
        ("embed", "-m", "3-small", "-c", "hi"),
        ("logs", "--json"),
        ("models", "default", "gpt-4o"),
        ("models", "options", "set", "gpt-4o", "temperature", "0"),
        ("models", "options", "list"),
        ("aliases", "set", "fast", "gpt-4o"),
        ("keys",),
        ("plugins",),
        ("templates",),
        ("localrun", "--help"),
        ("localrun", "ps"),
    ],
)
def test_command_for_other_models_in_this_process_makes_no_connection(
    command: tuple[str, ...], snapshot: str, silent: Silent, user_path: Path, invoke: Invoke
) -> None:
    if snapshot == "stale":
        write_snapshot(user_path / "localrun", Snapshot(taken_at=1.0))
    invoke(*command)
    assert silent.connections() == 0


def test_default_model_of_another_plugin_makes_no_connection(
    silent: Silent, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_MODEL", "gpt-4o")
    assert "No key found" in one_error(invoke("hi"))
    assert silent.connections() == 0


# Commands that use models of this plugin


ANSWERED = [
    ("-m", "local", "hi"),
    ("-m", "local-qwen3", "hi"),
    ("-m", f"local/box/{QWEN}", "hi"),
    ("-m", "local", "--async", "hi"),
    ("-q", "local", "hi"),
]

LISTED = [
    ("models",),
    ("models", "list"),
    ("models", "--options"),
    ("models", "--async"),
    ("models", "--json"),
    ("models", "-q", "local"),
    ("models", "-m", "local"),
    ("aliases",),
    ("localrun", "models"),
    ("localrun", "models", "--json"),
    ("localrun", "which", "local"),
    ("localrun", "refresh"),
]

NAMED = [
    ("chat", "-m", "local"),
    ("-m", "local", "--options"),
    ("models", "--tools"),
    ("models", "--schemas"),
    ("models", "default", "local"),
    ("models", "options", "set", "local", "temperature", "0"),
    ("aliases", "set", "mine", "local-qwen3"),
    ("logs", "-m", "local"),
]


@pytest.mark.parametrize("command", ANSWERED)
def test_prompt_asks_for_models_once(
    command: tuple[str, ...], box: StandIn, user_path: Path, invoke: Invoke
) -> None:
    done = invoke(*command)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(ANSWER)
    assert rounds(box) == 1
    assert box.requests[-1].body["model"] == QWEN
    assert invoke(*command).exit_code == 0
    assert rounds(box) == 1


@pytest.mark.parametrize("command", LISTED)
def test_list_asks_for_models_once(command: tuple[str, ...], box: StandIn, invoke: Invoke) -> None:
    done = invoke(*command)
    assert (done.exit_code, done.stderr) == (0, "")
    assert rounds(box) == 1
    if command != ("localrun", "refresh"):
        assert f"local/box/{QWEN}" in done.stdout
        assert invoke(*command).stdout == done.stdout
        # Our own lists look again.
        assert rounds(box) == 1 + (command[0] == "localrun")


@pytest.mark.parametrize("command", NAMED)
def test_command_with_a_name_asks_for_models_once(
    command: tuple[str, ...], box: StandIn, user_path: Path, invoke: Invoke
) -> None:
    done = invoke(*command, input="exit\n")
    assert done.exit_code == 0, done.output
    assert rounds(box) == 1


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "local-nosuch", "hi"),
        ("-m", "local-nosuch", "--async", "hi"),
        ("chat", "-m", "local/nosuch"),
        ("logs", "-m", "local-nosuch"),
        ("aliases", "set", "mine", "local-nosuch"),
        ("localrun", "which", "local-nosuch"),
    ],
)
def test_unknown_name_asks_for_models_once(
    command: tuple[str, ...], box: StandIn, user_path: Path, invoke: Invoke
) -> None:
    invoke(*command)
    assert rounds(box) == 1


def test_repeated_hook_asks_for_models_once(box: StandIn) -> None:
    for _ in range(3):
        assert {each.model.model_id for each in ours()} == OURS
        assert llm.get_model("local").model_id in OURS
        assert llm.get_async_model("local-smollm2").model_id == f"local/box/{SMOLLM}"
    assert rounds(box) == 1


def test_unknown_name_is_looked_for_even_if_the_snapshot_is_fresh(
    user_path: Path, invoke: Invoke
) -> None:
    served = [SMOLLM]

    def respond(request: Request) -> Iterable[bytes | float]:
        return ollama(*served)(request)

    with StandIn(respond) as box:
        point_at(user_path, box.url)
        assert QWEN not in invoke("models").stdout
        served.append(QWEN)
        assert invoke("-m", "local-qwen3", "hi").stdout.startswith(ANSWER)
        assert rounds(box) == 2


@pytest.mark.parametrize("name", ["local/box/Qwen3:8B", "local-QWEN3", "local/box/qwen3:8b"])
@pytest.mark.parametrize("command", [("prompt", "-n", "hi"), ("localrun", "which")])
def test_case_of_a_name_does_not_matter(
    name: str, command: tuple[str, ...], box: StandIn, invoke: Invoke
) -> None:
    arguments = [*command, name] if command[0] == "localrun" else [*command, "-m", name]
    outcome = invoke(*arguments)
    assert (outcome.exit_code, rounds(box)) == (0, 1)
    runs = command[0] == "prompt"
    assert (ANSWER if runs else f"local/box/{QWEN}") in outcome.output
    prompted = [each.body["model"] for each in box.requests if each.path == "/api/chat"]
    assert prompted == ([QWEN] if runs else [])


def test_tag_latest_may_be_left_out(box: StandIn, invoke: Invoke) -> None:
    for name in ("local/box/nomic-embed-text", "local/box/Nomic-Embed-Text"):
        assert f"local/box/{NOMIC}" in invoke("localrun", "which", name).output
    model = llm.get_embedding_model("local/box/nomic-embed-text")  # type: ignore[no-untyped-call]
    assert model.model_id == f"local/box/{NOMIC}"


def test_name_without_a_tag_is_the_model_that_is_called_so(user_path: Path) -> None:
    """An exact name comes before what another spelling of it would mean."""
    with StandIn(ollama("a", "a:latest", "A")) as server:
        point_at(user_path, server.url)
        by_id = {each.model.model_id: each.aliases for each in ours()}
    assert by_id.keys() == {"local/box/a", "local/box/a:latest", "local/box/A"}
    assert "local/box/a" not in [alias for aliases in by_id.values() for alias in aliases]


@pytest.mark.parametrize("snapshot", ["absent", "stale"])
def test_users_alias_for_a_local_model(
    snapshot: str, box: StandIn, user_path: Path, invoke: Invoke
) -> None:
    (user_path / "aliases.json").write_text(json.dumps({"mine": f"local/box/{SMOLLM}"}))
    if snapshot == "stale":
        invoke("models")
        age(user_path)
    assert invoke("-m", "mine", "hi").stdout.startswith(ANSWER)
    assert box.requests[-1].body["model"] == SMOLLM


def test_template_with_a_local_model(box: StandIn, user_path: Path, invoke: Invoke) -> None:
    (user_path / "templates").mkdir()
    (user_path / "templates" / "short.yaml").write_text("model: local-smollm2\nprompt: $input\n")
    assert invoke("-t", "short", "hi").stdout.startswith(ANSWER)
    assert box.requests[-1].body["model"] == SMOLLM


@pytest.mark.parametrize("way", ["default", "environment"])
def test_local_model_as_default(
    way: str, box: StandIn, user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "environment":
        monkeypatch.setenv("LLM_MODEL", "local-smollm2")
    else:
        assert invoke("models", "default", "local-smollm2").exit_code == 0
        assert (user_path / "default_model.txt").read_text() == f"local/box/{SMOLLM}"
    assert invoke("hi").stdout.startswith(ANSWER)
    assert box.requests[-1].body["model"] == SMOLLM


# What is registered


def test_every_model_has_an_async_model_with_its_id(box: StandIn) -> None:
    found = ours()
    assert {each.model.model_id for each in found} == OURS
    assert len(found) == len(OURS)
    for each in found:
        assert isinstance(each.async_model, AsyncLocalChat)
        assert each.async_model.model_id == each.model.model_id
        for name in names([each]):
            assert llm.get_model(name).model_id == each.model.model_id
            assert llm.get_async_model(name).model_id == each.model.model_id


def test_no_name_is_registered_twice(box: StandIn) -> None:
    given = names(llm.get_models_with_aliases())
    assert sorted(given) == sorted({*given})
    assert {"local", "local-qwen3-8b-q4-k-m", "local-qwen3-8b", "local-qwen3", "local-qwen"} < {
        *given
    }


def test_every_name_begins_with_local(box: StandIn) -> None:
    given = names(ours())
    assert given
    assert [n for n in given if n != "local" and not n.startswith(("local-", "local/"))] == []


def test_embedding_model_is_not_registered_for_chat(box: StandIn, invoke: Invoke) -> None:
    assert NOMIC not in invoke("models").stdout
    assert NOMIC in invoke("localrun", "models").stdout
    said = one_error(invoke("-m", f"local/box/{NOMIC}", "hi"))
    assert said == (
        f"local/box/{NOMIC} is an embedding model: it cannot answer prompts."
        f" Embed with it: `llm embed -m local/box/{NOMIC} -c 'text'`."
        " To chat: `llm -m local 'prompt'`."
    )


def test_names_of_other_plugins_are_not_registered_again(
    box: StandIn, invoke: Invoke, other_plugin: Callable[..., None]
) -> None:
    other_plugin({"local": [], "their-model": ["local-qwen3"], f"local/box/{SMOLLM}": []})
    taken = {"local", "local-qwen3", f"local/box/{SMOLLM}", "their-model"}
    assert taken & {*names(ours())} == set()
    assert {each.model.model_id for each in ours()} == {f"local/box/{QWEN}"}
    for name in taken:
        assert isinstance(llm.get_model(name), OtherModel)
        assert invoke("-m", name, "hi").stdout == "I am another plugin's\n"
    assert invoke("-m", "local-qwen3-8b", "hi").stdout.startswith(ANSWER)


def test_aliases_of_the_user_take_precedence(
    box: StandIn, user_path: Path, invoke: Invoke, other_plugin: Callable[..., None]
) -> None:
    other_plugin({"their-model": []})
    aliases = {"local": "their-model", "local-qwen3": f"local/box/{SMOLLM}", "local-qwen": "gone"}
    (user_path / "aliases.json").write_text(json.dumps(aliases))
    given = names(llm.get_models_with_aliases())
    assert sorted(given) == sorted({*given})
    assert invoke("-m", "local", "hi").stdout == "I am another plugin's\n"
    assert llm.get_model("local-qwen3").model_id == f"local/box/{SMOLLM}"
    with pytest.raises(llm.UnknownModelError):
        llm.get_model("local-qwen")


def test_models_with_options_and_as_json(box: StandIn, invoke: Invoke) -> None:
    options = invoke("models", "--options", "-q", "local").stdout
    assert options.count("LocalChat: local/box/") == len(OURS)
    assert "temperature: float" in options
    listed = json.loads(invoke("models", "--json", "-q", "local").stdout)
    assert {each["model_id"] for each in listed} == OURS
    everything = {each["model_id"] for each in json.loads(invoke("models", "--json").stdout)}
    assert everything > OURS


def test_registering_prints_nothing(box: StandIn, capfd: pytest.CaptureFixture[str]) -> None:
    llm.get_models_with_aliases()
    assert capfd.readouterr() == ("", "")


# A config.json that is not valid


BROKEN = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "an unknown setting": '{"ports": [1234]}',
    "a bad name": '{"endpoints": [{"name": "My Box", "url": "http://box"}]}',
    "a bad scheme": '{"endpoints": [{"name": "box", "url": "ftp://box"}]}',
    "no threads": '{"threads": 0}',
}


@pytest.fixture(params=[*BROKEN.values()], ids=[*BROKEN])
def broken(request: pytest.FixtureRequest, user_path: Path) -> str:
    """Makes config.json unusable and returns its path."""
    (user_path / "localrun" / "config.json").write_text(request.param)
    return str(user_path / "localrun" / "config.json")


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "local", "hi"),
        ("chat", "-m", "local-qwen"),
        ("localrun", "models"),
        ("localrun", "which", "local"),
        ("localrun", "refresh"),
    ],
)
def test_broken_configuration_is_one_error(
    command: tuple[str, ...], broken: str, invoke: Invoke
) -> None:
    assert one_error(invoke(*command)).startswith(f"{broken} is not valid: ")


def test_broken_configuration_does_not_affect_other_models(broken: str, invoke: Invoke) -> None:
    assert "No key found" in one_error(invoke("-m", "gpt-4o", "hi"))
    listed = invoke("models")
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert "gpt-4o" in listed.stdout


@pytest.mark.parametrize("name", ["local", "local/box/qwen3:8b", "./gone.gguf"])
def test_logs_can_be_read_if_the_configuration_is_broken(
    name: str, user_path: Path, invoke: Invoke
) -> None:
    if not name.endswith(".gguf"):
        (user_path / "localrun" / "config.json").write_text("{")
    done = invoke("logs", "-m", name)
    assert (done.exit_code, done.stderr) == (0, "")


def test_broken_configuration_of_a_real_command(user_path: Path, run_llm: Llm) -> None:
    (user_path / "localrun" / "config.json").write_text("{")
    done = run_llm("-m", "local", "hi")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("Error: ")
    assert "config.json is not valid" in done.stderr


@pytest.mark.parametrize("aliases", ["", "{", "[]", "null", '{"mine": 5}'])
def test_broken_aliases_are_ignored(aliases: str, box: StandIn, user_path: Path) -> None:
    from llm_localrun.registration import register_models

    (user_path / "aliases.json").write_text(aliases)
    registered: list[str] = []
    register_models(lambda model, *_, **__: registered.append(model.model_id), [])
    assert {*registered} == OURS


@pytest.mark.parametrize(
    "name", ["~nobody-of-this-name/m.gguf", "./missing.gguf", "a" * 5000 + ".gguf", "/"]
)
@pytest.mark.parametrize("command", ["prompt", "chat"])
def test_path_without_a_file_is_one_error(name: str, command: str, invoke: Invoke) -> None:
    assert one_error(invoke(command, "-m", name, input="hi\nexit\n"))


# Servers that time out or are off


def test_commands_wait_once_for_a_server_that_times_out(
    silent: Silent, user_path: Path, invoke: Invoke
) -> None:
    begun = time.monotonic()
    assert invoke("models").exit_code == 0
    assert time.monotonic() - begun < 0.25 + 2.0
    assert silent.connections() > 0
    assert invoke("models").exit_code == 0
    age(user_path)
    assert invoke("models").exit_code == 0
    assert silent.connections() == 0
    assert invoke("localrun", "refresh").exit_code == 0
    assert silent.connections() > 0


def test_real_commands_wait_once_for_a_server_that_times_out(
    silent: Silent, user_path: Path, run_llm: Llm
) -> None:
    assert run_llm("models").returncode == 0
    assert silent.connections() > 0
    age(user_path)
    done = run_llm("models")
    assert (done.returncode, done.stderr) == (0, "")
    assert silent.connections() == 0


@pytest.fixture
def gone(user_path: Path, invoke: Invoke) -> str:
    """The URL of an Ollama that was used before and is off now."""
    with StandIn(ollama(QWEN, SMOLLM)) as box:
        point_at(user_path, box.url)
        assert invoke("-m", "local", "hi").exit_code == 0
    age(user_path)
    return box.url


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "local", "hi"),
        ("-m", "local-qwen", "hi"),
        ("-m", f"local/box/{QWEN}", "hi"),
        ("-m", f"local/box/{QWEN}", "hi", "--async"),
        ("-c", "hi"),
        ("chat", "-m", "local"),
    ],
)
def test_running_a_model_whose_server_is_off_is_an_error(
    command: tuple[str, ...], gone: str, invoke: Invoke
) -> None:
    done = invoke(*command, input="hi\nexit\n")
    assert done.exit_code == 1
    said = f"Error: Ollama at {gone} does not answer. Start it with `ollama serve`.\n"
    assert done.stderr.endswith(said)
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "command",
    [
        ("models",),
        ("models", "-q", "qwen3"),
        ("localrun", "models"),
        ("logs", "-m", "local", "--json"),
        ("aliases",),
    ],
)
def test_model_whose_server_is_off_stays_listed(
    command: tuple[str, ...], gone: str, invoke: Invoke
) -> None:
    done = invoke(*command)
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"local/box/{QWEN}" in done.stdout


@pytest.mark.parametrize(
    "command", [("aliases", "set", "mine", "local-qwen"), ("models", "default", "local-qwen")]
)
def test_model_whose_server_is_off_can_be_named(
    command: tuple[str, ...], gone: str, user_path: Path, invoke: Invoke
) -> None:
    assert invoke(*command).exit_code == 0
    settled = [path.read_text() for path in user_path.iterdir() if path.suffix in (".json", ".txt")]
    assert any(f"local/box/{QWEN}" in text for text in settled)


# Keys


def locked(key: str, *names: str) -> Respond:
    """A vLLM that requires `key`."""

    def respond(request: Request) -> Iterable[bytes]:
        if request.headers.get("authorization") != f"Bearer {key}":
            return [json_reply({"error": "Unauthorized"}, 401)]
        if request.path == "/v1/models":
            entries = [{"id": name, "owned_by": "vllm", "max_model_len": 4096} for name in names]
            return [json_reply({"data": entries})]
        delta = {"index": 0, "delta": {"content": ANSWER}, "finish_reason": "stop"}
        return [events({"model": names[0], "choices": [delta]})]

    return respond


@pytest.fixture
def two_locked(user_path: Path) -> Iterator[tuple[StandIn, StandIn]]:
    """Two servers with different keys, both known to llm."""
    with StandIn(locked("first-key", "alpha")) as one, StandIn(locked("second-key", "beta")) as two:
        named = [
            {"name": "one", "url": one.url, "key": "one"},
            {"name": "two", "url": two.url, "key": "two"},
        ]
        configure(user_path, **CONFIG, endpoints=named)
        keys = {"one": "first-key", "two": "second-key", "openai": "other-key"}
        (user_path / "keys.json").write_text(json.dumps(keys))
        yield one, two


def test_key_is_sent_to_its_server_only(
    two_locked: tuple[StandIn, StandIn], user_path: Path, invoke: Invoke
) -> None:
    said = invoke("models").output
    for name in ("local-alpha", "local-beta"):
        done = invoke("-m", name, "hi")
        assert done.stdout == f"{ANSWER}\n"
        said += done.output
    said += invoke("logs", "--json", "-n", "0").output + invoke("localrun", "models").output
    sent = [{r.headers.get("authorization") for r in server.requests} for server in two_locked]
    assert sent == [{"Bearer first-key"}, {"Bearer second-key"}]
    kept = b"".join(
        path.read_bytes()
        for path in user_path.rglob("*")
        if path.is_file() and path.name != "keys.json"
    )
    for key in ("first-key", "second-key", "other-key"):
        assert key not in said
        assert key.encode() not in kept


def test_key_of_the_command_takes_precedence(
    two_locked: tuple[StandIn, StandIn], invoke: Invoke
) -> None:
    invoke("models")
    said = one_error(invoke("-m", "local-alpha", "--key", "wrong-key", "hi"))
    assert two_locked[0].requests[-1].headers["authorization"] == "Bearer wrong-key"
    assert "says: Unauthorized (HTTP 401)" in said
    assert "Give its key with --key" in said
    assert "wrong-key" not in said


@pytest.mark.parametrize("keys", [None, {}, {"one": "wrong"}])
def test_server_that_requires_another_key_is_skipped(
    keys: dict[str, str] | None,
    two_locked: tuple[StandIn, StandIn],
    user_path: Path,
    invoke: Invoke,
) -> None:
    (user_path / "keys.json").unlink()
    if keys is not None:
        (user_path / "keys.json").write_text(json.dumps(keys))
    done = invoke("models")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "local/" not in done.stdout
    assert rounds(two_locked[0]) == 1
    assert one_error(invoke("-m", "local", "hi"))


# Models given as paths


def test_model_given_as_a_path_stays_known(
    user_path: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf(tmp_path / "disk" / "mine.gguf")
    monkeypatch.chdir(tmp_path / "disk")
    assert invoke("aliases", "set", "mine", "./mine.gguf").exit_code == 0
    assert invoke("models", "default", "mine.gguf").exit_code == 0
    monkeypatch.chdir(tmp_path)
    for name in (None, "mine", "local-mine-gguf", "local/gguf/mine", "disk/mine.gguf"):
        catalogue._memory.clear()
        if name != "disk/mine.gguf":
            assert llm.get_model(name).model_id == "local/gguf/mine"
        else:
            assert invoke("models", "default", name).exit_code == 0
    assert (user_path / "default_model.txt").read_text() == "local/gguf/mine"


# The Python API


def test_prompt_from_python(box: StandIn) -> None:
    assert llm.get_model("local").prompt("hi").text().startswith(ANSWER)

    async def ask() -> str:
        return await llm.get_async_model("local-smollm2").prompt("hi").text()

    assert asyncio.run(ask()).startswith(ANSWER)
    assert [r.body["model"] for r in box.requests if r.path == "/api/chat"] == [QWEN, SMOLLM]


def test_no_servers_and_no_files(user_path: Path, invoke: Invoke) -> None:
    point_at(user_path, Off().url)
    done = invoke("models")
    assert (done.exit_code, done.stderr) == (0, "")
    assert ours() == []
    assert one_error(invoke("-m", "local", "hi")).startswith("No local model was found")
