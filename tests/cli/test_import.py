"""`llm localrun import`: what llm-gguf has registered becomes aliases of models here."""

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun.cli import import_
from llm_localrun.files.named import remembered
from tests.conftest import Invoke, Llm, one_error
from tests.support.trees import gguf

Register = Callable[..., None]


@pytest.fixture
def register(user_path: Path) -> Register:
    """Writes an index of llm-gguf, as its version 0.2 does."""

    def write(entries: Any, name: str = "models.json") -> None:
        (user_path / "gguf").mkdir(exist_ok=True)
        (user_path / "gguf" / name).write_text(json.dumps(entries, indent=2))

    return write


@pytest.fixture
def chat(user_path: Path) -> Path:
    """What `llm gguf download-model` puts there."""
    return gguf(user_path / "gguf" / "models" / "Llama-3.2-3B-Q4_K_M.gguf")


def aliases(user_path: Path) -> Any:
    path = user_path / "aliases.json"
    return json.loads(path.read_text()) if path.exists() else {}


ID = "local/gguf/Llama-3.2-3B-Q4_K_M"


def test_shown_only_without_a_terminal(
    user_path: Path, register: Register, chat: Path, invoke: Invoke
) -> None:
    register({"Llama-3.2-3B-Q4_K_M": {"path": str(chat), "aliases": ["l3", "my model"]}})
    done = invoke("localrun", "import", "llm-gguf")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "llm-gguf                  here",
        f"gguf/Llama-3.2-3B-Q4_K_M  {ID}",
        "",
        f"llm aliases set l3 {ID}",
        f"llm aliases set 'my model' {ID}",
    ]
    assert done.stderr == (
        "\nNothing was changed. To run them: `llm localrun import llm-gguf --yes`\n"
    )
    assert aliases(user_path) == {}
    assert remembered() == []


def test_yes_does_it_once_and_leaves_the_files(
    user_path: Path, tmp_path: Path, register: Register, chat: Path, invoke: Invoke
) -> None:
    elsewhere = gguf(tmp_path / "disk" / "coder.gguf")
    register(
        {
            "Llama-3.2-3B-Q4_K_M": {"path": str(chat), "aliases": ["l3"]},
            "coder": {"path": str(elsewhere), "aliases": ["c"], "n_ctx": 4096},
        }
    )
    before = (user_path / "gguf" / "models.json").read_bytes()
    done = invoke("localrun", "import", "llm-gguf", "--yes")
    assert (done.exit_code, done.stderr) == (0, "Done: 4 commands\n")
    assert aliases(user_path) == {"l3": ID, "c": "local/gguf/coder"}
    assert remembered() == [str(elsewhere)]
    options = json.loads((user_path / "model_options.json").read_text())
    assert options == {"local/gguf/coder": {"context_size": 4096}}
    assert (user_path / "gguf" / "models.json").read_bytes() == before
    assert chat.exists()
    assert elsewhere.exists()
    again = invoke("localrun", "import", "llm-gguf", "--yes")
    assert again.stderr == "There is nothing to change.\n"


def test_file_stays_listed_without_the_index(
    tmp_path: Path, user_path: Path, register: Register, invoke: Invoke
) -> None:
    path = gguf(tmp_path / "disk" / "coder.gguf")
    register({"coder": {"path": str(path), "aliases": []}})
    assert invoke("localrun", "import", "llm-gguf", "--yes").exit_code == 0
    (user_path / "gguf" / "models.json").unlink()
    listed = json.loads(invoke("localrun", "models", "--json").stdout)
    assert [model["id"] for model in listed] == ["local/gguf/coder"]


@pytest.mark.parametrize(("answer", "expected"), [("y\n", {"l3": ID}), ("n\n", {})])
def test_a_terminal_is_asked(
    user_path: Path,
    register: Register,
    chat: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    expected: dict[str, str],
) -> None:
    register({"chat": {"path": str(chat), "aliases": ["l3"]}})
    monkeypatch.setattr(import_, "_is_terminal", lambda: True)
    done = invoke("localrun", "import", "llm-gguf", input=answer)
    assert "Run it? [y/N]: " in done.stdout
    assert aliases(user_path) == expected


def test_embedding_model_has_an_index_of_its_own(
    user_path: Path, register: Register, invoke: Invoke
) -> None:
    path = gguf(user_path / "gguf" / "models" / "embed.gguf", architecture="bert")
    register({"embed": {"path": str(path), "aliases": ["e"]}}, "embed-models.json")
    assert invoke("localrun", "import", "llm-gguf", "--yes").exit_code == 0
    assert aliases(user_path) == {"e": "local/gguf/embed"}


def test_what_the_user_has_set_stays(
    user_path: Path, register: Register, chat: Path, invoke: Invoke
) -> None:
    register({"chat": {"path": str(chat), "aliases": ["mine", "old"], "n_ctx": 2048}})
    (user_path / "aliases.json").write_text('{"mine": "gpt-4o", "old": "gguf/chat"}')
    (user_path / "model_options.json").write_text(json.dumps({ID: {"context_size": 512}}))
    done = invoke("localrun", "import", "llm-gguf", "--yes")
    assert "gguf/chat: mine is already your alias for gpt-4o.\n" in done.stderr
    assert aliases(user_path) == {"mine": "gpt-4o", "old": ID}
    options = json.loads((user_path / "model_options.json").read_text())
    assert options == {ID: {"context_size": 512}}


