"""How far a pull is, as a value; showing it is the commands' business."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and bytes; `total` is None if nobody knows."""

    what: str
    done: int = 0
    total: int | None = None
