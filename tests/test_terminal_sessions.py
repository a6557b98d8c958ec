"""The instrument that `benchmarks/terminal_sessions.py` is, and what it has written."""

import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks.terminal_sessions import (
    DOCUMENT,
    SESSIONS,
    Screen,
    State,
    changed,
    recorded,
    rendered,
    thinned,
)
from tests.conftest import put_starter

SCREENS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "an answer alone": (["Hel", "lo\r\n", "you\r\n"], [], ["Hello", "you"]),
    "a line, and an answer in one piece": (
        ["\rloading: 1 s   ", "\rloading: 2 s   ", "\r               \rHello", " you\r\n"],
        ["loading: 1 s", "loading: 2 s", ""],
        ["Hello you"],
    ),
    "a line that goes on": (["\ra  ", "\r   \r", "\rb  ", "\r   \rc"], ["a", "", "b", ""], ["c"]),
    "a message between": (
        ["\ra  ", "\r   \rNote\r\n", "\rb  ", "\r   \rc"],
        ["a", "", "b", ""],
        ["Note", "c"],
    ),
    "an answer over what was not cleared": (["\rloading", "\rHi"], ["loading"], ["Hiading"]),
    "dim text": (["\x1b[2mthinking\x1b[0m\r\n", "so"], [], ["thinking", "so"]),
}
"""What is written; the line's states, and what stays."""


@pytest.mark.parametrize("case", SCREENS)
def test_screen(case: str) -> None:
    written, lines, kept = SCREENS[case]
    screen = Screen()
    for second, text in enumerate(written):
        screen.show(second, text)
    assert [state.text for state in screen.lines] == lines
    assert [state.text for state in screen.kept] == kept


@pytest.mark.parametrize(
    ("written", "width"),
    [
        (f"\r{'x' * 79}\r{' ' * 79}\rHello", 0),
        (f"\r{'x' * 80}\r{' ' * 80}\rHello", 80),
        # Spaces wrap too.
        (f"\rx{' ' * 79}\r{' ' * 80}\rHello", 80),
        (f"\r{'語' * 40}\r{' ' * 80}\rHello", 80),
        # An answer may be wrapped.
        ("Hello " * 20, 0),
    ],
)
def test_a_line_that_a_terminal_wraps_is_refused(written: str, width: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"print({written!r})"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    if not width:
        assert recorded(command, environment, tmp_path).kept[-1].text.startswith("Hello")
        return
    with pytest.raises(SystemExit, match=f"{width} of 80 columns are used"):
        recorded(command, environment, tmp_path)


def test_states_alike_are_thinned() -> None:
    alike = [State(n, 0, f"loading x: {n} of 99 MB") for n in range(99)]
    others = [State(100, 0, ""), State(101, 0, "waiting for 2 prompts"), State(102, 0, "")]
    shown = [state.seconds for state in thinned([*alike, *others])]
    assert shown == [0, 24, 49, 74, 98, 100, 101, 102]


def test_document_keeps_what_is_not_recorded_again() -> None:
    first = changed("", {"A pipe": "Old.", "A cold start": "Cold."})
    second = changed(first, {"A pipe": "New."})
    assert re.findall(r"^## (.*)\n\n(.*)", second, re.MULTILINE) == [
        ("A cold start", "Cold."),
        ("A pipe", "New."),
    ]


def test_document_has_all_sessions() -> None:
    text = DOCUMENT.read_text("utf-8")
    sections = dict(re.findall(r"^## (.*?)\n\n(.*?)(?=\n## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert [*sections] == [session.title for session in SESSIONS.values()]
    for title, section in sections.items():
        assert re.search(r"```console\n\$ llm .+\n *\d+\.\d  ", section), title
        assert len(re.findall(r"^Measured on \d{4}-\d\d-\d\d by ", section, re.MULTILINE)) == 1, (
            title
        )
    assert sections["A pipe"].rstrip().endswith("0 errors.txt\n```")
    assert not re.search(r"/(tmp|root|home|Users)/", text)


# Shows work at once, and often: a small file is loaded within a second.
_AT_ONCE = (
    "import sys; from llm_localrun.system import progress;"
    " progress._DELAY_S = 0; progress._REDRAW_S = 0.02; from llm.cli import cli; cli()"
)


def test_loading_is_shown_and_gone_before_the_first_word(
    user_path: Path, starter_model: Path, tmp_path: Path
) -> None:
    put_starter(user_path, starter_model)
    command = [sys.executable, "-c", _AT_ONCE, "-m", "local", "-o", "max_tokens", "5", "Hello"]
    screen = recorded(command, os.environ, tmp_path)
    answered = screen.kept[0]
    before = [state for state in screen.lines if state.seconds <= answered.seconds]
    # Other lines stand around it: "waiting for the answer", "reading the prompt".
    assert any(state.text.startswith("loading SmolLM2-135M-Instruct") for state in before)
    assert before[-1].text == ""
    assert before == screen.lines
    assert len(screen.kept) == 1
    assert answered.text in rendered("llm", screen)


def test_nothing_is_shown_in_a_pipe(user_path: Path, starter_model: Path, tmp_path: Path) -> None:
    put_starter(user_path, starter_model)
    script = f'{sys.executable} -c "{_AT_ONCE}" -m local -o max_tokens 5 Hello 2>errors | cat'
    screen = recorded(["sh", "-c", script], os.environ, tmp_path)
    assert (tmp_path / "errors").read_bytes() == b""
    assert (screen.lines, len(screen.kept)) == ([], 1)
