"""`-o draft_model auto`: what repeats the conversation is guessed, and no answer changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_localrun.engine.launch import find_or_start
from llm_localrun.engine.settings import EngineRequest
from llm_localrun.engine.state import AUTO, GUESSED, EngineSettings, list_running
from tests.support import tiny_models
from tests.support.drive import ask
from tests.support.engines import STORY, in_file
from tests.support.tiny_models import Tiny


@pytest.fixture
def folder(user_path: Path) -> Path:
    return user_path / "localrun" / "engine"


def written(model: Path, folder: Path, prompt: str | list[int], draft_model: str) -> dict[str, Any]:
    """What llama.cpp says of an answer of 64 tokens."""
    settings = EngineSettings(1024, threads=1, draft_model=draft_model)
    engine, _ = find_or_start(EngineRequest(str(model), "x", settings), folder, 60)
    body = {"prompt": prompt, "n_predict": 64, "temperature": 0, "ignore_eos": True}
    body["return_tokens"] = True
    headers = {"Authorization": f"Bearer {engine.key}"}
    reply = httpx.post(f"{engine.url}/completion", json=body, headers=headers, timeout=60)
    answer: dict[str, Any] = reply.json()
    return answer


def guesses(answer: dict[str, Any]) -> int:
    return int(answer["timings"].get("draft_n", 0))


def test_what_repeats_is_guessed(starter_model: Path, folder: Path) -> None:
    plain, guessed = (written(starter_model, folder, STORY, kind) for kind in ("", AUTO))
    assert guesses(plain) == 0
    assert guesses(guessed) >= GUESSED
    assert guessed["timings"]["draft_n_accepted"] >= GUESSED
    assert guessed["content"] == plain["content"]


def test_what_another_has_written_is_not_guessed(starter_model: Path, folder: Path) -> None:
    """Guesses of another conversation are wrong where this one goes on differently."""
    prompt = "Three rules for a good night's sleep, in one sentence each:"
    first, second = (written(starter_model, folder, prompt, AUTO) for _ in range(2))
    assert guesses(second) == guesses(first)
    assert second["content"] == first["content"]


@pytest.mark.parametrize("make", [tiny_models.gemma3, tiny_models.lfm2, tiny_models.mamba2])
def test_a_model_that_cannot_go_back(
    make: Callable[[], Tiny], folder: Path, tmp_path: Path
) -> None:
    """It has windows or a state: llama.cpp copies these before it checks a guess.

    What the model says stands in the prompt, and what follows it there is the wrong guess.
    """
    model = make().build(tmp_path / "tiny.gguf")
    *_, said = written(model, folder, [5, 6, 7], "")["tokens"]
    prompt = [said] * 40 + [said - 1] * 5
    plain, guessed = (written(model, folder, prompt, kind) for kind in ("", AUTO))
    assert guesses(guessed) > guessed["timings"]["draft_n_accepted"]
    assert guessed["tokens"] == plain["tokens"]


@pytest.mark.parametrize(("option", "setting"), [("none", ""), ("auto", "auto")])
def test_word_in_place_of_a_file(
    option: str, setting: str, starter_model: Path, folder: Path
) -> None:
    assert ask(in_file(starter_model), "Hi", max_tokens=1, draft_model=option).output == 1
    (engine,) = list_running(folder)
    assert engine.spec.settings.draft_model == setting
