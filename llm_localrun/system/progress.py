"""How far something is that takes long, as a value; showing it is the commands' business."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and how much; `total` is None if nobody knows."""

    what: str
    done: int = 0
    total: int | None = None
    unit: str = "bytes"
