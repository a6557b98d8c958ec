"""docs/python.md has a row for every class of errors, and every class is llm's `ModelError`."""

import re
from collections.abc import Iterator
from pathlib import Path

import llm
import pytest

from llm_localrun.errors import LocalRunError

pytestmark = pytest.mark.pure

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text("utf-8")


def tree(cls: type[LocalRunError]) -> Iterator[type[LocalRunError]]:
    """`cls` and its subclasses in the package, each before its own."""
    yield cls
    for each in cls.__subclasses__():
        if each.__module__ == LocalRunError.__module__:
            yield from tree(each)


def test_every_error_has_a_row() -> None:
    section = PAGE.partition("## Errors")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section, flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == [cls.__name__ for cls in tree(LocalRunError)]
    assert all(issubclass(cls, llm.ModelError) for cls in tree(LocalRunError))
