"""Reads the answers of our models from llm's log: how many there are, and the newest of each model.

Only reads: the log is neither changed nor locked for longer than a chunk of rows takes. It may be
large, old or damaged, merged from others, and hold rows of other plugins: what is odd costs only
itself. What the answers say of speed is left to `figures`.
"""

import sqlite3
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any, TypeAlias

import llm
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_localrun.errors import LogUnreadable
from llm_localrun.system.json_files import parse_json
from llm_localrun.wire.shapes import Maybe, Name

CONVERSATIONS = {"turns": "thread_id", "responses": "conversation_id"}
"""The tables in which llm logs answers, since 0.36 and before, and their columns of conversations.
"""
_NEWEST_ROWS = 1000
SAMPLE = 500
"""Answers of a model at an endpoint that are read in full: the newest."""
_CHUNK_ROWS = 4000
"""A chunk's groups fit into SQLite's cache: larger ones are sorted in temporary files."""
_READERS = 2
"""Chunks that are read at once, each by a thread with a connection. SQLite lets other threads run
while it reads."""
_EARLIER_ROWS = 100_000
"""Rows before a time that are read nevertheless, to compare the answers since then with."""
_SMALLEST_CHUNK = 64
"""Rows that are given up together if the log is damaged there."""
_LOCK_TIMEOUT_S = 1.0
_MOST = 10**9
"""Tokens, seconds, or tokens a second: a larger number is an error."""
_COLUMNS = {
    *("id", "model", "response_json", "options_json", "input_tokens", "output_tokens"),
    "duration_ms",
}
_ULID_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_AS_BASE_32 = str.maketrans(_ULID_DIGITS, "0123456789abcdefghijklmnopqrstuv")
_ULID_TIME = 10
"""Digits of an id that are its time."""
_DAY_S = 86_400
_LEAST_ROWID = -(2**63)
_ENDPOINT = "json_extract(CASE WHEN json_valid(response_json) THEN response_json END, '$.endpoint')"
_SOURCE = "substr(model, 7, instr(substr(model, 7), '/') - 1)"
_IS_OF_SOURCE = f"""coalesce(instr(response_json, '"endpoint": "' || {_SOURCE} || '"'), 0) > 0"""
"""Whether the endpoint is the one that the model's id names, as it is in nearly every row. Looking
for that text is faster than parsing JSON, which makes two threads wait for each other."""
_WAL_VERSION = b"\x02\x02"

_Count = Maybe[Annotated[int, Field(strict=True, ge=0, le=_MOST)]]
_Amount = Maybe[Annotated[float, Field(strict=True, gt=0, le=_MOST)]]


class LoggedRun(BaseModel):
    """An answer of one of our models; None means that the log does not say, or nothing sensible."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: Annotated[Name, Field(strict=True)]
    endpoint: Annotated[Name, Field(strict=True)]
    at: float | None = None
    """When it was asked for, in seconds since the epoch."""
    conversation: Maybe[Name] = None
    is_first: bool = True
    """Whether it is the first of its conversation, as far as the answers show it that are read."""
    is_alone: bool = True
    """Whether the endpoint gave no other answer meanwhile, as far as they show it."""
    guesses: bool = False
    """Whether a draft model guessed its tokens."""
    input_tokens: _Count = None
    output_tokens: _Count = None
    duration_ms: _Count = None
    cached_tokens: _Count = None
    load_seconds: _Amount = None
    time_to_first_token: _Amount = None
    prompt_tokens_per_second: _Amount = None
    generation_tokens_per_second: _Amount = None
    context_size: _Count = None
    quantization: Maybe[Name] = None
    finish_reason: Maybe[Name] = None
    tool_repair: Maybe[bool] = None

    @property
    def end(self) -> float:
        """When it was complete; 0 if that is not known."""
        return (self.at or 0.0) + (self.duration_ms or 0) / 1000


@dataclass(slots=True)
class LoggedModel:
    """The answers of a model at an endpoint: how many, their tokens, and the newest of them."""

    model: str
    endpoint: str
    runs: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    newest: list[LoggedRun] = field(default_factory=list)
    """The newest first."""
    earlier: list[LoggedRun] = field(default_factory=list)
    """Those before the time that was asked for: with `newest`, at most `SAMPLE`."""


@dataclass(slots=True)
class History:
    """What the log holds. `unread_rows` are at most as many as this, where it is damaged."""

    models: list[LoggedModel] = field(default_factory=list)
    unread_rows: int = 0


def log_path() -> Path:
    """Where llm's log is, or will be."""
    return (Path(llm.user_dir()) / "logs.db").absolute()  # type: ignore[no-untyped-call]


