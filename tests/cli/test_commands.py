"""The output of `llm localrun` commands about a catalogue of models, as text and as JSON."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.cli import command_names, load_command, summaries
from llm_localrun.cli.table import count_text, show_table, size_text, tokens_text
from llm_localrun.config import Config
from llm_localrun.memory import machine
from llm_localrun.models import RunsOn, ServerStatus, Snapshot
from llm_localrun.resolve import candidates, order_of
from tests.conftest import CONFIG, Invoke, configure, one_error, put_starter
from tests.support.many_models import MEMORY, ON_OLLAMA, QWEN3_BLOB, SNAPSHOT, put
from tests.support.trees import gguf, ollama_model


@pytest.fixture
def busy(user_path: Path, still_there: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user directory of a machine with many models."""
    monkeypatch.setattr(machine, "physical_memory", lambda: MEMORY)
    put(user_path)
    return user_path


def lines_of(invoke: Invoke, *arguments: str, columns: int | None = None) -> list[str]:
    environment = {"COLUMNS": None if columns is None else str(columns)}
    done = invoke("localrun", *arguments, env=environment)
    assert done.exit_code == 0, done.output
    return [line for line in str(done.stdout).splitlines() if line]


def json_of(invoke: Invoke, *arguments: str) -> Any:
    done = invoke("localrun", *arguments, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


# Tables


@pytest.mark.parametrize("columns", [80, 100, 140, None])
def test_table_of_models_fits_the_terminal_and_shows_whole_names(
    busy: Path, invoke: Invoke, columns: int | None
) -> None:
    lines = lines_of(invoke, "models", columns=columns)
    names = {model["short_name"] for model in json_of(invoke, "models")}
    assert len(names) == len(SNAPSHOT.models) == 31
    assert {line.split(" ")[0] for line in lines[1:]} - {""} == names
    assert max(map(len, lines)) <= (columns or 1000)
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("columns", "header"),
    [
        (80, ["name", "size", "quant", "ctx", "can", "where"]),
        (110, ["name", "params", "size", "quant", "ctx", "can", "where"]),
        (120, ["name", "params", "size", "quant", "ctx", "trained", "fits", "can", "where"]),
        (None, ["name", "params", "size", "quant", "ctx", "trained", "fits", "can", "where", "id"]),
    ],
)
def test_wider_terminals_show_more_columns(
    busy: Path, invoke: Invoke, columns: int | None, header: list[str]
) -> None:
    assert lines_of(invoke, "models", columns=columns)[0].split() == header


def test_models_in_a_pipe_have_one_line_each(busy: Path, invoke: Invoke) -> None:
    assert len(lines_of(invoke, "models")) == 1 + 31


@pytest.mark.parametrize(
    "row",
    [
        "local-gemma4-26b          18 GB  Q4_K_M        8k  tools vision think  lmstudio*",
        "local-qwen3-8b           5.2 GB  Q4_K_M        8k  tools think         ollama*",
        "local-smollm2-135m        98 MB  Q4_1          8k                      file",
        "local-gpt-oss-120b               MXFP4       128k  tools think         cloud",
        "local-frontier                                                         unknown",
        "local-bge-m3                                   8k  embed               box",
    ],
)
def test_rows_of_models(busy: Path, invoke: Invoke, row: str) -> None:
    assert row in lines_of(invoke, "models", columns=80)


def test_name_that_is_too_long_has_a_line_of_its_own(busy: Path, invoke: Invoke) -> None:
    lines = lines_of(invoke, "models", columns=80)
    at = lines.index("local-qwen2.5-coder-32b-instruct-q8-0")
    assert lines[at + 1].split() == ["35", "GB", "Q8_0", "32k", "tools", "file"]


@pytest.mark.parametrize(
    ("columns", "notes"),
    [
        (
            80,
            "\n* loaded now\n2 may leave this machine (cloud, unknown): refused until you"
            " `llm localrun allow local/ollama/gpt-oss:120b-cloud`\n",
        ),
        (None, ""),
    ],
)
def test_notes_are_shown_on_a_terminal_only(
    busy: Path, invoke: Invoke, columns: int | None, notes: str
) -> None:
    environment = {"COLUMNS": None if columns is None else str(columns)}
    assert invoke("localrun", "models", env=environment).stderr == notes


