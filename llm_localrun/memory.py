"""What a model needs and what the machine has, in bytes."""

import os
import sys

# Beyond the weights: the KV cache at a small context, compute buffers, the rest of the system.
_OVERHEAD = 1.1
_REST_OF_SYSTEM = 2**30


def physical_memory() -> int | None:
    """The machine's RAM; None where the system does not tell.

    All of it, not what is free now: a name must not mean another model because a browser is open.
    """
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def fits(weights: int | None, memory: int | None) -> bool:
    """Whether a model of so many bytes can run in so much memory; True if either is unknown."""
    if weights is None or memory is None:
        return True
    return weights * _OVERHEAD + _REST_OF_SYSTEM <= memory
