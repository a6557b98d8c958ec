"""Completion through click's protocol, and in real shells on a terminal."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class
from llm.cli import cli

from llm_localrun.chat.options import Options
from llm_localrun.cli import command_names
from llm_localrun.completion.shells import install
from llm_localrun.name_cache import CachedName, NameCache, read_names, write_names
from tests.conftest import Llm, put_starter
from tests.support.shells import SHELLS, started

PROGRAM = "import sys; sys.argv[0] = 'llm'; from llm.cli import cli; cli(prog_name='llm')"
NAMES = [
    CachedName("local/ollama/qwen3:8b", "chat", ["local-qwen3", "local"], ["tools"]),
    CachedName("local/gguf/mini", "embedding", ["local-embed"], None),
    CachedName("local/box/my model", "chat", [], None),
    CachedName("local/box/it's", "chat", [], None),
    CachedName("local/box/Übung", "chat", [], None),
    CachedName("local/box/to$HOME`x`", "chat", [], None),
]


@pytest.fixture(autouse=True)
def known(user_path: Path) -> None:
    write_names(NameCache(5.0, "", False, True, NAMES))


def llm_with(variable: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The program `llm` when a shell asks it."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "_LLM_COMPLETE": variable, **variables},
    )


def in_bash(text: str, word: int) -> list[str]:
    """What click's own script gets for a line whose words stand one a line."""
    done = llm_with("bash_complete", COMP_WORDS=text.replace(" ", "\n"), COMP_CWORD=str(word))
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """What click's class for zsh answers in this process."""
    classes = {name: get_completion_class(name) for name in ("bash", "zsh", "fish", "powershell")}
    monkeypatch.setattr("click.shell_completion._available_shells", classes)
    install()
    ours = get_completion_class("zsh")
    assert ours is not None

    def run(text: str) -> list[str]:
        *args, incomplete = text.split(" ")[1:]
        found = ours(cli, {}, "llm", "_LLM_COMPLETE").get_completions(args, incomplete)
        return [each.value for each in found]

    return run


def test_clicks_scripts_get_our_names() -> None:
    assert in_bash("llm -m local-", 2) == ["local-qwen3"]
    zsh = llm_with("zsh_complete", COMP_WORDS="llm embed -m loc", COMP_CWORD="3").stdout
    assert zsh.split() == [
        *("plain", "local-embed", "local/gguf/mini"),
        *("plain", "local/gguf/mini", "embedding", "model"),
    ]
    fish = llm_with("fish_complete", COMP_WORDS="llm -m local-q", COMP_CWORD="local-q").stdout
    assert fish.strip() == "plain,local-qwen3\tlocal/ollama/qwen3:8b"


def test_clicks_script_for_bash_gets_what_follows_a_colon() -> None:
    assert in_bash("llm -m local/ollama/qwen3 : 8", 4) == ["8b"]
    assert in_bash("llm -m local/ollama/qwen3 :", 3) == ["8b"]
    assert in_bash("llm -m local/ollama/q", 2) == ["local/ollama/qwen3:8b"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("llm -m local -o top_", ["top_p", "top_k"]),
        ("llm -m local -o think ", ["off", "on", "low", "medium", "high", "max"]),
        ("llm -m local -o tool_choice ", ["auto", "none", "required"]),
        ("llm -m local -o overcommit ", ["true", "false"]),
        ("llm -m local -o context_size ", ["max"]),
        ("llm -m local -o seed ", []),
        ("llm -m local -o nothing ", []),
        ("llm -m gpt-4o -o top_", []),
        ("llm -o top_", []),
        ("llm chat -m local -o kv", ["kv_cache_type"]),
        ("llm models options set local thin", ["think"]),
        ("llm models options set local think o", ["off", "on"]),
        ("llm localrun show --tem", ["--template"]),
        ("llm localrun show local-q", ["local-qwen3"]),
        ("llm words -m local-", ["local-qwen3"]),
    ],
)
def test_click_completes(
    completed: Callable[[str], list[str]], text: str, values: list[str]
) -> None:
    assert completed(text) == values


def test_every_option_and_command_is_completed(completed: Callable[[str], list[str]]) -> None:
    assert completed("llm -m local -o ") == [*Options.model_fields]
    assert completed("llm localrun ") == command_names()


def test_the_default_model_decides_about_options(
    completed: Callable[[str], list[str]], user_path: Path
) -> None:
    (user_path / "default_model.txt").write_text("local/ollama/qwen3:8b")
    assert completed("llm -o kv") == ["kv_cache_type"]


