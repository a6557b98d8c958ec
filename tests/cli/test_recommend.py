"""`llm localrun recommend`: what it prints for people and programs, and when it asks a hub."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli import recommend as command
from llm_localrun.cli.recommend import recommendation_rows, recommendations
from llm_localrun.engine import builds
from llm_localrun.memory import machine
from llm_localrun.models import Snapshot
from llm_localrun.name_cache import CachePolicy
from llm_localrun.recommended import models
from llm_localrun.recommended.models import Use, refreshed_path, write_refreshed
from llm_localrun.recommended.speed import Run, TokenCost
from tests.conftest import CONFIG, Invoke, Llm, configure, put_starter
from tests.fakes.http_server import StandIn, json_reply
from tests.support.engines import stand_in
from tests.support.recommended import listed
from tests.support.terminal import on_terminal

GIB = 2**30
USABLE_RAM = machine.usable_ram
LISTED = (
    listed("large-30b-a3b", 20, Use.CHAT, Use.CODE, active=2),
    listed("qwen3-coder-30b-a3b", 18, Use.CODE, active=2),
    listed("medium-4b", 3, Use.CHAT, Use.VISION),
    listed("tiny-0.6b", 0.5, Use.CHAT, Use.SMALL),
    listed("embeds", 0.3, Use.EMBED),
)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up list, and a machine with 32 GiB that reads 20 GB/s and has no GPU."""
    for module in (models, command):
        monkeypatch.setattr(module, "listed_models", lambda: LISTED)
    monkeypatch.setattr(machine, "usable_ram", lambda: 32 * GIB)
    monkeypatch.setattr(command, "would_use_gpu", lambda *_: False)

    def speed(cost: TokenCost, runs: Iterable[Run], has_gpu: bool) -> float | None:
        corrected = [run.tokens_per_second for run in runs]
        return None if has_gpu else [*corrected, 20e9 / cost.active_bytes][0]

    monkeypatch.setattr(command, "expected_speed", speed)


def table(invoke: Invoke, *arguments: str, columns: int | None = 80) -> str:
    settings = {"COLUMNS": columns and str(columns)}
    done = invoke("localrun", "recommend", *arguments, env=settings)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def first_words(text: str) -> list[str]:
    return [line.split()[0] for line in text.partition("\n\n")[0].splitlines()[1:]]


def test_table_of_80_columns(invoke: Invoke) -> None:
    assert table(invoke) == (
        "name           good at         size  memory  speed  license\n"
        "large-30b-a3b  chat, code     20 GB   21 GB   10/s  MIT\n"
        "medium-4b      chat, vision  3.0 GB  4.2 GB  6.7/s  MIT\n"
        "tiny-0.6b      chat, small   500 MB  1.7 GB   40/s  MIT\n"
        "embeds         embed         300 MB  3.4 GB         MIT\n"
        "\n"
        "memory: with 8k tokens of context; speed: tokens a second, expected here\n"
        "\n"
        "Get the first:  llm localrun pull large-30b-a3b\n"
        "More for code:  llm localrun recommend --for code\n"
        "                (or chat, vision, embed, tools, thinking, small)\n"
    )


