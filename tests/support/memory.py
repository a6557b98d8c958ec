"""Gives this machine another amount of memory."""

from bisect import bisect_left

import pytest

from llm_localrun.engine import builds
from llm_localrun.memory import machine
from llm_localrun.recommended.choose import usable_memory


def leave_for_a_model(patch: pytest.MonkeyPatch, memory: int, on_gpus: int = 0) -> None:
    """A model may take `memory` bytes of the RAM, and `on_gpus` of GPUs."""
    # One more byte of RAM leaves one more, or none.
    ram = bisect_left(range(2 * memory + 1), memory, key=usable_memory)
    for name in ("physical_memory", "usable_ram"):
        patch.setattr(machine, name, lambda: ram)
    patch.setattr(builds, "free_memory_of_gpus", lambda *_: on_gpus)
