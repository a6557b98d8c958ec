"""User names, passwords and headers: where they are sent, and that they are shown nowhere."""

import base64
import json
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_localrun.config import Config, ConfiguredEndpoint, login_in, read_config
from llm_localrun.errors import LocalRunError
from llm_localrun.models import Endpoint
from llm_localrun.servers import discover
from llm_localrun.servers.base import headers_by_url, open_server, server_kinds
from llm_localrun.servers.discover import candidates_for
from llm_localrun.wire import http
from tests.conftest import CONFIG, Invoke, configure
from tests.fakes.http_server import Request, Respond, StandIn, json_reply
from tests.fakes.ollama import Ollama

pytestmark = pytest.mark.usefixtures("user_path")

LOGIN = "me:pass word/1"
IN_URL = "me:pass%20word%2F1@"
BASIC = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
TOKEN = "t0ken-of-mine=="
NAME = "smollm2:135m"


def guarded(wanted: dict[str, str]) -> Respond:
    """An Ollama behind a proxy that lets only requests with the `wanted` headers through."""
    ollama = Ollama(has=[NAME])

    def respond(request: Request) -> Iterator[bytes]:
        if all(request.headers.get(name) == value for name, value in wanted.items()):
            yield from ollama(request)
        else:
            sent = request.headers.get("authorization")
            yield json_reply({"error": f"no entry with {sent}"}, 401)

    return respond


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "QUICK_S", 10.0)


def with_login(server: StandIn) -> str:
    return server.url.replace("://", f"://{IN_URL}")


def everything_in(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "config.json"]
    return "".join(path.read_bytes().decode("utf-8", "replace") for path in files)


def shown(invoke: Invoke) -> str:
    commands = ("models", "endpoints", "endpoints --json", "doctor", f"show local/ollama/{NAME}")
    return "".join(invoke("localrun", *command.split()).output for command in commands)


def assert_unseen(text: str) -> None:
    for secret in ("pass word", "pass%20word", BASIC[6:], TOKEN):
        assert secret not in text


