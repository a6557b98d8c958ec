"""Removes an installed build of llama.cpp, once no engine runs it.

Installing one is left to `pull.install`, ending engines to `stop`.
"""

import os
import shutil
from math import inf
from pathlib import Path

from llm_localrun.engine.installed import InstalledBuild
from llm_localrun.engine.state import EnginePaths, list_engines
from llm_localrun.engine.stop import Announce, stop_when_idle
from llm_localrun.errors import NotRemoved
from llm_localrun.system import locks
from llm_localrun.system.paths import builds_folder, engine_folder


def remove_build(build: InstalledBuild, announce: Announce) -> None:
    """Removes the files of a build. Its engines end first, when they are idle.

    See `stop_when_idle` for `announce`. Raises `NotRemoved`.
    """
    while not remove_if_unused(build):
        for paths in _users(build):
            stop_when_idle(paths, announce)


def remove_if_unused(build: InstalledBuild) -> bool:
    """Removes the files of a build that no engine runs. False if one does. Raises `NotRemoved`."""
    folder, gone = engine_folder(), builds_folder() / f".removed-{build.name}-{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # While it is held, no engine starts: see `launch`.
        with locks.exclusive(folder / "memory.starting", inf):
            if is_running(build):
                return False
            build.folder.rename(gone)
        remove_tree(gone)
    except OSError as error:
        raise NotRemoved.from_os_error("removed", build.folder, error) from None
    return True


def remove_tree(path: Path) -> None:
    """Removes a folder, or the link to one. Raises OSError."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


def is_running(build: InstalledBuild) -> bool:
    """Whether an engine runs the build."""
    return bool(_users(build))


def _users(build: InstalledBuild) -> list[EnginePaths]:
    """The engines that run a build."""
    folder, program = engine_folder(), str(build.server)
    running = (each for each in list_engines(folder) if each.build_path == program)
    return [EnginePaths(folder, each.id) for each in running]
