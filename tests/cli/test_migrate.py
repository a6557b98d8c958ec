"""`llm localrun migrate`: settings of llm that name other plugins' models, and what to do."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONFIG, Invoke, Llm, configure
from tests.fakes.http_server import StandIn
from tests.fakes.lmstudio import LMStudio
from tests.fakes.ollama import Ollama
from tests.support.trees import gguf

NAME = "qwen3:8b"
OURS = "local/box/qwen3:8b"


@pytest.fixture
def ollama(user_path: Path) -> Iterator[Path]:
    """The user directory of someone who has Ollama with two models."""
    with StandIn(Ollama(has=[NAME, "llama3.2:latest"])) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        yield user_path


def put(user_path: Path, **files: Any) -> None:
    for name, content in files.items():
        (user_path / f"{name}.json").write_text(json.dumps(content))


def moves(invoke: Invoke) -> Any:
    done = invoke("localrun", "migrate", "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def state(user_path: Path) -> dict[str, bytes]:
    """The settings of llm."""
    files = (path for path in user_path.rglob("*") if "localrun" not in path.parts)
    return {str(path): path.read_bytes() for path in files if path.is_file()}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("ollama/qwen3:8b", OURS),
        ("qwen3:8b", OURS),
        ("ollama/llama3.2", "local/box/llama3.2:latest"),
        ("llama3.2", "local/box/llama3.2:latest"),
        ("ollama/llama3.2:latest", "local/box/llama3.2:latest"),
    ],
)
def test_alias_of_a_model_of_ollama(ollama: Path, invoke: Invoke, theirs: str, ours: str) -> None:
    put(ollama, aliases={"fast": theirs})
    before = state(ollama)
    done = invoke("localrun", "migrate")
    assert done.stdout == f"# alias fast ({theirs})\nllm aliases set fast {ours}\n"
    assert done.stderr == "Nothing was changed. Paste the commands that you want.\n"
    assert state(ollama) == before


def test_all_settings(ollama: Path, invoke: Invoke) -> None:
    theirs = f"ollama/{NAME}"
    options = {"num_ctx": 8192, "temperature": 0.5, "think": True, "seed": -1}
    put(ollama, model_options={theirs: {**options, "repeat_last_n": 64, "stop": ["a", "b"]}})
    (ollama / "default_model.txt").write_text(theirs)
    (ollama / "templates").mkdir()
    (ollama / "templates" / "sum.yaml").write_text(
        f"model: {theirs}\nprompt: 'Sum up: $input'\noptions:\n  num_predict: 100\n"
    )
    done = invoke("localrun", "migrate")
    set_option = f"llm models options set {OURS}"
    assert done.stdout.splitlines() == [
        f"# default model ({theirs})",
        f"llm models default {OURS}",
        f"# options ({theirs})",
        "# there is no option for repeat_last_n",
        "# the value of stop cannot be set by a command",
        f"{set_option} context_size 8192",
        f"{set_option} temperature 0.5",
        f"{set_option} think true",
        f"llm models options set -- {OURS} seed -1",
        f"# template sum ({theirs})",
        f"# Change in the file: {theirs} is {OURS}, num_predict is max_tokens",
        "llm templates edit sum",
    ]


def test_what_is_done_is_not_shown_again(ollama: Path, invoke: Invoke) -> None:
    put(
        ollama,
        aliases={"fast": OURS, "local-x": OURS},
        model_options={f"ollama/{NAME}": {"num_ctx": 8192}, OURS: {"context_size": 4096}},
    )
    (ollama / "default_model.txt").write_text("fast")
    done = invoke("localrun", "migrate")
    assert (done.stdout, done.stderr) == (
        "",
        "No setting of llm names a model of another plugin for local models.\n",
    )


def test_models_of_other_plugins_are_left_alone(
    ollama: Path, invoke: Invoke, other_plugin: Callable[..., None]
) -> None:
    other_plugin(claude=["opus"])
    put(ollama, aliases={"a": "claude", "b": "opus", "c": "gone-1"})
    (found,) = moves(invoke)
    assert found == {
        "setting": "alias",
        "name": "c",
        "other_model": "gone-1",
        "model": None,
        "commands": [],
        "notes": ["no plugin that is installed has a model of that name"],
    }


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        ("ollama/phi4", "Ollama has no model of that name"),
        ("lmstudio/phi4", "LM Studio does not answer. Start its server with `lms server start`"),
        ("llama-server", "llama-server does not answer. Start it with `llama-server -m FILE`"),
        ("gguf/phi4", "llm-gguf has not registered it, or its file is not there"),
    ],
)
def test_why_a_model_is_not_here(ollama: Path, invoke: Invoke, theirs: str, reason: str) -> None:
    put(ollama, aliases={"x": theirs})
    done = invoke("localrun", "migrate")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith(f"alias x ({theirs}): {reason}")


def test_models_of_lm_studio(user_path: Path, invoke: Invoke) -> None:
    with StandIn(LMStudio()) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "studio", "url": server.url}])
        listed = json.loads(invoke("localrun", "models", "--json").stdout)
        name = next(model["name"] for model in listed if model["purpose"] == "chat")
        embedder = next(model["name"] for model in listed if model["purpose"] == "embedding")
        put(user_path, aliases={"a": f"lmstudio/{name}"})
        (user_path / "default_embedding_model.txt").write_text(embedder)
        assert [move["commands"] for move in moves(invoke)] == [
            [f"llm aliases set a local/studio/{name}"],
            [f"llm embed-models default local/studio/{embedder}"],
        ]


def test_models_of_llm_gguf(user_path: Path, invoke: Invoke) -> None:
    path = gguf(user_path / "gguf" / "models" / "chat.gguf")
    put(user_path / "gguf", models={"my chat": {"path": str(path), "aliases": []}})
    put(user_path, aliases={"a": "gguf/my chat"})
    assert [move["commands"] for move in moves(invoke)] == [["llm aliases set a local/gguf/chat"]]


def test_names_that_no_shell_must_see(ollama: Path, invoke: Invoke) -> None:
    theirs = f"ollama/{NAME}"
    put(
        ollama,
        aliases={
            "two words": theirs,
            "$(rm -rf x)": theirs,
            "-x": theirs,
            "a\nllm logs off": theirs,
            "b\x1b[2J": theirs,
            "number": 7,
        },
    )
    found = {move["name"]: move for move in moves(invoke)}
    commands = {name: move["commands"] for name, move in found.items()}
    assert commands == {
        "two words": [f"llm aliases set 'two words' {OURS}"],
        "$(rm -rf x)": [f"llm aliases set '$(rm -rf x)' {OURS}"],
        "-x": [f"llm aliases set -- -x {OURS}"],
        "a\nllm logs off": [],
        "b\x1b[2J": [],
    }
    assert found["b\x1b[2J"]["notes"] == ["a name in it cannot be typed"]
    shown = invoke("localrun", "migrate").stdout
    assert f"# 'alias $(rm -rf x) ({theirs})'\n" in shown
    assert "\x1b" not in shown
    for line in shown.splitlines():
        assert line.startswith(("# ", "llm aliases set "))


HOSTILE = ("$(touch pwned)", "`touch pwned`", "; touch pwned", "it's; touch pwned", "&touch pwned")


SHELLS = {"bash": ["bash", "--norc"], "zsh": ["zsh", "-f"], "fish": ["fish", "--no-config"]}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", HOSTILE)
def test_comments_are_safe_when_pasted(
    ollama: Path, invoke: Invoke, tmp_path: Path, shell: str, name: str
) -> None:
    """zsh on a terminal takes no line for a comment."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    theirs = f"ollama/{NAME}"
    put(ollama, aliases={name: theirs})
    (ollama / "templates").mkdir()
    template = {"model": theirs, "prompt": "x", "options": {name: 1}}
    (ollama / "templates" / "a.yaml").write_text(json.dumps(template))
    lines = invoke("localrun", "migrate").stdout.splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert len(comments) == 4
    text = "\n".join([*comments, ""]).encode()
    subprocess.run([*SHELLS[shell], "-i"], input=text, cwd=tmp_path, check=False, timeout=60)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", "7", "null", "\x00"])
def test_settings_that_cannot_be_read(ollama: Path, invoke: Invoke, content: str) -> None:
    for name in ("model_options.json", "default_model.txt"):
        (ollama / name).write_text(content if name.endswith("json") else "")
    (ollama / "templates").mkdir()
    for name in ("a", "b"):
        (ollama / "templates" / f"{name}.yaml").write_text(content or "prompt: x")
    (ollama / "templates" / "folder.yaml").mkdir()
    assert moves(invoke) == []


def test_commands_work_when_pasted(ollama: Path, run_llm: Llm, invoke: Invoke) -> None:
    put(
        ollama,
        aliases={"my model": NAME},
        model_options={f"ollama/{NAME}": {"num_ctx": 8192, "seed": -1}},
    )
    for move in moves(invoke):
        for command in move["commands"]:
            done = run_llm(*shlex.split(command)[1:])
            assert done.returncode == 0, done.stderr
    assert moves(invoke) == []
    assert json.loads((ollama / "aliases.json").read_text()) == {"my model": OURS}
    options = json.loads((ollama / "model_options.json").read_text())
    assert options[OURS] == {"context_size": "8192", "seed": "-1"}
