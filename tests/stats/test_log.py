"""Reading llm's log: whose answers count, in logs of every age and condition."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.errors import LogUnreadable
from llm_localrun.stats import log
from llm_localrun.stats.log import SAMPLE, History, LoggedModel, read_history, time_of
from tests.support.llm_log import NOW, many_runs, run, ulid, write_log

DAY = 86_400
MODEL = "local/gguf/a"


def history(**options: Any) -> History:
    return read_history(lambda _: True, **options)


def only() -> LoggedModel:
    (found,) = history().models
    return found


@pytest.fixture
def folder(user_path: Path) -> Path:
    return user_path


def test_of_each_model_and_endpoint(folder: Path) -> None:
    rows = [
        run(NOW, tokens=(100, 10)),
        run(NOW + 1, tokens=(200, 20), cached_tokens=50, load_seconds=2.0),
        run(NOW + 2, "local/ollama/q:8b", endpoint="ollama"),
        run(NOW + 3, "local/ollama/q:8b"),
    ]
    write_log(folder, rows)
    found = {(each.model, each.endpoint): each for each in history().models}
    assert {key: each.runs for key, each in found.items()} == {
        (MODEL, "gguf"): 2,
        ("local/ollama/q:8b", "ollama"): 1,
        ("local/ollama/q:8b", "gguf"): 1,
    }
    each = found[MODEL, "gguf"]
    assert (each.input_tokens, each.output_tokens) == (300, 30)
    assert [answer.at for answer in each.newest] == [NOW + 1, NOW]
    assert (each.newest[0].cached_tokens, each.newest[0].load_seconds) == (50, 2.0)
    assert each.newest[0].quantization == "Q4_K_M"


ODD_NUMBERS = {
    "a text": "9",
    "negative": -1,
    "a boolean": True,
    "a list": [9],
    "huge": 10**400,
    "too large": 10**12,
}


@pytest.mark.parametrize("odd", ODD_NUMBERS.values(), ids=ODD_NUMBERS)
@pytest.mark.parametrize(
    "name",
    [
        *("cached_tokens", "load_seconds", "time_to_first_token", "context_size"),
        *("prompt_tokens_per_second", "generation_tokens_per_second"),
    ],
)
def test_an_odd_number_is_unknown(folder: Path, name: str, odd: object) -> None:
    changes: dict[str, Any] = {name: odd}
    write_log(folder, [run(**changes)])
    (answer,) = only().newest
    assert getattr(answer, name) is None
    assert answer.quantization == "Q4_K_M"


def test_1e999(folder: Path) -> None:
    odd = run()["response_json"].replace("200.0", "1e999").replace("20.0", "1" * 5000)
    write_log(folder, [{**run(), "response_json": odd}, run()])
    # The second has more digits than Python reads.
    assert [answer.prompt_tokens_per_second for answer in only().newest] == [200.0]
    assert only().runs == 2


@pytest.mark.parametrize("odd", ["many", b"\xff", -5, 10**15, 1.5e300, None])
def test_odd_tokens(folder: Path, odd: object) -> None:
    write_log(folder, [run(tokens=(odd, odd)), run(tokens=(7, 3))])
    assert (only().runs, only().input_tokens, only().output_tokens) == (2, 7, 3)


NOT_OURS = {
    "another plugin's": run(model="gpt-5"),
    "no model": run() | {"model": None},
    "a name of ours without an endpoint": run() | {"response_json": '{"usage": {"total": 1}}'},
    "no statistics": run() | {"response_json": None},
    "another value": run() | {"response_json": "[1]"},
    "a number": run() | {"response_json": 9},
    "bytes": run() | {"response_json": b"\xff\xfe"},
    "deep": run() | {"response_json": "[" * 100_000},
    "an endpoint that is no text": run() | {"response_json": '{"endpoint": ["gguf"]}'},
    "an empty endpoint": run(endpoint=""),
}
WITHOUT_FIGURES = {
    "broken JSON": run() | {"response_json": '{"endpoint": "gguf", '},
    "two endpoints": run() | {"response_json": '{"endpoint": "gguf", "endpoint": "a"}'},
    "not finite": run(time_to_first_token=float("inf")),
    "no number": run(time_to_first_token=float("nan")),
}
"""Rows of ours that say nothing about speed."""


@pytest.mark.parametrize("odd", NOT_OURS.values(), ids=NOT_OURS)
def test_a_row_that_is_none_of_ours(folder: Path, odd: dict[str, Any]) -> None:
    row = {**odd, "id": ulid(NOW + 1)}
    write_log(folder, [run(NOW), row, run(NOW + 2)])
    assert (only().runs, only().endpoint, len(only().newest)) == (2, "gguf", 2)


@pytest.mark.parametrize("odd", WITHOUT_FIGURES.values(), ids=WITHOUT_FIGURES)
def test_a_row_that_only_counts(folder: Path, odd: dict[str, Any]) -> None:
    write_log(folder, [run(NOW), {**odd, "id": ulid(NOW + 1)}, run(NOW + 2)])
    assert (only().runs, only().endpoint) == (3, "gguf")
    assert [answer.at for answer in only().newest] == [NOW + 2, NOW]


def test_endpoints_that_the_id_does_not_name(folder: Path) -> None:
    write_log(folder, [run(NOW), run(NOW + 1, endpoint="box"), run(NOW + 2, endpoint="gguf-2")])
    found = read_history(lambda _: True).models
    assert {each.endpoint: each.runs for each in found} == {"gguf": 1, "box": 1, "gguf-2": 1}


def test_texts_that_are_not_utf_8(folder: Path) -> None:
    path = write_log(folder, [run()])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "INSERT INTO turns (id, model, response_json) VALUES ('x', CAST(? AS TEXT), '{}')",
            (b"local/\xff",),
        )
    assert only().runs == 1


@pytest.mark.parametrize("table", ["turns", "responses"])
def test_logs_of_llm_before_and_after_0_36(folder: Path, table: str) -> None:
    write_log(folder, [run()], table)
    assert only().runs == 1


def test_a_row_in_both_tables_counts_once(folder: Path) -> None:
    old, both, new = run(NOW), run(NOW + 1), run(NOW + 2)
    write_log(folder, [old, both], "responses")
    write_log(folder, [both, new])
    assert only().runs == 3
    assert [answer.at for answer in only().newest] == [NOW + 2, NOW + 1, NOW]


def test_days(folder: Path) -> None:
    write_log(folder, [run(NOW - days * DAY) for days in (9, 5, 1)])
    write_log(folder, [run(NOW - 20 * DAY)], "responses")
    counts = [
        sum(each.runs for each in history(since=NOW - days * DAY).models)
        for days in (0.5, 2, 7, 30)
    ]
    assert counts == [0, 1, 2, 4]


def test_what_was_before_is_kept_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(folder, [run(NOW - 30 * DAY)], "responses")
    write_log(folder, [run(NOW - days * DAY) for days in (9, 5, 1)])
    (found,) = history(since=NOW - 2 * DAY).models
    assert (found.runs, found.input_tokens, len(found.newest)) == (1, 600, 1)
    assert [each.at for each in found.earlier] == [NOW - days * DAY for days in (5, 9, 30)]
    # Of a long log only so many rows.
    monkeypatch.setattr(log, "_EARLIER_ROWS", 1)
    monkeypatch.setattr(log, "_CHUNK_ROWS", 1)
    (found,) = history(since=NOW - 2 * DAY).models
    assert [each.at for each in found.earlier] == [NOW - 5 * DAY, NOW - 30 * DAY]


def test_a_merged_log_is_sorted_by_time(folder: Path) -> None:
    write_log(folder, [run(NOW), run(NOW + 5), run(NOW - 5), run(NOW + 1)])
    assert [each.at for each in only().newest] == [NOW + 5, NOW + 1, NOW, NOW - 5]


def test_answers_at_the_same_time(folder: Path) -> None:
    began = {0: 10, 2: 1, 4: 1, 10: 5, 20: 5, 24.999: 1, 30: 0, 31: 0}
    write_log(folder, [run(NOW + at) | {"duration_ms": s * 1000} for at, s in began.items()])
    other = run(NOW + 31, "local/ollama/b", endpoint="ollama") | {"duration_ms": 9000}
    write_log(folder, [other])
    found = next(each for each in history().models if each.endpoint == "gguf")
    crowded = [each.at for each in reversed(found.newest) if not each.is_alone]
    assert crowded == [NOW, NOW + 2, NOW + 4, NOW + 20, NOW + 24.999]


@pytest.mark.parametrize(
    ("table", "column"), [("turns", "thread_id"), ("responses", "conversation_id")]
)
def test_the_first_of_a_conversation(folder: Path, table: str, column: str) -> None:
    names = ["a", "b", "a", None, None, "b"]
    rows = [run(NOW + at) | {column: name} for at, name in enumerate(names)]
    write_log(folder, rows, table)
    firsts = [each.is_first for each in reversed(only().newest)]
    assert firsts == [True, True, False, True, True, False]


def test_only_wanted_models(folder: Path) -> None:
    write_log(folder, [run(model="local/gguf/b"), run()])
    found = read_history(lambda model: model == MODEL)
    assert [each.model for each in found.models] == [MODEL]


TIMES = {
    ulid(NOW): NOW,
    ulid(NOW).upper(): NOW,
    "": None,
    "x": None,
    "u" * 26: None,
    "z" * 26: None,
    ulid(32_503_680_000.0): None,
}


@pytest.mark.parametrize(("id_", "at"), TIMES.items())
def test_times_of_ids(id_: str, at: float | None) -> None:
    assert time_of(id_) == at


def test_a_time_that_is_still_to_come() -> None:
    now = time.time()
    assert time_of(ulid(now + 3600)) is not None
    assert time_of(ulid(now + 2 * DAY)) is None


@pytest.mark.parametrize("content", [None, b"", "table", "no columns"])
def test_a_log_without_answers(folder: Path, content: bytes | str | None) -> None:
    path = folder / "logs.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "table":
        write_log(folder, [])
    elif content == "no columns":
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE turns (id, model)")
    assert history() == History()
    assert path.exists() is (content is not None)


def test_what_is_no_log(folder: Path) -> None:
    (folder / "logs.db").write_bytes(b"not a database" * 100)
    with pytest.raises(LogUnreadable, match="not a database"):
        history()


def test_a_folder_in_its_place(folder: Path) -> None:
    (folder / "logs.db").mkdir()
    with pytest.raises(LogUnreadable, match="cannot be read"):
        history()


def test_a_log_that_is_locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_LOCK_TIMEOUT_S", 0.0)
    path = write_log(folder, [run()])
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LogUnreadable, match="try again"):
            history()
    assert only().runs == 1


def test_a_log_whose_writer_was_ended(
    folder: Path, tmp_path: Path, run_llm: Callable[..., Any]
) -> None:
    """llm, which may write, undoes what was not complete."""
    source = tmp_path / "writing"
    source.mkdir()
    said = {"datetime_utc": "2026-11-30T16:30:14.886653+00:00"}
    path = write_log(source, (run() | said for _ in range(500)))
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN")
        writer.execute("UPDATE turns SET output_tokens = 1")
        for name in ("logs.db", "logs.db-journal"):
            shutil.copy(source / name, folder / name)
    with pytest.raises(LogUnreadable, match="A program ended while it wrote to it") as caught:
        history()
    assert "`llm logs` repairs it" in str(caught.value).replace("\n", " ")
    assert run_llm("logs", "-n", "1").returncode == 0
    assert sum(each.runs for each in history().models) == 500


def test_a_damaged_page_costs_its_rows(folder: Path) -> None:
    path = write_log(folder, many_runs(3000, models=1))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    found = history()
    assert 0 < found.unread_rows < 300
    (model,) = found.models
    assert 3000 - found.unread_rows <= model.runs < 3000


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_log_in_wal_mode_stays_as_it_is(folder: Path) -> None:
    path = write_log(folder, [run()], wal=True)
    before = names_in(folder), path.read_bytes(), path.stat().st_mtime_ns
    assert only().runs == 1
    assert (names_in(folder), path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_log_in_wal_mode_that_is_written_to(folder: Path) -> None:
    path = write_log(folder, [run()], wal=True)
    with closing(sqlite3.connect(path)) as writer, writer:
        row = run()
        writer.execute(
            f"INSERT INTO turns ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
            (*row.values(),),
        )
        writer.commit()
        files = names_in(folder)
        assert only().runs == 2
        assert names_in(folder) == files


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="other permissions")
def test_a_log_and_a_folder_that_are_read_only(folder: Path) -> None:
    path = write_log(folder, [run()])
    path.chmod(0o444)
    folder.chmod(0o555)
    try:
        assert only().runs == 1
    finally:
        folder.chmod(0o755)


class Work:
    """How many queries are made, and how many rows are read in full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queries = self.rows = 0
        self._real: Callable[..., Any] = log.open_log
        self._parse = log._parse
        monkeypatch.setattr(log, "open_log", self._open)
        monkeypatch.setattr(log, "_parse", self._count_row)

    def _open(self) -> Any:
        @contextmanager
        def counting() -> Iterator[sqlite3.Connection]:
            with self._real() as database:
                database.set_trace_callback(self._count_query)
                yield database

        return counting()

    def _count_query(self, _: str) -> None:
        self.queries += 1

    def _count_row(self, row: Any) -> Any:
        self.rows += 1
        return self._parse(row)


