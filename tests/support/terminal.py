"""Runs llm's command on a terminal, and says what the terminal then shows."""

import os
import subprocess
import sys
from contextlib import suppress


def on_terminal(*arguments: str, typed: str = "", stderr: int | None = None) -> str:
    """What `llm` shows on a terminal, on which `typed` is typed; `stderr` may go elsewhere."""
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
