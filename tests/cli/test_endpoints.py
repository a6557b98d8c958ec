"""`llm localrun endpoints`: adding, listing and removing servers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_localrun.config import read_config
from llm_localrun.models import ServerStatus
from llm_localrun.servers import discover
from tests.conftest import CONFIG, Invoke, configure, one_error
from tests.fakes.broken import Off, ServerFactory, Silent, website
from tests.fakes.http_server import Respond, StandIn
from tests.fakes.llama_server import OPEN, llama_router_of_folder, llama_server
from tests.fakes.mlx import mlx_without_cache
from tests.fakes.ollama import Ollama
from tests.fakes.vllm import vllm
from tests.support.outward import Guard

IDS = ["local/box/Qwen/Qwen3-8B", "local/box/sql-lora"]


@pytest.fixture(autouse=True)
def generous_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the servers of these tests may be slow."""
    monkeypatch.setattr(discover, "QUICK_S", 10.0)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(vllm()) as server:
        yield server


def test_endpoint_is_added_listed_and_removed(server: StandIn, invoke: Invoke) -> None:
    added = invoke("localrun", "endpoints", "add", "box", f"{server.url}/v1/")
    assert (added.exit_code, added.stderr) == (0, "")
    assert added.stdout == (f"Added box: {server.url}\nvLLM 0.33.0, 2 models: {IDS[0]}, {IDS[1]}\n")
    assert json.loads(invoke("localrun", "endpoints", "list", "--json").stdout) == [
        {
            "name": "box",
            "kind": "vllm",
            "url": server.url,
            "key": "localrun-box",
            "added": True,
            "status": ServerStatus.ANSWERS,
            "version": "0.33.0",
            "models": IDS,
        }
    ]
    listed = invoke("localrun", "endpoints").stdout.splitlines()
    assert [line.split()[:4] for line in listed] == [
        ["name", "url", "status", "models"],
        ["box", server.url, "answers", "2"],
    ]
    assert invoke("localrun", "endpoints", "remove", "box").stdout == "Removed box\n"
    assert read_config().endpoints == ()
    assert json.loads(invoke("localrun", "models", "--json").stdout) == []


@pytest.mark.parametrize(
    ("respond", "said"),
    [
        (
            mlx_without_cache(),
            "mlx_lm.server, 0 models. It lists nothing without the Hugging Face cache:"
            " `mkdir -p ~/.cache/huggingface/hub`",
        ),
        (Ollama(), "Ollama 0.32.15, 0 models"),
    ],
)
def test_server_that_lists_nothing(respond: Respond, said: str, invoke: Invoke) -> None:
    with StandIn(respond) as server:
        added = invoke("localrun", "endpoints", "add", "box", server.url)
    assert added.stdout.splitlines()[1:] == [said]


def test_context_of_a_model_that_a_router_has_not_loaded(invoke: Invoke) -> None:
    with StandIn(llama_router_of_folder("/m/tiny.gguf")) as server:
        invoke("localrun", "endpoints", "add", "box", server.url)
        card = invoke("localrun", "show", "local/box/tiny").stdout
        table = invoke("localrun", "models").stdout
    assert "context      1,024 tokens by default\n" in card
    assert [line.split()[1:3] for line in table.splitlines()] == [["ctx", "can"], ["1k", "tools"]]


def test_server_that_needs_a_key(user_path: Path, invoke: Invoke) -> None:
    with StandIn(vllm("secret")) as server:
        added = invoke("localrun", "endpoints", "add", "box", server.url)
        assert added.stdout.splitlines()[1] == "It needs a key: llm keys set localrun-box"
        (user_path / "keys.json").write_text('{"localrun-box": "secret"}')
        assert "2 models" in invoke("localrun", "refresh").stdout
        assert invoke("localrun", "endpoints", "remove", "box").exit_code == 0
        added = invoke("localrun", "endpoints", "add", "box", server.url, "--key", "other")
        assert added.stdout.splitlines()[1] == "It needs a key: llm keys set other"


def test_locked_server_whose_models_are_known(user_path: Path, invoke: Invoke) -> None:
    """All say that they cannot run now; running one says which key to store."""
    with StandIn(llama_server("secret", public=OPEN)) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        table = invoke("localrun", "models", env={"COLUMNS": "100"})
        assert "gemma" in table.stdout
        assert "cannot run now: box (its server needs a key); see `llm localrun doctor`\n" in (
            table.stderr
        )
        assert "llm keys set localrun-box\n" in invoke("localrun", "doctor").stdout
        said = one_error(invoke("-m", "local", "hi"))
        assert said.endswith("or store it with `llm keys set localrun-box`.")
    table = invoke("localrun", "models", env={"COLUMNS": "100"})
    assert "cannot run now: box (its server is off); " in table.stderr


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            Off,
            "Nothing accepts connections there now. Its models will be listed when it runs.",
        ),
        (
            Silent,
            "It accepts connections but did not answer within 0.5 s."
            " Its models will be listed when it does.",
        ),
        (website, "It is not a model server. Check the URL, or give --dialect."),
    ],
)
def test_server_that_does_not_answer_is_added(
    make: ServerFactory, message: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "PATIENT_S", 0.5)
    with make() as server:
        added = invoke("localrun", "endpoints", "add", "box", server.url)
    assert (added.exit_code, added.stderr) == (0, "")
    assert added.stdout == f"Added box: {server.url}\n{message}\n"
    assert [endpoint.name for endpoint in read_config().endpoints] == ["box"]


def test_add_warns_about_another_machine(invoke: Invoke, guard: Guard) -> None:
    with guard.expected():
        added = invoke("localrun", "endpoints", "add", "far", "192.0.2.1:8000")
    assert added.stdout.splitlines()[-1] == "Prompts to its models leave this machine."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "box", "http://127.0.0.1:10"), "There is already an endpoint box at http://127."),
        (("add", "desk", "127.0.0.1:9/v1"), "There is already an endpoint box at http://127.0.0"),
        (("add", "My Box", "127.0.0.1:10"), "This endpoint cannot be added: name: use a-z, 0-9"),
        (("add", "desk", "ftp://x"), "This endpoint cannot be added: url: only http:// and"),
        (("remove", "boxx"), "There is no endpoint boxx in the configuration. Nearest: box."),
        (
            ("remove", "ollama"),
            "There is no endpoint ollama in the configuration. `llm localrun endpoints` lists all.",
        ),
    ],
)
def test_refused_change(
    user_path: Path, invoke: Invoke, arguments: tuple[str, ...], message: str
) -> None:
    configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": "http://127.0.0.1:9"}])
    before = (user_path / "localrun" / "config.json").read_bytes()
    assert one_error(invoke("localrun", "endpoints", *arguments)).startswith(message)
    assert (user_path / "localrun" / "config.json").read_bytes() == before


def test_unknown_kind_is_refused(invoke: Invoke) -> None:
    done = invoke("localrun", "endpoints", "add", "box", "127.0.0.1:9", "--dialect", "klingon")
    assert done.exit_code == 2
    assert "'klingon' is not one of 'ollama'" in done.stderr