@pytest.mark.parametrize("table", ["turns", "responses"])
def test_a_long_log_takes_few_queries_and_reads_few_rows_in_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(log, "_CHUNK_ROWS", 400)
    count, rare = 8000, run(NOW - 10**8, "local/gguf/rare")
    write_log(folder, [rare, *many_runs(count, table, models=3)], table)
    work = Work(monkeypatch)
    found = {each.model.rpartition("/")[2]: each for each in history().models}
    assert sum(each.runs for each in found.values()) == count + 1
    assert len(found.pop("rare").newest) == 1
    assert {len(each.newest) for each in found.values()} == {SAMPLE}
    # Of each chunk the totals, its end, and perhaps its newest rows.
    assert work.queries <= 3 * (count // 400 + 1) + 5
    assert work.rows <= len(found) * (SAMPLE + 400) + 1


def test_few_rows_with_large_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_log(folder, [])
    numbers = (-(2**63), -5, 0, 7, 2**40, 2**63 - 1)
    with closing(sqlite3.connect(path)) as database, database:
        for at, number in enumerate(numbers):
            row = {**run(NOW + at), "rowid": number}
            marks = ", ".join("?" * len(row))
            database.execute(
                f"INSERT INTO turns ({', '.join(row)}) VALUES ({marks})", (*row.values(),)
            )
    work = Work(monkeypatch)
    assert only().runs == len(numbers)
    assert work.queries <= 4 * len(numbers)


def test_guessed_tokens(folder: Path) -> None:
    write_log(folder, [run() | {"options_json": json.dumps({"draft_model": "auto"})}])
    assert only().newest[0].guesses
