"""Makes a log of llm, with the tables of the llm that is installed."""

import json
import random
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import sqlite_utils
from llm.migrations import migrate

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
NOW = 1_790_000_000.0
_WORDS = ("the", "speed", "of", "a", "model", "answers", "question", "about", "memory")


def ulid(at: float, number: int = 0) -> str:
    """An id as llm makes it at a time, in seconds since the epoch."""
    value = int(at * 1000) << 80 | number
    return "".join(_DIGITS[value >> shift & 31] for shift in range(125, -1, -5))


WITHOUT_ANSWERS = (None, b"", b"not a database" * 100, "table", "folder")
"""Logs that hold no answer: none, a file with these bytes, one with an odd table, a folder."""


def write_without_answers(user_path: Path, content: bytes | str | None) -> Path:
    """Makes the log of one of `WITHOUT_ANSWERS`; where it is, or would be."""
    path = user_path / "logs.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content == "table":
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE turns (id, model)")
    return path


def run(
    at: float = NOW,
    model: str = "local/gguf/a",
    *,
    endpoint: str = "gguf",
    tokens: tuple[object, object] = (600, 100),
    **logged: Any,
) -> dict[str, Any]:
    """The columns of an answer that this plugin gave; `logged` replaces its statistics."""
    statistics = {
        "finish_reason": "stop",
        "cached_tokens": 0,
        "load_seconds": None,
        "prompt_tokens_per_second": 200.0,
        "generation_tokens_per_second": 20.0,
        "context_size": 8192,
        "time_to_first_token": 0.5,
        "quantization": "Q4_K_M",
        "endpoint": endpoint,
        **logged,
    }
    kept = {name: value for name, value in statistics.items() if value is not None}
    return {
        "id": ulid(at, random.getrandbits(79)),
        "model": model,
        "resolved_model": model.rpartition("/")[2],
        "options_json": "{}",
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
        "token_details": None,
        "duration_ms": 5500,
        "response_json": json.dumps(kept),
    }


@cache
def _empty_log() -> sqlite3.Connection:
    database = sqlite_utils.Database(memory=True)
    migrate(database)  # type: ignore[no-untyped-call]
    return database.conn


def write_log(
    folder: Path, rows: Iterable[Mapping[str, Any]], table: str = "turns", *, wal: bool = False
) -> Path:
    """Adds rows, the oldest first, to the log in llm's user directory."""
    path = folder / "logs.db"
    is_new = not path.exists()
    with closing(sqlite3.connect(path)) as log, log:
        log.execute("PRAGMA synchronous = OFF")
        if is_new:
            _empty_log().backup(log)
        if wal:
            log.execute("PRAGMA journal_mode = WAL")
        for row in rows:
            names = ", ".join(row)
            marks = ", ".join("?" * len(row))
            log.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", (*row.values(),))
    return path


def fill_log(folder: Path, count: int, table: str = "turns") -> Path:
    """A log of `many_runs`, made fast: without an index of their texts for searching."""
    path = write_log(folder, [])
    with closing(sqlite3.connect(path, isolation_level=None)) as log:
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for setting in ("synchronous", "journal_mode"):
            log.execute(f"PRAGMA {setting} = OFF")
        for (name,) in log.execute(triggers).fetchall():
            log.execute(f"DROP TRIGGER {name}")
        log.execute("BEGIN")
        columns = [*next(many_runs(1, table))]
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        rows = ((*row.values(),) for row in many_runs(count, table))
        log.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
        log.execute("COMMIT")
    return path


def many_runs(count: int, table: str = "turns", models: int = 12) -> Iterator[dict[str, Any]]:
    """Runs of several models over two years, the oldest first, as long as real ones."""
    chance = random.Random(0)
    for number in range(count):
        at = NOW - (count - number) * 63e6 / count
        which = min(int(chance.expovariate(0.3)), models - 1)
        endpoint = ("gguf", "ollama", "lmstudio")[which % 3]
        read, generated = (
            int(chance.expovariate(1 / 800)) + 20,
            int(chance.expovariate(1 / 250)) + 5,
        )
        cached = read // 2 if chance.random() < 0.4 else 0
        row = run(
            at,
            f"local/{endpoint}/vendor-model-{which}-instruct-Q4_K_M",
            endpoint=endpoint,
            tokens=(read, generated),
            cached_tokens=cached,
            load_seconds=round(chance.uniform(0.5, 9), 4) if chance.random() < 0.1 else None,
            prompt_tokens_per_second=round(chance.gauss(200 + 20 * which, 15), 4),
            generation_tokens_per_second=round(chance.gauss(20 + which, 2), 4),
            time_to_first_token=round(chance.expovariate(0.3), 4),
        )
        row["token_details"] = json.dumps({"cached_tokens": cached}) if cached else None
        row["datetime_utc"] = "2026-11-30T16:30:14.886653+00:00"
        yield {**row, **(_turn(chance) if table == "turns" else _response(chance, generated))}


def _turn(chance: random.Random) -> dict[str, Any]:
    hashes = [f"b2:{chance.getrandbits(128):032x}" for _ in range(2)]
    return {
        "thread_id": ulid(NOW, chance.getrandbits(79)),
        "parent_message_hash": hashes[0],
        "tip_message_hash": hashes[1],
    }


def _response(chance: random.Random, generated: int) -> dict[str, Any]:
    text = " ".join(chance.choices(_WORDS, k=40))
    return {
        "conversation_id": ulid(NOW, chance.getrandbits(79)),
        "prompt": text[: chance.randrange(200)],
        "prompt_json": "{}",
        "response": (text * 8)[: generated * 4],
    }
