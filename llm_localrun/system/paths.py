"""Where the files of llm-localrun lie, and how they are written: whole, or not at all."""

import os
import re
from pathlib import Path

import llm

# What decides where models are looked for, beside config.json.
_VARIABLES = (
    *("OLLAMA_HOST", "OLLAMA_MODELS", "LLAMA_CACHE", "LMSTUDIO_API_BASE", "UNSLOTH_STUDIO_URL"),
    *("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "MODELS_PATH", "RAMALAMA_STORE"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "JAN_DATA_FOLDER"),
)


def home() -> Path:
    """Where everything of llm-localrun lives."""
    return Path(llm.user_dir()) / "localrun"  # type: ignore[no-untyped-call]


def settings_stamp() -> str:
    """Changes when what the user has settled does: config.json, and the variables that matter."""
    try:
        stat = (home() / "config.json").stat()
        config = f"{stat.st_mtime_ns} {stat.st_size}"
    except OSError:
        config = ""
    return "\n".join((config, *(os.environ.get(name, "") for name in _VARIABLES)))


def engine_folder() -> Path:
    """Where the engines and their users keep the files that tell each other how things stand."""
    return home() / "engine"


def models_folder() -> Path:
    """The folder for models that llm-localrun downloads or makes."""
    return home() / "models"


def partial_folder() -> Path:
    """The folder for unfinished files: inside the models folder, so that both are on one disk."""
    return models_folder() / ".partial"


def user_home() -> Path:
    """The user's own folder; `~` as it is if nobody knows where that is."""
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
