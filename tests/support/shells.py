"""Real shells on a terminal: what a command receives after Tab was pressed."""

import os
import re
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROMPT = "ready> "
_LIMIT_S = 30.0
"""Ends the test of a shell that hangs."""
_COMMANDS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
# A function in the place of `llm` shows the words that it gets. Completion still asks the program.
_SETUP = {
    "bash": 'PS1="{prompt}"; llm() {{ printf "[%s]" "$@"; echo :END; }}; . {script}',
    "zsh": (
        'autoload -Uz compinit; compinit -u -D; unsetopt prompt_cr prompt_sp; PS1="{prompt}";'
        ' . {script}; llm() {{ printf "[%s]" "$@"; echo :END; }}'
    ),
    "fish": (
        'function fish_prompt; echo -n "{prompt}"; end; . {script};'
        " function llm; printf '[%s]' $argv; echo :END; end"
    ),
}
# Job control needs the terminal to be the shell's own.
_OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execvp(sys.argv[1], sys.argv[1:])"
)
SHELLS = [name for name in _COMMANDS if shutil.which(name)]
"""The shells that are installed."""


class Shell:
    """A shell that completes with `script`."""

    def __init__(self, terminal: int, name: str, script: Path) -> None:
        self._terminal = terminal
        self._shown = b""
        setup = _SETUP[name].format(prompt=_PROMPT.strip()[:2] + '""' + _PROMPT[2:], script=script)
        self._send(f"{setup}\r")
        self._read_until(_PROMPT)

    def words(self, typed: str) -> str:
        r"""The words that `llm` receives if this is typed, with `\t` for Tab: "[-m][local]"."""
        self._send(typed)
        self._send("\r")
        found = re.search(r"(?:\[[^\[\]\x1b\r\n]*\])+(?=:END$)", self._read_until(":END"))
        return found[0] if found else ""

    def shown(self, typed: str, until: str) -> str:
        """What the terminal shows after this was typed, up to and with `until`."""
        self._send(typed)
        shown = self._read_until(until)
        self._send("\x03")
        return shown

    def _send(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _read_until(self, text: str) -> str:
        """What the terminal shows up to `text`. Fails after a long time without it."""
        until = time.monotonic() + _LIMIT_S
        while text.encode() not in self._shown:
            ready, _, _ = select.select([self._terminal], [], [], 1.0)
            if ready:
                self._shown += os.read(self._terminal, 65536)
            assert time.monotonic() < until, self._shown.decode(errors="replace")
        found, _, self._shown = self._shown.partition(text.encode())
        return found.decode(errors="replace").replace("\r\n", "\n") + text


@contextmanager
def started(name: str, script: Path) -> Iterator[Shell]:
    """A shell that has read `script`."""
    import fcntl
    import pty
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "HISTFILE": ""}
    process = subprocess.Popen(
        [sys.executable, "-c", _OWN_TERMINAL, *_COMMANDS[name]],
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
        start_new_session=True,
    )
    os.close(its)
    try:
        yield Shell(ours, name, script)
    finally:
        process.kill()
        process.wait()
        with suppress(OSError):
            os.close(ours)