@contextmanager
def open_log() -> Iterator[sqlite3.Connection]:
    """The log, for reading. Raises `sqlite3.Error` and `OSError`."""
    path = log_path()
    with path.open("rb") as file:
        header = file.read(20)
    # SQLite would leave two files beside a log that no program has open, if it is in WAL mode.
    is_unused = header[18:] == _WAL_VERSION and not path.with_name("logs.db-wal").exists()
    options = "mode=ro&immutable=1" if is_unused else "mode=ro"
    url = f"{path.as_uri()}?{options}"
    # Only one thread at a time uses a connection.
    connection = sqlite3.connect(url, uri=True, timeout=_LOCK_TIMEOUT_S, check_same_thread=False)
    with closing(connection) as log:
        # The bytes of an odd text are no reason to give up its chunk.
        log.text_factory = lambda text: text.decode(errors="replace")
        yield log


def newest_rows(table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """At most `_NEWEST_ROWS` of a table, the newest first, as far as the log can be read."""
    # The ids begin with the time.
    query = f"SELECT {columns} FROM {table} ORDER BY id DESC LIMIT {_NEWEST_ROWS}"
    with suppress(OSError, sqlite3.Error), open_log() as log:
        yield from log.execute(query)


def read_history(wants: Callable[[str], bool], since: float | None = None) -> History:
    """The answers of the models whose ids `wants` accepts, since a time in seconds.

    A model that answered only before that has no `runs` and no `newest`. A log that does not exist
    has no models. Raises `LogUnreadable`.
    """
    try:
        with ExitStack() as stack:
            log, *others = [stack.enter_context(open_log()) for _ in range(1 + _READERS)]
            # It ends before its connections do.
            pool = stack.enter_context(ThreadPoolExecutor(_READERS))
            return _LogReader(log, others, pool, cache(wants), since).read()
    except FileNotFoundError:
        return History()
    except OSError as error:
        raise LogUnreadable.from_os_error("read", log_path(), error) from error
    except sqlite3.Error as error:
        raise _unreadable(error) from error


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows `begin` to `last` of a table."""

    table: str
    condition: str
    """For its rows, besides being of ours."""
    begin: int
    last: int
    rows: str
    """The end of a query for them, from its `FROM` on."""
    totals: "Future[_Totals]"


def _unreadable(error: sqlite3.Error) -> LogUnreadable:
    remedy = "Move the file away, and llm begins a new log"
    if "locked" in str(error) or "busy" in str(error):
        remedy = "Another program is writing to it: try again"
    elif "readonly" in str(error) and log_path().with_name("logs.db-journal").exists():
        remedy = "A program ended while it wrote to it: `llm logs` repairs it"
    elif isinstance(error, sqlite3.OperationalError):
        remedy = "Check its permissions and its disk"
    return LogUnreadable(f"{log_path()} cannot be read: {error}", remedy)


_Totals: TypeAlias = list[tuple[object, object, int, float, float]]
"""Of each group: its model and endpoint, and how many answers and tokens it has."""


class _LogReader:
    """Reads the chunks, the newest rows first: their totals in threads, and the newest answers."""

    def __init__(
        self,
        log: sqlite3.Connection,
        others: Iterable[sqlite3.Connection],
        pool: ThreadPoolExecutor,
        wants: Callable[[str], bool],
        since: float | None,
    ) -> None:
        self._log, self._pool, self._wants = log, pool, wants
        self._unused: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for each in others:
            self._unused.put(each)
        self._earlier_rows = 0 if since is None else _EARLIER_ROWS
        self._is_recent = "true" if since is None else f"id >= '{_first_id_of(since)}'"
        self._recent = "" if since is None else f" FILTER (WHERE {self._is_recent})"
        self._models: dict[tuple[str, str], LoggedModel] = {}
        self._unread = 0

    def read(self) -> History:
        columns = "SELECT name FROM pragma_table_info(?)"
        present = [
            table
            for table in CONVERSATIONS
            if _COLUMNS.issubset(name for (name,) in self._log.execute(columns, (table,)))
        ]
        for table in present:
            self._read_table(table, "" if table == present[0] else self._not_in(present[0]))
        # A group without an answer that could be read is none of ours.
        found = [model for model in self._models.values() if model.newest or model.earlier]
        _put_in_order(found)
        return History(found, self._unread)

    def _not_in(self, table: str) -> str:
        """The condition for rows that llm, while it was developed, did not log in `table` too."""
        ((first,),) = self._log.execute(f"SELECT min(id) FROM {table}")
        if not isinstance(first, str):
            return ""
        quoted = first.replace("'", "''")
        return f" AND (id < '{quoted}' OR id NOT IN (SELECT id FROM {table} WHERE id NOT NULL))"

    def _read_table(self, table: str, condition: str) -> None:
        oldest = f"SELECT min(rowid) FROM {table} WHERE {self._is_recent}"
        either = f"SELECT coalesce(({oldest}), max(rowid)) FROM {table}"
        ((oldest_id,),) = self._log.execute(either)
        if oldest_id is None:
            return
        first = max(oldest_id - self._earlier_rows, _LEAST_ROWID)
        ahead: deque[_Chunk] = deque()
        for begin, last in self._bounds(table, first):
            ahead.append(self._chunk(table, condition, begin, last))
            if len(ahead) > _READERS:
                self._read_chunk(ahead.popleft())
        for chunk in ahead:
            self._read_chunk(chunk)

    def _bounds(self, table: str, first: int) -> Iterator[tuple[int, int]]:
        """The first and last row of each chunk down to row `first`."""
        newest = f"SELECT max(rowid) FROM {table} WHERE rowid <= ?"
        end = 2**63 - 1
        while end >= first:
            ((last,),) = self._log.execute(newest, (end,))
            if last is None:
                return
            begin = max(first, last - _CHUNK_ROWS + 1)
            yield begin, last
            if begin == first:
                return
            end = begin - 1

    def _chunk(self, table: str, condition: str, begin: int, last: int) -> _Chunk:
        """Rows `begin` to `last`, whose totals a thread begins to read."""
        rows = (
            f"FROM {table} WHERE rowid BETWEEN {begin} AND {last}"
            f" AND model >= 'local/' AND model < 'local0'{condition}"
        )
        return _Chunk(table, condition, begin, last, rows, self._pool.submit(self._totals, rows))

    def _read_chunk(self, chunk: _Chunk) -> None:
        """Reads the rows of a chunk, except those where the log is damaged."""
        try:
            found = self._wanted(chunk.totals.result())
            lacking = [each for each in found if self._lacks(each.model, each.endpoint)]
            sampled = self._sample(chunk, lacking) if lacking else []
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
            self._read_halves(chunk)
        except sqlite3.DatabaseError:
            self._read_halves(chunk)
        else:
            self._add(found, sampled)

    def _read_halves(self, chunk: _Chunk) -> None:
        begin, last = chunk.begin, chunk.last
        if last - begin < _SMALLEST_CHUNK:
            self._unread += last - begin + 1
            return
        middle = (begin + last) // 2
        for half in ((middle + 1, last), (begin, middle)):
            self._read_chunk(self._chunk(chunk.table, chunk.condition, *half))

    def _totals(self, rows: str) -> _Totals:
        """What a thread reads, with a connection that no other one uses meanwhile."""
        counts = (
            f"count(*){self._recent}, {_sum('input_tokens')}{self._recent},"
            f" {_sum('output_tokens')}{self._recent}"
        )
        by_model = f"SELECT model, {_SOURCE}, {counts}, min({_IS_OF_SOURCE}) {rows} GROUP BY 1"
        log = self._unused.get()
        try:
            found = log.execute(by_model).fetchall()
            if all(is_of_source for *_, is_of_source in found):
                return [(*totals,) for *totals, _ in found]
            by_endpoint = f"SELECT model, {_ENDPOINT}, {counts} {rows} GROUP BY 1, 2"
            return log.execute(by_endpoint).fetchall()
        finally:
            self._unused.put(log)

    def _wanted(self, totals: _Totals) -> list[LoggedModel]:
        return [
            LoggedModel(model, endpoint, runs, int(read), int(generated))
            for model, endpoint, runs, read, generated in totals
            if isinstance(model, str) and isinstance(endpoint, str) and self._wants(model)
        ]

    def _lacks(self, model: str, endpoint: str) -> bool:
        known = self._models.get((model, endpoint))
        return known is None or len(known.newest) + len(known.earlier) < SAMPLE

    def _sample(self, chunk: _Chunk, wanted: Sequence[LoggedModel]) -> list[tuple[LoggedRun, bool]]:
        """The answers of models whose newest are not all known yet, the newest first.

        And whether they were given since the time that was asked for.
        """
        pairs = ", ".join(["(?, ?)"] * len(wanted))
        query = (
            f"SELECT {self._is_recent}, id, model, {_ENDPOINT}, response_json, input_tokens,"
            f" output_tokens, duration_ms, {CONVERSATIONS[chunk.table]},"
            f" instr(coalesce(options_json, ''), 'draft_model') > 0 {chunk.rows}"
            f" AND (model, {_ENDPOINT}) IN (VALUES {pairs}) ORDER BY rowid DESC"
        )
        names = (name for each in wanted for name in (each.model, each.endpoint))
        rows_found = self._log.execute(query, (*names,))
        return [(run, bool(row[0])) for row in rows_found if (run := _parse(row[1:])) is not None]

    def _add(self, found: Sequence[LoggedModel], sampled: Sequence[tuple[LoggedRun, bool]]) -> None:
        for each in found:
            key = each.model, each.endpoint
            known = self._models.setdefault(key, LoggedModel(*key))
            known.runs += each.runs
            known.input_tokens += each.input_tokens
            known.output_tokens += each.output_tokens
        for run, is_recent in sampled:
            if self._lacks(run.model, run.endpoint):
                known = self._models[run.model, run.endpoint]
                (known.newest if is_recent else known.earlier).append(run)


def _put_in_order(models: Iterable[LoggedModel]) -> None:
    """Sorts the answers by time, and marks which were not the first, and which not alone."""
    of_endpoint: defaultdict[str, list[LoggedRun]] = defaultdict(list)
    for model in models:
        of_endpoint[model.endpoint] += [*model.newest, *model.earlier]
    crowded = {id(run) for runs in of_endpoint.values() for run in _overlapping(runs)}
    for model in models:
        begun: set[str | None] = set()
        for runs in (model.earlier, model.newest):
            runs.reverse()
            runs.sort(key=lambda run: run.at or 0.0)
            for at, run in enumerate(runs):
                is_first = run.conversation is None or run.conversation not in begun
                begun.add(run.conversation)
                marks = {"is_first": is_first, "is_alone": id(run) not in crowded}
                runs[at] = run if all(marks.values()) else run.model_copy(update=marks)
            runs.reverse()


def _overlapping(runs: Iterable[LoggedRun]) -> Iterator[LoggedRun]:
    """The answers during which another one was given."""
    latest: LoggedRun | None = None
    for run in sorted((run for run in runs if run.at is not None), key=lambda run: run.at or 0.0):
        if latest is not None and (run.at or 0.0) < latest.end:
            yield from (latest, run)
        if latest is None or run.end > latest.end:
            latest = run


def _sum(column: str) -> str:
    return f"total(CASE WHEN {column} BETWEEN 0 AND {_MOST} THEN {column} END)"


def _parse(row: Sequence[object]) -> LoggedRun | None:
    """The answer in a row of the log; None if it is none of ours, or cannot be read."""
    id_, model, endpoint, logged, read, generated, duration, conversation, guesses = row
    value = parse_json(logged) if isinstance(logged, str) else None
    # Of a key that occurs twice in an object, SQLite takes the first and Python the last.
    if not isinstance(value, dict) or value.get("endpoint") != endpoint:
        return None
    own = {
        "at": time_of(id_),
        "model": model,
        "input_tokens": read,
        "output_tokens": generated,
        "duration_ms": duration,
        "conversation": conversation,
        "is_first": True,
        "is_alone": True,
        "guesses": bool(guesses),
    }
    try:
        return LoggedRun.model_validate({**value, **own})
    except ValidationError:
        return None


def time_of(id_: object) -> float | None:
    """The time in an id of llm, in seconds since the epoch.

    None for another text, and for a time that is still to come: a clock was wrong.
    """
    begin = id_[:_ULID_TIME].lower() if isinstance(id_, str) else ""
    if len(begin) < _ULID_TIME or begin.strip(_ULID_DIGITS):
        return None
    seconds = int(begin.translate(_AS_BASE_32), 32) / 1000
    return seconds if seconds <= time.time() + _DAY_S else None


def _first_id_of(at: float) -> str:
    """What the ids of answers since a time are not less than."""
    milliseconds = max(0, int(at * 1000))
    shifts = range(5 * (_ULID_TIME - 1), -1, -5)
    return "".join(_ULID_DIGITS[milliseconds >> shift & 31] for shift in shifts)


def days_ago(days: int) -> float:
    """The time a number of days ago, in seconds since the epoch, not before that."""
    return max(0.0, time.time() - days * _DAY_S)
