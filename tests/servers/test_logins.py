"""User names, passwords and headers: where they are sent, and that they are shown nowhere."""

import base64
import json
import socket
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from llm_localrun.catalogue import get_catalogue
from llm_localrun.config import Config, ConfiguredEndpoint, read_config
from llm_localrun.errors import LocalRunError, PullFailed
from llm_localrun.models import Endpoint, ServerStatus
from llm_localrun.name_cache import CachePolicy
from llm_localrun.pull.http_files import DownloadInterrupted, FileSource, probe
from llm_localrun.servers import discover
from llm_localrun.servers.base import (
    ModelListing,
    basic_authorization,
    headers_by_url,
    open_server,
    server_kinds,
    variables,
)
from llm_localrun.servers.discover import Discovery, candidates_for
from llm_localrun.servers.recognize import ServerCandidate, recognize
from llm_localrun.system.logins import hide_passwords, split_login
from llm_localrun.wire import http
from llm_localrun.wire.response import ProbeReply
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


def as_shown(server: StandIn) -> str:
    return server.url.replace("://", "://me:…@")


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
        assert as_shown(server) in output
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


def test_headers_of_ollama_go_where_its_client_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    assert headers_by_url(read_config()) == {}
    monkeypatch.setenv("OLLAMA_HEADERS", f"X-Token={TOKEN}")
    assert headers_by_url(read_config()) == {"http://127.0.0.1:11434": {"x-token": TOKEN}}
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
            assert f"Added box: {as_shown(server)}\nOllama" in outcome.output
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


@pytest.mark.parametrize(
    ("login", "secrets"),
    [
        ("me:opensesame", ("me:opensesame", "opensesame", "bWU6b3BlbnNlc2FtZQ==")),
        ("me:short", ("me:short",)),
        ("me:p%40ss%3Aw", ("me:p@ss:w", "p%40ss%3Aw", "me%3Ap%40ss%3Aw")),
        ("me:-", ()),
        ("a-token", ("a-token",)),
    ],
)
def test_server_repeats_the_login(
    login: str, secrets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"error": ", ".join(("bad login", *secrets))}
    with StandIn(lambda _: [json_reply(said, 401)]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url.replace("://", f"://{login}@"))
        at = open_server(Endpoint(name="ollama", kind="ollama", url=server.url))
        with pytest.raises(LocalRunError) as caught:
            at.delete(NAME)
    assert f"says: {', '.join(('bad login', *'…' * len(secrets)))} (HTTP 401)" in str(caught.value)


@pytest.mark.parametrize("is_added", [True, False])
@pytest.mark.parametrize("was_right", [True, False])
def test_wrong_login(
    is_added: bool,
    was_right: bool,
    user_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    invoke: Invoke,
) -> None:
    """The server stays what it was, and the advice names the place of the login."""
    allowed = {"authorization": BASIC} if was_right else {"authorization": "other"}
    name = "box" if is_added else "ollama"
    with StandIn(guarded(allowed)) as server:
        if is_added:
            configure(user_path, **CONFIG, endpoints=[{"name": name, "url": with_login(server)}])
        else:
            monkeypatch.setenv("OLLAMA_HOST", with_login(server))
            only_ollama(user_path, monkeypatch)
        if was_right:
            assert invoke("prompt", "-m", f"local/{name}/{NAME}", "Hi").output == "Hello.\n"
            allowed["authorization"] = "other"
        for _ in range(2):
            (report,) = get_catalogue(CachePolicy.FRESH).endpoints
            assert (report.status, report.endpoint.name) == (ServerStatus.NEEDS_KEY, name)
        place = "the endpoint box of config.json" if is_added else "OLLAMA_HOST"
        refused = f"refuses the user and password in {place}"
        advice = f"Correct the user and password in {place}"
        assert f"{as_shown(server)} {refused}" in " ".join(invoke("localrun").output.split())
        assert advice in invoke("localrun", "doctor").output
        assert "keys set" not in invoke("localrun").output + invoke("localrun", "doctor").output
        prompt = invoke("prompt", "-m", f"local/{name}/{NAME}", "Hi").output
        assert (advice if was_right else refused) in prompt
        if was_right or not is_added:
            assert report.endpoint.kind == "ollama"
            pull = invoke("localrun", "pull", "ollama:some").output
            assert f"(HTTP 401). {advice}" in pull
        if is_added:
            invoke("localrun", "endpoints", "remove", name)
            added = invoke("localrun", "endpoints", "add", name, with_login(server)).output
            assert f"It {refused}.\n" in added


