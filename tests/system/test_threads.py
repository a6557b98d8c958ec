"""A function in a thread for an event loop: who gets its result, and that nobody waits for it."""

import asyncio
import subprocess
import sys
import threading
from contextvars import ContextVar

import pytest

from llm_localrun.system import progress
from llm_localrun.system.threads import in_thread
from tests.support.engines import wait_until


def test_result_and_error() -> None:
    released: list[int] = []
    context = ContextVar("context", default=0)

    async def both() -> int:
        context.set(7)
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 // 0, released.append)
        return await in_thread(context.get, released.append)

    assert (asyncio.run(both()), released) == (7, [])


@pytest.mark.parametrize("way", ["before it ends", "when it has ended", "the loop is closed"])
@pytest.mark.parametrize("fails", [False, True])
def test_cancelled(way: str, fails: bool) -> None:
    """The result is released once, and what the function does is hidden until then."""
    goes_on, ended = threading.Event(), threading.Event()
    seen: list[bool] = []
    released: list[int] = []

    def work() -> int:
        goes_on.wait()
        ended.set()
        return 1 // (not fails)

    def release(result: int) -> None:
        seen.append(progress._screen.is_hidden)
        released.append(result)

    async def wait() -> int:
        return await in_thread(work, release)

    async def cancel() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        if way == "when it has ended":
            # The task cannot take the result before this one waits.
            goes_on.set()
            ended.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if way == "before it ends":
            assert progress._screen.is_hidden
            goes_on.set()
            while progress._screen.is_hidden:
                await asyncio.sleep(0.01)

    asyncio.run(cancel())
    goes_on.set()
    wait_until(lambda: not progress._screen.is_hidden)
    assert (released, seen) == (([], []) if fails else ([1], [True]))


ENDS = """
import asyncio, threading
from llm_localrun.system.threads import in_thread

async def main():
    task = asyncio.create_task(wait())
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])

async def wait():
    await in_thread(threading.Event().wait)

asyncio.run(main())
print("ended")
"""


def test_program_ends_without_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)
