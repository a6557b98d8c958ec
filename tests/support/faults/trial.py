"""What a trial is, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

GB = 10**9


@dataclass(frozen=True)
class Result:
    """What came of one or more trials. `bad` names each that was not clean, and says why."""

    tried: int
    bad: tuple[str, ...] = ()
    peak: int = 0
    """Bytes of the process that did the work, at most."""
    seconds: float = 0.0
    """Of the longest command, or of the longest trial within a process."""

    def __add__(self, other: "Result") -> "Result":
        return Result(
            self.tried + other.tried,
            self.bad + other.bad,
            max(self.peak, other.peak),
            max(self.seconds, other.seconds),
        )


@dataclass(frozen=True)
class Trial:
    """`run` tries something in processes of its own; `group` and `kind` are rows of the table."""

    group: str
    kind: str
    run: Callable[[], Result] = field(repr=False)
