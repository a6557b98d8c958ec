"""Every example of README.md and docs/ runs here, and prints what its document shows.

`tests/README.md` says how examples are written; `docs/design/documentation.md` says why.
"""

import json
import os
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llm_localrun.config import Config
from llm_localrun.servers.discover import usual_addresses
from tests.conftest import EXAMPLES, counted
from tests.support.example_output import difference, is_another_answer, normalized, pieces
from tests.support.example_world import example_world
from tests.support.examples import (
    REASONS,
    ROOT,
    DocumentError,
    Example,
    documents,
    fences,
    read_examples,
)
from tests.support.outward import Guard


def examples_of(document: Path) -> list[Example]:
    try:
        return read_examples(document.read_text("utf-8"))
    except DocumentError as error:
        raise DocumentError(f"{document.relative_to(ROOT)}, {error}") from None


def asks_llm(document: Path) -> bool:
    """Whether its examples need models; one that cannot be read fails in its test."""
    try:
        examples = examples_of(document)
    except DocumentError:
        return False
    return any("llm" in example.text for example in examples if not example.reason)


def parameters() -> Iterator[object]:
    for document in documents():
        marks = [pytest.mark.coder] if asks_llm(document) else []
        yield pytest.param(document, id=document.name, marks=marks)


needs_bash = pytest.mark.skipif(
    os.name == "nt" or not shutil.which("bash"), reason="there is no bash"
)


# The documents

MODELS = {
    "starter": "coder_model",
    "starter:tiny": "starter_model",
    "starter:embed": "embedding_model",
}
"""The fixture of each model, by the REF that would pull it."""


