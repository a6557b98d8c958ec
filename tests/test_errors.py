"""Messages: sentences that quote names as they are."""

import ast
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import llm_localrun
from llm_localrun import errors
from llm_localrun.errors import ConfigError, LocalRunError, UnknownModel

NAMES = ("llama.cpp ", "llama-server ", "llm-gguf ", "pip ")
CLASSES = {name for name, value in vars(errors).items() if isinstance(value, type)}
PACKAGE = Path(llm_localrun.__file__).parent


@pytest.mark.parametrize(
    ("problem", "remedy", "message"),
    [
        ("foo is not loaded", "Load it", "foo is not loaded. Load it."),
        ("example.org does not answer", "Wait!", "example.org does not answer. Wait!"),
        (" A line\n  break.", "`llm localrun ps`", "A line\\n  break. `llm localrun ps`."),
        (
            "/m/a  \x1b[2J\u202e.gguf is gone",
            "?\x07",
            "/m/a  \\x1b[2J\\u202e.gguf is gone. ?\\x07.",
        ),
    ],
)
def test_message(problem: str, remedy: str, message: str) -> None:
    assert str(UnknownModel(problem, remedy)) == message


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOENT, "Check the path"),
        (errno.EACCES, "Fix its permissions"),
        (errno.ENOSPC, "Free space on its disk"),
        (errno.EIO, "Check its permissions and its disk"),
    ],
)
def test_error_of_the_operating_system(number: int, advice: str) -> None:
    error = ConfigError.from_os_error("read", "/a b", OSError(number, os.strerror(number)))
    assert isinstance(error, ConfigError)
    assert str(error) == f"/a b cannot be read: {os.strerror(number)}. {advice}."


def test_error_of_the_operating_system_with_other_advice() -> None:
    error = LocalRunError.from_os_error("written", "/x", OSError("odd"), "Ask")
    assert str(error) == "/x cannot be written: odd. Ask."


def _beginnings(node: ast.expr) -> Iterator[str]:
    """The literal texts that an expression can begin with; none if it begins with a value."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0]
    if isinstance(node, ast.IfExp):
        yield from _beginnings(node.body)
        yield from _beginnings(node.orelse)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def test_messages_begin_with_a_capital_letter_or_a_name() -> None:
    beginnings = [
        text
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in CLASSES
        for argument in node.args
        for text in _beginnings(argument)
    ]
    assert len(beginnings) > 100
    wrong = [text for text in beginnings if text[0].islower() and not text.startswith(NAMES)]
    assert wrong == []
