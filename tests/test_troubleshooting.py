"""docs/troubleshooting.md: each heading is a message that the package prints."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import llm_localrun
from tests.support.repository import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
TITLES = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
OURS = {
    "A name means another model than you expect",
    "The first answer is slow",
    "Every answer is slow",
    "llm: command not found",
}
"""What users search for besides our messages."""


def texts() -> Iterator[str]:
    """The constant texts of the package, an f-string with `…` for each value."""
    for path in Path(llm_localrun.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…"
                    for part in node.values
                )


TEXTS = [*texts()]


def fixed_words(title: str) -> list[str]:
    """The parts of a heading that are no names: of two words or more, or all if there are none."""
    parts = [part.strip(" '`.,:()") for part in title.split("…")]
    return [part for part in parts if len(part.split()) > 1] or [part for part in parts if part]


@pytest.mark.pure
@pytest.mark.parametrize("title", [title for title in TITLES if title not in OURS])
def test_headings_are_messages(title: str) -> None:
    for words in fixed_words(title):
        assert any(words in text for text in TEXTS), words


@pytest.mark.pure
def test_words_that_no_message_has_are_noticed() -> None:
    assert {*TITLES} >= OURS
    assert len(TITLES) > 30
    assert not any("is on fire" in text for text in TEXTS)
    assert fixed_words("No local model is called '…'") == ["No local model is called"]
