"""How the user runs `llm`, so that the commands in messages work when they are pasted.

Writing the messages is left to those who know what is wrong.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig

_COMMAND = re.compile(
    r"(?<![\w./\\-])llm"
    r"(?= (?:aliases|embed|install|keys|localrun|models|templates|uninstall|-m)\b)"
)


def quoted(*words: str) -> str:
    """The words as one command line, for the shell of this system."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def runnable(text: str) -> str:
    """`text`, in which commands begin with the `llm` that runs, unless the shell finds that one.

    `llm -m local` becomes `.venv/bin/llm -m local` if the user has started it so and `llm` is
    another one on PATH, or none. Commands that begin with it already stay.
    """
    if not _COMMAND.search(text) or (program := _program()) == "llm":
        return text
    return program.join(_COMMAND.sub(lambda _: program, part) for part in text.split(program))


def _program() -> str:
    """What runs this `llm` in a shell. A program that is not llm's suggests llm's name."""
    folder, name = os.path.split(sys.argv[0])
    is_module = name == "__main__.py" and os.path.basename(folder) == "llm"  # noqa: PTH119
    if not is_module and (not folder or name.lower().removesuffix(".exe") != "llm"):
        return "llm"
    own = os.path.join(sysconfig.get_path("scripts"), "llm") if is_module else sys.argv[0]  # noqa: PTH118
    on_path = shutil.which("llm")
    if on_path and _file_of(on_path) == _file_of(own):
        return "llm"
    return quoted(sys.executable, "-m", "llm") if is_module else quoted(sys.argv[0])


def _file_of(program: str) -> str:
    """The file that a program is. Windows starts `llm.exe` without its suffix in `sys.argv`."""
    path = os.path.normcase(os.path.realpath(program))
    return path.removesuffix(".exe")
