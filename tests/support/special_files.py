"""What may lie where a file is expected: pipes, sockets, devices, folders, links, odd contents."""

import socket
from collections.abc import Callable
from os import mkfifo
from pathlib import Path

GB = 10**9


def _socket(path: Path) -> None:
    # A path of a socket is short, so it is made elsewhere and moved.
    short = Path("/tmp") / f"s{abs(hash(path)) % 10**9}"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(short))
    short.rename(path)


def _sparse(path: Path, data: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(data)
        file.truncate(100 * GB)


def _unreadable(path: Path) -> None:
    path.write_bytes(b"{}")
    path.chmod(0)


def _link_to_pipe(path: Path) -> None:
    target = path.with_name(f"{path.name}.fifo")
    mkfifo(target)
    path.symlink_to(target)


NOT_REGULAR: dict[str, Callable[[Path], None]] = {
    "a pipe": mkfifo,
    "a link to a pipe": _link_to_pipe,
    "a socket": _socket,
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
}
"""What makes a file that no command may open, by what it is."""
SPECIAL: dict[str, Callable[[Path], object]] = {
    **NOT_REGULAR,
    "/dev/tty": lambda path: path.symlink_to("/dev/tty"),
    "a folder": lambda path: path.mkdir(),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a loop of links": lambda path: path.symlink_to(path.name),
    "unreadable": _unreadable,
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 100),
    "deep JSON": lambda path: path.write_bytes(b"[" * 100_000),
    "JSON of another type": lambda path: path.write_bytes(b'[1, {"a": null}, "x"]'),
    "100 GB of nothing": _sparse,
    "100 GB, a GGUF at first": lambda path: _sparse(path, b"GGUF\3\0\0\0" + bytes(16)),
}
"""What makes each, by what it is."""
