"""What llm expects of a plugin, in 45 numbered lines: one test, or a few, for each."""

import asyncio
import inspect
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import click
import httpx
import llm
import pytest
import sqlite_utils
from click.testing import CliRunner, Result
from llm.cli import cli
from llm.migrations import migrate
from llm.models import Conversation
from llm.parts import Message, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from llm.plugins import pm

from llm_localrun import catalogue, errors
from llm_localrun.chat.models import AsyncLocalChat, LocalChat, LocalEmbedding
from llm_localrun.chat.options import Options
from llm_localrun.engine.state import running
from llm_localrun.models import LocalModel
from llm_localrun.servers import discover
from llm_localrun.wire import http
from tests.conftest import Llm, put_starter
from tests.fakes.broken import Silent
from tests.fakes.http_server import Request, StandIn, events, transcript
from tests.fakes.lmstudio import LMStudio
from tests.fakes.says import Call, Says
from tests.support.contract import NAMES, SERVERS, call_ids, chain, found, respond_as, saying, sent
from tests.support.drive import WAYS, Outcome, ask, failure, served
from tests.support.trees import put_lmstudio_files
from tests.test_registration import age, point_at

# llm leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

in_every_way = pytest.mark.parametrize("way", WAYS)
at_every_server = pytest.mark.parametrize("kind", SERVERS)

STARTER = "local/gguf/SmolLM2-135M-Instruct.Q4_1"
THINKING = 'root ::= "<think>" [a-z ]{3,10} "</think>" [a-z ]{3,10}'


@pytest.fixture(scope="session")
def empty_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llm's database without a turn; to make a new one takes long."""
    path = tmp_path_factory.mktemp("log") / "logs.db"
    database = sqlite_utils.Database(path)
    migrate(database)  # type: ignore[no-untyped-call]
    database.close()
    return path


