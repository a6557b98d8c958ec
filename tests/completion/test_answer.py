"""Each word is completed with the names that its command takes, and with no others."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from llm.cli import cli

from llm_localrun.cli import load_command, summaries
from llm_localrun.completion.answer import (
    ARGUMENTS,
    FLAGS,
    LLM_ARGUMENTS,
    OPTIONS,
    REPEATED,
    answer,
    needs_names,
)
from llm_localrun.completion.line import split
from llm_localrun.completion.quick import user_folder
from llm_localrun.name_cache import CachedName, NameCache, write_names
from llm_localrun.names.quantizations import QUALITY
from llm_localrun.quantize.recipes import MIXES
from llm_localrun.system.paths import home

pytestmark = pytest.mark.usefixtures("user_path")

NAMES = [
    CachedName("local/ollama/qwen3:8b", "chat", ["local-qwen3-8b", "local-qwen3"], ["tools"]),
    CachedName("local/gguf/tiny", "chat", ["local-tiny"], None),
    CachedName("local/gguf/mini", "embedding", ["local-embed"], None),
    CachedName("local/box/rank", "rerank", [], None),
]
CHAT = ["local-qwen3", "local-qwen3-8b", "local/ollama/qwen3:8b", "local-tiny", "local/gguf/tiny"]
EMBEDDING = ["local-embed", "local/gguf/mini"]
ALL = [*CHAT, *EMBEDDING, "local/box/rank"]
USERS = ["mine"]


@pytest.fixture(autouse=True)
def known(user_path: Path) -> None:
    """Names, aliases, a server, two builds, a pull, an engine and a remembered file."""
    write_names(NameCache(5.0, "", False, True, NAMES))
    folder = user_path / "localrun"
    for path, value in {
        user_path / "aliases.json": {"mine": "local/gguf/tiny"},
        folder / "config.json": {
            "endpoints": [{"name": "box", "url": "http://me:secret@box:8000"}],
            "allow": ["local/ollama/big:cloud"],
        },
        folder / "models" / "pulled.json": {
            "pulled": [
                {"ref": "acme/tiny:Q4_0", "source": "x", "files": [{"path": "tiny.gguf"}]},
                {"ref": "https://x/m.gguf?token=a", "source": "url", "files": []},
                {"ref": "ollama:qwen3", "source": "ollama", "files": []},
            ]
        },
        folder / "engine" / "12-ab.json": {"spec": {"name": "local/gguf/tiny"}},
        folder / "engines" / "b11-cpu" / "installed.json": {},
        folder / "known-files.json": ["/models/x.gguf"],
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    (folder / "engines" / "b12-unfinished").mkdir()


def completed(text: str) -> list[str] | None:
    line = split(text)
    found = answer(line.words[1:], line.typed, user_folder())
    return found and [each.value for each in found.candidates]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("llm -m ", [*CHAT, *USERS]),
        ("llm --model ", [*CHAT, *USERS]),
        ("llm --model=LOCAL-T", ["--model=local-tiny"]),
        ("llm prompt -m ", [*CHAT, *USERS]),
        ("llm 'a prompt' -m ", [*CHAT, *USERS]),
        ("llm -s be -o seed 1 -m ", [*CHAT, *USERS]),
        ("llm chat -m ", [*CHAT, *USERS]),
        ("llm logs list -m ", [*CHAT, *USERS]),
        ("llm models list -m ", [*CHAT, *USERS]),
        ("llm models default ", [*CHAT, *USERS]),
        ("llm models options set ", [*CHAT, *USERS]),
        ("llm models options show ", [*CHAT, *USERS]),
        ("llm models options clear ", [*CHAT, *USERS]),
        ("llm embed -m ", [*EMBEDDING, *USERS]),
        ("llm embed-multi notes -m ", [*EMBEDDING, *USERS]),
        ("llm embed-models default ", [*EMBEDDING, *USERS]),
        ("llm aliases set x ", [*ALL, *USERS]),
        ("llm localrun show ", ALL),
        ("llm localrun show Local-Qwen3-", ["local-qwen3-8b"]),
        ("llm localrun show local/ollama/qwen3:", ["local/ollama/qwen3:8b"]),
        ("llm localrun show --template local-t", ["local-tiny"]),
        ("llm localrun which ", ALL),
        ("llm localrun bench --repeat 3 local-tiny ", ALL),
        ("llm localrun stats local-tiny local-e", ["local-embed"]),
        ("llm localrun quantize local-t", ["local-tiny"]),
        ("llm localrun quantize --imatrix x local-tiny q5_k_", ["Q5_K_M", "Q5_K_S"]),
        ("llm localrun rm ", ["local-tiny", "local/gguf/tiny", "acme/tiny:Q4_0", "ollama:qwen3"]),
        ("llm localrun verify local-", ["local-tiny"]),
        ("llm localrun update acme/tiny:Q4_0 o", ["ollama:qwen3"]),
        ("llm localrun unload ", ["local/gguf/tiny"]),
        ("llm localrun allow local-t", ["local-tiny"]),
        ("llm localrun allow --remove ", ["local/ollama/big:cloud"]),
        ("llm localrun forget ", ["/models/x.gguf"]),
        ("llm localrun endpoints remove ", ["box"]),
        ("llm localrun engine use ", ["b11-cpu", "xllamacpp", "auto"]),
        ("llm localrun engine remove ", ["b11-cpu"]),
        ("llm localrun bench --engine ", ["b11-cpu", "xllamacpp"]),
        ("llm localrun pull st", ["starter"]),
        ("llm localrun pull starter -q q8", ["Q8_0"]),
        ("llm localrun sho", ["show"]),
    ],
)
def test_a_word_is_completed(text: str, values: list[str]) -> None:
    assert completed(text) == values


@pytest.mark.parametrize(
    "text",
    [
        *(
            "llm ",
            "llm mod",
            "llm -",
            "llm -m local -",
            "llm 'a prompt'",
            "llm keys set ",
            "llm -o ",
        ),
        *("llm jq -m ", "llm aliases set ", "llm aliases set a local ", "llm models default a "),
        *(
            "llm localrun -",
            "llm localrun show a ",
            "llm localrun show --j",
            "llm localrun doctor ",
        ),
        *("llm localrun bench --repeat ", "llm localrun quantize a b ", "llm localrun engine "),
        "llm localrun quantize --imatrix ",
    ],
)
def test_other_words_are_left_to_click(text: str) -> None:
    assert completed(text) is None


@pytest.mark.parametrize("typed", ["./x", "../x", "/x", "~/x"])
def test_a_path_is_left_to_the_shell(typed: str) -> None:
    found = answer(["-m"], typed, user_folder())
    assert found is not None
    assert (found.is_file, found.candidates) == (True, [])


def test_help_stands_beside_names_and_holds_no_password() -> None:
    helps = {
        each.value: each.help
        for words in (["-m"], ["localrun", "endpoints", "remove"], ["localrun"])
        for each in (answer(words, "", user_folder()) or [[]])[0]
    }
    assert helps["local-tiny"] == "local/gguf/tiny"
    assert helps["local/gguf/tiny"] == "chat model"
    assert helps["mine"] == "alias of local/gguf/tiny"
    assert helps["show"] == dict(summaries())["show"]
    assert "secret" not in helps["box"]


@pytest.mark.parametrize(
    "odd", ["local/x/\x1b[2J", "local/x/a\nb", "local/x/\u202eb", "local/x/\ud800"]
)
def test_a_name_that_cannot_be_printed_is_left_out(odd: str) -> None:
    write_names(NameCache(5.0, "", False, True, [CachedName(odd, "chat", ["local-fine"], None)]))
    assert completed("llm -m local") == ["local-fine"]
    found = answer(["-m"], "local", user_folder())
    assert found is not None
    assert all(each.help.isprintable() for each in found.candidates)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "5", '{"a": 1}', "[" * 100_000, "\x00"])
def test_damaged_files_hold_nothing(content: str, user_path: Path) -> None:
    for path in filter(Path.is_file, user_path.rglob("*.json")):
        path.write_text(content)
    for text in ("llm -m ", "llm localrun rm ", "llm localrun unload ", "llm localrun forget "):
        assert completed(text) == [] or completed(text) == ["a"]
    assert completed("llm localrun endpoints remove ") == []
    assert completed("llm localrun allow --remove ") == []


def test_names_are_pending_while_only_the_catalogue_is_there(user_path: Path) -> None:
    folder = user_path / "localrun"
    (folder / "names.json").unlink()
    assert not needs_names(["-m"], user_path)
    (folder / "catalogue.json").write_text("{}")
    assert needs_names(["-m"], user_path)
    assert needs_names(["localrun", "show"], user_path)
    assert not needs_names(["localrun", "pull"], user_path)
    assert not needs_names(["localrun", "doctor"], user_path)


# The tables agree with the commands


def command_at(path: tuple[str, ...]) -> click.Command:
    command = load_command(path[0])
    for name in path[1:]:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command is not None
    return command


def parameters(path: tuple[str, ...]) -> Iterator[click.Parameter]:
    yield from command_at(path).params


@pytest.mark.parametrize("path", ARGUMENTS)
def test_the_arguments_are_those_of_the_command(path: tuple[str, ...]) -> None:
    arguments = [each for each in parameters(path) if isinstance(each, click.Argument)]
    assert len(arguments) == len(ARGUMENTS[path])
    # REF may be several words, of which the first can be completed.
    assert (arguments[0].nargs == -1) == (path in REPEATED or path == ("pull",))


def test_the_flags_are_those_of_the_commands() -> None:
    options = [o for path in ARGUMENTS for o in parameters(path) if isinstance(o, click.Option)]
    assert {name for o in options if o.is_flag for name in o.opts} == FLAGS


@pytest.mark.parametrize(("path", "option"), OPTIONS)
def test_the_options_are_those_of_the_commands(path: tuple[str, ...], option: str) -> None:
    assert any(option in each.opts and not getattr(each, "is_flag", 0) for each in parameters(path))


@pytest.mark.parametrize("path", LLM_ARGUMENTS)
def test_the_arguments_of_llm_are_those_of_its_commands(path: tuple[str, ...]) -> None:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    assert arguments[LLM_ARGUMENTS[path][0]].name in ("model", "model_id")


def test_quantizations_to_pull_are_all_that_are_ranked() -> None:
    assert completed("llm localrun pull -q ") == [*reversed(QUALITY)]


def test_types_to_make_are_those_that_quantize_makes() -> None:
    assert set(completed("llm localrun quantize local ") or ()) == set(MIXES)


# The user directory


@pytest.mark.parametrize(
    "variables", [{}, {"XDG_CONFIG_HOME": "/tmp/x"}, {"LLM_USER_PATH": "/tmp/y"}]
)
def test_the_user_directory_is_llms(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CONFIG_HOME", "LLM_USER_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    assert user_folder() / "localrun" == home()
