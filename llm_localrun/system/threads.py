"""Runs a function that may block in a thread, for an event loop.

asyncio's own threads end before the program does: Ctrl-C would wait for a model to load, and for a
server that hangs. What the function does is left to others.
"""

import asyncio
import contextlib
import types
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import Any, TypeVar

from llm_localrun.system.progress import hidden

_Result = TypeVar("_Result")


@types.coroutine
def in_thread(
    function: Callable[[], _Result], release: Callable[[_Result], object] = lambda _: None
) -> Generator[Any, None, _Result]:
    """What `function` returns. It goes on if the task is cancelled, but shows nothing.

    What it then returns is given to `release`. A program that ends does not wait for it.
    """
    loop, outcome = asyncio.get_running_loop(), Future[_Result]()
    has_ended = loop.create_future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  # The task raises it.
            outcome.set_exception(error)
        # The loop may be closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(wake)

    def wake() -> None:
        if not has_ended.done():
            has_ended.set_result(None)

    Thread(target=copy_context().run, args=[run], daemon=True).start()
    try:
        yield from has_ended.__await__()
    except BaseException:
        _abandon(outcome, release)
        raise
    return outcome.result()


def _abandon(outcome: Future[_Result], release: Callable[[_Result], object]) -> None:
    silence = contextlib.ExitStack()
    silence.enter_context(hidden())

    def end(_: Future[_Result]) -> None:
        with silence:
            if outcome.exception() is None:
                release(outcome.result())

    outcome.add_done_callback(end)