@pytest.fixture(autouse=True)
def surroundings(user_path: Path, empty_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not make the stand-ins late, and nothing may reach a real provider."""
    shutil.copy(empty_log, user_path)
    monkeypatch.setattr(discover, "DEADLINE", 10.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def command(*arguments: str, **settings: Any) -> Result:
    """An `llm` command in this process, which has found nothing yet."""
    catalogue._memory.clear()
    return CliRunner().invoke(cli, arguments, **settings)


def output(*arguments: str, **settings: Any) -> str:
    """What a command prints that has to succeed."""
    done = command(*arguments, **settings)
    assert done.exit_code == 0, done.output
    return done.stdout


def turns(count: int = 1) -> list[dict[str, Any]]:
    """The last turns in the log, the oldest first."""
    logged: list[dict[str, Any]] = json.loads(output("logs", "--json", "-n", str(count)))
    return logged


@dataclass(frozen=True)
class Backend:
    """A model that thinks and then answers, as the command line has it."""

    kind: str
    model: LocalModel
    options: dict[str, Any]
    server: StandIn | None = None

    @property
    def given(self) -> list[str]:
        """The options as a command takes them."""
        texts = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in self.options.items()
        }
        return [argument for each in texts.items() for argument in ("-o", *each)]

    @property
    def arguments(self) -> list[str]:
        return ["-m", self.model.id, *self.given]

    def ask(self, prompt: str, way: str = "sync", **more: Any) -> Outcome:
        return ask(self.model, prompt, way, **self.options, **more)


@pytest.fixture(autouse=True)
def models_of_lmstudio(user_path: Path, tmp_path: Path) -> None:
    """They lie on this machine, so that they may run."""
    put_lmstudio_files(tmp_path / "home")


@pytest.fixture(params=[*SERVERS, "engine"])
def backend(request: pytest.FixtureRequest, user_path: Path, empty_log: Path) -> Iterator[Backend]:
    """Each of the backends, as discovery finds it."""
    if request.param == "engine":
        user: Path = request.getfixturevalue("warm")
        shutil.copy(empty_log, user)
        # What is in the cache decides how the rest is cut into batches, and so the last digits.
        alike = {"temperature": 0, "extra": {"cache_prompt": False}}
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


def outcome_in_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# Registration


def test_line_01_import_of_the_plugin_is_light_and_without_io() -> None:
    code = """
import sys, click, llm
before, seen = set(sys.modules), []
sys.addaudithook(lambda name, arguments: seen.append((name, str(arguments[:1]))))
import llm_localrun.plugin
print(sorted(set(sys.modules) - before))
print([s for s in seen if s[0].startswith("socket") or s[0] == "open" and ".py" not in s[1]])
"""
    assert outcome_in_python(code) == "['llm_localrun', 'llm_localrun.plugin']\n[]\n"


def test_line_02_import_works_without_optional_packages(user_path: Path) -> None:
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
def test_line_03_registering_survives_servers(
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
def test_line_03_registering_survives_files(
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
def test_line_04_no_connection_for_what_needs_no_model(
    arguments: tuple[str, ...], box: StandIn, connections: list[Any]
) -> None:
    output(*arguments)
    assert connections == []


def test_line_05_no_connection_for_a_foreign_model(box: StandIn, connections: list[Any]) -> None:
    assert "No key found" in command("-m", "gpt-4o", "hi").stderr
    assert connections == []


def test_line_06_one_discovery_for_all_hooks(box: StandIn) -> None:
    for _ in range(3):
        llm.get_models_with_aliases()
        llm.get_embedding_models_with_aliases()
    assert [request.path for request in box.requests].count("/v1/models") == 1


def test_line_07_hanging_servers_take_bounded_time_once(
    user_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "DEADLINE", 0.25)
    with Silent() as first, Silent() as second:
        point_at(user_path, first.url, second.url, "http://127.0.0.1:1")
        begun = time.monotonic()
        llm.get_models_with_aliases()
        # The deadline, and what a busy machine takes to import and to start threads.
        assert time.monotonic() - begun < 0.25 + 1.0
        assert first.connections() > 0
        assert second.connections() > 0
        age(user_path)
        begun = time.monotonic()
        llm.get_models_with_aliases()
        assert time.monotonic() - begun < 0.25
        assert first.connections() == second.connections() == 0


class Foreign(llm.Model):
    """A model of another plugin."""

    model_id = "local-gemma4"

    def execute(self, *_: Any, **__: Any) -> Iterator[str]:
        yield "foreign"


def ours() -> list[Any]:
    return [each for each in llm.get_models_with_aliases() if isinstance(each.model, LocalChat)]


def test_line_08_ids_are_unique_stable_and_prefixed(box: StandIn, user_path: Path) -> None:
    class Other:
        @llm.hookimpl
        def register_models(self, register: Callable[..., None]) -> None:
            register(Foreign())

    first = {each.model.model_id: each.aliases for each in ours()}
    assert Foreign.model_id in [alias for aliases in first.values() for alias in aliases]
    catalogue._memory.clear()
    (user_path / "localrun" / "catalogue.json").unlink()
    other = Other()
    pm.register(other)
    try:
        again = ours()
        assert isinstance(llm.get_model(Foreign.model_id), Foreign)
    finally:
        pm.unregister(other)
    assert [each.model.model_id for each in again] == list(first)
    names = [name for each in again for name in (each.model.model_id, *each.aliases)]
    assert len(set(names)) == len(names)
    assert Foreign.model_id not in names
    assert all(name == "local" or name.startswith(("local-", "local/")) for name in names)


def test_line_09_every_model_has_its_twin(box: StandIn) -> None:
    models = ours()
    assert len(models) > 5
    assert all(isinstance(each.async_model, AsyncLocalChat) for each in models)
    assert all(each.async_model.model_id == each.model.model_id for each in models)
    assert all(each.async_model.local == each.model.local for each in models)


def test_line_10_models_stay_resolvable_when_their_server_is_off(user_path: Path) -> None:
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


def test_line_11_path_runs_and_is_continued(
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
        (("--tools",), True, False),
        (("--schemas",), True, True),
        (("--async",), True, True),
        (("-q", "gemma"), True, False),
    ],
)
def test_line_12_listings_are_truthful(
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


def test_line_13_two_instances_share_the_weights(plain: LocalModel, warm: Path) -> None:
    assert llm.get_model(STARTER) is not llm.get_model(STARTER)

    def prompt(_: int) -> str:
        return str(llm.get_model(STARTER).prompt("Hi", max_tokens=2, temperature=0).text())

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(prompt, range(4)))) == 1
    engines = [each for each in running(warm / "localrun/engine") if each.spec.path == plain.path]
    assert len(engines) == 1


# Execute


@pytest.mark.parametrize("model", [LocalChat, AsyncLocalChat])
def test_line_14_signature(model: type[LocalChat | AsyncLocalChat]) -> None:
    signature = inspect.signature(model.execute)
    assert list(signature.parameters) == [
        *("self", "prompt", "stream", "response", "conversation", "key")
    ]
    assert signature.parameters["key"].default is None


@in_every_way
def test_line_14_conversation_may_be_none(backend: Backend, way: str) -> None:
    assert backend.ask("Hi", way).text


class Unread(Conversation):
    """A conversation whose turns nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        assert name != "responses"
        return super().__getattribute__(name)


@at_every_server
def test_line_15_wire_messages_come_from_the_prompts_messages_alone(kind: str) -> None:
    with saying(kind, Says("Hello.")) as (local, server):
        model = LocalChat(local)
        messages = [llm.user("One"), llm.assistant("Two"), llm.user("Three")]
        prompt = llm.Prompt(None, model=model, messages=messages)  # type: ignore[no-untyped-call]
        response = llm.Response(prompt, model=model, stream=True)
        list(model.execute(prompt, True, response, Unread(model=model)))
    (body,) = sent(server)
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("user", "One"),
        ("assistant", "Two"),
        ("user", "Three"),
    ]


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cf"
    "c0f01f0005000201ff1a8d1b3c0000000049454e44ae426082"
)

