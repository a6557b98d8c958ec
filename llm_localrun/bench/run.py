"""Runs a benchmark: a warm-up, then rounds in which each model has its turn in each setting.

What fails costs only its own row. Measuring one model is left to `measure`, showing the rows to
`cli`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

from llm_localrun.bench import busy
from llm_localrun.bench.measure import Target
from llm_localrun.bench.plan import BenchSetting, Subject
from llm_localrun.bench.summary import Row
from llm_localrun.config import read_config
from llm_localrun.errors import BenchFailed, LocalRunError, NotAllowed
from llm_localrun.system import locks
from llm_localrun.system.paths import home
from llm_localrun.system.progress import Progress, duration_text, is_shown, tell, working

_BUSY_SHARE = 1 / 8
"""Other programs that use a larger share of the cores change the figures."""


@dataclass
class Bench:
    """What is measured, and what was so far."""

    subjects: Sequence[Subject]
    settings: Sequence[BenchSetting]
    repeat: int
    rows: list[Row] = field(init=False)
    notes: list[str] = field(default_factory=list)
    """What a reader has to know of all rows."""
    is_interrupted: bool = False
    _others: float = 0.0
    """The cores that other programs used, when this began or ended."""

    def __post_init__(self) -> None:
        self.rows = [
            Row(subject, setting, error=subject.obstacle(setting))
            for subject in self.subjects
            for setting in self.settings
        ]

    @property
    def runs_left(self) -> int:
        return sum(self.repeat - len(row.runs) for row in self.rows if not row.error)

    def tokens_of(self, subject: Subject) -> int:
        """The tokens of all prompts that a subject is sent, the warm-up included."""
        rows = [row for row in self.rows if row.subject is subject and not row.error]
        return (self.repeat + 1) * sum(row.setting.all_prompt_tokens for row in rows)

    def run(self) -> None:
        """Measures. An interruption keeps what was measured. Raises `BenchFailed`."""
        with _alone():
            used = busy.cores_of_others()
            load, self._others = (busy.load(), 0.0) if used is None else (0.0, used)
            try:
                with busy.calm_engines(load or self._others):
                    self._measure()
            except KeyboardInterrupt:
                self.is_interrupted = True
            self._note_others(load)

    def _measure(self) -> None:
        config = read_config()
        targets = {}
        for subject, rows in groupby(self.rows, lambda row: row.subject):
            open_settings = [row.setting for row in rows if not row.error]
            targets[subject.label] = Target(subject, open_settings, config)
        try:
            with working(Progress("warming up")) as work:
                seconds = 0.0
                for row in self._open_rows():
                    work.report(Progress(f"warming up {row.subject.label}"))
                    seconds += self._warm_up(targets[row.subject.label], row)
                total = self.runs_left
                _tell_plan(total, self.repeat * seconds)
                for _ in range(self.repeat):
                    for row in self._open_rows():
                        work.report(Progress("measuring", total - self.runs_left, total, "runs"))
                        with _failure_kept(row):
                            row.runs.append(targets[row.subject.label].measure(row.setting))
            # While the engines run: what they use is known, and what their end takes is not.
            own = [pid for target in targets.values() for pid in target.processes()]
            self._others = max(self._others, busy.cores_of_others(own) or 0.0)
        finally:
            for target in targets.values():
                target.release()
            self._note_reloads(list(targets.values()))

    def _open_rows(self) -> Iterator[Row]:
        return (row for row in self.rows if not row.error)

    def _warm_up(self, target: Target, row: Row) -> float:
        """Returns the seconds that a run will take; 0 if it fails."""
        with _failure_kept(row):
            self._check_allowed(target)
            return target.warm_up(row.setting)
        return 0.0

    def _check_allowed(self, target: Target) -> None:
        """Raises `NotAllowed`, with the tokens that would be sent."""
        subject = target.subject
        try:
            target.check_allowed()
        except NotAllowed as error:
            sends = f"bench would send it about {self.tokens_of(subject):,} tokens"
            raise NotAllowed(f"{error.problem}; {sends}", error.remedy) from None

    def _note_reloads(self, targets: Sequence[Target]) -> None:
        reloaded = [target.subject.label for target in targets if target.reloads]
        if reloaded:
            self.notes.append(
                f"{', '.join(reloaded)} had to be loaded again between runs; loading is not counted"
            )

    def _note_others(self, load: float) -> None:
        """`load` is that of the minute before this began, if nothing better is known."""
        calm = _BUSY_SHARE * busy.cores()
        if load > calm:
            self.notes.append(
                f"The load was {load:.1f} on {busy.cores()} cores before this began,"
                " so the figures may mean little"
            )
        if self._others > calm:
            self.notes.append(
                f"Other programs used {self._others:.1f} of {busy.cores()} cores when this began or"
                " ended, so the figures mean little"
            )


@contextmanager
def _alone() -> Iterator[None]:
    """Raises `BenchFailed` if another benchmark runs: both would be slower."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        with locks.exclusive(home() / "bench.lock", 0.0):
            yield
    except TimeoutError:
        raise BenchFailed("Another benchmark is running", "Wait until it has ended") from None
    except OSError as error:
        raise BenchFailed.from_os_error("written to", home(), error) from None


@contextmanager
def _failure_kept(row: Row) -> Iterator[None]:
    """Keeps an error as that of the row."""
    try:
        yield
    except LocalRunError as error:
        row.error = str(error)


def _tell_plan(runs: int, seconds: float) -> None:
    if is_shown() and runs:
        tell(f"Measuring {runs} times, which takes about {duration_text(seconds)}")