def test_locked_server_at_the_usual_port_of_ollama_is_a_gateway_unless_a_variable_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    locked = ProbeReply(401, {"error": "no"}, "")
    endpoint = Endpoint(name="ollama", kind="ollama", url="http://127.0.0.1:11434")

    def kind() -> str:
        found = recognize(lambda *_: locked, endpoint, ModelListing())
        assert found is not None
        return found.kind

    assert kind() == "gateway"
    monkeypatch.setenv("OLLAMA_HOST", "http://me:secret@127.0.0.1:11434")
    assert kind() == "ollama"


def test_server_that_has_told_its_kind_keeps_it_behind_a_proxy() -> None:
    wanted: dict[str, str] = {}
    with StandIn(guarded(wanted)) as server:
        usual = ServerCandidate(Endpoint(name="ollama", kind="ollama", url=server.url))
        reports = Discovery([usual], [], CachePolicy.REFRESH).run()
        wanted["authorization"] = BASIC
        for _ in range(2):
            reports = Discovery([usual], reports, CachePolicy.REFRESH).run()
    (report,) = reports
    assert (report.status, report.endpoint.kind) == (ServerStatus.NEEDS_KEY, "ollama")
    assert [model.id for model in report.models] == [f"local/ollama/{NAME}"]


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
    ("address", "rest", "login"),
    [
        ("http://box", "http://box", ""),
        ("http://me:secret@box:1/v1", "http://box:1/v1", "me:secret"),
        ("me:secret@box", "box", "me:secret"),
        (" 'http://me:secret@box' ", " 'http://box' ", "me:secret"),
        ("http://me@box", "http://box", "me"),
        ("http://me:secret@", "http://", "me:secret"),
        ("http://me:a@b@box", "http://box", "me:a@b"),
        ("http://me:%40%3A%@box", "http://box", "me:@:%"),
        ("http://me:a/b@box/v1", "http://box/v1", "me:a/b"),
        ("http://me:a/b@", "http://", "me:a/b"),
        ("http://me:#a?b@box:1", "http://box:1", "me:#a?b"),
        ("me:a[b]c@[::1]:1", "[::1]:1", "me:a[b]c"),
        ("http://me:a://b/@c@box:x", "http://box:x", "me:a://b/@c"),
        # What could be a port is a part of the password only if a host with a port follows.
        ("http://me:12/34@box:1", "http://box:1", "me:12/34"),
        ("http://box:12/34@box", "http://box:12/34@box", ""),
        ("http://me:secret@box/a@b", "http://box/a@b", "me:secret"),
        ("http://me:a@b/c@box:1", "http://box:1", "me:a@b/c"),
        ("http://[::1]:1/a@box:1", "http://[::1]:1/a@box:1", ""),
        ("http://box/@", "http://box/@", ""),
        ("http://box/a@b:1", "http://box/a@b:1", ""),
        ("http://[", "http://[", ""),
        ("", "", ""),
    ],
)
def test_login_in_an_address(address: str, rest: str, login: str) -> None:
    assert split_login(address) == (rest, login)


RAW = ("hunter/2xyz", "hunter#2xyz", "hunter?2xyz", "ab[cd]2xyz", "//2xyz@2xyz/", "2xyz:2xyz")