HISTORY = [
    llm.system("Be brief."),
    llm.user("Look", llm.Attachment(content=PNG)),
    Message(
        role="assistant",
        parts=[
            ReasoningPart(text="Hm."),
            TextPart(text="I ask."),
            ToolCallPart(name="search", arguments={"q": 1}, tool_call_id="s", server_executed=True),
            ToolResultPart(name="search", output="x", tool_call_id="s", server_executed=True),
            ToolCallPart(name="f", arguments={"a": 1}, tool_call_id="1"),
        ],
    ),
    Message(
        role="tool",
        parts=[
            ToolResultPart(name="f", output="", exception="ValueError: no", tool_call_id="1"),
        ],
    ),
    llm.user("And?"),
]


@in_every_way
@at_every_server
def test_line_16_all_roles_and_parts(kind: str, way: str) -> None:
    with saying(kind, Says("Hello.")) as (model, server):
        ask(model, None, way, messages=HISTORY)
    image = llm.Attachment(content=PNG).base64_content()  # type: ignore[no-untyped-call]
    (body,) = sent(server)
    expected = {
        "ollama": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look", "images": [image]},
            {
                "role": "assistant",
                "content": "I ask.",
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "ValueError: no", "tool_name": "f", "tool_call_id": "1"},
            {"role": "user", "content": "And?"},
        ],
        "lmstudio": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
                ],
            },
            {
                "role": "assistant",
                "content": "I ask.",
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a": 1}'},
                    }
                ],
            },
            {"role": "tool", "content": "ValueError: no", "tool_call_id": "1"},
            {"role": "user", "content": "And?"},
        ],
    }
    assert body["messages"] == expected[kind]


@in_every_way
def test_line_17_empty_prompt(backend: Backend, way: str) -> None:
    assert backend.ask("", way).text


@in_every_way
@at_every_server
def test_line_17_attachment_alone(kind: str, way: str) -> None:
    with saying(kind, Says("A dot.")) as (model, server):
        outcome = ask(model, "", way, attachments=[llm.Attachment(content=PNG)])
    assert outcome.text == "A dot."
    (message,) = sent(server)[0]["messages"]
    assert "images" in message or [part["type"] for part in message["content"]] == ["image_url"]


@in_every_way
@at_every_server
def test_line_17_tool_results_alone(kind: str, way: str) -> None:
    results = [llm.ToolResult(name="f", output="11 C", tool_call_id="1")]
    with saying(kind, Says("Cold.")) as (model, server):
        outcome = ask(model, None, way, messages=HISTORY[:3], tool_results=results)
    assert outcome.text == "Cold."
    last = sent(server)[0]["messages"][-1]
    assert (last["role"], last["content"], last["tool_call_id"]) == ("tool", "11 C", "1")


@pytest.mark.parametrize(
    ("arguments", "systems"),
    [
        (("-c", "And?"), ["Be brief."]),
        (("-c", "-s", "Be long.", "And?"), ["Be long."]),
        (("-c", "-s", "Be brief.", "And?"), ["Be brief."]),
    ],
)
def test_line_18_new_system_prompt_takes_the_place_of_the_first(
    arguments: tuple[str, ...], systems: list[str], box: StandIn
) -> None:
    output("-m", "local-gemma4", "-s", "Be brief.", "Hi")
    output(*arguments)
    messages = sent(box)[1]["messages"]
    assert [m["content"] for m in messages if m["role"] == "system"] == systems
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]


@in_every_way
@at_every_server
@pytest.mark.parametrize("type_", [None, "image/png"])
def test_line_19_attachment_of_the_history_that_is_gone(
    type_: str | None, kind: str, way: str, tmp_path: Path
) -> None:
    path = tmp_path / "gone.png"
    attachment = llm.Attachment(path=str(path), type=type_)
    messages = [llm.user("Look", attachment), llm.user("And?")]
    with saying(kind) as (model, server):
        said = failure(lambda: ask(model, None, way, messages=messages))
    assert said == f"{path} cannot be read: No such file or directory. Attach it anew."
    assert server.requests == []


@in_every_way
def test_line_19_attachment_of_the_history_for_a_model_that_is_blind(
    plain: LocalModel, way: str
) -> None:
    said = failure(lambda: ask(plain, None, way, messages=HISTORY[1:2]))
    assert "image/png" in said
    assert "It takes text only" in said


