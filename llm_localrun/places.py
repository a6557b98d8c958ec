"""Where the files of llm-localrun lie, and how they are written: whole, or not at all."""

import os
import tempfile
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


def write_atomically(target: Path, data: bytes) -> None:
    """Writes `data` to `target`, readable by its owner only; another process sees all or nothing.

    Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
