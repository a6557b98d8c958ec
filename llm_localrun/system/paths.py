"""Where the files of llm-localrun lie, and how they are written: whole, or not at all."""

import os
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