def lasting(outcome: Outcome) -> Outcome:
    """`outcome` without what differs from time to time."""
    facts = {k: v for k, v in (outcome.json or {}).items() if "second" not in k and "time" not in k}
    facts.pop("cached_tokens", None)
    return replace(outcome, json=facts, details=None)


def test_line_20_streamed_or_not_is_the_same(backend: Backend) -> None:
    first, *others = [lasting(backend.ask("Hi", way)) for way in WAYS]
    assert [part["type"] for part in first.parts] == ["reasoning", "text"]
    assert others == [first] * 3


def test_line_20_recorded_replies_are_the_same() -> None:
    outcomes = []
    for way in WAYS:
        name = "chat_nostream" if "unstreamed" in way else "chat_stream"
        with StandIn(lambda _, name=name: [transcript(name)[0].reply()]) as server:  # type: ignore[misc]
            outcomes.append(lasting(ask(served(server.url, "ollama"), "Hi", way)))
    assert outcomes == [outcomes[0]] * 4
    assert (outcomes[0].text, outcomes[0].input) == ("The capital of France is Paris.", 16)


@pytest.mark.parametrize("stream", [True, False])
def test_line_21_texts_and_thinking_are_events(backend: Backend, stream: bool) -> None:
    response = LocalChat(backend.model).prompt("Hi", stream=stream, **backend.options)
    received = list(response.stream_events())  # type: ignore[no-untyped-call]
    kinds = [event.type for event in received]
    assert set(kinds) == {"reasoning", "text"}
    assert kinds == sorted(kinds)
    assert all(isinstance(event.chunk, str) and event.chunk for event in received)


@in_every_way
@pytest.mark.parametrize("place", ["reasoning_content", "reasoning", "think", "unopened think"])
def test_line_21_thinking_wherever_it_comes(place: Any, way: str) -> None:
    server = LMStudio(lambda _: Says("Hello.", reasoning="Hm."), reasoning_in=place)
    with StandIn(server) as box:
        model = served(box.url, "lmstudio", NAMES["lmstudio"], capabilities=("thinking",))
        outcome = ask(model, "Hi", way)
    assert (outcome.reasoning, outcome.text) == ("Hm.", "Hello.")


