"""Nothing is sent beyond this machine, and the guard that counts attempts notices them."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CONFIG, Llm, configure
from tests.fakes.http_server import StandIn, json_reply
from tests.support.outward import Guard

# Addresses that stand in no network: RFC 5737, RFC 3849.
NOWHERE, NOWHERE_6 = "192.0.2.1", "2001:db8::1"


def connect(host: str) -> None:
    with contextlib.suppress(OSError):
        socket.create_connection((host, 80), 5)


def send(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one, contextlib.suppress(OSError):
        one.sendto(b"question", (host, 53))


def resolve(name: str) -> None:
    with contextlib.suppress(OSError):
        socket.getaddrinfo(name, 80)


def run(*command: str) -> None:
    subprocess.run(command, check=False, capture_output=True, timeout=60)


IN_THIS_PROCESS: dict[str, Callable[[], None]] = {
    "a connection": lambda: connect(NOWHERE),
    "a connection, version 6": lambda: connect(NOWHERE_6),
    "a datagram": lambda: send(NOWHERE),
    "a datagram, version 6": lambda: send(NOWHERE_6),
    "a name": lambda: resolve("example.invalid"),
}
IN_A_CHILD: dict[str, Callable[[], None]] = {
    "a connection": lambda: run("bash", "-c", f"echo > /dev/tcp/{NOWHERE}/80"),
    "a datagram": lambda: run("bash", "-c", f"echo > /dev/udp/{NOWHERE}/53"),
    "a name": lambda: run(
        sys.executable, "-c", "import socket; socket.gethostbyname('example.invalid')"
    ),
}


@pytest.mark.parametrize("attempt", IN_THIS_PROCESS.values(), ids=IN_THIS_PROCESS)
def test_attempts_are_counted(guard: Guard, attempt: Callable[[], None]) -> None:
    with guard.expected() as attempts:
        attempt()
        assert attempts() > 0


@pytest.mark.parametrize("attempt", IN_A_CHILD.values(), ids=IN_A_CHILD)
def test_attempts_of_children_are_counted(guard: Guard, attempt: Callable[[], None]) -> None:
    if not guard.sees_children:
        pytest.skip(guard.how)
    with guard.expected() as attempts:
        attempt()
        assert attempts() > 0


def test_loopback_is_not_counted(guard: Guard) -> None:
    before = guard.attempts()
    with StandIn(lambda _: [json_reply({})]) as server:
        run(sys.executable, "-c", f"import urllib.request as u; u.urlopen('{server.url}').read()")
        assert len(server.requests) == 1
    assert guard.attempts() == before


@pytest.mark.parametrize(
    "command", [("-m", "local", "-o", "max_tokens", "1", "Hello"), ("localrun", "refresh")]
)
def test_no_command_leaves_whatever_the_environment_says(
    warm: Path, run_llm: Llm, guard: Guard, command: tuple[str, ...]
) -> None:
    before = guard.attempts()
    proxy = f"http://{NOWHERE}:3128"
    configure(warm, **{**CONFIG, "default_endpoints": True})
    done = run_llm(*command, env={"HTTP_PROXY": proxy, "http_proxy": proxy, "ALL_PROXY": proxy})
    configure(warm, **CONFIG)
    assert (done.returncode, done.stderr) == (0, "")
    assert guard.attempts() == before


def test_server_on_another_machine_is_asked_if_the_user_added_it(
    user_path: Path, run_llm: Llm, guard: Guard
) -> None:
    if not guard.sees_children:
        pytest.skip(guard.how)
    configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": f"http://{NOWHERE}:8000"}])
    with guard.expected() as attempts:
        assert run_llm("localrun", "refresh").returncode == 0
        assert attempts() > 0
