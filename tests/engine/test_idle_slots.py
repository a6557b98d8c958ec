"""What a request does with the conversations that its engine holds for others."""

import os
import random
import signal
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.engine import slots
from llm_localrun.engine.saved_prompts import is_intact, partial_path
from llm_localrun.engine.state import EnginePaths, list_running
from llm_localrun.engine.stop import stop_all
from llm_localrun.engine_defaults import SLOTS
from tests.conftest import CONFIG, configure
from tests.support.engines import SHORT_ANSWER, STORY, in_file, kill, wait_until

MOST_LEFT = 4
"""Tokens in a slot that was emptied: llama.cpp evaluates one text of one character there."""
NAMES = ["Ada", "Bob", "Cleo"]
KILLS = 24
SAVED_BYTES = 5_000_000
"""About what 200 tokens take with the starter model; each of the conversations has more than half
of them, and fewer."""


def folder_of(user: Path) -> Path:
    return user / "localrun" / "engine"


def files(user: Path) -> list[Path]:
    return sorted((user / "localrun" / "prompts").iterdir())


def held(user: Path) -> list[int]:
    """The tokens in each slot of the engine, in descending order."""
    (engine,) = list_running(folder_of(user))
    found = slots.ask(engine, "GET", "/slots", None, 10)
    return sorted((slot.get("n_prompt_tokens") or 0 for slot in found), reverse=True)


class Talk:
    """A conversation, or prompts that llm does not log and that begin alike.

    Other ones begin with `shared` too.
    """

    def __init__(
        self, model: LocalChat, name: str, is_logged: bool = True, shared: str = ""
    ) -> None:
        self._begin = f"{shared}{name}. {STORY}"
        self._conversation = model.conversation() if is_logged else None
        self._model, self._tokens = model, 0

    def is_continued(self) -> bool:
        """Prompts once more, and returns whether everything before was cached."""
        before = self._tokens
        if self._conversation is None:
            response = self._model.prompt(
                f"{self._begin}{'And then?' * bool(before)}", **SHORT_ANSWER
            )
        else:
            text = "And then?" if before else self._begin
            response = self._conversation.prompt(text, **SHORT_ANSWER)
        response.text()
        facts, self._tokens = response.response_json, response.usage().input or 0
        assert facts is not None
        # The end of an unlogged prompt differs.
        return bool(before) and facts["cached_tokens"] >= before - 10


def in_turn(talks: Iterable[Talk]) -> list[bool]:
    return [talk.is_continued() for talk in talks]


@pytest.fixture
def model(user_path: Path, starter_model: Path) -> LocalChat:
    return LocalChat(in_file(starter_model, context_max=8192))


def test_conversations_in_turn(user_path: Path, model: LocalChat) -> None:
    """Only the one in use is in llama.cpp's cache, and each finds all of its tokens again."""
    talks = [Talk(model, name) for name in NAMES]
    talks[0].is_continued()
    assert talks[0].is_continued()
    assert files(user_path) == []  # llama.cpp holds it
    in_turn(talks[1:])
    unlogged = Talk(model, "Nobody", is_logged=False)
    assert not unlogged.is_continued()
    for _ in range(2):
        assert in_turn([*talks, unlogged]) == [True] * 4
        first, *others = held(user_path)
        assert first > 150
        assert max(others) <= MOST_LEFT
        assert len(files(user_path)) == len(talks)
    stop_all(folder_of(user_path))
    assert len(files(user_path)) == len(talks)
    assert all(map(is_intact, files(user_path)))
    assert in_turn(talks) == [True] * 3


def test_conversations_that_begin_alike(user_path: Path, model: LocalChat) -> None:
    """The slot keeps more than half of what it held, and the rest is not lost either."""
    talks = [Talk(model, name, shared=STORY * 2) for name in NAMES]
    in_turn(talks)
    assert len(files(user_path)) == len(talks) - 1
    for _ in range(2):
        assert in_turn(talks) == [True] * 3
        assert max(held(user_path)[1:]) <= MOST_LEFT
    stop_all(folder_of(user_path))
    assert in_turn(talks) == [True] * 3


def test_restored_conversation_displaces_one_that_begins_alike(model: LocalChat) -> None:
    logged = Talk(model, "Ada", shared=STORY * 2)
    unlogged = Talk(model, "Nobody", is_logged=False, shared=STORY * 2)
    in_turn([logged, unlogged])
    assert logged.is_continued()
    Talk(model, "Dora", is_logged=False).is_continued()
    assert unlogged.is_continued()