def fragment(index: int, id_: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    call = {"index": index, "id": id_, "function": {"name": name, "arguments": arguments}}
    return {"choices": [{"delta": {"tool_calls": [call]}}]}


@pytest.mark.parametrize("way", ["sync", "async"])
def test_line_22_interleaved_calls_are_taken_apart(way: str) -> None:
    interleaved = events(
        fragment(0, "a", "f", '{"n'),
        fragment(1, "b", "f", ""),
        fragment(0, None, None, '": 1'),
        fragment(1, None, None, '{"n": 2}'),
        fragment(0, None, None, "}"),
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
    )
    done = events({"choices": [{"delta": {"content": "3"}, "finish_reason": "stop"}]})
    replies = iter([interleaved, done])

    def f(n: int) -> int:
        return n

    with StandIn(lambda _: [next(replies)]) as server:
        first, second = chain(served(server.url, "vllm"), "Add", way, tools=[f])
    assert call_ids(first) == ["a", "b"]
    assert [call.arguments for call in first.tool_calls()] == [{"n": 1}, {"n": 2}]
    assert [result.output for result in second.prompt.tool_results] == ["1", "2"]


@in_every_way
def test_line_23_malformed_arguments_give_an_error_result(way: str) -> None:
    def f(n: int) -> int:
        return n

    with saying("lmstudio", Says(calls=(Call("f", '{"n": '),)), Says("Oh.")) as (model, server):
        _, second = chain(model, "Add", way, tools=[f])
    assert second.text() == "Oh."
    result = sent(server)[1]["messages"][-1]
    assert result["content"] == 'Error: the arguments are not a JSON object: {"n": '


@in_every_way
@at_every_server
def test_line_24_calls_are_in_the_messages_once(kind: str, way: str) -> None:
    def f() -> str:
        return "done"

    with saying(kind, Says(calls=(Call("f"), Call("f"))), Says("Oh.")) as (model, _):
        first, _ = chain(model, "Do", way, tools=[f])
    assert len(call_ids(first)) == 2


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize("way", ["sync", "async unstreamed"])
def test_line_25_schema_is_enforced(plain: LocalModel, way: str) -> None:
    outcome = ask(plain, "Hi", way, schema=SCHEMA, temperature=0, max_tokens=40)
    assert isinstance(json.loads(outcome.text)["a"], int)


@in_every_way
@at_every_server
def test_line_25_schema_of_the_question_holds_in_turns_of_tools(kind: str, way: str) -> None:
    def f() -> str:
        return "done"

    with saying(kind, Says(calls=(Call("f"),)), Says('{"a": 1}')) as (model, server):
        chain(model, "Do", way, tools=[f], schema=SCHEMA)
    schemas = [
        body.get("format") or body["response_format"]["json_schema"]["schema"]
        for body in sent(server)
    ]
    assert schemas == [SCHEMA, SCHEMA]


def test_line_26_hidden_reasoning_is_kept_and_not_shown(backend: Backend) -> None:
    shown = command(*backend.arguments, "Hi")
    hidden = command(*backend.arguments, "Hi", "-R")
    assert shown.stdout == hidden.stdout
    first, second = turns(2)
    assert first["reasoning"] == second["reasoning"] != ""
    assert first["reasoning"] in shown.stderr
    assert hidden.stderr == ""
    if backend.server is not None:
        # Nothing has to be asked for that is not to be shown.
        asked, asked_again = sent(backend.server)
        assert asked == asked_again


@in_every_way
def test_line_27_usage_and_who_answers(backend: Backend, way: str) -> None:
    outcome = backend.ask("Hi", way)
    assert outcome.input is not None
    assert outcome.output is not None
    assert outcome.input > 0
    assert outcome.output > 0
    assert all(outcome.details.values()) if outcome.details else outcome.details is None
    assert outcome.resolved_model == backend.model.name
    if backend.kind == "lmstudio":
        assert outcome.details == {"reasoning_tokens": 1}


@in_every_way
@at_every_server
def test_line_28_response_json_is_small_and_safe(kind: str, way: str) -> None:
    with saying(kind, Says("A dot.")) as (model, _):
        outcome = ask(model, "Look", way, attachments=[llm.Attachment(content=PNG)])
    facts = json.loads(json.dumps(outcome.json, allow_nan=False))
    assert facts["finish_reason"] == "stop"
    assert facts["time_to_first_token"] >= 0
    assert llm.Attachment(content=PNG).base64_content() not in json.dumps(facts)  # type: ignore[no-untyped-call]
    assert not hasattr(LocalChat(model), "json_replacements")


def test_line_28_engine_tells_its_timings(plain: LocalModel) -> None:
    facts = ask(plain, "Hi", temperature=0, max_tokens=2).json
    assert facts is not None
    assert facts["finish_reason"] == "length"
    assert facts["generation_tokens_per_second"] > 0


@pytest.mark.parametrize("way", ["sync", "async unstreamed"])
def test_line_29_parts_carry_no_metadata(backend: Backend, way: str) -> None:
    assert all("provider_metadata" not in part for part in backend.ask("Hi", way).parts)


@at_every_server
def test_line_29_foreign_metadata_stays_where_it_is(kind: str) -> None:
    part = TextPart(text="Two", provider_metadata={"openai": {"id": "msg_1"}})
    messages = [llm.user("One"), Message(role="assistant", parts=[part]), llm.user("Three")]
    with saying(kind, Says("Hello.")) as (model, server):
        response = LocalChat(model).prompt(messages=messages)
        response.text()
    assert "msg_1" not in json.dumps(sent(server))
    assert response.to_dict()["prompt"]["messages"][1]["parts"][0]["provider_metadata"] == {
        "openai": {"id": "msg_1"}
    }


def test_line_30_options(box: StandIn) -> None:
    taken = set(inspect.signature(Conversation.prompt).parameters)
    taken |= set(inspect.signature(Conversation.chain).parameters)
    for name, field in Options.model_fields.items():
        assert name not in taken
        assert field.default is None
        assert field.description
    assert {each.model.Options for each in ours()} == {Options}
    assert all(each.async_model.Options is Options for each in ours())


def test_line_30_options_are_logged_as_they_were_given(box: StandIn) -> None:
    given = ("-o", "temperature", "0.5", "-o", "stop", "x", "-o", "keep_alive", "10m")
    output("-m", "local-gemma4", "hi", *given, "-o", "extra", '{"a": 1}')
    assert turns()[0]["options_json"] == {
        "temperature": 0.5,
        "stop": ["x"],
        "keep_alive": 600.0,
        "extra": {"a": 1},
    }
    output("-m", "local-gemma4", "hi")
    assert turns()[0]["options_json"] == {}


def test_line_31_stored_options_are_coerced(box: StandIn) -> None:
    for name, value in (("temperature", "0.5"), ("seed", "7"), ("stop", "x")):
        output("models", "options", "set", "local-gemma4", name, value)
    assert "temperature: 0.5" in output("models", "options", "show", "local-gemma4")
    output("-m", "local-gemma4", "hi")
    body = sent(box)[0]
    assert (body["temperature"], body["seed"], body["stop"]) == (0.5, 7, ["x"])


@pytest.mark.parametrize("source", ["--key", "keys.json", "environment", "none"])
def test_line_32_key_is_optional_and_for_its_server(
    source: str, user_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: tuple[str, ...] = ()
    with StandIn(LMStudio()) as server, StandIn(LMStudio()) as other:
        point_at(user_path, server.url, other.url)
        if source == "--key":
            arguments = ("--key", "secret")
        elif source == "keys.json":
            output("keys", "set", "localrun-box", "--value", "secret")
        elif source == "environment":
            monkeypatch.setenv("LM_API_TOKEN", "secret")
        output("-m", f"local/box/{NAMES['lmstudio']}", "hi", *arguments)
    chat = server.requests[-1]
    assert chat.path == "/v1/chat/completions"
    assert chat.headers.get("authorization") == (None if source == "none" else "Bearer secret")
    assert not any("authorization" in request.headers for request in other.requests)


def leaves(error: type[Exception]) -> Iterator[type[Exception]]:
    yield error
    for below in error.__subclasses__():
        yield from leaves(below)


def test_line_33_every_error_is_one_for_llm_and_for_click() -> None:
    ours = {error for error in vars(errors).values() if inspect.isclass(error)}
    assert len(ours & set(leaves(errors.LocalRunError))) > 10
    for error in leaves(errors.LocalRunError):
        assert issubclass(error, llm.ModelError)
        assert issubclass(error, click.ClickException)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "local-gemma4", "hi"),
        ("-m", "local-gemma4", "hi", "--async"),
        ("-m", "local-gemma4", "hi", "--no-stream"),
        ("chat", "-m", "local-gemma4"),
        ("embed", "-m", "local-nomic-embed-text", "-c", "hi"),
    ],
)
def test_line_33_failures_say_what_to_do(arguments: tuple[str, ...], user_path: Path) -> None:
    with StandIn(LMStudio()) as server:
        point_at(user_path, server.url)
        output("localrun", "refresh")
    done = command(*arguments, input="hi\n")
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert f"Error: LM Studio at {server.url} does not answer. Start its server" in done.stderr


