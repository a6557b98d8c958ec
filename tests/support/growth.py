"""How the CPU time of a function grows with its input: a ratio within one run, never seconds."""

import gc
import time
from collections.abc import Callable
from typing import Any

_FACTOR, _MOST = 4, 8.0
"""Four times the input may take eight times as long: what is quadratic takes sixteen times."""
_LEAST_S = 0.002
"""Less cannot be measured well, and harms nobody."""
_ATTEMPTS = 3


def growth(use: Callable[[Any], object], make: Callable[[int], Any], length: int) -> float:
    """How many times longer `use` takes for an input of four times `length`: the best of three."""
    best = float("inf")
    for _ in range(_ATTEMPTS):
        long = _cpu_seconds(use, make(length * _FACTOR))
        best = min(best, long / _LEAST_S)
        if best > _MOST:
            best = min(best, long / max(_cpu_seconds(use, make(length)), _LEAST_S))
        if best <= _MOST:
            break
    return best


def is_linear(use: Callable[[Any], object], make: Callable[[int], Any], length: int) -> bool:
    return growth(use, make, length) <= _MOST


def _cpu_seconds(use: Callable[[Any], object], value: Any) -> float:
    gc.disable()
    try:
        before = time.process_time()
        use(value)
        return time.process_time() - before
    finally:
        gc.enable()
