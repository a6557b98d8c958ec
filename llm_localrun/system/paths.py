"""Where llm-localrun keeps its files."""

import os
import re
from pathlib import Path


def home() -> Path:
    """The folder of everything that llm-localrun keeps: `localrun` in llm's user directory."""
    # Imported here because completion reads files of ours without starting llm.
    import llm

    return Path(llm.user_dir()) / "localrun"  # type: ignore[no-untyped-call]


def engine_folder() -> Path:
    """The folder of the files by which engines and their users exchange state."""
    return home() / "engine"


def builds_folder() -> Path:
    """The folder of the llama.cpp builds that were installed with `llm localrun engine install`."""
    return home() / "engines"


def models_folder() -> Path:
    """The folder for models that llm-localrun downloads or makes."""
    return home() / "models"


def partial_folder() -> Path:
    """The folder for unfinished files: inside the models folder, so that both are on one disk."""
    return models_folder() / ".partial"


def user_home() -> Path:
    """The user's home directory; `~` itself if the system does not know it."""
    return Path(os.path.expanduser("~"))  # noqa: PTH111  # Path.home raises instead


# What a variable stands for where it is not set.
_DEFAULTS = {
    "XDG_CACHE_HOME": "~/.cache",
    "XDG_CONFIG_HOME": "~/.config",
    "XDG_DATA_HOME": "~/.local/share",
    "APPDATA": "~/AppData/Roaming",
    "LOCALAPPDATA": "~/AppData/Local",
}


def expanded(path: str) -> Path:
    """`path` with its first part expanded: `$XDG_CACHE_HOME/x`, `~/x`, `~ada/x`.

    A `~` stays as it is if the home folder is unknown.
    """
    path = re.sub(r"^\$(\w+)", lambda m: os.environ.get(m[1]) or _DEFAULTS[m[1]], path)
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises instead
