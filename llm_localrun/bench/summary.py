"""What the measurements of one setting say together: the median and the spread.

Pure. Measuring is left to `measure`, showing the result to `cli`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import median

from llm_localrun.bench.plan import BenchSetting, Subject

_CACHE_SHARE = 0.9
"""The share of the depth that has to come from the cache."""
_LENGTH_ERROR = 0.02


class Clock(Enum):
    """Who has measured the time."""

    SERVER = "server"
    """The server, and it says so."""
    HERE = "here"
    """This process: from sending a request to its first token, and from that to the last."""


class Doubt(Enum):
    """What a reader has to know of a row."""

    CLOCK = "clock"
    """The server did not say how long it took."""
    DEPTH = "depth"
    """Nothing shows that the tokens before the prompt were in the cache."""
    LENGTH = "length"
    """The prompt or the answer has another length than what was asked for."""


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """One answer. Times are of one clock, in seconds; None means unknown."""

    began: float
    first: float
    """When its first piece came."""
    last: float
    prompt_tokens: int | None
    cached_tokens: int | None
    generated: int
    prompt_rate: float | None = None
    """As the server has it, like the next."""
    generation_rate: float | None = None
    was_loaded: bool = False
    """Whether the model was loaded for it."""

    @property
    def first_token(self) -> float:
        return self.first - self.began

    @property
    def is_in_one_piece(self) -> bool:
        """Whether nothing shows when the first of several tokens was there."""
        return self.generated > 1 and self.first == self.last

    @property
    def computed(self) -> int:
        """Tokens of the prompt that did not come from a cache."""
        return max(0, (self.prompt_tokens or 0) - (self.cached_tokens or 0))

    @property
    def own_prompt_rate(self) -> float | None:
        """The server's rate, unless that would have taken longer than the answer took to come."""
        rate = self.prompt_rate
        return rate if rate and self.computed <= rate * self.first_token else None

    @property
    def own_generation_rate(self) -> float | None:
        """The server's rate. Those of llama.cpp leave out the first token, which took no time: rate
        times time is one token less than the answer has (b10434, b11549, b11669)."""
        return self.generation_rate if self.generated > 1 else None


@dataclass(frozen=True, slots=True)
class BenchRun:
    """What came of one measurement, and the memory of the model, in bytes.

    `prompts` are the answers, of one token, to the prompts that were sent at once. `answers` are
    the long ones, to short prompts at the same depth.
    """

    setting: BenchSetting
    prompts: tuple[TimedAnswer, ...]
    answers: tuple[TimedAnswer, ...]
    memory: int | None = None

    @property
    def prompt_clock(self) -> Clock:
        return self._clock(self.prompts[0].own_prompt_rate)

    @property
    def generation_clock(self) -> Clock:
        return self._clock(self.answers[0].own_generation_rate)

    def _clock(self, own: float | None) -> Clock:
        # Requests at once share the time, and no server says how.
        return Clock.SERVER if own and self.setting.concurrency == 1 else Clock.HERE

    @property
    def prompt_rate(self) -> float | None:
        """Tokens of all prompts that were read in a second, until the last was answered.

        None if the server does not say how many tokens of the depth came from a cache, in no time.
        """
        if self.setting.depth and any(prompt.cached_tokens is None for prompt in self.prompts):
            return None
        if self.prompt_clock is Clock.SERVER:
            return self.prompts[0].own_prompt_rate
        began, until = (min(p.began for p in self.prompts), max(p.first for p in self.prompts))
        return _rate(sum(prompt.computed for prompt in self.prompts), until - began)

    @property
    def generation_rate(self) -> float | None:
        """Tokens of all answers in a second, from the first token to the last of all."""
        if self.generation_clock is Clock.SERVER:
            return self.answers[0].own_generation_rate
        began, until = (min(a.first for a in self.answers), max(a.last for a in self.answers))
        return _rate(sum(answer.generated - 1 for answer in self.answers), until - began)

    @property
    def was_loaded(self) -> bool:
        """Whether the model was loaded for it."""
        return any(answer.was_loaded for answer in (*self.prompts, *self.answers))

    @property
    def doubts(self) -> set[Doubt]:
        setting, found = self.setting, set()
        # An answer of one token has no time of its own.
        clocks = {self.prompt_clock, *([self.generation_clock] if setting.generate > 1 else [])}
        if setting.concurrency == 1 and Clock.HERE in clocks:
            found.add(Doubt.CLOCK)
        cached = [answer.cached_tokens or 0 for answer in (*self.prompts, *self.answers)]
        if min(cached) < _CACHE_SHARE * setting.depth:
            found.add(Doubt.DEPTH)
        for prompt in self.prompts:
            wanted = setting.prompt + (setting.depth if prompt.cached_tokens is None else 0)
            if abs(prompt.computed - wanted) > max(1, _LENGTH_ERROR * wanted):
                found.add(Doubt.LENGTH)
        if any(answer.generated != setting.generate for answer in self.answers):
            found.add(Doubt.LENGTH)
        return found


def _rate(tokens: int, seconds: float) -> float | None:
    return tokens / seconds if tokens > 0 and seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the lowest and the highest value."""

    median: float
    low: float
    high: float

    @property
    def share(self) -> float:
        """How far the values are from the median at most, as a share of it."""
        widest = max(self.high - self.median, self.median - self.low)
        return widest / self.median if self.median else 0.0


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """The spread of what is known of `values`; None if nothing is."""
    known = [value for value in values if value is not None]
    return Spread(median(known), min(known), max(known)) if known else None


@dataclass(slots=True)
class Row:
    """What was measured of a subject in a setting. `error` says why nothing more is."""

    subject: Subject
    setting: BenchSetting
    runs: list[BenchRun] = field(default_factory=list)
    error: str = ""

    @property
    def prompt(self) -> Spread | None:
        return spread_of(run.prompt_rate for run in self.runs)

    @property
    def generation(self) -> Spread | None:
        return spread_of(run.generation_rate for run in self.runs)

    @property
    def first_token(self) -> Spread | None:
        return spread_of(prompt.first_token for run in self.runs for prompt in run.prompts)

    @property
    def memory(self) -> int | None:
        return max((run.memory for run in self.runs if run.memory is not None), default=None)

    @property
    def doubts(self) -> set[Doubt]:
        return {doubt for run in self.runs for doubt in run.doubts}


def doubts_of(rows: Sequence[Row]) -> list[Doubt]:
    """The doubts about any row, in their usual order."""
    found = {doubt for row in rows for doubt in row.doubts}
    return [doubt for doubt in Doubt if doubt in found]
