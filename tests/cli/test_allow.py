"""`endpoints` and `allow`: what the user settles by command, and what then happens."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_localrun.config import read_config
from llm_localrun.models import RunsOn, ServerStatus
from llm_localrun.servers import discover
from tests.conftest import CONFIG, Invoke, configure, one_error
from tests.fakes.broken import Off, ServerFactory, Silent, website
from tests.fakes.http_server import Request, StandIn, json_reply
from tests.support.many_models import put
from tests.support.outward import Guard

CLOUD = "local/ollama/gpt-oss:120b-cloud"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not make the stand-ins late."""
    monkeypatch.setattr(discover, "DEADLINE_S", 10.0)


def vllm(request: Request) -> list[bytes]:
    models = [{"id": name, "owned_by": "vllm", "max_model_len": 4096} for name in ("a/b", "c")]
    if request.path == "/v1/models":
        return [json_reply({"object": "list", "data": models})]
    return [json_reply({"detail": "Not Found"}, 404)]


def locked(request: Request) -> list[bytes]:
    if request.headers.get("authorization") == "Bearer secret":
        return vllm(request)
    return [json_reply({"error": "Unauthorized"}, 401)]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(vllm) as server:
        yield server


def test_endpoint_is_added_listed_and_removed(server: StandIn, invoke: Invoke) -> None:
    added = invoke("localrun", "endpoints", "add", "box", f"{server.url}/v1/")
    assert (added.exit_code, added.stderr) == (0, "")
    assert added.stdout == (
        f"Added box: {server.url}\nvLLM, 2 models: local/box/a/b, local/box/c\n"
    )
    assert json.loads(invoke("localrun", "endpoints", "list", "--json").stdout) == [
        {
            "name": "box",
            "kind": "vllm",
            "url": server.url,
            "key": "localrun-box",
            "added": True,
            "status": ServerStatus.ANSWERS,
            "asked_at": pytest.approx(0, abs=1e12),
            "version": "",
            "models": ["local/box/a/b", "local/box/c"],
        }
    ]
    listed = invoke("localrun", "endpoints").stdout.splitlines()
    assert [line.split()[:4] for line in listed] == [
        ["name", "url", "status", "models"],
        ["box", server.url, ServerStatus.ANSWERS, "2"],
    ]
    assert invoke("localrun", "endpoints", "remove", "box").stdout == "Removed box\n"
    assert read_config().endpoints == ()
    assert json.loads(invoke("localrun", "models", "--json").stdout) == []


def test_server_that_needs_a_key(user_path: Path, invoke: Invoke) -> None:
    with StandIn(locked) as server:
        added = invoke("localrun", "endpoints", "add", "box", server.url)
        assert added.stdout.splitlines()[1] == "It needs a key: llm keys set localrun-box"
        (user_path / "keys.json").write_text('{"localrun-box": "secret"}')
        assert "2 models" in invoke("localrun", "refresh").stdout
        assert invoke("localrun", "endpoints", "remove", "box").exit_code == 0
        added = invoke("localrun", "endpoints", "add", "box", server.url, "--key", "other")
        assert added.stdout.splitlines()[1] == "It needs a key: llm keys set other"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Off, "It does not answer now. Its models are listed as soon as it does."),
        (Silent, "It does not answer now. Its models are listed as soon as it does."),
        (
            website,
            "What answers there is no model server. Check the address, or give --dialect.",
        ),
    ],
    ids=["off", "silent", "a web page"],
)
def test_server_that_is_none_is_added_all_the_same(
    make: ServerFactory, said: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "DEADLINE_S", 0.5)
    with make() as server:
        added = invoke("localrun", "endpoints", "add", "box", server.url)
    assert (added.exit_code, added.stderr) == (0, "")
    assert added.stdout == f"Added box: {server.url}\n{said}\n"
    assert [endpoint.name for endpoint in read_config().endpoints] == ["box"]


