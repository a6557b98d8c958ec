"""The RPC servers of llama.cpp: what they answer, and what is said of those that do not."""

import socket

import pytest

from llm_localrun.errors import EngineFailed
from llm_localrun.models import ServerStatus
from llm_localrun.servers import llamacpp_rpc
from llm_localrun.servers.llamacpp_rpc import RpcReport, ask_rpc_servers, check_rpc_servers
from tests.fakes.rpc_server import HELLO, NOT_RPC, RpcServer, greeting

REMOVE = ", or remove it from rpc in config.json"


@pytest.mark.parametrize(
    ("server", "status", "version"),
    [
        (RpcServer(), ServerStatus.ANSWERS, "5.0.0"),
        (RpcServer(pieces=36), ServerStatus.ANSWERS, "5.0.0"),
        (RpcServer(greeting(b"\3\6\1")), ServerStatus.ANSWERS, "3.6.1"),
        (RpcServer((3).to_bytes(8, "little") + b"\2\0\1"), ServerStatus.ANSWERS, "2.0.1"),
        (RpcServer(None), ServerStatus.BUSY, ""),
        (RpcServer(greeting()[:10]), ServerStatus.BUSY, ""),
        (RpcServer(b""), ServerStatus.UNRECOGNIZED, ""),
        (RpcServer(NOT_RPC), ServerStatus.UNRECOGNIZED, ""),
        (RpcServer(bytes(64)), ServerStatus.UNRECOGNIZED, ""),
    ],
)
def test_what_it_answers(
    server: RpcServer, status: ServerStatus, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llamacpp_rpc, "_TIMEOUT_S", 10.0 if version else 0.5)
    with server:
        (report,) = ask_rpc_servers([server.address])
    assert report == RpcReport(server.address, status, version)
    assert server.received == [HELLO]


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("127.0.0.1:1", ServerStatus.OFFLINE),
        ("no..host:1", ServerStatus.TIMEOUT),
    ],
)
def test_nothing_there(address: str, status: ServerStatus) -> None:
    assert ask_rpc_servers([address]) == [RpcReport(address, status)]


def test_a_full_queue_on_this_machine_is_a_busy_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", connect)
    reports = ask_rpc_servers(["localhost:1", "192.168.1.6:1"])
    assert [each.status for each in reports] == [ServerStatus.BUSY, ServerStatus.TIMEOUT]


@pytest.mark.parametrize(
    ("address", "status", "problem", "advice"),
    [
        ("127.0.0.1:1", ServerStatus.ANSWERS, "", ""),
        (
            "127.0.0.1:1",
            ServerStatus.OFFLINE,
            "does not accept connections",
            f"Start it with `ggml-rpc-server --host 127.0.0.1 --port 1`{REMOVE}",
        ),
        (
            "localhost:1",
            ServerStatus.OFFLINE,
            "does not accept connections",
            f"Start it with `ggml-rpc-server --host 127.0.0.1 --port 1`{REMOVE}",
        ),
        (
            "box.example:50052",
            ServerStatus.OFFLINE,
            "does not accept connections",
            f"Start it with `ggml-rpc-server --host ADDRESS --port 50052`{REMOVE}",
        ),
        (
            "192.168.1.6:50052",
            ServerStatus.TIMEOUT,
            "cannot be reached",
            f"Check its address, and whether its machine is on{REMOVE}",
        ),
        (
            "127.0.0.1:1",
            ServerStatus.BUSY,
            "did not answer within 5 s",
            "It serves one program at a time: end the other one"
            f" (`llm localrun unload --all` ends ours){REMOVE}",
        ),
        (
            "127.0.0.1:1",
            ServerStatus.UNRECOGNIZED,
            "does not answer as RPC servers do",
            "Check whether another program has its port, and whether its llama.cpp is as new as"
            f" llama-server{REMOVE}",
        ),
    ],
)
def test_what_is_said(address: str, status: ServerStatus, problem: str, advice: str) -> None:
    report = RpcReport(address, status)
    assert (report.problem, report.advice) == (problem, advice)


def test_a_server_that_is_asked_in_vain_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original (b10434) ends if it answers a connection that was closed properly."""
    monkeypatch.setattr(llamacpp_rpc, "_TIMEOUT_S", 0.2)
    with RpcServer(None) as server:
        ask_rpc_servers([server.address])
        assert server.was_reset.wait(10)


def test_each_must_answer() -> None:
    with RpcServer() as one, RpcServer() as other:
        check_rpc_servers([])
        check_rpc_servers([one.address, other.address])
        with pytest.raises(EngineFailed, match=r"^The RPC server 127\.0\.0\.1:1 does not"):
            check_rpc_servers([one.address, "127.0.0.1:1"])
