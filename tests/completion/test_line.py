"""Command lines are split as shells split them, and words are quoted as bash needs it."""

import shlex
import shutil
import subprocess

import pytest

from llm_localrun.completion.line import Line, for_bash, split

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", Line([], "")),
        ("llm", Line([], "llm")),
        ("llm ", Line(["llm"], "")),
        ("llm  -m\tlo", Line(["llm", "-m"], "lo")),
        ("llm 'a b' lo", Line(["llm", "a b"], "lo")),
        ("llm '' lo", Line(["llm", ""], "lo")),
        (r"llm a\ b", Line(["llm"], "a b")),
        (r"llm 'a\ b", Line(["llm"], r"a\ b", "'")),
        (r'llm "a\" b', Line(["llm"], 'a" b', '"')),
        ("llm local/x:8", Line(["llm"], "local/x:8", kept="local/x:")),
        ("llm local/x:8 lo", Line(["llm", "local/x:8"], "lo")),
        ("llm --model=a:b", Line(["llm"], "--model=a:b", kept="--model=a:")),
        ("llm 'local/x:8", Line(["llm"], "local/x:8", "'")),
        (r"llm local/x\:8", Line(["llm"], "local/x:8")),
    ],
)
def test_a_line_is_split(text: str, line: Line) -> None:
    assert split(text) == line


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize(
    "value", ["a b", "it's", '"', "$HOME", "`x`", "a\\b", "*?[", "ä", "a;b&c|"]
)
def test_a_quoted_word_is_the_value(quote: str, value: str) -> None:
    typed = quote + for_bash(value, Line([], "", quote)) + quote
    if quote != '"':
        assert shlex.split(typed) == [value]
    if bash := shutil.which("bash"):
        done = subprocess.run([bash, "-c", f"printf %s {typed}"], capture_output=True, check=True)
        assert done.stdout.decode() == value


def test_bash_gets_what_follows_the_last_break() -> None:
    assert for_bash("local/x:8b", split("llm local/x:8")) == "8b"
    assert for_bash("local/x:8b", split("llm 'local/x:8")) == "local/x:8b"
