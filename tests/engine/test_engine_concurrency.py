"""Eight prompts at the same time share one engine, and each gets its own answer."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.chat.models import AsyncLocalChat
from llm_localrun.engine.state import list_running
from llm_localrun.engine_defaults import SLOTS
from tests.support.drive import ask
from tests.support.engines import answer, in_file

WORDS = ["Paris", "seven", "nine", "tiger", "window", "horse", "table", "copper"]
PROMPTS = [f"Repeat this: {', '.join([word] * 7)}" for word in WORDS]
"""Repeated so often that the model certainly repeats it. A batch of several prompts is rounded
differently from a single prompt, so tokens of nearly equal probability can swap."""

Answers = list[str]


def by_threads(model: Path) -> Answers:
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        asked = [
            pool.submit(ask, in_file(model), prompt, temperature=0, max_tokens=5)
            for prompt in PROMPTS
        ]
        return [each.result().text for each in asked]


def by_tasks(model: Path) -> Answers:
    async def answers() -> Answers:
        chat = AsyncLocalChat(in_file(model))
        responses = [chat.prompt(prompt, temperature=0, max_tokens=5) for prompt in PROMPTS]
        return await asyncio.gather(*(response.text() for response in responses))

    return asyncio.run(answers())


_ASK = """
import sys
from pathlib import Path
from tests.support.engines import answer
print(answer(Path(sys.argv[1]), sys.argv[2]), end="")
"""


def by_processes(model: Path) -> Answers:
    asked = [
        subprocess.Popen(
            [sys.executable, "-c", _ASK, str(model), prompt],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": "."},
        )
        for prompt in PROMPTS
    ]
    return [each.communicate(timeout=120)[0].decode() for each in asked]


def one_by_one(model: Path) -> Answers:
    return [answer(model, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("asked", [one_by_one, by_threads, by_tasks, by_processes])
def test_eight_prompts(
    user_path: Path, starter_model: Path, asked: Callable[[Path], Answers]
) -> None:
    answers = asked(starter_model)
    assert [[word for word in WORDS if word in answer] for answer in answers] == [
        [word] for word in WORDS
    ]
    assert len(list_running(user_path / "localrun" / "engine")) == 1


def test_prompts_that_do_not_fit_together(user_path: Path, starter_model: Path) -> None:
    """One after the other has the context of 256 tokens; llama.cpp would break off all four."""
    model = in_file(starter_model, context_max=8192)
    options: dict[str, Any] = {"context_size": 256, "temperature": 0, "max_tokens": 5}
    with ThreadPoolExecutor(SLOTS) as pool:
        asked = [
            pool.submit(ask, model, f"Repeat this: {' '.join([word] * 120)}", **options)
            for word in WORDS[:SLOTS]
        ]
        outcomes = [each.result() for each in asked]
    assert all(128 < (outcome.input or 0) < 256 for outcome in outcomes)
    assert len(list_running(user_path / "localrun" / "engine")) == 1