def test_llms_own_completion_comes_first(
    completed: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def theirs(*_: object) -> list[CompletionItem]:
        return [CompletionItem("theirs")]

    for command in (cli, *cli.commands.values()):
        for option in command.params:
            if "--model" in option.opts:
                monkeypatch.setattr(option, "shell_complete", theirs)
    assert completed("llm -m local") == ["theirs"]
    ours = get_completion_class("zsh")
    assert ours is not None
    assert "quick.py" not in ours(cli, {}, "llm", "_LLM_COMPLETE").source()


def test_another_plugins_class_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs(ShellComplete):
        name = "bash"

    classes = {"bash": Theirs, "zsh": get_completion_class("zsh")}
    monkeypatch.setattr("click.shell_completion._available_shells", classes)
    install()
    assert classes["bash"] is Theirs
    assert classes["zsh"].__module__ == "llm_localrun.completion.shells"


def test_the_names_of_a_catalogue_are_made_without_looking_for_models(
    user_path: Path, starter_model: Path, run_llm: Llm
) -> None:
    put_starter(user_path, starter_model)
    assert run_llm("localrun", "refresh").returncode == 0
    assert read_names() is None
    (user_path / "localrun" / "models" / starter_model.name).unlink()
    assert "local-smollm2" in in_bash("llm -m local", 2)
    assert read_names() is not None


def test_llm_loads_little_and_opens_no_connection(user_path: Path) -> None:
    code = (
        "import sys\n"
        "opened = []\n"
        "def hook(event, args):\n"
        "    if event in ('socket.connect', 'os.scandir', 'os.listdir', 'subprocess.Popen'):\n"
        "        opened.append((event, *map(str, args)))\n"
        "from llm.cli import cli\n"
        "sys.addaudithook(hook)\n"
        "from click.shell_completion import shell_complete\n"
        "shell_complete(cli, {}, 'llm', '_LLM_COMPLETE', 'bash_complete')\n"
        "loaded = [name for name in sys.modules if name.startswith('llm_localrun.')]\n"
        "opened = [each for each in opened if 'python' not in each[1]]\n"
        "sys.stderr.write(repr((opened, loaded, 'httpx' in sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            **{"_LLM_COMPLETE": "bash_complete", "COMP_CWORD": "2", "COMP_WORDS": "llm\n-m\nlocal"},
        },
    )
    opened, loaded, has_httpx = eval(done.stderr)
    assert "local-qwen3" in done.stdout
    assert opened == []
    assert not has_httpx
    assert {name.removeprefix("llm_localrun.") for name in loaded} == {
        *("plugin", "completion", "completion.shells", "completion.quick", "completion.answer"),
        *("completion.line", "completion.sources", "name_cache", "system", "system.atomic"),
        *("system.logins", "system.paths", "system.text"),
    }


# Real shells


TYPED = {
    "llm -m local-q\t": "[-m][local-qwen3]",
    "llm -m LOCAL-Q\t": "[-m][local-qwen3]",
    "llm embed -m local-\t": "[embed][-m][local-embed]",
    "llm --model=local-q\t": "[--model=local-qwen3]",
    "echo x | llm -m local-q\t": "[-m][local-qwen3]",
    "llm -m local/ollama/\t": "[-m][local/ollama/qwen3:8b]",
    "llm -m local/ollama/qwen3:\t": "[-m][local/ollama/qwen3:8b]",
    "llm -m local/ollama/qwen3:8\t": "[-m][local/ollama/qwen3:8b]",
    'llm -m "local/ollama/qwen3:\t': "[-m][local/ollama/qwen3:8b]",
    "llm -m local/box/m\t": "[-m][local/box/my model]",
    'llm -m "local/box/m\t': "[-m][local/box/my model]",
    "llm -m local/box/i\t": "[-m][local/box/it's]",
    "llm -m 'local/box/i\t": "[-m][local/box/it's]",
    "llm -m local/box/Ü\t": "[-m][local/box/Übung]",
    "llm -m local/box/t\t": "[-m][local/box/to$HOME`x`]",
    "llm localrun show local-q\t": "[localrun][show][local-qwen3]",
    "llm localrun sho\tlocal-e\t": "[localrun][show][local-embed]",
    "llm -m ./my-mo\t": "[-m][./my-model.gguf]",
    "llm localrun show --tem\t": "[localrun][show][--template]",
}
"""What is typed, and the words that `llm` then receives."""


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script of a shell, and a program `llm` on PATH."""
    program = tmp_path / "bin" / "llm"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{PROGRAM}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model.gguf").touch()
    (tmp_path / "home").mkdir(exist_ok=True)
    done = llm_with(f"{request.param}_source")
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / "script"
    path.write_text(done.stdout)
    return path


@pytest.mark.skipif(not SHELLS, reason="no shell is installed")
@pytest.mark.parametrize(("shell", "script"), [(s, s) for s in SHELLS], indirect=["script"])
def test_tab_completes_in_a_real_shell(shell: str, script: Path) -> None:
    with started(shell, script) as opened:
        words = {typed: opened.words(typed) for typed in TYPED}
    assert words == TYPED