@pytest.mark.parametrize("columns", [20, 31, 300])
def test_table_of_any_width(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    show_table(
        [
            {"name": "a", "n": "9", "empty": "", "word": "x", "more": "1234567890"},
            {"name": "a-name-of-some-length", "n": "10", "empty": "", "word": "", "more": ""},
        ],
        optional=["more"],
    )
    expected = {
        20: "name                   n  word\na                      9  x\n"
        "a-name-of-some-length\n                      10\n",
        31: "name                    n  word\na                       9  x\n"
        "a-name-of-some-length  10\n",
        300: "name                    n  word        more\n"
        "a                       9  x     1234567890\na-name-of-some-length  10\n",
    }
    assert capsys.readouterr().out == expected[columns]


@pytest.mark.usefixtures("still_there")
def test_control_characters_in_names_are_shown_with_escapes(
    user_path: Path, invoke: Invoke
) -> None:
    hostile = ON_OLLAMA[1].model_copy(
        update={"name": "a\x1b]0;b\x07", "id": "local/o/a\x1b]0;b\x07"}
    )
    report = SNAPSHOT.endpoints[1].model_copy(update={"models": (hostile,)})
    for command in (["models"], ["which", "local"], ["show", "local"], []):
        put(user_path, Snapshot(endpoints=(report,)))
        lines = lines_of(invoke, *command)
        assert any("local/o/a\\x1b]0;b\\x07" in line for line in lines)
        assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        *((size_text, value, text) for value, text in ((None, ""), (98_362_432, "98 MB"))),
        *((size_text, v, text) for v, text in ((999_600_000, "1.0 GB"), (9.96e9, "10 GB"))),
        *((size_text, value, text) for value, text in ((4.7e9, "4.7 GB"), (244e9, "244 GB"))),
        *((count_text, value, text) for value, text in ((None, ""), (135e6, "135M"))),
        *((count_text, value, text) for value, text in ((8.19e9, "8.2B"), (70.6e9, "71B"))),
        *((tokens_text, value, text) for value, text in ((None, ""), (512, "512"), (2048, "2k"))),
        *((tokens_text, value, text) for value, text in ((131072, "128k"), (2**20, "1M"))),
    ],
)
def test_formatted_numbers(text: Callable[[Any], str], value: Any, expected: str) -> None:
    assert text(value) == expected


# Names


def test_every_name_means_its_model(busy: Path, invoke: Invoke) -> None:
    order = order_of(Config(), SNAPSHOT)
    for model in json_of(invoke, "models"):
        for name in (model["short_name"], model["id"], *model["aliases"]):
            assert candidates(name, SNAPSHOT.models, order)[0].id == model["id"]


def test_json_of_models_is_complete(busy: Path, invoke: Invoke) -> None:
    (model,) = [m for m in json_of(invoke, "models") if m["id"] == "local/ollama/qwen3:8b"]
    expected = {
        "name": "qwen3:8b",
        "short_name": "local-qwen3-8b",
        "aliases": [
            *("local-qwen3-8b-q4-k-m-ollama", "local-qwen3-8b-q4-k-m"),
            *("local-qwen3-8b", "local-qwen3", "local-qwen"),
        ],
        "purpose": "chat",
        "endpoint": {"name": "ollama", "kind": "ollama", "url": "http://127.0.0.1:11434"},
        "path": QWEN3_BLOB,
        "store": "ollama",
        "quantization": "Q4_K_M",
        "size": 5_200_000_000,
        "context_max": 40960,
        "context_loaded": 8192,
        "loaded": True,
        "runs_on": RunsOn.THIS_MACHINE,
        "capabilities": ["tools", "thinking"],
        "fits": True,
    }
    assert {key: model[key] for key in expected} == expected


# show


def test_card_of_a_model_with_two_routes(busy: Path, invoke: Invoke) -> None:
    assert lines_of(invoke, "show", "local-qwen3-8b") == [
        "name         local-qwen3-8b",
        "id           local/ollama/qwen3:8b",
        "also called  local-qwen3-8b-q4-k-m-ollama",
        "             local-qwen3-8b-q4-k-m",
        "             local-qwen3",
        "             local-qwen",
        "model        qwen3, 8.2B parameters",
        "size         5.2 GB, Q4_K_M",
        "can          tools, think",
        "context      8,192 tokens loaded, trained for 40,960 tokens",
        "sampling     its server decides",
        "runs         on Ollama 0.32.15 at http://127.0.0.1:11434 (answers, loaded)",
        "             from its file, if the server does not answer",
        f"file         {QWEN3_BLOB}",
        "memory       fits into the 24 GB of this machine",
        "also here    local/gguf/Qwen3-8B-Q8_0  Q8_0, 8.7 GB",
    ]


