"""Counts the attempts to reach beyond this machine while the tests run.

On Linux, as root, the tests run in a network namespace of their own, with the loopback device and
without routes. The kernel refuses and counts whatever would leave it, from any process: this one,
an `llm` command, an engine's native code, a resolver of names. Elsewhere an audit hook counts, and
it sees this process only.
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llm_localrun.privacy import is_loopback

_CLONE_NEWNET = 0x40000000
_NET = Path("/proc/thread-self/net")
_COUNTERS = {
    # A connection or a datagram for which there was no way out.
    *("Ip.OutNoRoutes", "Ip6OutNoRoutes"),
    # A question to a name server on the loopback device, which stands for one elsewhere.
    *("Udp.NoPorts", "Udp6NoPorts"),
}


class Guard:
    """Counts attempts to reach beyond this machine, except for expected ones."""

    def __init__(self) -> None:
        self._excused = 0
        self._outside: int | None = None
        try:
            self._enter_namespace()
            self._count: Callable[[], int] = _counted_by_kernel
            self.how = "as the kernel counts"
        except OSError as error:
            self._count = _counted_by_hook()
            self.how = (
                f"as far as Python's audit hook knows; no network namespace: {error.strerror}"
            )

    @property
    def sees_children(self) -> bool:
        """Whether it counts more than what this process does in Python."""
        return self._outside is not None

    def attempts(self) -> int:
        """The number of unexpected attempts so far."""
        return self._count() - self._excused

    @contextlib.contextmanager
    def expected(self) -> Iterator[Callable[[], int]]:
        """Excuses the attempts of its block; gives a function that counts them."""
        before = self._count()
        try:
            yield lambda: self._count() - before
        finally:
            self._excused += self._count() - before

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Lets its block, and the processes that it starts, out."""
        if self._outside is None:
            yield
            return
        inside = os.open(_NET.with_name("ns") / "net", os.O_RDONLY)
        _check(_libc().setns(self._outside, _CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc().setns(inside, _CLONE_NEWNET))
            os.close(inside)

    def _enter_namespace(self) -> None:
        """Raises OSError where that is not to be had."""
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "only Linux has them")
        import fcntl

        outside = os.open(_NET.with_name("ns") / "net", os.O_RDONLY)
        _check(_libc().unshare(_CLONE_NEWNET))
        self._outside = outside
        set_flags, up = 0x8914, 0x1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14x", b"lo", up))


def _libc() -> ctypes.CDLL:
    """What Python's `os` has of it from 3.12 on only."""
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _counted_by_kernel() -> int:
    return sum(count for name, count in _kernel_counts() if name in _COUNTERS)


def _kernel_counts() -> Iterator[tuple[str, int]]:
    """Of this thread's namespace: `Protocol.Counter` of version 4, `Protocol6Counter` of 6."""
    lines = (_NET / "snmp").read_text().splitlines()
    for names, counts in zip(lines[::2], lines[1::2], strict=True):
        protocol, *names_of_protocol = names.split()
        for name, count in zip(names_of_protocol, counts.split()[1:], strict=True):
            yield f"{protocol.removesuffix(':')}.{name}", int(count)
    for line in (_NET / "snmp6").read_text().splitlines():
        name, count = line.split()
        yield name, int(count)


def _counted_by_hook() -> Callable[[], int]:
    """Counts from now on, in this process, what is not for the loopback device."""
    found: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
            host = str(arguments[1][0])
        elif event == "socket.getaddrinfo":
            host = str(arguments[0] or "localhost")
        else:
            return
        if not is_loopback(f"http://[{host}]" if ":" in host else f"http://{host}"):
            found.append(host)

    sys.addaudithook(hook)
    return lambda: len(found)