def slow(_: Any = None) -> Says:
    return Says("word " * 1000, pause=0.01)


def test_line_34_closing_a_response_hangs_up() -> None:
    with StandIn(LMStudio(slow)) as server:
        received = iter(LocalChat(served(server.url, "lmstudio", NAMES["lmstudio"])).prompt("Hi"))
        next(received)
        received.close()  # type: ignore[attr-defined]
        assert server.closed_early.wait(5)


def test_line_34_cancelling_a_task_hangs_up() -> None:
    async def cancelled(model: LocalModel) -> None:
        task = asyncio.ensure_future(AsyncLocalChat(model).prompt("Hi").text())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with StandIn(LMStudio(slow)) as server:
        asyncio.run(cancelled(served(server.url, "lmstudio", NAMES["lmstudio"])))
        assert server.closed_early.wait(5)


def is_idle(user: Path, path: str | None) -> bool:
    engines = [engine for engine in running(user / "localrun/engine") if engine.spec.path == path]
    for engine in engines:
        headers = {"Authorization": f"Bearer {engine.key}"}
        slots = httpx.get(f"{engine.url}/slots", headers=headers).json()
        if any(slot["is_processing"] for slot in slots):
            return False
    return True


def test_line_34_closing_a_response_stops_the_engine(plain: LocalModel, warm: Path) -> None:
    response = LocalChat(plain).prompt("Hi", extra={"ignore_eos": True})
    received = iter(response)
    next(received)
    assert not is_idle(warm, plain.path)
    received.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while not is_idle(warm, plain.path):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("arguments", [("-m", "local-gemma4", "Hi"), ("chat", "-m", "local")])
def test_line_35_interrupted_answer_is_kept(arguments: tuple[str, ...], user_path: Path) -> None:
    """What a real Ctrl-C does to real commands is test_interruption's business."""
    server = LMStudio(slow)

    def respond(request: Request) -> Iterator[bytes | float]:
        for count, piece in enumerate(server(request)):
            if request.path.endswith("completions") and count == 20:
                os.kill(os.getpid(), signal.SIGINT)
            yield piece

    with StandIn(respond) as box:
        point_at(user_path, box.url)
        done = command(*arguments, input="Hi\nexit\n")
    assert done.exit_code == 0, done.output
    (turn,) = turns()
    assert turn["response_json"]["finish_reason"] == "interrupted"
    assert turn["response"].startswith("word word")
    assert turn["response"] in done.stdout


def echoing(body: dict[str, Any]) -> Says:
    return Says(f"{body['messages'][-1]['content']} " * 10, pause=0.01)


