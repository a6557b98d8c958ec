"""The answer that a shell gets without llm: what is loaded, and what happens to odd files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_localrun.completion import quick
from llm_localrun.name_cache import CachedName, NameCache, write_names

pytestmark = pytest.mark.usefixtures("user_path")

Done = subprocess.CompletedProcess[str]
PROGRAM = (sys.executable, "-I", "-S", quick.__file__)


def asked(shell: str, text: str) -> Done:
    return subprocess.run([*PROGRAM, shell, text], capture_output=True, text=True, check=False)


def know(*names: str) -> None:
    found = [CachedName(name, "chat", [], None) for name in names]
    write_names(NameCache(5.0, "", False, True, found))


def test_each_shell_gets_what_it_reads() -> None:
    write_names(
        NameCache(5.0, "", False, True, [CachedName("local/a/x:8 b", "chat", ["local"], None)])
    )
    texts = {shell: asked(shell, "llm -m local").stdout for shell in ("bash", "zsh", "fish")}
    assert texts == {
        "bash": "local\nlocal/a/x:8\\ b\n",
        "zsh": "local:local/a/x:8 b\nlocal/a/x\\:8 b:chat model\n",
        "fish": "local\tlocal/a/x:8 b\nlocal/a/x:8 b\tchat model\n",
    }


def test_zsh_gets_backslashes_that_are_kept() -> None:
    know("local/a\\:b\\")
    assert asked("zsh", "llm -m lo").stdout == "local/a\\\\\\:b\\\\:chat model\n"


@pytest.mark.parametrize(
    ("text", "status"),
    [("llm -m lo", 0), ("llm -m x", 0), ("llm -m ./x", quick.IS_PATH), ("llm ke", quick.ASK_LLM)],
)
def test_the_status_says_who_answers(text: str, status: int) -> None:
    know("local/a/x")
    done = asked("bash", text)
    assert (done.returncode, done.stderr) == (status, "")


def test_llm_makes_the_names_that_are_pending(user_path: Path) -> None:
    (user_path / "localrun" / "catalogue.json").write_text("{}")
    assert asked("bash", "llm -m ").returncode == quick.ASK_LLM


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[4, 5]", b"[" * 100_000, b"5" * 10_000])
def test_a_damaged_cache_completes_nothing(content: bytes, user_path: Path) -> None:
    (user_path / "localrun" / "names.json").write_bytes(content)
    done = asked("bash", "llm -m lo")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a FIFO")
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)])
def test_what_is_no_file_completes_nothing(make: object, user_path: Path) -> None:
    assert callable(make)
    make(user_path / "localrun" / "names.json")
    done = asked("bash", "llm -m lo")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_a_user_directory_nothing_is_completed_or_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "none"))
    done = asked("bash", "llm -m lo")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_read_completes_nothing(
    user_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    know("local/a/x")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refuse)
        patch.setattr(Path, "lstat", refuse)
        patch.setattr(os, "stat", refuse)
        for text in ("llm -m lo", "llm localrun rm ", "llm localrun endpoints remove "):
            assert quick.main("bash", text) == 0
    assert capfd.readouterr() == ("", "")


def test_ten_thousand_names_are_completed() -> None:
    know(*(f"local/box/model-{number}" for number in range(10_000)))
    assert asked("fish", "llm -m local/box/").stdout.count("\n") == 10_000
    assert asked("bash", "llm -m local/box/model-9999").stdout == "local/box/model-9999\n"


def test_it_starts_no_llm_and_opens_no_connection() -> None:
    """Neither can be: what they need is not imported."""
    know("local/a/x")
    root = Path(quick.__file__).parents[2]
    for text in ("llm -m lo", "llm localrun ", "llm localrun rm ", "llm localrun pull -q "):
        code = (
            f"import sys; sys.path.append({str(root)!r})\n"
            "from llm_localrun.completion.quick import main\n"
            f"assert main('bash', {text!r}) == 0\n"
            "print('modules', *sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
        )
        loaded = set(done.stdout.rpartition("modules ")[2].split())
        assert "llm_localrun.completion.answer" in loaded
        assert loaded & {"llm", "click", "pydantic", "httpx", "socket", "subprocess"} == set()
        assert loaded & {"asyncio", "dataclasses", "ssl", "threading"} == set()
