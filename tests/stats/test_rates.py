"""How fast a model reads prompts, from logs of llm: whole, old, odd and damaged ones."""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.stats.rates import prompt_rate
from tests.support.llm_log import WITHOUT_ANSWERS, write_without_answers

MODEL, BOX = "local/box/a", "box"


def log(user: Path, rows: Iterable[tuple[object, ...]], table: str = "turns") -> None:
    """Writes a log of llm, the oldest row first."""
    conversation = {"turns": "thread_id", "responses": "conversation_id"}[table]
    with sqlite3.connect(user / "logs.db") as database:
        columns = f"id TEXT PRIMARY KEY, model, {conversation}, response_json, input_tokens"
        database.execute(f"CREATE TABLE {table} ({columns})")
        numbered = ((f"{number:026}", *row) for number, row in enumerate(rows))
        database.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", numbered)
    database.close()


def row(
    rate: object = None, read: object = 1000, conversation: object = None, **logged: Any
) -> tuple[object, ...]:
    """An answer of the model; `logged` is what else is in its statistics, but for two names."""
    model, raw = logged.pop("model", MODEL), logged.pop("raw", None)
    given = {"endpoint": BOX, "prompt_tokens_per_second": rate, "cached_tokens": 0, **logged}
    known = {name: value for name, value in given.items() if value is not None}
    return (model, conversation, json.dumps(known) if raw is None else raw, read)


CASES: dict[str, tuple[list[tuple[object, ...]], float | None]] = {
    "none": ([], None),
    "one": ([row(200)], 200),
    "the median": ([row(1), row(200), row(300)], 200),
    "the newest": ([*[row(9)] * 20, *[row(200)] * 9], 200),
    "a short prompt": ([row(200, read=63)], None),
    "enough": ([row(200, read=64)], 200),
    "nearly all is cached": ([row(200, cached_tokens=950)], None),
    "much is cached": ([row(200, cached_tokens=900)], 200),
    "more is cached than read": ([row(200, cached_tokens=2000)], None),
    "another endpoint": ([row(200, endpoint="gguf")], None),
    "another model": ([row(200, model="local/box/b")], None),
    # A server that does not count what it had cached.
    "the first of a conversation": ([row(200, conversation="c", cached_tokens=None)], 200),
    "its second": ([row(200, 10, "c"), row(9000, conversation="c", cached_tokens=None)], None),
    "two conversations": (
        [row(200, 10, "c"), row(300, conversation="d", cached_tokens=None)],
        300,
    ),
    # A server that does not say how fast it was.
    "the time to the first token": ([row(time_to_first_token=4.0)], 250),
    "without the load": ([row(time_to_first_token=4.0, load_seconds=2.0)], 500),
    "less the cached": ([row(time_to_first_token=4.0, cached_tokens=600)], 100),
    "too short for that": ([row(time_to_first_token=4.0, read=255)], None),
    "only the load": ([row(time_to_first_token=4.0, load_seconds=5.0)], None),
    "no time": ([row()], None),
    "an odd row": ([row(200), row("fast"), row(-1), row(0), row(read=None)], 200),
    "not finite": ([row(200), row(float("nan")), row(float("inf")), row(10**400)], 200),
    "odd counts": (
        [row(200), row(9, read=10**18), row(9, read="1"), row(9, cached_tokens=-1)],
        200,
    ),
    "odd statistics": (
        [row(200), *(row(raw=raw) for raw in ("[1]", "{", 9, b"\xff", "null"))],
        200,
    ),
}


@pytest.mark.parametrize(("rows", "rate"), CASES.values(), ids=CASES)
def test_rate(user_path: Path, rows: list[tuple[object, ...]], rate: float | None) -> None:
    log(user_path, rows)
    assert prompt_rate(MODEL, BOX) == rate


def test_the_log_of_an_older_llm(user_path: Path) -> None:
    log(user_path, [row(200)], "responses")
    assert prompt_rate(MODEL, BOX) == 200


def test_a_newer_llm_keeps_the_older_log_too(user_path: Path) -> None:
    log(user_path, [row(9)], "responses")
    log(user_path, [row(200)])
    assert prompt_rate(MODEL, BOX) == 200


def test_of_a_long_log_only_the_end_is_read(user_path: Path) -> None:
    log(user_path, [row(200), *(row(9, model="other") for _ in range(1000))])
    assert prompt_rate(MODEL, BOX) is None


@pytest.mark.parametrize("content", WITHOUT_ANSWERS)
def test_a_log_without_answers(user_path: Path, content: bytes | str | None) -> None:
    path = write_without_answers(user_path, content)
    assert prompt_rate(MODEL, BOX) is None
    assert path.exists() is (content is not None)