@pytest.mark.parametrize(
    ("name", "allow", "line"),
    [
        ("local-gpt-oss-120b", [], "in a cloud: ollama.com"),
        (
            "local-gpt-oss-120b",
            [],
            "refused until you `llm localrun allow local/ollama/gpt-oss:120b-cloud`",
        ),
        ("local-gpt-oss-120b", ["local/ollama/gpt-oss:120b-cloud"], "you have allowed it"),
        ("local-frontier", [], "on an unknown machine: a peer"),
        ("local-bge-m3", [], "on another machine"),
        ("local-kimi", [], "is too large for the 24 GB of this machine"),
        ("local-mistral", [], "/home/ada/hf/mmproj-F16.gguf"),
    ],
)
def test_lines_of_cards(busy: Path, invoke: Invoke, name: str, allow: list[str], line: str) -> None:
    configure(busy, **CONFIG, allow=allow)
    put(busy)
    assert any(shown.endswith(line) for shown in lines_of(invoke, "show", name))


def test_card_of_a_real_file(user_path: Path, starter_model: Path, invoke: Invoke) -> None:
    put_starter(user_path, starter_model)
    lines = lines_of(invoke, "show", "local-smollm2")
    assert "model        llama, 135M parameters, 30 layers" in lines
    assert "template     368 characters; --template outputs it" in lines
    output = json_of(invoke, "show", "local-smollm2")
    (template,) = ["\n".join(invoke("localrun", "show", "local", "--template").stdout.splitlines())]
    assert output["template"] == template
    assert "<|im_start|>" in template


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local-bge-m3", "box/BAAI/bge-m3 is not known. Its server does not say."),
        ("local-kimi", "gguf/Kimi-K2-Instruct-0905-UD-IQ1_S is not known. Its file has none."),
    ],
)
def test_unknown_template(busy: Path, invoke: Invoke, name: str, message: str) -> None:
    error = one_error(invoke("localrun", "show", name, "--template"))
    assert error == f"The chat template of local/{message}"


@pytest.mark.parametrize("own", [{}, {"tokenizer.chat_template": "{{ messages }}"}])
def test_template_in_a_manifest_of_ollama(
    tmp_path: Path, invoke: Invoke, own: dict[str, int | str]
) -> None:
    """As Ollama keeps it, and instead of the one in the file."""
    template = "{{ .System }} {{ .Prompt }}"
    store = tmp_path / "home/.ollama/models"
    weights = gguf(tmp_path / "weights", own)
    ollama_model(store, "registry.ollama.ai/library/parrot/1b", weights, template=template)
    assert invoke("localrun", "show", "local-parrot", "--template").stdout == f"{template}\n"
    assert json_of(invoke, "show", "local-parrot")["template"] == template
    length = f"template     {len(template)} characters; --template outputs it"
    assert length in lines_of(invoke, "show", "local-parrot")


@pytest.mark.parametrize("command", ["show", "which", "allow"])
def test_unknown_name(busy: Path, invoke: Invoke, command: str) -> None:
    error = one_error(invoke("localrun", command, "local-qwen3-9b"))
    assert error.startswith("No local model is called 'local-qwen3-9b'. Nearest: local-qwen3-8b")


# which


def test_which_gives_reasons(busy: Path, invoke: Invoke) -> None:
    assert lines_of(invoke, "which", "local-gpt-oss", columns=80) == [
        "model                              reason for its rank   params  quant   size",
        "local/lmstudio/openai/gpt-oss-20b  first by name            21B  MXFP4  12 GB",
        "local/ollama/gpt-oss:20b           runs on this machine     21B  MXFP4  14 GB",
        "local/ollama/gpt-oss:120b-cloud    last                    117B  MXFP4",
    ]
    output = json_of(invoke, "which", "local-gpt-oss")
    assert [(each["id"], each["reason"]) for each in output] == [
        ("local/lmstudio/openai/gpt-oss-20b", "first by name"),
        ("local/ollama/gpt-oss:20b", "runs on this machine"),
        ("local/ollama/gpt-oss:120b-cloud", "last"),
    ]
    assert {each["taken_by"] for each in output} == {None}


def test_which_says_why_a_model_cannot_run(busy: Path, invoke: Invoke) -> None:
    off = {"status": ServerStatus.OFFLINE}
    reports = [
        report.model_copy(update=off if report.endpoint.name in ("lmstudio", "llamaswap") else {})
        for report in SNAPSHOT.endpoints
    ]
    put(busy, SNAPSHOT.model_copy(update={"endpoints": tuple(reports)}))
    assert [
        (each["id"], each["reason"], each["obstacle"])
        for each in json_of(invoke, "which", "local-gpt-oss")
    ] == [
        ("local/ollama/gpt-oss:20b", "runs on this machine", ""),
        (
            "local/ollama/gpt-oss:120b-cloud",
            "can run now (the next: its server is off)",
            "",
        ),
        (
            "local/lmstudio/openai/gpt-oss-20b",
            "last, but its server is off",
            "its server is off",
        ),
    ]
    (only,) = json_of(invoke, "which", "local-frontier")
    assert only["reason"] == "no other model has this name, but its server is off"
    # It was loaded when its server last answered.
    gemma = json_of(invoke, "show", "local/lmstudio/google/gemma-4-26b-a4b")
    assert (gemma["loaded"], gemma["obstacle"]) == (None, "its server is off")


