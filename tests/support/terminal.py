"""Runs llm's command on a terminal, and says what the terminal then shows."""

import os
import select
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from tests.support.drawn import lines_on


def on_terminal(*arguments: str, typed: str = "", stderr: int | None = None) -> str:
    """What `llm` shows on a terminal, on which `typed` is typed; `stderr` may go elsewhere.

    The line that shows work, which a slow machine shows longer, is not in it.
    """
    written = written_to_terminal(*arguments, typed=typed, stderr=stderr)
    return "\n".join(lines_on(written)) if "\r" in written else written


def written_to_terminal(*arguments: str, typed: str = "", stderr: int | None = None) -> str:
    """What `llm` writes to a terminal: `on_terminal`, with all that was cleared."""
    import pty

    ours, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "llm", *arguments],
        stdin=subprocess.PIPE,
        stdout=its,
        stderr=its if stderr is None else stderr,
        env={**os.environ, "TERM": "dumb"},
    ) as process:
        os.close(its)
        assert process.stdin is not None
        process.stdin.write(typed.encode())
        process.stdin.close()
        shown = b""
        # Linux reports the end of a terminal as an error.
        with suppress(OSError):
            while more := os.read(ours, 4096):
                shown += more
        os.close(ours)
    return shown.decode().replace("\r\n", "\n").replace("\x1b[2m", "").replace("\x1b[0m", "")


_OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execv(sys.executable, [sys.executable, '-m', 'llm', *sys.argv[1:]])"
)
"""Ctrl-C reaches only what has the terminal as its own."""
_CTRL_C = b"\x03"
_AGAIN_S = 3.0


def dialog(*arguments: str, question: str, answers: Sequence[str]) -> tuple[int, str]:
    """The status of `llm` on a terminal, and what that shows.

    One of `answers` is typed each time that a line ends with `question`.
    """
    import pty

    ours, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", _OWN_TERMINAL, *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "80"},
        start_new_session=True,
    ) as process:
        os.close(its)
        shown, left, typed = b"", list(answers), b""
        with suppress(OSError):
            while True:
                # A Ctrl-C just before the program waits for input is lost.
                if not select.select([ours], [], [], _AGAIN_S)[0]:
                    os.write(ours, typed if typed == _CTRL_C else b"")
                    continue
                if not (more := os.read(ours, 4096)):
                    break
                shown += more
                if left and shown.endswith(question.encode()):
                    typed = left.pop(0).encode()
                    os.write(ours, typed)
        os.close(ours)
    return process.returncode, shown.decode().replace("\r\n", "\n")


class Drawn(NamedTuple):
    """What stood on a terminal."""

    lines: list[str]
    """Each line that something was drawn over or below, as it was then."""
    screen: str
    """What stands there at the end, without the spaces that end a line."""


class Ended(NamedTuple):
    """A program that has ended."""

    status: int
    stdout: str
    drawn: Drawn


def drawn_by(
    *command: str, columns: int = 80, environment: Mapping[str, str] | None = None
) -> Ended:
    """Runs `command`, whose stderr alone is a terminal of so many columns."""
    import fcntl
    import pty
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    # What pytest sets as COLUMNS is for its own terminal.
    usual = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=its,
        env={**usual, **(environment or {})},
    ) as process:
        os.close(its)
        shown = b""
        with suppress(OSError):
            while more := os.read(ours, 4096):
                shown += more
        os.close(ours)
        assert process.stdout is not None
        stdout = process.stdout.read().decode()
    return Ended(process.returncode, stdout, drawn_in(shown.decode(errors="replace")))


def drawn_in(shown: str) -> Drawn:
    """What a terminal makes of a text: a carriage return lets what follows replace the line."""
    lines, done, line, at = list[str](), list[str](), "", 0
    for each in shown.replace("\r\n", "\n"):
        if each in "\r\n":
            lines += [line.rstrip()] if line.strip() else []
            done += [line.rstrip()] if each == "\n" else []
            line, at = (line if each == "\r" else ""), 0
        else:
            line, at = line[:at] + each + line[at + 1 :], at + 1
    return Drawn(lines, "\n".join([*done, line.rstrip()]))
