"""LM Studio's folder: PUBLISHER/REPOSITORY/…gguf, under names of the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path

from llm_localrun.discovery.stores.folders import walk
from llm_localrun.discovery.stores.found import QUANTIZATION, SIZE, SIZE_WITH_PROJECTOR, Group
from llm_localrun.discovery.stores.huggingface import mark_of
from llm_localrun.foreign import read_json, read_text, text_at


def lmstudio_files(root: Path, problems: list[str]) -> Iterator[Group]:
    """The files of every repository."""
    # It is not said whether the size that it lists is with the projector.
    sizes = tuple(f"lmstudio:{size}:{QUANTIZATION}" for size in (SIZE, SIZE_WITH_PROJECTOR))
    for group in walk(root, problems):
        below = Path(group.files[0].path).relative_to(root).parts[:-1]
        hub = (mark_of(*below[:2]),) if len(below) >= 2 else ()
        yield Group(group.files, (*hub, *sizes))


def models_folder(user_home: Path) -> Path:
    """Where LM Studio keeps its models: in the folder that its settings name, or in its home."""
    home = lmstudio_home(user_home)
    chosen = text_at(read_json(home / "settings.json"), "downloadsFolder")
    return Path(chosen) if chosen else home / "models"


def lmstudio_home(user_home: Path) -> Path:
    """As LM Studio finds it: a pointer file, the old place if it exists, the usual one."""
    if pointed := read_text(user_home / ".lmstudio-home-pointer").strip():
        return Path(pointed)
    old = user_home / ".cache" / "lm-studio"
    return old if old.is_dir() else user_home / ".lmstudio"