def test_line_36_many_at_once_do_not_mix_and_do_not_block() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    async def all_at_once(model: LocalModel) -> list[str]:
        ticker = asyncio.create_task(tick())
        prompts = (AsyncLocalChat(model).prompt(f"<{n}>").text() for n in range(8))
        texts = await asyncio.gather(*prompts)
        ticker.cancel()
        return list(texts)

    with StandIn(LMStudio(echoing)) as server:
        texts = asyncio.run(all_at_once(served(server.url, "lmstudio", NAMES["lmstudio"])))
    assert texts == [f"<{n}> " * 10 for n in range(8)]
    assert ticks > 10


def test_line_36_many_at_once_on_the_engine(plain: LocalModel) -> None:
    async def text(number: int) -> str:
        grammar = f'root ::= "answer {number}"'
        return str(await AsyncLocalChat(plain).prompt("Hi", grammar=grammar).text())

    async def all_at_once() -> list[str]:
        return list(await asyncio.gather(*map(text, range(6))))

    assert asyncio.run(all_at_once()) == [f"answer {number}" for number in range(6)]


def test_line_37_nothing_is_kept_between_turns_but_the_engines_prefix(plain: LocalModel) -> None:
    model = LocalChat(plain)
    assert model.local == plain
    state = dict(vars(model))
    conversation = model.conversation()
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 4}
    first = conversation.prompt("My name is Ada. " * 20, **options)
    first.text()
    second = conversation.prompt("What is my name?", **options)
    second.text()
    # Without a conversation, and after another prompt has been in between.
    model.prompt("Something else entirely", **options).text()
    reply = first.reply("What is my name?", options=options)
    assert reply.text() == second.text()
    for response in (second, reply):
        assert response.input_tokens == second.input_tokens
        assert (response.token_details or {})["cached_tokens"] >= first.input_tokens
    assert vars(model) == state