@dataclass(frozen=True)
class Runs:
    """The examples of documents, each with its own world, while the tests wait for them."""

    problems: dict[Path, "Future[list[str]]"]
    no_models: str
    """Why there are no models; empty if there are."""


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest, guard: Guard) -> Iterator[Runs]:
    """Runs the examples of the selected documents, two at a time if each can have a network."""
    selected: list[Any] = [
        item.callspec.params["document"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == test_examples_of.__name__
    ]
    models, no_models = dict[str, Path](), ""
    if any(map(asks_llm, selected)):
        try:
            models = {ref: request.getfixturevalue(name) for ref, name in MODELS.items()}
        except pytest.skip.Exception as skipped:
            no_models = str(skipped)
    runnable = [each for each in selected if not (no_models and asks_llm(each))]
    skip_beside_servers(guard)
    with ThreadPoolExecutor(2 if guard.sees_children else 1) as pool:
        yield Runs(
            {each: pool.submit(problems_of, each, models, guard) for each in runnable}, no_models
        )
        pool.shutdown(cancel_futures=True)


def problems_of(document: Path, models: dict[str, Path], guard: Guard) -> list[str]:
    """What is wrong with the examples of a document, in a world and a network of their own."""
    examples = [example for example in examples_of(document) if not example.reason]
    if not examples:
        return []
    # It moves this thread, and what that starts, to another network namespace.
    own = Guard() if guard.sees_children else guard
    before = own.attempts()
    # A short path: some messages show it.
    with (
        tempfile.TemporaryDirectory(prefix="llm-") as folder,
        example_world(Path(folder), models if asks_llm(document) else {}) as world,
    ):
        problems = [problem for example in examples for problem in world.run(example)]
    if attempts := own.attempts() - before:
        problems.append(f"something tried {attempts} times to reach beyond this machine\n")
    return problems


@pytest.mark.examples
@needs_bash
@pytest.mark.parametrize("document", [*parameters()])
def test_examples_of(document: Path, runs: Runs, request: pytest.FixtureRequest) -> None:
    counts = Counter(example.reason for example in examples_of(document))
    if document not in runs.problems:
        pytest.skip(runs.no_models)
    problems = runs.problems[document].result()
    request.config.stash[EXAMPLES].update(counts)
    if problems:
        name = document.relative_to(ROOT)
        report = "\n".join(f"{name}, {problem}" for problem in problems)
        pytest.fail(f"{len(problems)} differ; {counted(counts)}\n\n{report}", pytrace=False)


def skip_beside_servers(guard: Guard) -> None:
    """The documents are about a machine without servers but those that they name."""
    if guard.sees_children:
        # The tests have a network of their own.
        return
    for kind, url in usual_addresses():
        address = urlsplit(url)
        with socket.socket() as ours:
            ours.settimeout(0.2)
            if ours.connect_ex((address.hostname or "", address.port or 0)) == 0:
                pytest.skip(f"something listens where {kind} would, at {url}")


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_settings_that_a_document_shows_are_valid(document: Path) -> None:
    for fence in fences(document.read_text("utf-8")):
        if fence.language == "json" and is_config(json.loads(fence.text)):
            Config.model_validate_json(fence.text)


def is_config(value: object) -> bool:
    """Whether a JSON value seems to be a config.json: most of its keys are settings."""
    if not isinstance(value, dict):
        return False
    known = value.keys() & Config.model_fields.keys()
    return len(known) * 2 > len(value)


def test_a_document_shows_settings() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    found = [json.loads(each.text) for each in fences(page) if each.language == "json"]
    assert [*map(is_config, found)] == [True]


# Reading documents

DOCUMENT = """\
# Title

<!-- with: ollama -->

```bash
llm -m local "Hi" # one
```

<!-- not run: needs a GPU -->

```console
$ llm one \\
    two
$ cat x
X

Y
```

1. In a list:

   ```python
   if True:
       print("a")
   ```

   ```output
   a
   ```

<!-- development -->

```bash
pytest
```

```json
{"a": 1}
```
"""


def test_a_document_is_read() -> None:
    bash, console, python, development = read_examples(DOCUMENT)
    assert (bash.line, bash.kind, bash.text) == (5, "bash", 'llm -m local "Hi" # one')
    assert (bash.reason, bash.servers) == ("", ("ollama",))
    assert console.reason == "needs a GPU"
    assert [(each.line, each.text, each.output) for each in console.commands] == [
        (12, "llm one \\\n    two", ""),
        (14, "cat x", "X\n\nY"),
    ]
    assert (python.text, python.output) == ('if True:\n    print("a")', "a")
    assert development.reason == "run by .ci/run"


REFUSED = {
    "a misspelled comment": ("<!-- not runn: needs a GPU -->\n```bash\nx\n```", "unknown comment"),
    "another word": ("<!-- skip -->\n\n```bash\nx\n```", "unknown comment 'skip'"),
    "an invented reason": ("<!-- not run: too slow -->\n```bash\nx\n```", "is no reason"),
    "a script that is not there": (
        "<!-- recorded by benchmarks/none.py -->\n```console\n$ x\n```",
        "there is no benchmarks/none.py",
    ),
    "an unknown server": ("<!-- with: olama -->\n```bash\nx\n```", "nothing is named 'olama'"),
    "another spelling": ("```sh\nx\n```", "sh is none of"),
    "commands without a language": ("```\n$ x\n```", "is `console`"),
    "no command": ("```console\nx\n```", "begins with"),
    "output of nothing": ("```bash\nx\n```\n```output\nx\n```", "there is no python block"),
    "output far away": ("```python\nx\n```\nText\n```output\nx\n```", "there is no python"),
    "no end": ("```bash\nx\n", "the block has no end"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_document_that_breaks_a_convention_is_refused(case: str) -> None:
    text, message = REFUSED[case]
    with pytest.raises(DocumentError, match=message):
        assert [each.commands for each in read_examples(text) if each.kind == "console"]


def test_a_comment_of_a_generated_part_is_known() -> None:
    for part in ("part", "help: llm x"):
        text = f"<!-- {part} -->\n\n```bash\nx\n```\n\n<!-- /{part} -->\n"
        assert [each.reason for each in read_examples(text)] == [""]


def test_what_is_not_run_has_a_known_reason() -> None:
    for document in documents():
        for example in examples_of(document):
            known = {"", "run by .ci/run", *REASONS}
            assert example.reason in known or example.reason.startswith("recorded by "), document


# Running them

WRONG = """\
```bash
true
false
true
```

```console
$ false
$ echo "Error: x"; false
Error: x
$ x=1
$ echo $x; cat notes/none.md | head -1
1
cat: notes/none.md: No such file or directory
$ echo a \\
    b >&2
a c
$ echo 3 models
3 models
```

```python
print(1 / 0)
```

```python
print("a")
```

```output
b
```
"""


@needs_bash
def test_a_world_says_what_is_wrong(tmp_path: Path) -> None:
    with example_world(tmp_path, {}) as world:
        problems = [text for example in read_examples(WRONG) for text in world.run(example)]
    assert [problem.partition(":\n")[0] for problem in problems] == [
        *("line 1", "line 8", "line 15", "line 22", "line 26")
    ]
    said = ("line 3 failed", "status 1", "-a c\n+a b", "ZeroDivisionError", "-b\n+a")
    for problem, text in zip(problems, said, strict=True):
        assert text in problem


# Comparing

LOADED = """\
name    pid    memory  context  unloads itself
qwen3   4242   491 MB   8,192   in 4 min 12 s
"""
ANSWER = "Red, blue and yellow.\n\nThese are the three."
PERSON = '{"name": "Ada", "age": 36}'

SAME: dict[str, tuple[str, str, list[str]]] = {
    "numbers, sizes, times, widths": (
        LOADED,
        "name  pid  memory  context  unloads itself\nqwen3   7   1.2 GB   32,768   in 59 s\n",
        [],
    ),
    "speeds and shares": ("24.5 tokens/s ±3%", "7 tokens/s ±12.5%", []),
    "dates": ("at 2026-11-30 12:01:02", "at 2027-01-02 00:00:00", []),
    "ids": ("01m8q2z7phejsnjfhnbg2vcm9c", "01m8q2z7qm9f61w2abdh8jfcak", []),
    "builds": ("xllamacpp 2026.10.11549, b10434", "xllamacpp 2026.10.2, b11549", []),
    "folders": ("~/.config/io.datasette.llm/localrun", "/home/me/user/localrun", []),
    "ports": ("http://localhost:11434", "http://localhost:5000", []),
    "charts": ("a ███▇█▄▄", "a ▁▂", []),
    "progress": ("Embedding  [####----]   50%  00:00:01\na", "Embedding\na", []),
    "lines wrapped elsewhere": ("a\nb c\nd e f\ng", "a\nb\nc d\ne f\ng", []),
    "any lines": ("a\n...\nd", "a\nb\nc\nd", []),
    "no lines": ("a\n...\nd", "a\nd", []),
    "the rest of a line": ("[0.1, 0.2, ...]", "[-3.0e-2, 1, 5, 6]", []),
    "an answer": ("The colors are:\n\n* red\n* blue", ANSWER, [ANSWER]),
    "an answer in a line": ("It says: Red.", f"It says: {ANSWER}", [ANSWER]),
    "two answers": ("Hello.\nYes.\nEnd", f"Hi\n{ANSWER}\nEnd", [ANSWER, "Hi"]),
    "JSON with its keys": ('{"name": "Bob",\n "age": 7}', PERSON, [PERSON]),
    "a text of JSON": ("Bob is 7", "Ada is 36", [PERSON]),
    "code of an answer": ("print(2)", "a = 1\nprint(a)", ["So:\n```python\na = 1\nprint(a)\n```"]),
}
"""What a document shows, what is printed, and the answers that are known."""


@pytest.mark.parametrize("case", SAME)
def test_what_differs_from_run_to_run_is_the_same(case: str) -> None:
    expected, got, answers = SAME[case]
    assert difference(expected, got, pieces(answers)) == ""


DIFFERENT: dict[str, tuple[str, str, list[str]]] = {
    "another name": ("local-qwen2.5", "local-qwen3", []),
    "another tag": ("qwen3:8b", "qwen3:4b", []),
    "another quantization": ("model  Q4_K_M", "model  Q8_0", []),
    "another command": ("Try: llm localrun pull x", "Try: llm localrun get x", []),
    "another count": ("3 models", "2 models", []),
    "another unit": ("491 MB", "491 s", []),
    "a column less": (LOADED, LOADED.replace("context", "").replace("8,192", ""), []),
    "another head": (LOADED, LOADED.replace("memory", "RAM"), []),
    "another error": ("Error: No model is called 'a'.", "Error: 'a' is no model.", []),
    "a line more": ("a\nb", "a\nWarning: x\nb", []),
    "a line less": ("a\nb", "a", []),
    "a word less in wrapped lines": ("a b\nc d", "a\nb d", []),
    "an empty line more": ("a\nb", "a\n\nb", []),
    "a line after the end": ("a\n...\nd", "a\nd\ne", []),
    "a warning before an answer": (ANSWER, f"Warning: x\n{ANSWER}", [ANSWER]),
    "a warning after an answer": (ANSWER, f"{ANSWER}\nWarning: x", [ANSWER]),
    "no answer": (ANSWER, "", [ANSWER]),
    "no JSON": ("Bob, 7", PERSON, [PERSON]),
    "JSON with another key": ('{"name": "Bob", "years": 7}', PERSON, [PERSON]),
    "an error instead of an answer": (ANSWER, "Error: x", ["Another answer"]),
    "a short answer elsewhere": ("3 models", "7 models", ["7"]),
    "another folder": ("~/.config/io.datasette.llm/localrun", "~/.cache/localrun", []),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_is_wrong_is_found(case: str) -> None:
    expected, got, answers = DIFFERENT[case]
    found = difference(expected, got, pieces(answers)).splitlines()
    assert found[:2] == ["--- expected", "+++ got"]
    assert any(line.startswith(("-", "+")) for line in found[3:])


def test_a_difference_shows_both_sides_after_normalizing() -> None:
    found = difference("12 ms\na", f"{ANSWER}\nb", [ANSWER])
    assert found.splitlines()[3:] == ["-«time»", "-a", "+«answer»", "+b"]


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("Red.", "Blue.", True),
        ("Red.", "", False),
        ("", "Blue.", False),
        ("Red.", "Error: It failed.", False),
        ('{"a": 1}', '{\n"a": 2}', True),
        ('{"a": 1}', '{"b": 2}', False),
        ('{"a": 1}', "Blue.", False),
    ],
)
def test_an_answer_that_is_not_known(expected: str, got: str, same: bool) -> None:
    assert is_another_answer(expected, got) == same


def test_normalizing_keeps_names() -> None:
    text = "qwen2.5-coder-0.5b-instruct-q4_k_m  Q4_K_M  local/ollama/qwen3:8b  gpt-4 utf-8"
    assert normalized(text) == [" ".join(text.split())]
