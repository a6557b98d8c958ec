"""Servers that do not answer as a model server should: off, silent, or something else.

Each is used in a `with` block and has a `url`, as `StandIn` has.
"""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from tests.fakes.http_server import Respond, StandIn, json_reply, text, whole
from tests.fakes.openai_compatible import Server, web_interface

ServerFactory = Callable[[], "AbstractContextManager[Any]"]
"""Makes a server for a `with` block."""


def always(*pieces: bytes | float) -> Respond:
    """A function for `StandIn` that answers every request with the same pieces."""
    return lambda _: pieces


class Off:
    """A port where nothing listens."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            self.port: int = unused.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Off":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Silent:
    """A port where the system accepts connections and no request is answered."""

    def __enter__(self) -> "Silent":
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._accepted: list[socket.socket] = []
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (*self._accepted, self._socket):
            connection.close()

    def connections(self) -> int:
        """The number of connections since the last call."""
        before = len(self._accepted)
        while True:
            try:
                self._accepted.append(self._socket.accept()[0])
            except BlockingIOError:
                return len(self._accepted) - before


class Resetting:
    """A server that resets the connection when it receives a request."""

    def __enter__(self) -> "Resetting":
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                if connection.recv(2**16):
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def needs_key() -> StandIn:
    """A server that answers 401 to every request."""
    return StandIn(always(json_reply({"error": "Unauthorized"}, 401)))


def website() -> StandIn:
    """A web server that answers every request with an HTML page."""
    return StandIn(always(whole(b"<html>Hello</html>", "text/html")))


def airplay() -> Server:
    """The AirPlay receiver of macOS, on text-generation-webui's port."""
    return Server({}, lambda _: text("", 403, ""))


def jupyter() -> Server:
    """Jupyter, on Unsloth's port."""
    return Server({}, web_interface)
