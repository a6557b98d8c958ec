"""What a command waits for: nothing that it does not need, and what it needs until it answers."""

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import llm
import pytest

from llm_localrun.catalogue import get_catalogue
from llm_localrun.models import ServerStatus
from llm_localrun.name_cache import CachePolicy
from llm_localrun.servers import discover
from tests.conftest import Invoke, Llm, one_error
from tests.fakes.broken import Silent
from tests.fakes.http_server import Request, Respond, StandIn, json_reply, text, transcript
from tests.fakes.ollama import Ollama
from tests.fakes.vllm import vllm
from tests.support.busy import OLLAMA_MODELS, busy_processes, slow_servers
from tests.support.snapshots import age, point_at
from tests.support.trees import gguf

pytestmark = pytest.mark.usefixtures("user_path")

LONG_S = 60.0
"""More than any test may take: what waits for so long has not ended when it should."""


def slow(respond: Respond, seconds: float, path: str = "") -> Respond:
    """`respond`, which takes `seconds` for each reply, or for those to `path`."""

    def respond_late(request: Request) -> Iterator[bytes | float]:
        if path in ("", request.path):
            yield seconds
        yield from respond(request)

    return respond_late


def paths(box: StandIn) -> list[str]:
    return [request.path for request in box.requests]


@pytest.mark.parametrize(
    "name", ["local/box/qwen3:8b", "local-qwen3", "mine", "LOCAL/Box/QWEN3:8b", "Local-Qwen3"]
)
def test_known_model_goes_to_its_server_at_once(
    name: str, user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "PATIENT_S", 0.5)
    (user_path / "aliases.json").write_text(json.dumps({"mine": "local/box/qwen3:8b"}))
    with StandIn(Ollama(has=["qwen3:8b"])) as box, Silent() as silent:
        point_at(user_path, box.url)
        invoke("localrun", "refresh")
        age(user_path, 1e6)
        invoke("models")  # makes names.json
        point_at(user_path, box.url, silent.url)
        get_catalogue(CachePolicy.REFRESH)
        age(user_path, 1e6)
        silent.connections()
        box.requests.clear()
        for _ in range(2):
            assert invoke("-m", name, "hi").stdout == "Hello.\n"
        assert paths(box) == ["/api/chat"] * 2
        assert silent.connections() == 0


def test_known_model_is_waited_for_as_long_as_its_own_timeout(
    user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant in ("QUICK_S", "PATIENT_S"):
        monkeypatch.setattr(discover, constant, 0.1)
    fake, is_slow = Ollama(has=["qwen3:8b"]), False

    def respond(request: Request) -> Iterator[bytes | float]:
        if is_slow:
            yield 0.5
        yield from fake(request)

    with StandIn(respond) as box:
        point_at(user_path, box.url)
        invoke("localrun", "refresh")
        is_slow = True
        age(user_path)
        assert invoke("-m", "local/box/qwen3:8b", "hi").stdout == "Hello.\n"
        said = one_error(invoke("-m", "local/box/qwen3:8b", "-o", "timeout", "0.1", "hi"))
    assert "sent nothing for 0.1 seconds" in said


@pytest.mark.parametrize("name", ["local/box/qwen3:8b", "local-qwen3"])
def test_search_ends_when_the_model_is_found(
    name: str, user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "PATIENT_S", LONG_S)
    # Its details are not waited for either.
    respond = slow(Ollama(has=["qwen3:8b"]), LONG_S, "/api/show")
    with StandIn(respond) as box, Silent() as silent:
        point_at(user_path, box.url, silent.url)
        assert invoke("-m", name, "hi").stdout == "Hello.\n"


def test_best_model_is_chosen_when_every_server_has_answered(
    user_path: Path, invoke: Invoke
) -> None:
    with (
        StandIn(Ollama(has=["qwen3:0.6b"])) as fast,
        StandIn(slow(vllm(), 2 * discover.QUICK_S, "/v1/models")) as late,
    ):
        point_at(user_path, fast.url, late.url)
        assert invoke("-m", "local", "hi").stdout == "Hello.\n"
        assert "/v1/chat/completions" in paths(late)
        assert "/api/chat" not in paths(fast)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("-m", "local", "hi"), "No local model that is known by now is called 'local'"),
        (("-m", "local/box/m", "hi"), "No local model that is known by now is called"),
        (("localrun", "models"), "No model is known yet"),
        (("localrun", "show", "local-m"), "No local model that is known by now is called"),
    ],
)
def test_slow_server_is_named_instead_of_saying_that_nothing_is_here(
    command: tuple[str, ...],
    said: str,
    user_path: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discover, "PATIENT_S", 0.4)
    with Silent() as silent:
        point_at(user_path, silent.url)
        shown = invoke(*command).stderr
        answer = f"the server at {silent.url} accepts connections but did not answer within 0.4 s"
    assert said in shown
    assert answer in shown