def test_endpoint_elsewhere_is_said_to_be(invoke: Invoke, guard: Guard) -> None:
    with guard.expected():
        added = invoke("localrun", "endpoints", "add", "far", "192.0.2.1:8000")
    assert added.stdout.splitlines()[-1] == "Prompts for its models leave this machine."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "box", "http://127.0.0.1:10"), "There is an endpoint box at http://127.0.0.1:9"),
        (("add", "desk", "127.0.0.1:9/v1"), "There is an endpoint box at http://127.0.0.1:9"),
        (("add", "My Box", "127.0.0.1:10"), "This endpoint cannot be added: name: it is made of"),
        (("add", "desk", "ftp://x"), "This endpoint cannot be added: url: only http:// and"),
        (("remove", "boxx"), "No endpoint boxx has been added. Nearest: box."),
        (("remove", "ollama"), "No endpoint ollama has been added. `llm localrun endpoints list`"),
    ],
)
def test_endpoint_that_cannot_be_added_or_removed(
    user_path: Path, invoke: Invoke, arguments: tuple[str, ...], said: str
) -> None:
    configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": "http://127.0.0.1:9"}])
    before = (user_path / "localrun" / "config.json").read_bytes()
    assert one_error(invoke("localrun", "endpoints", *arguments)).startswith(said)
    assert (user_path / "localrun" / "config.json").read_bytes() == before


def test_kind_that_is_none(invoke: Invoke) -> None:
    done = invoke("localrun", "endpoints", "add", "box", "127.0.0.1:9", "--dialect", "klingon")
    assert done.exit_code == 2
    assert "'klingon' is not one of 'ollama'" in done.stderr


# allow


def test_model_is_allowed_by_any_of_its_names_and_forbidden_again(
    user_path: Path, invoke: Invoke
) -> None:
    put(user_path)
    done = invoke("localrun", "allow", "local-gpt-oss-120b")
    assert done.stdout == (
        f"{CLOUD} may run from now on, in a cloud (ollama.com).\n"
        f"Take it back: llm localrun allow --remove {CLOUD}\n"
    )
    put(user_path)
    assert invoke("localrun", "allow", CLOUD).exit_code == 0
    assert read_config().allow == (CLOUD,)
    assert invoke("localrun", "allow").stdout == f"{CLOUD}\n"
    assert json.loads(invoke("localrun", "allow", "--json").stdout) == [CLOUD]
    put(user_path)
    done = invoke("localrun", "allow", "--remove", "local-gpt-oss-120b")
    assert done.stdout == f"{CLOUD} is refused from now on.\n"
    assert read_config().allow == ()
    put(user_path)
    said = one_error(invoke("localrun", "allow", "--remove", CLOUD))
    assert said == f"{CLOUD} is not allowed anyway. `llm localrun allow` lists what is."


def test_model_that_is_gone_can_still_be_forbidden(user_path: Path, invoke: Invoke) -> None:
    configure(user_path, **CONFIG, allow=["local/ollama/gone:cloud"])
    assert invoke("localrun", "allow", "--remove", "local/ollama/gone:cloud").exit_code == 0
    assert read_config().allow == ()


@pytest.mark.parametrize(
    ("name", "where"),
    [("local-smollm2", RunsOn.THIS_MACHINE), ("local-bge", RunsOn.ANOTHER_MACHINE)],
)
def test_own_machines_need_no_leave(user_path: Path, invoke: Invoke, name: str, where: str) -> None:
    put(user_path)
    done = invoke("localrun", "allow", name)
    assert done.stderr.endswith(f" runs on {where}: it needs no leave.\n")
    assert read_config().allow == ()


def test_nothing_is_allowed(invoke: Invoke) -> None:
    done = invoke("localrun", "allow")
    assert (done.exit_code, done.stdout) == (0, "")
    assert invoke("localrun", "allow", "--remove").exit_code == 2