def test_entries_that_cannot_be_run(
    user_path: Path, tmp_path: Path, register: Register, chat: Path, invoke: Invoke
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a model")
    register(
        {
            "gone": {"path": "/gone.gguf", "aliases": ["g"]},
            "text": {"path": str(text)},
            "odd": 7,
            "nul": {"path": "a\0b", "aliases": "l3", "n_ctx": True},
            "control": {"path": str(chat), "aliases": ["a\x1b[2J", 5, "ok\nllm aliases set x y"]},
        }
    )
    done = invoke("localrun", "import", "llm-gguf", "--yes")
    assert done.exit_code == 0
    for line in (
        "gguf/gone: /gone.gguf is missing.",
        f"gguf/text: {text} is not a model that can be run.",
        "gguf/odd: it names no file.",
        "gguf/nul: a\\u0000b is missing.",
        "gguf/control: an alias cannot be typed.",
    ):
        assert line in done.stderr.splitlines()
    assert aliases(user_path) == {}
    assert "\x1b" not in done.output


@pytest.mark.parametrize("path", ["/gone/" + "x" * 5000, "/tmp/\ud800", "\ud800\0", "/" * 5000])
def test_paths_that_no_file_can_have(register: Register, invoke: Invoke, path: str) -> None:
    register({"odd": {"path": path}})
    for command in (("import", "llm-gguf"), ("migrate",)):
        assert invoke("localrun", *command).exit_code == 0
    (note,) = invoke("localrun", "import", "llm-gguf").stderr.splitlines()[:1]
    assert note.startswith("gguf/odd: ")
    assert len(note) < 600


def test_empty_and_repeated_aliases(
    user_path: Path, tmp_path: Path, register: Register, invoke: Invoke
) -> None:
    path = gguf(tmp_path / "it's $(x).gguf")
    entry = {"path": str(path), "aliases": ["", "a", "a", "local"], "n_ctx": 512}
    register({"one": entry, "two": {**entry, "aliases": ["a", "b"]}})
    done = invoke("localrun", "import", "llm-gguf", "--yes")
    assert done.exit_code == 0
    assert "Done: 4 commands\n" in done.stderr
    assert "gguf/one: the alias local would hide models of llm-localrun.\n" in done.stderr
    assert "gguf/one: an alias cannot be typed.\n" in done.stderr
    assert f"remember the file {shlex.quote(str(path))}\n" in done.stdout
    assert {*aliases(user_path)} == {"a", "b"}
    assert remembered() == [str(path)]


@pytest.mark.parametrize("name", ["aliases.json", "model_options.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_settings_of_llm_stay(
    user_path: Path, register: Register, chat: Path, invoke: Invoke, name: str, content: str
) -> None:
    register({"chat": {"path": str(chat), "aliases": ["a"], "n_ctx": 512}})
    (user_path / name).write_text(content)
    done = invoke("localrun", "import", "llm-gguf", "--yes")
    assert (done.exit_code, done.stderr) == (
        1,
        f"Error: {user_path / name} cannot be read: it holds no JSON object."
        " Fix the file, or delete it.\n",
    )
    assert (user_path / name).read_text() == content
    assert [path.name for path in user_path.glob("*s.json")] == [name]


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "\x00\xff", '"text"'])
def test_index_that_is_not_one(user_path: Path, invoke: Invoke, content: str) -> None:
    path = user_path / "gguf" / "models.json"
    path.parent.mkdir()
    path.write_bytes(content.encode("latin-1"))
    assert one_error(invoke("localrun", "import", "llm-gguf")) == (
        f"{path} cannot be read as llm-gguf writes it: it holds no JSON object."
        " Fix the file, or delete it."
    )


def test_fifo_is_not_waited_for(user_path: Path, invoke: Invoke) -> None:
    (user_path / "gguf").mkdir()
    os.mkfifo(user_path / "gguf" / "models.json")
    assert "holds no JSON object" in one_error(invoke("localrun", "import", "llm-gguf"))


def test_nothing_registered(user_path: Path, register: Register, invoke: Invoke) -> None:
    assert "llm-gguf has registered no models: there is no file" in one_error(
        invoke("localrun", "import", "llm-gguf")
    )
    register({})
    done = invoke("localrun", "import", "llm-gguf")
    assert (done.exit_code, done.output) == (0, "llm-gguf has registered no models.\n")


def test_unknown_plugin(user_path: Path, invoke: Invoke) -> None:
    done = invoke("localrun", "import", "llm-nothing")
    assert done.exit_code == 2
    assert "'llm-nothing' is not 'llm-gguf'" in done.stderr


def test_commands_work_when_pasted(
    user_path: Path, register: Register, chat: Path, run_llm: Llm
) -> None:
    """The real command, and the alias that it sets in llm."""
    register({"chat": {"path": str(chat), "aliases": ["l3"]}})
    shown = run_llm("localrun", "import", "llm-gguf")
    (line,) = (line for line in shown.stdout.splitlines() if " aliases set " in line)
    done = run_llm(*shlex.split(line[line.index("aliases set") :]))
    assert done.returncode == 0, done.stderr
    assert aliases(user_path) == {"l3": ID}
    assert llm.get_model("l3").model_id == ID
