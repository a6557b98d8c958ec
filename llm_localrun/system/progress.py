"""The progress of a long operation, as a value. Showing it is left to `cli`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and how much of it is done. `total` is None if it is not known."""

    what: str
    done: int = 0
    total: int | None = None
    unit: str = "bytes"
