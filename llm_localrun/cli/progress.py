"""Shows the progress of the long steps of a command.

The work yields `Progress` values. How they are shown is left to `system.progress`, printing the
result to `table`.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar

import click

from llm_localrun.system.progress import Progress, hidden, working

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Result = TypeVar("_Result")


def show_progress(steps: Generator[Progress, None, _Result], title: str) -> _Result:
    """Runs `steps`, shows its progress with `title`, and returns its result."""
    with closing(steps), working(Progress(title)) as work:
        try:
            while True:
                progress = next(steps)
                work.report(replace(progress, what=_sentence(progress.what, title)))
        except StopIteration as stop:
            result: _Result = stop.value
            return result


def _sentence(what: str, title: str) -> str:
    """'downloading X', and 'X: checking the file'."""
    what = what[:1].lower() + what[1:]
    is_verb = " " not in what and what.endswith("ing")
    return f"{what} {title}" if is_verb else f"{title}: {what}"


def _hide(context: click.Context, _: click.Parameter, quiet: bool) -> bool:
    if quiet:
        context.with_resource(hidden())
    return quiet


def quiet_option(help_text: str) -> Callable[[_Command], _Command]:
    """The option --quiet: until the command ends, no progress is shown."""
    return click.option("--quiet", is_flag=True, callback=_hide, help=help_text)
