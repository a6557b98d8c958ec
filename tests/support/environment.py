"""The environment variables of the process that runs the tests.

A developer's own settings must not reach the code under test: where models lie, which keys and
proxies there are. `cleaned` removes the variables that name such things, once for the whole run.
"""

import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_localrun import files
from llm_localrun.pull.releases import MIRROR_VARIABLE
from llm_localrun.servers.base import server_kinds, variables

VARIABLES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", MIRROR_VARIABLE),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA", "LOCALAPPDATA"),
    *("LLM_MODEL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
    *variables(),
    *files.variables(),
    *(variable for cls in server_kinds().values() for variable in cls.key_variables),
)
"""Variables that change what is found or asked."""

_ORIGINAL = dict(os.environ)


@contextmanager
def cleaned(user: Path, home: Path) -> Iterator[None]:
    """Removes `VARIABLES`, and sets llm's user directory and the home directory.

    The `llm` of this Python is the one on PATH, as it is for a user.
    """
    with pytest.MonkeyPatch.context() as patch:
        for variable in VARIABLES:
            patch.delenv(variable, raising=False)
        patch.setenv("LLM_USER_PATH", str(user))
        patch.setenv("HOME", str(home))
        patch.setenv("PATH", sysconfig.get_path("scripts"), prepend=os.pathsep)
        yield


@contextmanager
def original() -> Iterator[None]:
    """The environment as pytest was started, for what has to be downloaded."""
    now = dict(os.environ)
    os.environ.clear()
    os.environ.update(_ORIGINAL)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(now)