def only_ollama(user_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    """Has servers looked for where OLLAMA_HOST says and nowhere else."""
    configure(user_path, **{**CONFIG, "default_endpoints": True, **settings})
    ollama = server_kinds()["ollama"]
    monkeypatch.setattr(discover, "usual_addresses", lambda: [("ollama", next(ollama.addresses()))])


def test_login_in_ollama_host_is_sent_there_and_shown_nowhere(
    user_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    with StandIn(guarded({"authorization": BASIC})) as server:
        monkeypatch.setenv("OLLAMA_HOST", with_login(server))
        only_ollama(user_path, monkeypatch)
        outcome = invoke("prompt", "-m", f"local/ollama/{NAME}", "Hi")
        assert (outcome.exit_code, outcome.output) == (0, "Hello.\n")
        output = shown(invoke)
        assert f"local/ollama/{NAME}" in output
        assert server.url in output
    assert {request.headers.get("authorization") for request in server.requests} == {BASIC}
    assert "/api/chat" in [request.path for request in server.requests]
    stored = everything_in(user_path)
    assert_unseen(output + stored)
    assert "OLLAMA_HOST='http://127.0.0.1" in stored


def test_headers_of_ollama_are_sent_with_its_login(
    user_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    wanted = {"authorization": BASIC, "x-token": TOKEN, "cf-id": "a b"}
    with StandIn(guarded(wanted)) as server, StandIn(Ollama(has=[NAME])) as other:
        monkeypatch.setenv("OLLAMA_HOST", with_login(server))
        assignments = (
            f"X-Token={TOKEN}",
            " CF-Id = a b ",
            "Authorization=Bearer x",
            "Content-Type=x",
        )
        monkeypatch.setenv("OLLAMA_HEADERS", ",".join([*assignments, "nonsense", "B\u00e4r=1", ""]))
        only_ollama(user_path, monkeypatch, endpoints=[{"name": "box", "url": other.url}])
        for name in ("ollama", "box"):
            assert invoke("prompt", "-m", f"local/{name}/{NAME}", "Hi").output == "Hello.\n"
        output = shown(invoke)
    posts = [request for request in server.requests if request.method == "POST"]
    assert {request.headers["content-type"] for request in posts} == {"application/json"}
    assert other.requests
    for request in other.requests:
        assert not request.headers.keys() & {"authorization", "x-token", "cf-id"}
    assert_unseen(output + everything_in(user_path))


def test_headers_of_ollama_go_nowhere_without_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HEADERS", f"X-Token={TOKEN}")
    assert headers_by_url(read_config()) == {}
    monkeypatch.setenv("OLLAMA_HOST", "box")
    assert headers_by_url(read_config()) == {"http://box:11434": {"x-token": TOKEN}}


def test_login_in_another_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTUDIO_API_BASE", f"http://{IN_URL}box:1/v1,http://box:2")
    assert headers_by_url(read_config()) == {"http://box:1": {"authorization": BASIC}}
    headers = {each.endpoint.url: each.headers for each in candidates_for(Config(), {})}
    assert headers.pop("http://box:1") == {"authorization": BASIC}
    assert not any(headers.values())


@pytest.mark.parametrize("is_added", [True, False])
def test_login_in_the_url_of_an_endpoint(is_added: bool, user_path: Path, invoke: Invoke) -> None:
    with StandIn(guarded({"authorization": BASIC})) as server:
        if is_added:
            outcome = invoke("localrun", "endpoints", "add", "box", with_login(server))
            assert f"Added box: {server.url}\nOllama" in outcome.output
            assert_unseen(outcome.output)
        else:
            configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": with_login(server)}])
        assert invoke("prompt", "-m", f"local/box/{NAME}", "Hi").output == "Hello.\n"
        again = invoke("localrun", "endpoints", "add", "other", server.url).output
        assert "There is already an endpoint box" in again
        output = shown(invoke)
    assert_unseen(again + output + everything_in(user_path))


def test_login_is_not_in_errors_and_representations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy repeats what it was sent."""
    with StandIn(guarded({"authorization": "something else"})) as server:
        monkeypatch.setenv("OLLAMA_HOST", with_login(server))
        at = open_server(Endpoint(name="ollama", kind="ollama", url=server.url))
        with pytest.raises(LocalRunError) as caught:
            at.delete(NAME)
    assert "says: no entry with … (HTTP 401)" in str(caught.value)
    text = "".join(traceback.format_exception(caught.value))
    request = at.http_request("GET", "/")
    (candidate, *_) = candidates_for(Config(), {})
    configured = ConfiguredEndpoint(name="box", url=with_login(server))
    assert (request.headers, configured.login) == ({"authorization": BASIC}, LOGIN)
    assert_unseen(f"{text}{request!r}{candidate!r}{configured!r}{at!r}{configured.url}")


def test_key_takes_precedence_over_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    with StandIn(Ollama(has=[NAME])) as server:
        monkeypatch.setenv("OLLAMA_HOST", with_login(server))
        at = open_server(Endpoint(name="ollama", kind="ollama", url=server.url), "the key")
        with at.probe() as probe:
            probe.ask("/api/ps")
        list(http.stream(at.http_request("GET", "/api/ps")))
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer the key"] * 2


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("http://box", ""),
        ("http://me:secret@box:1/v1", "me:secret"),
        ("me:secret@box", "me:secret"),
        ("http://me@box", "me"),
        ("http://me:a@b@box", "me:a@b"),
        ("http://me:%40%3A@box", "me:@:"),
        ("http://box/@", ""),
        ("http://[", ""),
        ("", ""),
    ],
)
def test_login_in_a_url(url: str, login: str) -> None:
    assert login_in(url) == login


def test_url_in_config_json_stays_as_it_was_written(user_path: Path, invoke: Invoke) -> None:
    endpoints = [{"name": "box", "url": "http://me:secret@127.0.0.1:1"}]
    configure(user_path, **CONFIG, endpoints=endpoints)
    invoke("localrun", "endpoints", "add", "other", "http://127.0.0.1:2")
    written = json.loads((user_path / "localrun" / "config.json").read_bytes())["endpoints"]
    assert written == [*endpoints, {"name": "other", "url": "http://127.0.0.1:2"}]