def test_which_explains_aliases_of_the_user(busy: Path, invoke: Invoke) -> None:
    aliases = {"tiny": "local/gguf/SmolLM2-135M-Instruct.Q4_1", "local-qwen": "gpt-4o"}
    (busy / "aliases.json").write_text(json.dumps(aliases))
    tiny = invoke("localrun", "which", "tiny")
    assert "tiny is your alias for local/gguf/SmolLM2-135M-Instruct.Q4_1" in tiny.stderr
    assert "local/gguf/SmolLM2-135M-Instruct.Q4_1" in tiny.stdout
    qwen = invoke("localrun", "which", "local-qwen")
    assert "local-qwen is your alias for gpt-4o" in qwen.stderr
    assert "Without it, the name would mean the first of these" in qwen.stderr
    assert qwen.stdout.splitlines()[1].startswith("local/ollama/qwen3:8b ")
    assert json_of(invoke, "which", "tiny")[0]["taken_by"] is None


def test_which_explains_names_of_other_plugins(
    busy: Path, invoke: Invoke, other_plugin: Callable[..., None]
) -> None:
    other_plugin({"remote-qwen": ["local-qwen"]})
    done = invoke("localrun", "which", "local-qwen")
    assert done.stderr == (
        "local-qwen is the name of remote-qwen, a model of another plugin.\n"
        "`llm -m local-qwen` runs that model."
        " Without it, the name would mean the first of these:\n"
    )
    assert done.stdout.splitlines()[1].startswith("local/ollama/qwen3:8b ")
    assert {each["taken_by"] for each in json_of(invoke, "which", "local-qwen")} == {"remote-qwen"}


@pytest.mark.parametrize("aliases", ["{", "[]"])
def test_which_with_invalid_aliases_json(busy: Path, invoke: Invoke, aliases: str) -> None:
    (busy / "aliases.json").write_text(aliases)
    assert lines_of(invoke, "which", "local-bge")[1].startswith("local/box/BAAI/bge-m3")


# The status


@pytest.mark.parametrize("arguments", [(), ("status",)])
def test_status(busy: Path, invoke: Invoke, arguments: tuple[str, ...]) -> None:
    lines = lines_of(invoke, *arguments)
    assert lines[:2] == [
        "models   31: 19 on servers, 12 in files only",
        "local    local/lmstudio/google/gemma-4-26b-a4b",
    ]
    assert "servers  vLLM 0.11.0, Ollama 0.32.15, LM Studio 0.4.23, llama-swap" in lines
    assert "         local/ollama/qwen3:8b" in lines
    assert '  llm -m local "prompt"     ask the best model' in lines


@pytest.mark.usefixtures("still_there")
@pytest.mark.parametrize(
    ("status", "line"),
    [
        (ServerStatus.OFFLINE, "llm localrun recommend     see which models suit this machine"),
        (ServerStatus.OFFLINE, "llm localrun pull starter  get a small model"),
        (ServerStatus.NEEDS_KEY, "llm keys set localrun-ollama  store the key of ollama"),
    ],
)
def test_status_suggests_next_steps(
    user_path: Path, invoke: Invoke, status: str, line: str
) -> None:
    report = SNAPSHOT.endpoints[1].model_copy(update={"status": status, "models": ()})
    put(user_path, Snapshot(endpoints=(report,)))
    lines = lines_of(invoke)
    assert lines[0] == "models   none found"
    assert f"  {line}" in lines


# The list of commands


def test_every_module_is_a_command_or_a_helper() -> None:
    for name in command_names():
        command = load_command(name)
        assert command is not None
        assert command.name == name
    assert load_command("table") is None
    assert load_command("nonsense") is None


def test_help_lists_the_first_line_of_each_help_text(invoke: Invoke) -> None:
    listed = invoke("localrun", "--help", env={"COLUMNS": "200"}).stdout
    for name, summary in summaries():
        command = load_command(name)
        assert command is not None
        assert command.help is not None
        assert command.help.partition("\n")[0] == f"{summary}."
        assert f"\n  {name:<9}  {summary}\n" in listed


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from click.testing import CliRunner; import llm.cli\n"
        "result = CliRunner().invoke(llm.cli.cli, ['localrun', '--help'])\n"
        "assert 'Commands:' in result.output, result.output\n"
        "print(*(name for name in sys.modules if name.startswith('llm_localrun.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"llm_localrun.cli", "llm_localrun.plugin"}
