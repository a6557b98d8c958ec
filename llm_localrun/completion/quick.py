"""Answers a shell without starting llm: `python -I -S quick.py SHELL LINE`.

llm needs about a second of a processor to start, this a few hundredths. `shells` writes the path of
this file into the script of a shell. Status 0: the answer is printed; 2: the word is a path; 3: llm
has to answer.
"""

import os
import sys
from pathlib import Path

IS_PATH = 2
ASK_LLM = 3


def user_folder() -> Path:
    """llm's user directory, as `llm.user_dir` and click know it, without importing them."""
    if given := os.environ.get("LLM_USER_PATH"):
        return Path(given)
    home = os.path.expanduser("~")  # noqa: PTH111  # Path.expanduser raises instead
    if sys.platform == "win32":
        folder = os.environ.get("APPDATA", home)
    elif sys.platform == "darwin":
        folder = f"{home}/Library/Application Support"
    else:
        folder = os.environ.get("XDG_CONFIG_HOME", f"{home}/.config")
    return Path(folder) / "io.datasette.llm"


def main(shell: str, text: str) -> int:
    """Prints what the last word of `text` can become, and returns the status."""
    from llm_localrun.completion.answer import answer, needs_names
    from llm_localrun.completion.line import for_bash, for_zsh, split

    line = split(text)
    words, user = line.words[1:], user_folder()
    if needs_names(words, user):
        return ASK_LLM
    found = answer(words, line.typed, user)
    if found is None:
        return ASK_LLM
    if found.is_file:
        return IS_PATH
    if shell == "bash":
        lines = [for_bash(each.value, line) for each in found.candidates]
    elif shell == "zsh":
        lines = [f"{for_zsh(each.value)}:{each.help}" for each in found.candidates]
    else:
        lines = [f"{each.value}\t{each.help}" for each in found.candidates]
    sys.stdout.buffer.write("".join(f"{each}\n" for each in lines).encode())
    return 0


if __name__ == "__main__":
    # At the end, so that nothing beside the package hides a module of Python.
    sys.path.append(str(Path(__file__).parents[2]))
    sys.exit(main(*sys.argv[1:]))
