"""Servers that listen by IPv6 alone, and that a server with two addresses is one endpoint."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from llm_localrun.catalogue import get_catalogue
from llm_localrun.models import EndpointReport, ServerStatus
from llm_localrun.name_cache import CachePolicy
from llm_localrun.servers import discover
from tests.conftest import CONFIG, configure
from tests.fakes.http_server import StandIn
from tests.fakes.ollama import Ollama
from tests.support.drive import ask

NAME = "smollm2:135m"


def free_port() -> int:
    """A port that is free by IPv4 and by IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as by_ipv6:
            port: int = by_ipv6.getsockname()[1]
            with socket.create_server(("127.0.0.1", port)):
                return port
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.fixture
def port(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The only port at which servers are looked for, by IPv4."""
    configure(user_path, **{**CONFIG, "default_endpoints": True})
    monkeypatch.setattr(discover, "QUICK_S", 10.0)
    number = free_port()
    address = ("ollama", f"http://127.0.0.1:{number}")
    monkeypatch.setattr(discover, "usual_addresses", lambda: [address])
    return number


def look() -> EndpointReport:
    (report,) = get_catalogue(CachePolicy.REFRESH).endpoints
    return report


def serving(port: int, *hosts: str) -> ExitStack:
    stack = ExitStack()
    for host in hosts:
        stack.enter_context(StandIn(Ollama(has=[NAME]), port=port, host=host))
    return stack


def ids(report: EndpointReport) -> list[str]:
    return [model.id for model in report.models]


def test_server_that_listens_by_ipv6_alone(port: int) -> None:
    with serving(port, "::1"):
        report = look()
        assert ask(report.models[0], "Hi").text == "Hello."
    assert (report.status, report.endpoint.url) == (ServerStatus.ANSWERS, f"http://[::1]:{port}")
    assert (report.endpoint.name, ids(report)) == ("ollama", [f"local/ollama/{NAME}"])


def test_server_that_listens_by_both_is_one_endpoint(port: int) -> None:
    with serving(port, "::1", "127.0.0.1"):
        report = look()
    assert report.endpoint.url == f"http://127.0.0.1:{port}"
    assert ids(report) == [f"local/ollama/{NAME}"]


def test_ids_are_stable_however_the_server_listens(port: int) -> None:
    seen = []
    for hosts in (["::1"], [], ["127.0.0.1"], [], ["::1", "127.0.0.1"], ["::1"], []):
        with serving(port, *hosts):
            report = look()
        seen.append((report.endpoint.name, ids(report)))
        status = ServerStatus.ANSWERS if hosts else ServerStatus.OFFLINE
        assert report.status is status
    assert seen == [("ollama", [f"local/ollama/{NAME}"])] * 7
    # It is still expected where it was last.
    (model,) = report.models
    assert model.served is not None
    assert model.served.endpoint.url == report.endpoint.url == f"http://[::1]:{port}"


def test_usual_address_of_a_server_that_the_user_has_added(port: int, user_path: Path) -> None:
    endpoints = [{"name": "mine", "url": f"http://[::1]:{port}"}]
    configure(user_path, **{**CONFIG, "default_endpoints": True, "endpoints": endpoints})
    with serving(port, "::1", "127.0.0.1"):
        assert ids(look()) == [f"local/mine/{NAME}"]


def test_machine_without_ipv6(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def make(family: int = socket.AF_INET, *more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError
        return real(family, *more)

    monkeypatch.setattr("llm_localrun.wire.http.socket.socket", make)
    assert look().endpoint.url == f"http://127.0.0.1:{port}"