@in_every_way
def test_line_38_no_proxy_and_no_context_for_this_machine(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("an SSL context was made")

    monkeypatch.setattr(ssl, "create_default_context", refused)
    with saying("lmstudio", Says("Hello.")) as (model, _), Silent() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert ask(model, "Hi", way).text == "Hello."
        assert proxy.connections() == 0


def test_line_38_connecting_and_reading_have_times_of_their_own() -> None:
    call = http.Call("http://127.0.0.1:1", {}, "Box", "Start it", read_timeout=300)
    with http._client(call, httpx.Client) as client:
        assert client.timeout.read == 300
        assert client.timeout.connect == http.CONNECT_TIMEOUT < 10


def test_line_39_noise_of_the_engine_stays_in_its_log(
    starter_model: Path, user_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put_starter(user_path, starter_model)
    model = found(STARTER)
    ask(model, "Hi", max_tokens=2)
    failure(lambda: ask(model, "Hi", grammar="root ::= nonsense |"))
    failure(lambda: ask(model, "Hi", schema={"type": "object", "properties": {"a": {"$ref": "#"}}}))
    assert capfd.readouterr() == ("", "")
    (log,) = (user_path / "localrun/engine").glob("*.log")
    assert log.stat().st_size > 0


def test_line_40_nothing_is_left_behind(starter_model: Path, run_llm: Llm, user_path: Path) -> None:
    put_starter(user_path, starter_model)
    threads = threading.active_count()
    options = ("-o", "max_tokens", "2", "-o", "keep_alive", "0")
    assert run_llm("-m", "local", "Hi", *options).returncode == 0
    folder = user_path / "localrun/engine"
    deadline = time.monotonic() + 10
    while list(folder.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert threading.active_count() == threads


# Embeddings


def test_line_41_embedding_takes_any_iterable_lazily(box: StandIn) -> None:
    model: Any = llm.get_embedding_model("local-nomic-embed-text")  # type: ignore[no-untyped-call]
    assert isinstance(model, LocalEmbedding)
    assert (model.supports_text, model.supports_binary, model.batch_size) == (True, False, 32)
    texts = [f"text {number}" for number in range(5)]
    expected = list(model.embed_batch(texts))
    assert all(type(number) is float for vector in expected for number in vector)
    assert len({tuple(vector) for vector in expected}) == 5
    for items in (iter(texts), tuple(texts), (text for text in texts), dict.fromkeys(texts)):
        vectors = model.embed_batch(items, key=None)
        assert iter(vectors) is vectors
        assert list(vectors) == expected


def test_line_42_commands_that_embed(box: StandIn, tmp_path: Path) -> None:
    model = ("-m", "local-nomic-embed-text")
    assert len(json.loads(output("embed", *model, "-c", "hello"))) == 8
    items = tmp_path / "items.json"
    items.write_text(json.dumps([{"id": n, "content": f"text {n}"} for n in range(3)]))
    output("embed-multi", "texts", str(items), *model, "--store")
    (nearest,) = json.loads(output("similar", "texts", "-c", "text 1", "-n", "1"))["id"]
    assert nearest == "1"


# Logs


def test_line_43_log_of_every_backend(backend: Backend) -> None:
    output(*backend.arguments, "One")
    output("-c", "Two", *backend.given)
    first, second = turns(2)
    assert first["conversation_id"] == second["conversation_id"]
    for turn in (first, second):
        assert turn["model"] == backend.model.id
        assert turn["resolved_model"] == backend.model.name
        assert turn["reasoning"]
        assert turn["response"]
        assert turn["input_tokens"] > 0
        assert turn["output_tokens"] > 0
    shown = output("logs", "-n", "2", "-u")
    for said in ("One", "Two", first["reasoning"], first["response"], "Token usage"):
        assert said in shown
    assert f"{first['input_tokens']} input" in shown
    assert len(json.loads(output("logs", "--json", "-c"))) == 2
    assert len(json.loads(output("logs", "--json", "-m", backend.model.id))) == 2
    if backend.server is not None:
        assert [m["content"] for m in sent(backend.server)[1]["messages"]] == [
            *("One", "Hello.", "Two")
        ]


FUNCTION = "def f(n: int) -> int:\n    return n + 1\n"


@at_every_server
def test_line_43_log_of_tools(kind: str, user_path: Path) -> None:
    replies = iter([Says(calls=(Call("f", {"n": 1}),)), Says("Two.")])
    with StandIn(respond_as(kind, lambda _: next(replies))) as server:
        point_at(user_path, server.url)
        output("-m", f"local/box/{NAMES[kind]}", "--functions", FUNCTION, "Add")
    first, second = turns(2)
    (call,) = first["tool_calls"]
    (result,) = second["tool_results"]
    assert (call["name"], call["arguments"], result["output"]) == ("f", {"n": 1}, "2")
    assert call["tool_call_id"] == result["tool_call_id"] is not None
    shown = output("logs", "-n", "2")
    assert "n: `1`" in shown
    assert str(call["tool_call_id"]) in shown


@dataclass(frozen=True)
class RoundTrip:
    """A response, what its messages are after a round trip, and the reply to what came back."""

    first: Any
    again: list[Message]
    model_id: str
    second: Any


def round_trip(backend: Backend, stream: bool) -> RoundTrip:
    first = LocalChat(backend.model).prompt("One", stream=stream, **backend.options)
    first.text()
    again = llm.Response.from_dict(json.loads(json.dumps(first.to_dict())))
    second = again.reply("Two", options=backend.options)
    second.text()
    return RoundTrip(first, again.messages(), again.model.model_id, second)


async def round_trip_async(backend: Backend, stream: bool) -> RoundTrip:
    first = AsyncLocalChat(backend.model).prompt("One", stream=stream, **backend.options)
    await first.text()
    again = llm.AsyncResponse.from_dict(json.loads(json.dumps(first.to_dict())))
    second = await again.reply("Two", options=backend.options)
    await second.text()
    return RoundTrip(first, await again.messages(), again.model.model_id, second)


@in_every_way
def test_line_44_round_trip(backend: Backend, way: str) -> None:
    stream = "unstreamed" not in way
    if way.startswith("sync"):
        trip = round_trip(backend, stream)
    else:
        trip = asyncio.run(round_trip_async(backend, stream))
    database = sqlite_utils.Database(Path(str(llm.user_dir())) / "logs.db")  # type: ignore[no-untyped-call]
    for response in (trip.first, trip.second):
        response.log_to_db(database)
    database.close()
    assert trip.model_id == backend.model.id
    (message,) = trip.again
    assert [part.to_dict()["type"] for part in message.parts] == ["reasoning", "text"]
    assert [each.to_dict() for each in trip.second.prompt.messages[:2]] == [
        *(each.to_dict() for each in trip.first.prompt.messages),
        message.to_dict(),
    ]
    first, second = turns(2)
    assert (first["prompt"], second["prompt"]) == ("One", "Two")
    for turn in (first, second):
        assert turn["reasoning"]
        assert turn["resolved_model"] == backend.model.name
        assert turn["input_tokens"] > 0


# Tests


def test_line_45_tests_are_isolated(tmp_path: Path, user_path: Path) -> None:
    assert Path(str(llm.user_dir())) == user_path  # type: ignore[no-untyped-call]
    assert Path.home().is_relative_to(tmp_path)
    assert found_ids() == []


def found_ids() -> list[str]:
    return [each.model.model_id for each in ours()]


def test_line_45_nothing_but_this_machine_is_connected_to(
    backend: Backend, connections: list[Any]
) -> None:
    for way in WAYS:
        backend.ask("Hi", way)
    output(*backend.arguments, "Hi")
    output("models")
    assert connections
    assert {address[0] for address in connections} == {"127.0.0.1"}
