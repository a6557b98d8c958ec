"""Shows the progress of the long steps of a command.

The work yields `Progress` values. How they are shown is left to `system.progress`, printing the
result to `table`.
"""

from collections.abc import Generator
from dataclasses import replace
from typing import TypeVar

from llm_localrun.system.progress import Progress, working

_Result = TypeVar("_Result")


def show_progress(
    steps: Generator[Progress, None, _Result], title: str, *, quiet: bool = False
) -> _Result:
    """Runs `steps`, shows its progress under `title`, and returns its result."""
    if quiet:
        return _result_of(steps)
    with working(Progress(title)) as work:
        try:
            while True:
                progress = next(steps)
                work.report(replace(progress, what=f"{title}: {progress.what.lower()}"))
        except StopIteration as stop:
            result: _Result = stop.value
            return result
        finally:
            steps.close()


def _result_of(steps: Generator[Progress, None, _Result]) -> _Result:
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        result: _Result = stop.value
        return result