def test_server_that_is_busy_for_a_moment_keeps_its_name_and_models(
    user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "PATIENT_S", 0.4)
    fake, is_hanging = Ollama(has=["qwen3:8b"]), False

    def respond(request: Request) -> Iterator[bytes | float]:
        if is_hanging:
            yield LONG_S
        yield from fake(request)

    with StandIn(respond) as box:
        point_at(user_path, box.url)
        invoke("localrun", "refresh")
        is_hanging = True
        done = invoke("localrun", "refresh")
        assert done.stdout.startswith("1 model: 1 on servers")
        assert f"Ollama at {box.url} accepts connections but did not answer" in done.stderr
        doctor = invoke("localrun", "doctor").stdout
        assert "has not answered yet, 1 model known" in doctor
        assert "restart" not in doctor


def test_model_that_its_server_lacks_is_dropped(user_path: Path, invoke: Invoke) -> None:
    """The reply is what a real Ollama says of a model that it does not have."""
    refused = transcript("unknown_model")[0].reply()
    fake, is_gone = Ollama(has=["qwen3:8b", "qwen3:4b"]), False

    def respond(request: Request) -> Iterable[bytes]:
        return [refused] if is_gone and request.path == "/api/chat" else fake(request)

    with StandIn(respond) as box:
        point_at(user_path, box.url)
        name = json.loads(refused.partition(b"\r\n\r\n")[2])["error"].split("'")[1]
        fake.has[0] = name
        invoke("localrun", "refresh")
        is_gone = True
        assert "HTTP 404" in one_error(invoke("-m", f"local/box/{name}", "hi"))
        kept = [model.id for model in get_catalogue(CachePolicy.CACHED).models]
        assert kept == ["local/box/qwen3:4b"]


def test_refusal_of_another_kind_drops_nothing(user_path: Path, invoke: Invoke) -> None:
    fake = Ollama(has=["qwen3:8b"])

    def respond(request: Request) -> Iterable[bytes]:
        is_chat = request.path == "/api/chat"
        return [json_reply({"detail": "Not Found"}, 404)] if is_chat else fake(request)

    with StandIn(respond) as box:
        point_at(user_path, box.url)
        invoke("localrun", "refresh")
        assert "HTTP 404" in one_error(invoke("-m", "local/box/qwen3:8b", "hi"))
    assert [m.id for m in get_catalogue(CachePolicy.CACHED).models] == ["local/box/qwen3:8b"]


LISTINGS: dict[str, Callable[[str], bool]] = {
    "localrun": lambda shown: "2: 0 on servers" in shown,
    "localrun models": lambda shown: "local/gguf/new" in shown,
    "localrun show local/gguf/new": lambda shown: "local/gguf/new" in shown,
    "localrun which local/gguf/new": lambda shown: "local/gguf/new" in shown,
    "localrun endpoints": lambda shown: "box" in shown,
}


@pytest.mark.parametrize("command", LISTINGS)
def test_own_lists_are_fresh(command: str, user_path: Path, run_llm: Llm) -> None:
    """In processes of their own, as a user runs them."""
    gguf(user_path / "localrun" / "models" / "old.gguf")
    assert "local/gguf/old" in run_llm("localrun", "models").stdout
    gguf(user_path / "localrun" / "models" / "new.gguf")
    with StandIn(Ollama(has=["qwen3:8b"])) as box:
        if command.endswith("endpoints"):
            point_at(user_path, box.url)
        done = run_llm(*command.split())
    assert done.returncode == 0, done.stderr
    assert LISTINGS[command](done.stdout)


def test_empty_catalogue_is_not_trusted(user_path: Path, run_llm: Llm) -> None:
    assert "local/" not in run_llm("models").stdout
    gguf(user_path / "localrun" / "models" / "new.gguf")
    assert "local/gguf/new" in run_llm("models").stdout


def test_python_api_finds_a_slow_server(user_path: Path) -> None:
    slow_list = slow(vllm(), 2 * discover.QUICK_S, "/v1/models")
    with StandIn(slow_list) as box:
        point_at(user_path, box.url)
        assert llm.get_model("local/box/Qwen/Qwen3-8B").prompt("hi").text() == "Hello."


@pytest.mark.parametrize("command", [("-m", "local/box/qwen3:8b", "hi"), ("-c", "hi")])
def test_server_that_the_user_has_removed_gets_no_prompt(
    command: tuple[str, ...], user_path: Path, invoke: Invoke
) -> None:
    with StandIn(Ollama(has=["qwen3:8b"])) as old, StandIn(Ollama(has=["qwen3:8b"])) as new:
        point_at(user_path, old.url)
        assert invoke("-m", "local/box/qwen3:8b", "hi").stdout == "Hello.\n"
        old.requests.clear()
        point_at(user_path, new.url)
        assert invoke(*command).stdout == "Hello.\n"
        assert old.requests == []


