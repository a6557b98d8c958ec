"""A file that makes llama.cpp prepare a prompt without an end takes one command, and says so.

A template or a tokenizer runs before llama.cpp gives a prompt a slot.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_localrun.chat.embed import embed
from llm_localrun.engine import launch
from llm_localrun.engine.load_watch import PreparationWatch
from llm_localrun.engine.state import list_running
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.models import OnDisk
from tests.conftest import CONFIG, Llm, configure
from tests.support.busy import busy_processes
from tests.support.drive import WAYS, ask, failure
from tests.support.engines import (
    STORY,
    TEMPLATE_SIZE,
    hosts,
    in_file,
    patched,
    stand_in,
    text_value,
    wait_until,
)

LASTING = "llama.cpp did not finish: it ran the chat template or the tokenizer"
LIMIT = "the chat template or the tokenizer ran for 1 s of CPU time without an end"
ENDED = f"The engine ended while it ran {{file}}: {LIMIT}. Give another template"
ABANDONED = "llama.cpp did not begin to answer with {file}: the chat template or the tokenizer ran"
ENDLESS = "Say bomb"
"""A prompt that makes the endless template loop."""


@pytest.fixture(autouse=True)
def few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for as long as users do would take minutes on a busy machine."""
    monkeypatch.setattr(launch, "_MAX_PREPARATION_S", 1.0)
    monkeypatch.setattr(launch, "_ABANDONED_PREPARATION_S", 0.1)


def of_endless_template(source: Path, target: Path) -> Path:
    """A copy of the starter model whose template loops if the prompt has the word `bomb`."""
    template = (
        b"{% for m in messages %}{{ m['content'] }}{% if 'bomb' in m['content'] %}"
        b"{% for i in range(10000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"
        b"{% endif %}{% endfor %}"
    )
    value = text_value(template.ljust(TEMPLATE_SIZE))
    return patched(source, target, "tokenizer.chat_template", value)


def of_other_tokenizer(source: Path, target: Path) -> Path:
    """A copy that names another tokenizer than that of its tokens.

    In b11549 RWKV's takes a token without an end where one begins with a byte that is none itself.
    """
    return patched(source, target, "tokenizer.ggml.model", text_value(b"rwkv"))


FILES = {
    "template": (of_endless_template, ENDLESS),
    "tokenizer": (of_other_tokenizer, "Dvořák"),
}


def problem_of(path: Path) -> str:
    return FailedLoads().problem_of(OnDisk(path=str(path)))


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("way", WAYS)
def test_engine_ends_after_too_much_cpu_time(
    user_path: Path, starter_model: Path, tmp_path: Path, kind: str, way: str
) -> None:
    make, prompt = FILES[kind]
    file = make(starter_model, tmp_path / "hostile.gguf")
    assert failure(lambda: ask(in_file(file), prompt, way)).startswith(ENDED.format(file=file))
    assert problem_of(file) == LASTING
    wait_until(lambda: hosts(user_path) == [])


@pytest.mark.skipif(sys.platform == "win32", reason="the fake llama-server is a script")
def test_llama_server_ends_too(user_path: Path, starter_model: Path, tmp_path: Path) -> None:
    file = of_endless_template(starter_model, tmp_path / "hostile.gguf")
    configure(user_path, **{**CONFIG, "llama_server": str(stand_in(tmp_path / "llama-server"))})
    assert failure(lambda: ask(in_file(file), ENDLESS)).startswith(ENDED.format(file=file))
    wait_until(lambda: hosts(user_path) == [])


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("way", ["sync", "async"])
def test_engine_that_a_command_gave_up_on(
    user_path: Path,
    starter_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    way: str,
) -> None:
    monkeypatch.setattr(launch, "_MAX_PREPARATION_S", 1000.0)
    # Otherwise the tokenizer takes more memory than it may, before the time is over.
    monkeypatch.setattr(launch, "_bounded", lambda instructions, *_: instructions)
    make, prompt = FILES[kind]
    file = make(starter_model, tmp_path / "hostile.gguf")
    # The context takes the bytes of the prompt, so it is not counted.
    message = failure(lambda: ask(in_file(file), prompt, way, timeout=4))
    assert message.startswith(ABANDONED.format(file=file))
    assert problem_of(file) == LASTING
    assert hosts(user_path) == []