@pytest.mark.parametrize("use", [None, *Use])
def test_no_line_is_wider_than_a_terminal(
    use: Use | None, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the longest texts that the list may have."""
    long = listed("a-long-name-of-a-model-70b", 2, *(use for use in Use if use is not Use.EMBED))
    values = {name: getattr(long, name) for name in long.__dataclass_fields__}
    wide = type(long)(**{**values, "good_at": "x" * 32, "license": "y" * 30})
    monkeypatch.setattr(models, "listed_models", lambda: (wide, *LISTED))
    shown = table(invoke, *(["--for", use.value] if use else []))
    assert max(map(len, shown.splitlines())) <= 80
    assert ("x" * 32 in shown) == (use is not Use.EMBED)


def test_pipe_has_the_lines_to_paste_and_no_legend(invoke: Invoke) -> None:
    text = table(invoke, columns=None)
    assert "memory:" not in text
    assert text.startswith("name           good at         size  memory  speed  license\n")
    assert "\n\nGet the first:  llm localrun pull large-30b-a3b\n" in text


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), ["large-30b-a3b", "medium-4b", "tiny-0.6b", "embeds"]),
        (("--for", "code"), ["large-30b-a3b", "qwen3-coder-30b-a3b"]),
        (("--for", "embed"), ["embeds"]),
        (("--memory", "8GB"), ["medium-4b", "tiny-0.6b", "embeds"]),
        (("--memory", "4 gib", "--for", "chat"), ["tiny-0.6b"]),
    ],
)
def test_choice(arguments: tuple[str, ...], names: list[str], invoke: Invoke) -> None:
    assert first_words(table(invoke, *arguments)) == names
    facts = json.loads(table(invoke, *arguments, "--json"))
    assert [each["name"] for each in facts] == names


def test_hint_names_another_use(invoke: Invoke) -> None:
    hint = table(invoke, "--for", "code").partition("More for chat:  ")[2]
    assert hint == (
        "llm localrun recommend --for chat\n"
        "                (or vision, embed, tools, thinking, small)\n"
    )


def test_json(invoke: Invoke) -> None:
    (first, *_) = json.loads(table(invoke, "--for", "chat", "--json"))
    assert first["command"] == "llm localrun pull large-30b-a3b"
    assert (first["uses"], first["files"]) == (["chat", "code"], ["large-30b-a3b.gguf"])
    assert (first["context_size"], first["tokens_per_second"]) == (8192, 10.0)
    assert 20e9 < first["memory"] < 22e9
    assert (first["license"], first["size"]) == ("MIT", 20 * 10**9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--memory", "100MB"),
            "No recommended model fits into so little memory: the smallest, embeds, is a download"
            " of 300 MB. Get a tiny one: llm localrun pull starter",
        ),
        (
            ("--memory", "100MB", "--for", "vision"),
            "No recommended model for vision fits into so little memory: the smallest, medium-4b,"
            " is a download of 3.0 GB. Get a tiny one: llm localrun pull starter",
        ),
        (
            ("--memory", "8 GB", "--for", "code"),
            "No recommended model for code fits into so little memory: the smallest,"
            " qwen3-coder-30b-a3b, is a download of 18 GB. "
            "For other uses: llm localrun recommend --memory 8GB",
        ),
        (
            ("--for", "thinking"),
            "No model for thinking is recommended. For other uses: llm localrun recommend",
        ),
    ],
)
def test_nothing_to_recommend(arguments: tuple[str, ...], said: str, invoke: Invoke) -> None:
    done = invoke("localrun", "recommend", *arguments)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"{said}\n")
    assert json.loads(invoke("localrun", "recommend", *arguments, "--json").stdout) == []


@pytest.mark.parametrize("size", ["", "much", "-1GB", "16 apples", "16", "0", "900kB", "0.5"])
def test_memory_that_is_no_size(size: str, invoke: Invoke) -> None:
    done = invoke("localrun", "recommend", "--memory", size)
    assert done.exit_code == 2
    assert "Invalid value for '--memory': give a size such as 16GB" in done.stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="there a GPU shares the RAM")
@pytest.mark.parametrize(
    ("gpu", "best"),
    [
        ("CUDA0: A GPU (30000 MiB, 22000 MiB free)", "large-30b-a3b"),
        # It uses the RAM, and the figures of the processor say nothing of it either.
        ("Vulkan0: llvmpipe (LLVM 15) (30000 MiB, 22000 MiB free)", "medium-4b"),
    ],
)
def test_gpus_count_unless_memory_is_given(
    gpu: str, best: str, user_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = stand_in(tmp_path / "llama-server", f"os.environ['STAND_IN_DEVICES'] = '  {gpu}'")
    configure(user_path, **CONFIG, llama_server=str(program))
    monkeypatch.setattr(command, "would_use_gpu", builds.would_use_gpu)
    monkeypatch.setattr(machine, "usable_ram", lambda: 9 * GIB)
    found, *_ = recommendations()
    assert (found.model.name, found.tokens_per_second) == (best, None)
    assert recommendations(memory=9 * GIB)[0].model.name == "medium-4b"


def test_what_ran_before_corrects_the_speed(
    user_path: Path, starter_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id in llm's log leads to its file."""
    put_starter(user_path, starter_model)
    get_catalogue(CachePolicy.REFRESH)
    paths: list[str | None] = []
    read: list[CachePolicy] = []

    def catalogue(policy: CachePolicy) -> Snapshot:
        read.append(policy)
        return get_catalogue(policy)

    def logged(path_of: Callable[[str], str | None]) -> list[Run]:
        paths.extend(map(path_of, (f"local/gguf/{starter_model.stem}", "local/gguf/gone")))
        return [Run(TokenCost(1), 7.0)]

    monkeypatch.setattr(command, "get_catalogue", catalogue)
    monkeypatch.setattr(command, "logged_runs", logged)
    assert recommendations(Use.CHAT)[0].tokens_per_second == 7.0
    assert paths == [str(user_path / "localrun" / "models" / starter_model.name), None]
    assert read == [CachePolicy.CACHED]


@pytest.mark.parametrize(("limit", "best"), [(9 * GIB, "medium-4b"), (64 * GIB, "large-30b-a3b")])
def test_the_limit_of_a_container_counts(
    limit: int, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_ram", USABLE_RAM)
    monkeypatch.setattr(machine, "physical_memory", lambda: 32 * GIB)
    monkeypatch.setattr(machine, "_in_control_groups", lambda _: iter([(limit, limit)]))
    assert recommendations(Use.CHAT)[0].model.name == best


def test_memory_that_the_system_does_not_report(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_ram", lambda: None)
    monkeypatch.setattr(machine, "free_ram", lambda: None)
    done = invoke("localrun", "recommend")
    assert first_words(done.stdout)[0] == "medium-4b"
    assert done.stderr == (
        "How much RAM this machine has is unknown. These models fit into 8.0 GB; --memory says how"
        " much there is.\n"
    )
    assert invoke("localrun", "recommend", "--memory", "8GB").stderr == ""


def test_names_and_texts_of_a_list_cannot_write_to_the_terminal(invoke: Invoke) -> None:
    odd = listed("odd-1b", 1, Use.CHAT, Use.THINKING)
    values = {name: getattr(odd, name) for name in odd.__dataclass_fields__}
    write_refreshed([type(odd)(**{**values, "good_at": "\x1b[2Jred", "license": "a\nb"})])
    text = table(invoke, "--for", "thinking", columns=120)
    assert "\x1b[2J" not in text
    assert first_words(text) == ["odd-1b"]


def test_rows_are_for_other_commands_too() -> None:
    rows = recommendation_rows(recommendations(Use.EMBED))
    assert [(row["name"], row["speed"]) for row in rows] == [("embeds", "")]


# A newer list


def test_nothing_is_asked_without_refresh(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    with StandIn(lambda _: iter([json_reply([])])) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        table(invoke)
        assert hub.requests == []
        assert "Nothing is newer." in invoke("localrun", "recommend", "--refresh").stderr
        assert len(hub.requests) == 9
    assert json.loads(refreshed_path().read_text()) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((["a"], []), "Added 1 model: a."),
        (
            (["a", "b", "c", "d", "e"], ["f"]),
            "Added 5 models: a, b, c, 2 more; updated 1 model: f.",
        ),
        (([], ["f", "g"]), "Updated 2 models: f, g."),
        (([], []), "Nothing is newer."),
    ],
)
def test_what_a_refresh_says(
    found: tuple[list[str], list[str]],
    said: str,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "refresh_list", lambda: found)
    done = invoke("localrun", "recommend", "--refresh", "--json")
    assert (done.exit_code, done.stderr) == (0, f"{said}\n")
    assert json.loads(done.stdout)[0]["name"] == "large-30b-a3b"


@pytest.mark.parametrize("earlier", [False, True])
def test_hub_that_cannot_be_reached(
    earlier: bool, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier:
        write_refreshed([listed("newer-40b-a3b", 21, Use.CHAT, active=2)])
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = invoke("localrun", "recommend", "--refresh")
    assert done.exit_code == 0
    hub, package = done.stderr.splitlines()
    assert hub.startswith("http://127.0.0.1:9 cannot be reached: ")
    assert package == (
        "This is the package's list of 2026-11-29"
        + (", with what earlier refreshes found." if earlier else ".")
    )
    newest = "newer-40b-a3b" if earlier else "large-30b-a3b"
    assert first_words(done.stdout)[0] == newest


def test_offline_mode(invoke: Invoke, user_path: Path, run_llm: Llm) -> None:
    """In a process of its own: huggingface_hub reads the variable when it is imported."""
    done = run_llm("localrun", "recommend", "--refresh", "--json", env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0
    assert done.stderr.startswith("HF_HUB_OFFLINE is set")
    facts: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(facts) <= 5


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_real_command_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = on_terminal("localrun", "recommend", "--memory", "16GB")
    lines = [line for line in shown.splitlines() if line.startswith("Get the first:")]
    assert len(lines) == 1
    assert max(map(len, shown.splitlines())) <= 100