@pytest.mark.parametrize("reason", ["no conversation", "logs off", "no space"])
def test_what_is_not_written_stays_in_memory(
    user_path: Path, model: LocalChat, reason: str
) -> None:
    if reason == "logs off":
        (user_path / "logs-off").touch()
    if reason == "no space":
        configure(user_path, **CONFIG, prompt_cache=0)
    talks = [Talk(model, name, reason != "no conversation") for name in NAMES]
    assert in_turn(talks) == [False] * 3
    assert in_turn(talks) == [True] * 3
    assert max(held(user_path)[1:]) <= MOST_LEFT
    assert files(user_path) == []
    stop_all(folder_of(user_path))
    assert files(user_path) == []


def test_files_have_at_most_the_bytes_of_prompt_cache(user_path: Path, model: LocalChat) -> None:
    configure(user_path, **CONFIG, prompt_cache=SAVED_BYTES)
    talks = [Talk(model, name) for name in NAMES]
    in_turn(talks)
    assert len(files(user_path)) == 1
    assert files(user_path)[0].stat().st_size <= SAVED_BYTES
    # Memory still holds the one without a file.
    assert in_turn(talks) == [True] * 3


@pytest.mark.parametrize("stories", [2, 4], ids=["found when it is written", "known before"])
def test_conversation_that_is_larger_than_prompt_cache(
    user_path: Path, model: LocalChat, stories: int
) -> None:
    """It costs no other one its file, and memory holds it."""
    configure(user_path, **CONFIG, prompt_cache=SAVED_BYTES)
    small, large = Talk(model, "Ada"), Talk(model, "Bob", shared="Once more. " + STORY * stories)
    in_turn([small, large])
    kept = files(user_path)
    assert len(kept) == 1
    Talk(model, "Nobody", is_logged=False).is_continued()
    assert files(user_path) == kept
    assert in_turn([large, small]) == [True] * 2


def test_slots_that_were_used_at_the_same_time(user_path: Path, model: LocalChat) -> None:
    talks = [Talk(model, name) for name in NAMES]
    with ThreadPoolExecutor(len(talks)) as pool:
        list(pool.map(Talk.is_continued, talks))
    last = Talk(model, "Dora")
    last.is_continued()
    first, *others = held(user_path)
    assert first > 150
    assert max(others) <= MOST_LEFT
    assert len(files(user_path)) == len(talks)
    assert in_turn([*talks, last]) == [True] * 4


def test_partial_file_is_not_restored(user_path: Path, model: LocalChat) -> None:
    talks = [Talk(model, name) for name in NAMES]
    in_turn(talks)
    (engine,) = list_running(folder_of(user_path))
    paths = EnginePaths(folder_of(user_path), engine.id)
    kept = files(user_path)[0].read_bytes()
    for number in range(4):
        partial_path(paths, number).write_bytes(kept[:1000])
    assert in_turn(talks) == [True] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_commands_killed_while_they_switch(user_path: Path, model: LocalChat) -> None:
    """What a killed command leaves is complete; the worst is that a prompt is evaluated again."""
    chance = random.Random(20261130)
    talks = [Talk(model, name) for name in NAMES[:2]]
    in_turn(talks)
    for number in range(KILLS):
        if (client := os.fork()) == 0:
            try:
                talks[number % 2].is_continued()
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0, 0.25))
        kill(client)
        _, status = os.waitpid(client, 0)
        assert status in (0, signal.SIGKILL)
    in_turn(talks)
    assert in_turn(talks) == [True] * 2
    assert max(held(user_path)[1:]) <= MOST_LEFT
    stop_all(folder_of(user_path))
    assert all(map(is_intact, files(user_path)))


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_command_killed_while_its_prompt_is_evaluated(user_path: Path, model: LocalChat) -> None:
    """Its conversation continues where a part was evaluated, so no part is left elsewhere."""
    Talk(model, "Bob").is_continued()
    talk = Talk(model, "Ada", shared=STORY * 8)
    (engine,) = list_running(folder_of(user_path))
    paths = EnginePaths(folder_of(user_path), engine.id)
    if (client := os.fork()) == 0:
        try:
            talk.is_continued()
        finally:
            os._exit(0)
    # Its blocks are recorded.
    records = [paths.slot(number) for number in range(SLOTS)]
    wait_until(lambda: any(path.read_bytes().count(b",") > 10 for path in records))
    kill(client)
    assert os.waitpid(client, 0)[1] == signal.SIGKILL
    talk.is_continued()
    assert max(held(user_path)[1:]) <= MOST_LEFT


def test_file_that_cannot_be_written(user_path: Path, model: LocalChat) -> None:
    """It is missed only if memory does not hold the conversation either."""
    talks = [Talk(model, name) for name in NAMES]
    talks[0].is_continued()
    (engine,) = list_running(folder_of(user_path))
    blocked = [
        partial_path(EnginePaths(folder_of(user_path), engine.id), number)
        for number in range(SLOTS)
    ]
    for path in blocked:
        path.mkdir()
    in_turn(talks[1:])
    assert in_turn(talks) == [True] * 3
    assert files(user_path) == blocked
    for path in blocked:
        path.rmdir()
