"""The RPC servers of llama.cpp, which share the work of the engine: whether they answer.

llama-server runs a model on this machine alone if an RPC server does not answer or has another
version of the protocol, and says so only in its log (b10434). An RPC server serves one program at a
time: others can connect, and wait. When it comes to one that has closed its connection meanwhile,
its answer ends it (SIGPIPE), so here a connection is reset. Passing the addresses to llama-server
is left to `engine`.
"""

import socket
import struct
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address

from llm_localrun.errors import EngineFailed
from llm_localrun.models import ServerStatus
from llm_localrun.privacy import is_loopback

_TIMEOUT_S = 5.0
_MIN_TIMEOUT_S = 0.001
# RPC_CMD_HELLO and the length of its capabilities, which a client may leave empty (b10434).
_HELLO = b"\x0e" + (24).to_bytes(8, "little") + bytes(24)
_RESET_ON_CLOSE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_MAX_ANSWER = 256
_ANSWER_BEGINS = 8 + 3
"""Bytes of the length of the answer and of the version in it."""


@dataclass(frozen=True, slots=True)
class RpcReport:
    """What an RPC server has answered."""

    address: str
    """HOST:PORT."""
    status: ServerStatus
    version: str = ""
    """Of its protocol: "5.0.0"; "" if it has not answered."""

    @property
    def problem(self) -> str:
        """Why an engine cannot use it, to follow its address; "" if it can."""
        return {
            ServerStatus.OFFLINE: "does not accept connections",
            ServerStatus.TIMEOUT: "cannot be reached",
            ServerStatus.BUSY: f"did not answer within {_TIMEOUT_S:g} s",
            ServerStatus.UNRECOGNIZED: "does not answer as RPC servers do",
        }.get(self.status, "")

    @property
    def advice(self) -> str:
        """What to do about the problem; "" if there is none."""
        advice = {
            ServerStatus.OFFLINE: f"Start it with `{self._command}`",
            ServerStatus.TIMEOUT: "Check its address, and whether its machine is on",
            ServerStatus.BUSY: "It serves one program at a time: end the other one"
            " (`llm localrun unload --all` ends ours)",
            ServerStatus.UNRECOGNIZED: "Check whether another program has its port, and whether its"
            " llama.cpp is as new as llama-server",
        }.get(self.status, "")
        return advice and f"{advice}, or remove it from rpc in config.json"

    @property
    def _command(self) -> str:
        """What starts it on its machine. It takes addresses, not names (b10434)."""
        host, _, port = self.address.rpartition(":")
        try:
            address = str(ip_address(host))
        except ValueError:
            address = "127.0.0.1" if is_loopback(f"http://{self.address}") else "ADDRESS"
        return f"ggml-rpc-server --host {address} --port {port}"


def ask_rpc_servers(addresses: Sequence[str]) -> list[RpcReport]:
    """What each of them answers, all asked at once."""
    if not addresses:
        return []
    with ThreadPoolExecutor(len(addresses)) as threads:
        return [*threads.map(_ask, addresses)]


def check_rpc_servers(addresses: Sequence[str]) -> None:
    """Raises `EngineFailed` if one of them cannot be used."""
    for report in ask_rpc_servers(addresses):
        if report.problem:
            raise EngineFailed(f"The RPC server {report.address} {report.problem}", report.advice)


def _ask(address: str) -> RpcReport:
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host, int(port)), _TIMEOUT_S)
    except TimeoutError:
        # This machine refuses at once what nothing listens to: its queue is full.
        is_here = is_loopback(f"http://{address}")
        return RpcReport(address, ServerStatus.BUSY if is_here else ServerStatus.TIMEOUT)
    except ConnectionRefusedError:
        return RpcReport(address, ServerStatus.OFFLINE)
    except (OSError, ValueError, OverflowError):
        return RpcReport(address, ServerStatus.TIMEOUT)
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        try:
            answer = _greet(connection)
        except TimeoutError:
            return RpcReport(address, ServerStatus.BUSY)
        except OSError:
            answer = b""
    length, version = int.from_bytes(answer[:8], "little"), answer[8:_ANSWER_BEGINS]
    if len(answer) < _ANSWER_BEGINS or not len(version) <= length <= _MAX_ANSWER:
        return RpcReport(address, ServerStatus.UNRECOGNIZED)
    return RpcReport(address, ServerStatus.ANSWERS, ".".join(map(str, version)))


def _greet(connection: socket.socket) -> bytes:
    """The beginning of the answer to a greeting. Raises OSError."""
    connection.sendall(_HELLO)
    deadline, answer = time.monotonic() + _TIMEOUT_S, b""
    while len(answer) < _ANSWER_BEGINS:
        connection.settimeout(max(_MIN_TIMEOUT_S, deadline - time.monotonic()))
        received = connection.recv(_MAX_ANSWER)
        if not received:
            break
        answer += received
    return answer