@pytest.mark.parametrize("password", RAW)
def test_password_that_a_valid_url_would_encode(
    password: str, user_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    basic = basic_authorization(f"me:{password}")
    with StandIn(guarded(basic)) as server:
        url = server.url.replace("://", f"://me:{password}@")
        monkeypatch.setenv("OLLAMA_HOST", url)
        only_ollama(user_path, monkeypatch)
        assert invoke("prompt", "-m", f"local/ollama/{NAME}", "Hi").output == "Hello.\n"
        output = shown(invoke) + everything_in(user_path)
        output += invoke("localrun", "endpoints", "add", "box", url).output
        assert invoke("prompt", "-m", f"local/box/{NAME}", "Hi").output == "Hello.\n"
    assert {request.headers.get("authorization") for request in server.requests} == {
        *basic.values()
    }
    assert as_shown(server) in output
    assert "2xyz" not in output + everything_in(user_path)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("box:12x", "its port is not a number up to 65535"),
        ("box:99999", "its port is not a number up to 65535"),
        ("[box", "the URL has no valid host"),
        ("", "the URL has no host"),
    ],
)
@pytest.mark.parametrize("password", ["2xyz2xyz", *RAW])
def test_login_in_an_invalid_url_is_not_shown(
    host: str, message: str, password: str, invoke: Invoke
) -> None:
    output = invoke("localrun", "endpoints", "add", "box", f"http://me:{password}@{host}").output
    assert f"This endpoint cannot be added: url: {message}. Example" in output
    assert "xyz" not in output


def test_url_in_config_json_stays_as_it_was_written(user_path: Path, invoke: Invoke) -> None:
    endpoints = [{"name": "box", "url": "http://me:secret@127.0.0.1:1"}]
    configure(user_path, **CONFIG, endpoints=endpoints)
    invoke("localrun", "endpoints", "add", "other", "http://127.0.0.1:2")
    written = json.loads((user_path / "localrun" / "config.json").read_bytes())["endpoints"]
    assert written == [*endpoints, {"name": "other", "url": "http://127.0.0.1:2"}]


# Everything that shows an address, against every place that a login can be written in

SECRET = "hunter 2/xyz@é"
ENCODED = quote(SECRET, safe="")
FORMS = (
    SECRET,
    ENCODED,
    ENCODED.lower(),
    quote(SECRET),
    SECRET.replace(" ", "+"),
    base64.b64encode(f"me:{SECRET}".encode()).decode(),
    json.dumps(SECRET)[1:-1],
    # Parts of it, where something else has read it as the end of a host.
    "hunter",
    "2/xyz",
    "2%2Fxyz",
)
COMMANDS = (
    *("localrun", "localrun models", "localrun models --json", "localrun endpoints"),
    *("localrun endpoints list --json", "localrun doctor", "localrun doctor --json"),
    *("localrun which local", "localrun ps", "localrun du", "localrun outdated"),
    f"localrun show {{name}}/{NAME}",
    f"localrun show {{name}}/{NAME} --json",
    f"localrun unload {{name}}/{NAME}",
    f"prompt {{log}} -m {{name}}/{NAME} Hi",
    f"prompt {{log}} --no-stream -m {{name}}/{NAME} Hi",
    *(
        "models",
        "logs list",
        "logs list --json",
        "localrun refresh",
        "localrun endpoints add a {url}",
    ),
)

SHOWS_ADDRESSES = ("localrun endpoints", "localrun endpoints list --json", "localrun doctor --json")


def repeat(request: Request, status: int = 401) -> Iterator[bytes]:
    """Says what it was sent, in each form that it can have."""
    sent = request.headers.get("authorization", "")
    login = base64.b64decode(sent.removeprefix("Basic ")).decode()
    user, _, password = login.partition(":")
    said = f"{sent}; {login}; {password}; http://{user}:{quote(password, safe='')}@box"
    yield json_reply({"error": {"message": f"bad: {said}", "type": said}, "detail": said}, status)


