"""Suggested commands begin with the `llm` that runs, as its user's shell finds it."""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from llm_localrun.errors import ConfigError
from llm_localrun.system.program import quoted, runnable

SCRIPTS = Path(sysconfig.get_path("scripts"))
OWN = str(SCRIPTS / "llm")
ELSEWHERE = "/usr/bin:/bin"


@pytest.mark.parametrize(
    ("command", "path", "program"),
    [
        ([OWN], ELSEWHERE, OWN),
        (["./llm"], ELSEWHERE, "./llm"),
        ([OWN], f"{SCRIPTS}:{ELSEWHERE}", "llm"),
        ([OWN], f"OTHER:{SCRIPTS}:{ELSEWHERE}", OWN),
        ([OWN], f"LINK:{ELSEWHERE}", "llm"),
        ([sys.executable, "-m", "llm"], ELSEWHERE, f"{sys.executable} -m llm"),
        ([sys.executable, "-m", "llm"], f"{SCRIPTS}:{ELSEWHERE}", "llm"),
        (["LINK/llm"], ELSEWHERE, "LINK/llm"),
    ],
)
def test_commands_work_when_pasted(
    command: list[str], path: str, program: str, user_path: Path, tmp_path: Path
) -> None:
    """On an empty machine, `status` suggests commands; its last one is run by a shell."""
    other, link = tmp_path / "other", tmp_path / "a link"
    for folder in (other, link):
        folder.mkdir()
    (other / "llm").write_text("#!/bin/sh\nexit 3\n")
    (other / "llm").chmod(0o755)
    (link / "llm").symlink_to(OWN)
    names = {"OTHER": str(other), "LINK": str(link)}

    def named(text: str) -> str:
        for name, folder in names.items():
            text = text.replace(name, folder)
        return text

    environment = {**os.environ, "PATH": named(path)}
    program = shlex.quote(named(program)) if "LINK" in program else program

    def run(arguments: list[str] | str) -> "subprocess.CompletedProcess[str]":
        is_line = isinstance(arguments, str)
        return subprocess.run(
            arguments,
            shell=is_line,
            cwd=SCRIPTS,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    command = [named(word) for word in command]
    done = run([*command, "localrun", "status"])
    assert done.returncode == 0, done.stderr
    suggested = done.stdout.splitlines()[-1].split("  list all")[0].strip()
    assert suggested == f"{program} localrun --help"
    assert run(suggested).returncode == 0
    failed = run([*command, "-m", "local", "Hi"])
    assert f"`{program} localrun pull starter`" in failed.stderr
    assert (
        f"Get a small one: {program} localrun pull starter\n"
        in run([*command, "localrun", "models"]).stderr
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("To chat: `llm -m local 'prompt'`", "To chat: `/x/llm -m local 'prompt'`"),
        ("Get one: llm localrun pull starter", "Get one: /x/llm localrun pull starter"),
        ("llm keys set x", "/x/llm keys set x"),
        ("llm has no command for such models", "llm has no command for such models"),
        ("/y/llm localrun", "/y/llm localrun"),
        ("my-llm localrun, a.llm install", "my-llm localrun, a.llm install"),
    ],
)
def test_commands_in_a_text(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/llm"])
    assert runnable(text) == shown
    assert ConfigError("It is wrong", text).remedy == shown


@pytest.mark.parametrize(
    "started",
    ["/x/llm", "./llm", "bin/llm", "/a b/llm install/llm", "/x/llm/__main__.py", "pytest", "llm"],
)
def test_a_text_whose_commands_work_stays(started: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error makes its commands work, and so does what prints it."""
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.setenv("PATH", "")
    once = runnable("Install it: `llm install x`, then `llm -m local 'a prompt'`")
    assert runnable(once) == once
    assert once.count(" install x`") == 1


@pytest.mark.parametrize("started", ["pytest", "/x/pytest", "/x/__main__.py", "llm"])
def test_other_programs_suggest_llm(started: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.setenv("PATH", "")
    assert runnable("`llm localrun`") == "`llm localrun`"


@pytest.mark.parametrize(
    ("platform", "line"), [("linux", "llm -m 'a b' \"it's\""), ("win32", 'llm -m "a b" it\'s')]
)
def test_quoting(platform: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    expected = line if platform == "win32" else shlex.join(["llm", "-m", "a b", "it's"])
    assert quoted("llm", "-m", "a b", "it's") == expected
