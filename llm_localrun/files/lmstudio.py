"""LM Studio's folder: PUBLISHER/REPOSITORY/…gguf, under names of the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path

from llm_localrun.files.folders import walk
from llm_localrun.files.found import QUANTIZATION, SIZE, SIZE_WITH_PROJECTOR, Group
from llm_localrun.files.huggingface import mark_of


def lmstudio_files(root: Path, problems: list[str]) -> Iterator[Group]:
    """The files of every repository."""
    # It is not said whether the size that it lists is with the projector.
    sizes = tuple(f"lmstudio:{size}:{QUANTIZATION}" for size in (SIZE, SIZE_WITH_PROJECTOR))
    for group in walk(root, problems):
        below = Path(group.files[0].path).relative_to(root).parts[:-1]
        hub = (mark_of(*below[:2]),) if len(below) >= 2 else ()
        yield Group(group.files, (*hub, *sizes))
