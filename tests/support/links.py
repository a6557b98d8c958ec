"""Reads the links of documents, and what can be linked to in them, as GitHub renders them."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from tests.support.examples import ROOT

REPOSITORY = "https://github.com/llm-localrun/llm-localrun"
REGISTRIES = re.compile(
    r"https?://(?:[\w.-]+\.)?(?:pypi\.org|pythonhosted\.org|npmjs\.com|npmjs\.org|crates\.io"
    r"|anaconda\.org|rubygems\.org|formulae\.brew\.sh)\b"
)
_CODE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2 *$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)|^\[[^\]]+\]: +(\S+)", re.MULTILINE)
_HTML_LINK = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"\s]+)", re.DOTALL)
_HTML_ANCHOR = re.compile(r"<\w+\b[^>]*?\b(?:id|name)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)


def documents_with_links() -> list[Path]:
    """The documents that a person may read first."""
    at_top = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "tests/README.md")
    return [*(ROOT / name for name in at_top), *sorted((ROOT / "docs").rglob("*.md"))]


def links_in(text: str) -> list[str]:
    """All targets of links and pictures of a document."""
    prose = _CODE.sub("", text)
    found = [target or named for target, named in _LINK.findall(prose)]
    return [*found, *_HTML_LINK.findall(prose)]


def broken(document: Path) -> Iterator[str]:
    """The links of `document` to files and headings that do not exist here."""
    for link in links_in(document.read_text("utf-8")):
        target, _, anchor = link.partition("#")
        if target.startswith(f"{REPOSITORY}/blob/main/"):
            path = ROOT / target.removeprefix(f"{REPOSITORY}/blob/main/")
        elif re.match(r"[a-z]+:", target):
            continue
        else:
            path = document.parent / unquote(target) if target else document
        has_anchor = not anchor or (path.is_file() and anchor in anchors(path.read_text("utf-8")))
        if not path.exists() or not has_anchor:
            yield link


def anchors(text: str) -> set[str]:
    """What `#…` can name in a document: its headings, and elements with an id."""
    prose = re.sub(r"^( *)(`{3,}).*?^\1\2 *$", "", text, flags=re.MULTILINE | re.DOTALL)
    seen, found = Counter[str](), set[str]()
    for heading in _HEADING.findall(prose):
        name = anchor_of(heading)
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found | {*_HTML_ANCHOR.findall(prose)}


def anchor_of(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
