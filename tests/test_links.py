"""The documents' links lead to something, and none leads to a package registry.

Links to other hosts are not followed: nothing here reaches beyond this machine.
"""

from pathlib import Path

import pytest

from tests.support.examples import ROOT
from tests.support.links import (
    REGISTRIES,
    REPOSITORY,
    anchors,
    broken,
    documents_with_links,
    links_in,
)

DOCUMENTS = documents_with_links()


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_of(document: Path) -> None:
    assert [*broken(document)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_no_link_to_a_package_registry(document: Path) -> None:
    assert REGISTRIES.findall(document.read_text("utf-8")) == []


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        reached.add(document)
        targets = (link.partition("#")[0] for link in links_in(document.read_text("utf-8")))
        here = ((document.parent / target).resolve() for target in targets if ":" not in target)
        waiting += {path for path in here if path.suffix == ".md" and path.is_file()} - reached
    assert {*(ROOT / "docs").glob("*.md")} - reached == set()


BROKEN = {
    "[a](there.md)": [],
    "[a](none.md)": ["none.md"],
    "[a](there.md#two-words)": [],
    "[a](there.md#other)": ["there.md#other"],
    "[a](#here)": ["#here"],
    "# Here\n\n[a](#here)": [],
    "![picture](none.svg)": ["none.svg"],
    '<img alt="x"\n src="none.svg">': ["none.svg"],
    "[a]: none.md": ["none.md"],
    "[![b](b.svg)](none.md)": ["b.svg", "none.md"],
    "`[a](none.md)`": [],
    "```text\n[a](none.md)\n```": [],
    "[a](https://example.org/none.md#x)": [],
    f"[a]({REPOSITORY}/blob/main/README.md)": [],
    f"[a]({REPOSITORY}/blob/main/none.md)": [f"{REPOSITORY}/blob/main/none.md"],
}
"""By the text of a document: its links that are broken."""


@pytest.mark.parametrize("text", BROKEN)
def test_broken_links_are_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("## Two `words`\n\n")
    document = tmp_path / "document.md"
    document.write_text(text)
    assert [*broken(document)] == BROKEN[text]


def test_anchors() -> None:
    text = '# A: `b_c` (d)\n## Same\n## Same\n```bash\n# no heading\n```\n<a id="own"></a>\n'
    assert anchors(text) == {"a-b_c-d", "same", "same-1", "own"}


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("https://pypi.org/project/llm/", True),
        ("https://test.pypi.org/x", True),
        ("https://files.pythonhosted.org/x", True),
        ("https://www.npmjs.com/package/x", True),
        ("https://llm.datasette.io/", False),
        ("https://github.com/pypi/x", False),
    ],
)
def test_package_registries_are_known(text: str, is_one: bool) -> None:
    assert bool(REGISTRIES.search(text)) == is_one