def behaviors(elsewhere: str) -> dict[str, Respond]:
    """How a server that wants a login may answer."""
    ollama = Ollama(has=[NAME])

    def redirect(request: Request) -> Iterator[bytes]:
        if request.method == "GET":
            yield from ollama(request)
        else:
            head = f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere}{request.path}\r\n"
            yield f"{head}Content-Length: 0\r\n\r\n".encode()

    def fail(request: Request) -> Iterator[bytes]:
        yield from ollama(request) if request.method == "GET" else repeat(request, 500)

    def close(request: Request) -> Iterator[bytes]:
        yield from ollama(request) if request.method == "GET" else iter([b"HTTP/1.1 2"])

    return {
        "answers": ollama,
        "redirects": redirect,
        "redirects everything": lambda request: redirect(replace(request, method="POST")),
        "refuses": repeat,
        "fails": fail,
        "closes": close,
        "says nothing of HTTP": lambda _: [b"nonsense\r\n\r\n"],
    }


def plant(
    source: str, url: str, other: str, user_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Writes `url` down in a place; returns the name of the endpoint there."""
    plain, login = split_login(url)
    endpoints = [{"name": "other", "url": other, "dialect": "ollama"}]
    if source == "url":
        endpoints.append({"name": "box", "url": url, "dialect": "ollama"})
    elif source == "login":
        endpoints.append({"name": "box", "url": plain, "dialect": "ollama", "login": login})
    else:
        monkeypatch.setenv(source, url)
        kind = next(k for k, cls in server_kinds().items() if source in cls.url_variables)
        found = next(server_kinds()[kind].addresses())
        monkeypatch.setattr(discover, "usual_addresses", lambda: [(kind, found)])
    configure(user_path, **{**CONFIG, "default_endpoints": True}, endpoints=endpoints)
    return "box" if source in ("url", "login") else "ollama"


@pytest.mark.parametrize("behavior", [*behaviors(""), "is off", "is off, TLS"])
@pytest.mark.parametrize("source", ["url", "login", *sorted(variables())])
def test_password_is_sent_to_its_origin_and_shown_nowhere(
    source: str,
    behavior: str,
    user_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    invoke: Invoke,
) -> None:
    outputs: dict[str, str] = {}
    with StandIn(Ollama(has=["other:1b"])) as other:
        respond = behaviors(other.url).get(behavior, Ollama(has=[NAME]))
        with StandIn(respond) as server:
            scheme = "https" if behavior == "is off, TLS" else "http"
            url = server.url.replace("http://", f"{scheme}://me:{ENCODED}@")
            name = plant(source, url, other.url, user_path, monkeypatch)
            if behavior.startswith("is off"):
                server.__exit__()
            # Making a database of logs takes seconds.
            log = "--log" if behavior == "answers" else "--no-log"
            for command in COMMANDS:
                words = command.format(name=f"local/{name}", url=url, log=log).split()
                outcome = invoke(*words)
                assert outcome.exception is None or isinstance(outcome.exception, SystemExit)
                outputs[command] = outcome.output
            assert invoke("prompt", log, "-m", "local/other/other:1b", "Hi").output == "Hello.\n"
            if behavior.startswith("is off"):
                server._socket = socket.create_server(("127.0.0.1", 0))
    basic = basic_authorization(f"me:{SECRET}")["authorization"]
    sent = {request.headers.get("authorization") for request in server.requests}
    assert sent <= {basic}
    assert other.requests
    assert not any("authorization" in request.headers for request in other.requests)
    for command in SHOWS_ADDRESSES:
        assert f"{scheme}://me:…@127.0.0.1:{server.port}" in outputs[command]
    texts = "".join([*outputs.values(), everything_in(user_path)])
    assert [form for form in FORMS if form in texts] == []


ARGUMENTS = [
    ("localrun pull https://me:{}@box/f.gguf", "https://me:…@box/f.gguf is not safe"),
    ("localrun pull lmstudio:https://me:{}@box/m", "'https://me:…@box/m' is not a valid REF"),
    ("localrun endpoints remove http://me:{}@box", "no endpoint http://me:…@box in"),
    ("localrun endpoints add x ftp://me:{}@box", "only http:// and https:// are supported"),
    ("localrun endpoints add x http://me:{}@box:99999", "its port is not a number"),
    ("localrun endpoints add x http://me:{}@[", "the URL has no valid host"),
    ("localrun endpoints add x http://box/?api_key={}", "leave out what follows ? or #"),
    ("localrun endpoints add x http://box/#{}", "leave out what follows ? or #"),
    ("localrun endpoints add http://me:{}@box x", "cannot be added: name: use a-z"),
    ("localrun pull https://box/f?api_key={}", "https://box/f?api_key=… is not the address of"),
]


@pytest.mark.parametrize(("command", "said"), ARGUMENTS)
def test_password_in_an_argument(command: str, said: str, user_path: Path, invoke: Invoke) -> None:
    outcome = invoke(*command.format(ENCODED).split())
    assert outcome.exit_code == 1
    assert said in outcome.output
    texts = outcome.output + everything_in(user_path)
    assert [form for form in FORMS if form in texts] == []


SETTINGS = [
    {"rpc": [f"me:{SECRET}@box:1"]},
    {"quantization": f"http://me:{ENCODED}@box"},
    {"endpoints": [{"name": "x", "url": f"ftp://me:{SECRET}@box"}]},
    {"endpoints": [{"name": "x", "url": "http://box", "api_key": SECRET}]},
    {"endpoints": [{"name": "x", "url": f"http://box?api_key={SECRET}"}]},
    {"endpoints": {f"http://me:{ENCODED}@box": {}}},
    {f"http://me:{ENCODED}@box": 1},
    {"endpoints": [f"http://me:{SECRET}@box"]},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_password_in_settings_that_are_not_valid(
    settings: dict[str, object], user_path: Path, invoke: Invoke
) -> None:
    configure(user_path, **settings)
    output = "".join(invoke(*command.split()).output for command in ("localrun", "localrun doctor"))
    assert "is not valid" in output
    assert [form for form in FORMS if form in output + everything_in(user_path)] == []


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        (f"http://me:{SECRET}@127.0.0.1:9", "its address is not valid"),
        (f"http://me:{ENCODED}@127.0.0.1:9", "does not answer"),
        (f"ftp://me:{ENCODED}@127.0.0.1:9", "Unknown scheme for proxy URL"),
    ],
)
def test_password_of_a_proxy(proxy: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    at = open_server(Endpoint(name="box", kind="ollama", url="http://box.invalid:1"))
    with pytest.raises(LocalRunError) as caught:
        at.delete(NAME)
    assert said in str(caught.value)
    assert [form for form in FORMS if form in str(caught.value)] == []
    source = FileSource("http://box.invalid:1/f.gguf")
    with pytest.raises((PullFailed, DownloadInterrupted)) as failed:
        probe(source)
    assert [form for form in FORMS if form in str(failed.value)] == []


@pytest.mark.parametrize("address", [f"http://me:{ENCODED}@{{}}", f"http://me:{SECRET}@{{}}"])
@pytest.mark.parametrize("is_off", [False, True])
def test_password_of_a_hub(
    address: str, is_off: bool, monkeypatch: pytest.MonkeyPatch, user_path: Path, invoke: Invoke
) -> None:
    with StandIn(repeat) as hub:
        host = "127.0.0.1:9" if is_off else hub.url.removeprefix("http://")
        monkeypatch.setenv("HF_ENDPOINT", address.format(host))
        outcome = invoke("localrun", "pull", "hf:owner/model-GGUF:Q4_K_M")
    assert outcome.exit_code == 1
    assert "http://me:…@127.0.0.1" in outcome.output
    texts = outcome.output + everything_in(user_path)
    assert [form for form in FORMS if form in texts] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://me:secret@box: no", "at http://me:…@box: no"),
        ("`x http://me:a/b@box:1/v1`", "`x http://me:…@box:1/v1`"),
        ("http://token@box, http://box/me@home", "http://…@box, http://box/me@home"),
        ("('https://me:%2F@[::1]:1')", "('https://me:…@[::1]:1')"),
        ("http://me:…@box", "http://me:…@box"),
        ("https://box/f?a=1&api_key=x&b=2#c", "https://box/f?a=1&api_key=…&b=2#c"),
        ("https://box/f?X-Amz-Signature=x", "https://box/f?X-Amz-Signature=…"),
        ("me@home says a://b", "me@home says a://b"),
    ],
)
def test_passwords_in_a_text(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown
