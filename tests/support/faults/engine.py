"""Hostile model files, each run by the real command on the real engine.

A trial is clean if the command answers, or ends with one error in one sentence; if it ends in time;
if the engine takes no more memory than the model needs and a margin; if nothing goes on computing
then; and if the next command, for a name that another model has too, answers.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from llm_localrun.engine_defaults import CONTEXT_SIZE
from llm_localrun.memory.footprint import Setting, footprint_of_files
from tests.support.faults.command import Home, Ran
from tests.support.faults.trial import GB, Result, Trial
from tests.support.hostile_files import Content, Hostile, hostile_files, source

GROUP = "hostile files through the engine"
MARGIN = GB
"""What an engine may take above the need of its model."""
TIMEOUT_S, EXTRA_S = 10, 5
MAX_SECONDS = 90.0
"""Of a command without -o timeout."""
_WITHOUT_TIMEOUT = 9
"""Of ten files of a kind, the number of the one that is run without -o timeout."""
_IMAGE = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    b"gg=="
)


def trials(starter: Path, guard_bytes: int) -> Iterator[Trial]:
    base = source(starter)
    numbers: dict[str, int] = {}
    for hostile in hostile_files():
        number = numbers[hostile.kind] = numbers.get(hostile.kind, -1) + 1
        run = partial(_try, base, hostile, number, guard_bytes)
        yield Trial(GROUP, hostile.kind, run)


def _try(base: Content, hostile: Hostile, number: int, guard_bytes: int) -> Result:
    with Home(guard_bytes) as home:
        base.write(home.own / "models" / "healthy.gguf")
        folder = home.path / "files"
        folder.mkdir()
        (folder / "image.png").write_bytes(_IMAGE)
        model = hostile.build(base, folder)
        options = [each.replace("{folder}", str(folder)) for each in hostile.options]
        limit = MAX_SECONDS
        if number % 10 != _WITHOUT_TIMEOUT:
            options += ["-o", "timeout", str(TIMEOUT_S)]
            limit = TIMEOUT_S + EXTRA_S
        ran = home.llm("-m", str(model), hostile.prompt, "-o", "max_tokens", "4", *options)
        allowed = need_of(model, sorted(folder.glob("*other.gguf"))) + MARGIN
        checks: tuple[Callable[[], str], ...] = (
            lambda: problem_of(ran),
            lambda: _problem_of_amounts(ran, allowed, limit),
            home.unrest,
            lambda: _problem_of_next(home),
        )
        problem = "; ".join(found for check in checks if (found := check()))
        name = f"{hostile.kind}, {hostile.note} (file {number})"
        bad = (f"{name}: {problem}",) if problem else ()
        return Result(1, bad, ran.engine_peak, ran.seconds)


def need_of(model: Path, others: Sequence[Path] = ()) -> int:
    """Bytes that a file needs, as the package reckons it; at most those that it has on the disk,
    where it declares more."""
    on_disk = sum(each.stat().st_blocks * 512 for each in (model, *others) if each.is_file())
    footprint = footprint_of_files(str(model), map(str, others))
    if footprint is None:
        return on_disk
    need = footprint.need(Setting(CONTEXT_SIZE))
    return min(need.total, GB)


def problem_of(ran: Ran) -> str:
    """What is wrong with how a command ended; "" if it ended as it should."""
    if ran.stopped:
        return f"stopped after {ran.seconds:.0f} s: {ran.stopped}"
    if b"Traceback" in ran.stderr:
        return f"a traceback: {ran.error[-300:]}"
    if ran.status == 0:
        return "" if ran.stdout else "no answer and no error"
    if ran.status not in {1, 2}:
        return f"status {ran.status}: {ran.error[-300:]}"
    lines = ran.error.splitlines()
    if len(lines) != 1 or not lines[0].startswith("Error: "):
        return f"not one error: {ran.error[-300:]!r}"
    return ""


def _problem_of_amounts(ran: Ran, allowed: int, limit: float) -> str:
    if ran.engine_peak > allowed:
        return f"the engine took {ran.engine_peak / 1e6:,.0f} MB of {allowed / 1e6:,.0f}"
    if ran.own_peak > MARGIN:
        return f"the command took {ran.own_peak / 1e6:,.0f} MB"
    return f"it took {ran.own_seconds:.1f} s of {limit:.0f}" if ran.own_seconds > limit else ""


def _problem_of_next(home: Home) -> str:
    """Whether the next command answers, for the alias that any model can have."""
    ran = home.llm("-m", "local", "next", "-o", "max_tokens", "2", "-o", "timeout", str(TIMEOUT_S))
    if ran.stopped or ran.status:
        return f"the next command failed: {ran.stopped or ran.error[-300:]}"
    return ""
