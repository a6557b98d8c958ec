"""Where llm-localrun keeps its files."""

import os
from pathlib import Path

import llm


def home() -> Path:
    """The folder of everything that llm-localrun keeps: `localrun` in llm's user directory."""
    return Path(llm.user_dir()) / "localrun"  # type: ignore[no-untyped-call]


def engine_folder() -> Path:
    """The folder of the files by which engines and their users exchange state."""
    return home() / "engine"


def user_home() -> Path:
    """The user's home directory; `~` itself if the system does not know it."""
    return Path(os.path.expanduser("~"))  # noqa: PTH111  # Path.home raises instead