@pytest.mark.parametrize(
    ("respond", "said"),
    [
        (
            lambda _: [json_reply({"error": {"message": "Loading model"}}, 503)],
            "llama-server at {} is loading its model",
        ),
        (
            vllm("secret"),
            "vLLM at {} needs a key (`llm keys set localrun-box`)",
        ),
    ],
)
@pytest.mark.parametrize("command", [("-m", "local", "hi"), ("localrun", "models")])
def test_server_whose_models_are_not_known_yet_is_named(
    command: tuple[str, ...], respond: Respond, said: str, user_path: Path, invoke: Invoke
) -> None:
    with StandIn(respond) as box:
        point_at(user_path, box.url)
        assert said.format(box.url) in invoke(*command).stderr


def test_website_does_not_delay_the_best_model_again(user_path: Path, invoke: Invoke) -> None:
    """It was asked patiently once, and is not what a model server would be."""
    pages = slow(lambda _: [text("<html>", content_type="text/html")], 2 * discover.QUICK_S)
    with StandIn(Ollama(has=["qwen3:8b"])) as box, StandIn(pages) as site:
        point_at(user_path, box.url, site.url)
        for _ in range(3):
            assert invoke("-m", "local", "hi").exit_code == 0
            age(user_path)
        reports = get_catalogue(CachePolicy.CACHED).endpoints
    assert [report.waited_s for report in reports] == [discover.QUICK_S] * 2
    assert reports[1].status is ServerStatus.UNRECOGNIZED


# What there is instead


def embedder() -> Ollama:
    return Ollama(has=["nomic-embed-text:latest"], capabilities=("embedding",))


@pytest.mark.parametrize(
    ("has", "command", "problem", "remedy"),
    [
        (
            embedder(),
            ("-m", "local", "hi"),
            "No model on this machine can chat: there is only local/box/nomic-embed-text:latest.",
            "`llm localrun pull starter`",
        ),
        (
            embedder(),
            ("-m", "local-embed", "hi"),
            "local-embed is an embedding model: it cannot answer prompts.",
            "`llm embed -m local-embed -c 'text'`",
        ),
        (
            Ollama(has=["qwen3:8b"]),
            ("embed", "-m", "local-embed", "-c", "hi"),
            "No model on this machine embeds texts: there is only local/box/qwen3:8b.",
            "`llm localrun pull starter --embed`",
        ),
        (
            Ollama(has=["qwen3:8b"]),
            ("embed", "-m", "local-qwen3", "-c", "hi"),
            "local-qwen3 is a chat model: it does not embed texts.",
            "`llm -m local-qwen3 'prompt'`",
        ),
        (
            Ollama(has=["qwen3:8b"]),
            ("-m", "local-qwen3-14b", "hi"),
            "No local model is called 'local-qwen3-14b'. Nearest: local-qwen3",
            "`llm localrun pull ollama:qwen3:14b`",
        ),
        (
            vllm(),
            ("-m", "local-mistral-7b", "hi"),
            "No local model is called 'local-mistral-7b'. Nearest: ",
            "`llm localrun pull mistral 7b`",
        ),
        (
            Ollama(has=["qwen3:8b"]),
            ("-m", "local/ollama/qwen3:14b", "hi"),
            "No local model is called 'local/ollama/qwen3:14b'. Nearest: ",
            "`llm localrun pull ollama:qwen3:14b`",
        ),
    ],
)
def test_user_is_told_what_there_is_instead(
    has: Respond,
    command: tuple[str, ...],
    problem: str,
    remedy: str,
    user_path: Path,
    invoke: Invoke,
) -> None:
    with StandIn(has) as box:
        point_at(user_path, box.url)
        said = one_error(invoke(*command))
    assert said.startswith(problem)
    assert remedy in said


# A machine that is busy, with real processes


@pytest.fixture
def first_look(
    user_path: Path, run_llm: Llm
) -> Iterator[Callable[..., "subprocess.CompletedProcess[str]"]]:
    """Runs a command as the first one in a new user directory, with two slow servers."""
    with slow_servers() as (ollama, other):

        def run(*command: str) -> "subprocess.CompletedProcess[str]":
            for path in (user_path / "localrun").iterdir():
                path.unlink()
            point_at(user_path, ollama, other)
            return run_llm(*command)

        yield run


def test_first_look_on_a_busy_machine_misses_nothing(
    first_look: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    """`benchmarks/first_look.py` repeats this, and counts."""
    with busy_processes():
        for name in (f"local/box/{OLLAMA_MODELS[-1]}", "local/box1/Qwen/Qwen3-8B"):
            done = first_look("-m", name, "hi")
            assert (done.returncode, done.stdout) == (0, "Hello.\n"), done.stderr
        found = first_look("localrun", "refresh")
        assert found.stdout.startswith(f"{len(OLLAMA_MODELS) + 2} models"), found.stderr
        listed = json.loads(first_look("localrun", "models", "--json").stdout)
    assert {f"local/box/{name}" for name in OLLAMA_MODELS} < {each["id"] for each in listed}