def test_prompt_that_is_counted(
    user_path: Path, starter_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it gets a slot, and with the time that the user gives."""
    monkeypatch.setattr(launch, "_MAX_PREPARATION_S", 1000.0)
    file = of_endless_template(starter_model, tmp_path / "hostile.gguf")
    prompt = f"{ENDLESS} {'word ' * 2000}"
    message = failure(lambda: ask(in_file(file, 8192), prompt, timeout=4))
    assert message.startswith(ABANDONED.format(file=file))
    assert hosts(user_path) == []


def test_engine_that_used_little_cpu_time_stays(
    user_path: Path, starter_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has used more: the command may have given up on a busy machine."""
    monkeypatch.setattr(launch, "_ABANDONED_PREPARATION_S", 1000.0)
    # On a busy machine the engine must not reach its limit before the command gives up.
    monkeypatch.setattr(launch, "_MAX_PREPARATION_S", 10.0)
    file = of_endless_template(starter_model, tmp_path / "hostile.gguf")
    message = failure(lambda: ask(in_file(file), ENDLESS, timeout=1))
    assert message.startswith("llama.cpp sent nothing for 1 seconds")
    assert problem_of(file) == ""
    # Nobody waits for it any longer.
    wait_until(lambda: hosts(user_path) == [], timeout=120)


@pytest.mark.parametrize("count", [1, 100])
def test_texts_to_embed(
    user_path: Path,
    embedding_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    """One that is counted, too."""
    # Otherwise it takes more memory than it may, before more time.
    monkeypatch.setattr(launch, "_bounded", lambda instructions, *_: instructions)
    file = of_other_tokenizer(embedding_model, tmp_path / "hostile.gguf")
    model = in_file(file, 512).model_copy(update={"purpose": "embedding"})
    assert model.on_disk is not None
    route, text = model.on_disk, "Ω 你 ř ž ą " * count
    message = failure(lambda: list(embed(model, route, [text], None)))
    assert f"{file}: the chat template or the tokenizer ran for" in message
    assert problem_of(file) == LASTING
    wait_until(lambda: hosts(user_path) == [])


def test_no_alias_means_such_a_file(
    user_path: Path, starter_model: Path, tmp_path: Path, run_llm: Llm
) -> None:
    """With the real command."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "SmolLM2-135M-Instruct-Q4_1.gguf").hardlink_to(starter_model)
    configure(user_path, **CONFIG, folders=[str(folder)])
    file = of_endless_template(starter_model, folder / "SmolLM2-135M-Instruct-Q4_K_M.gguf")
    end = ("-o", "max_tokens", "1")

    def means() -> str:
        (first, *_) = json.loads(run_llm("localrun", "which", "local", "--json").stdout)
        return str(first["id"])

    assert run_llm("-m", str(file), "hi", *end).returncode == 0
    assert means() == f"local/gguf/{file.stem}"
    message = failure(lambda: ask(in_file(file), ENDLESS, timeout=4))
    assert message.startswith(ABANDONED.format(file=file))
    assert means() == "local/gguf/SmolLM2-135M-Instruct-Q4_1"
    assert run_llm("-m", "local", ENDLESS, *end).returncode == 0
    # It is run where it is named, and until it has changed.
    assert run_llm("-m", f"local/gguf/{file.stem}", "hi", *end).returncode == 0
    assert means() == f"local/gguf/{file.stem}"


def test_healthy_prompt_on_a_busy_machine(user_path: Path, starter_model: Path) -> None:
    """Evaluating it takes more CPU time than preparing may, and logs nothing meanwhile."""
    with busy_processes():
        outcome = ask(in_file(starter_model, 8192), STORY * 4, max_tokens=2, temperature=0)
    assert outcome.output == 2
    (engine,) = list_running(user_path / "localrun" / "engine")
    assert engine.pid in hosts(user_path)


def test_timeout_while_a_prompt_is_evaluated(user_path: Path, starter_model: Path) -> None:
    """The engine is healthy: it stops evaluating by itself, and stays."""
    ask(in_file(starter_model, 8192), "Hi", max_tokens=1)
    message = failure(
        lambda: ask(in_file(starter_model, 8192), STORY * 40, max_tokens=2, timeout=2)
    )
    assert message.startswith("llama.cpp sent nothing for 2 seconds")
    assert problem_of(starter_model) == ""
    assert list_running(user_path / "localrun" / "engine") != []


def never() -> bool:
    return False


def always() -> bool:
    return True


@pytest.mark.pure
@pytest.mark.parametrize(
    ("cpu", "log_sizes", "is_evaluating", "expected"),
    [
        ([0, 5, 10, 15, 20, 25], [9] * 6, never, [False] * 4 + [True, True]),
        ([0, 5, 10, 15, 20, 25], [9] * 6, always, [False] * 6),
        ([0, 5, 10, 15, 20, 25], [9, 9, 9, 10, 10, 10], never, [False] * 6),
        # Emptied.
        ([0, 5, 10, 15, 20, 25], [9, 9, 9, 0, 0, 0], never, [False] * 6),
        # It does nothing in between.
        ([0, 10, 10.001, 20, 25, 29], [9] * 6, never, [False] * 6),
        ([0, 10, 10.1, 10.2, 20.1, 20.2], [9] * 6, never, [False] * 4 + [True, True]),
    ],
    ids=["prepares", "evaluates", "logs", "log is emptied", "rests", "gets little time"],
)
def test_cpu_time_that_counts(
    cpu: list[float], log_sizes: list[int], is_evaluating: Callable[[], bool], expected: list[bool]
) -> None:
    watch = PreparationWatch(20, is_evaluating)
    assert [watch.is_exceeded(*each) for each in zip(cpu, log_sizes, strict=True)] == expected
