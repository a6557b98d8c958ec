"""Reads the documents' examples: which blocks of code there are, and which of them are run.

A fence of `console`, `bash` or `python` is an example. Comments in the lines above it say whether
it is run, and what it needs. How examples are run is left to `example_world`, and what counts as
the same output to `example_output`.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

KINDS = ("console", "bash", "python")
_OTHER_SPELLINGS = frozenset({"sh", "shell", "zsh", "fish", "shell-session", "pycon", "py"})
"""Languages that would hide an example from the test."""

REASONS = frozenset(
    {
        "needs a GPU",
        "needs Ollama",
        "needs LM Studio",
        "needs another machine",
        "needs another program",
        "needs a vision model",
        "needs the Hugging Face hub",
        "needs the package index",
        "not published yet",
        "changes your shell",
        "uninstalls the plugin",
        "asks for a key",
        "takes minutes",
        "depends on the speed of the machine",
    }
)
"""Why an example may be left out. A recorded one names its script instead, and CI runs the one that
is marked `development`."""

SERVERS = frozenset({"ollama", "lmstudio", "vllm", "llama-server"})
"""What `<!-- with: NAME -->` adds to the world."""

_FENCE = re.compile(r"(?P<indent> *)(?P<mark>`{3,}|~{3,})(?P<language>[\w-]*)")
_COMMENT = re.compile(r"<!-- (.*) -->")
_RECORDED = re.compile(r"recorded by (benchmarks/\w+\.py)")


class DocumentError(Exception):
    """A document that breaks a convention; the message names the line."""


@dataclass(frozen=True)
class Command:
    """A command of a `console` example, and what the document says that it prints."""

    line: int
    text: str
    output: str

    @property
    def is_chat(self) -> bool:
        return self.text.startswith("llm chat")

    @property
    def typed(self) -> str:
        """What a person types while `llm chat` runs."""
        lines = self.output.splitlines() if self.is_chat else []
        return "".join(f"{line[2:]}\n" for line in lines if line.startswith("> "))


@dataclass(frozen=True)
class Example:
    """A block of code."""

    line: int
    """The line of its fence."""
    kind: str
    text: str
    reason: str = ""
    """Why it is not run; empty if it is."""
    servers: tuple[str, ...] = ()
    """What the document has added to the world by then."""
    output: str | None = None
    """What a Python script prints; None: the document does not say."""

    @property
    def commands(self) -> tuple[Command, ...]:
        """Those of a `console` example."""
        return tuple(_commands(self.text, self.line + 1))


@dataclass(frozen=True)
class Fence:
    """Any block of code."""

    line: int
    end: int
    language: str
    text: str
    comments: tuple[str, ...]
    """Those above it, with nothing but empty lines between."""


def documents() -> list[Path]:
    """The documents whose examples are run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read_examples(text: str) -> list[Example]:
    """The examples of a document, in order. Raises `DocumentError`."""
    found: list[Example] = []
    parts = {*re.findall(r"^<!-- /(.+) -->$", text, re.MULTILINE), "development"}
    added = [*_added_servers(text)]
    previous: Fence | None = None
    for fence in fences(text):
        if fence.language == "output":
            found[-1:] = [_with_output(found, previous, fence, text)]
        elif (reason := _reason(fence, parts)) or fence.language in KINDS:
            servers = tuple(dict.fromkeys(name for line, name in added if line < fence.line))
            found.append(Example(fence.line, fence.language, fence.text, reason, servers))
        else:
            _check_hides_none(fence)
        previous = fence
    return found


def fences(text: str) -> Iterator[Fence]:
    """All blocks of code of a document. Raises `DocumentError`."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        if not opening:
            at += 1
            continue
        mark, indent = opening["mark"], opening["indent"]
        end = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == mark), None)
        if end is None:
            raise DocumentError(f"line {at + 1}: the block has no end")
        body = textwrap.dedent("\n".join(lines[at + 1 : end])) if indent else None
        code = "\n".join(lines[at + 1 : end]) if body is None else body
        yield Fence(at + 1, end + 1, opening["language"], code, _comments_above(lines, at))
        at = end + 1


def _comments_above(lines: list[str], at: int) -> tuple[str, ...]:
    found: list[str] = []
    for line in reversed(lines[:at]):
        comment = _COMMENT.fullmatch(line.strip())
        if comment:
            found.append(comment[1])
        elif line.strip():
            break
    return tuple(reversed(found))


def _added_servers(text: str) -> Iterator[tuple[int, str]]:
    """The line and name of each `<!-- with: NAME -->`, which holds to the end of the document."""
    for number, line in enumerate(text.splitlines(), 1):
        if added := re.fullmatch(r"<!-- with: (.*) -->", line.strip()):
            if added[1] not in SERVERS:
                raise DocumentError(f"line {number}: nothing is named {added[1]!r}: {SERVERS}")
            yield number, added[1]


def _reason(fence: Fence, parts: set[str]) -> str:
    """Why the block is not run; empty if nothing says so. Raises `DocumentError`."""
    reasons = [""]
    for comment in fence.comments:
        if comment.startswith("not run: "):
            reason = comment.removeprefix("not run: ")
            if reason not in REASONS:
                raise DocumentError(f"line {fence.line}: {reason!r} is no reason: {REASONS}")
            reasons.append(reason)
        elif recorded := _RECORDED.fullmatch(comment):
            if not (ROOT / recorded[1]).exists():
                raise DocumentError(f"line {fence.line}: there is no {recorded[1]}")
            reasons.append(comment)
        elif comment == "development":
            reasons.append("run by .ci/run")
        elif not comment.startswith("with: ") and comment.removeprefix("/") not in parts:
            raise DocumentError(f"line {fence.line}: unknown comment {comment!r}")
    return reasons[-1]


def _check_hides_none(fence: Fence) -> None:
    if fence.language in _OTHER_SPELLINGS:
        raise DocumentError(f"line {fence.line}: {fence.language} is none of {KINDS}")
    if re.search(r"^\$ ", fence.text, re.MULTILINE):
        raise DocumentError(f"line {fence.line}: a block with `$ ` lines is `console`")


def _with_output(found: list[Example], above: Fence | None, output: Fence, text: str) -> Example:
    """The last of `found`, which prints `output`."""
    between = text.splitlines()[above.end : output.line - 1] if above else ["?"]
    if not (above and above.language == "python") or any(line.strip() for line in between):
        raise DocumentError(f"line {output.line}: there is no python block right above the output")
    last = found[-1]
    return Example(last.line, last.kind, last.text, last.reason, last.servers, output.text)


def _commands(text: str, first_line: int) -> Iterator[Command]:
    lines = text.splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith("$ ")]
    if not starts or any(line.strip() for line in lines[: starts[0]]):
        raise DocumentError(f"line {first_line}: a console block begins with `$ `")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        output = start + 1
        while lines[output - 1].endswith("\\") and output < end:
            output += 1
        command = "\n".join([lines[start][2:], *lines[start + 1 : output]])
        yield Command(first_line + start, command, "\n".join(lines[output:end]).strip("\n"))
