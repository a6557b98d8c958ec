"""llama.cpp's `ggml-rpc-server`, as far as the greeting: the bytes are those of b10434.

Like the original it serves one program at a time. The first that stays connected has it.
"""

import socket
import threading
from contextlib import suppress

HELLO = b"\x0e" + (24).to_bytes(8, "little") + bytes(24)
NOT_RPC = b"HTTP/1.1 400 Bad Request\r\n\r\n"


def greeting(version: bytes = b"\5\0\0") -> bytes:
    return (28).to_bytes(8, "little") + version.ljust(28, b"\0")


class RpcServer:
    """Answers `answer` in `pieces` to a greeting; None is silence, b"" closes the connection."""

    def __init__(self, answer: bytes | None = greeting(), pieces: int = 1) -> None:
        self._answer, self._pieces = answer, pieces
        self.address = ""
        self.received: list[bytes] = []
        """The greetings."""
        self.was_reset = threading.Event()
        """Set when a client has reset its connection: closing it may end the original."""

    def __enter__(self) -> "RpcServer":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{1}".format(*self._listener.getsockname())
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                try:
                    with connection:
                        self._answer_one(connection)
                except ConnectionResetError:
                    self.was_reset.set()

    def _answer_one(self, connection: socket.socket) -> None:
        self.received.append(connection.recv(64))
        answer = self._answer or b""
        size = -(-len(answer) // self._pieces) or 1
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(answer), size):
            connection.sendall(answer[at : at + size])
        while self._answer != b"" and connection.recv(64):
            pass
