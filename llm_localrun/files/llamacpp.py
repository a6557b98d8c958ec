"""llama.cpp's cache: older versions keep files in one folder, newer ones use the hub's layout."""

from collections.abc import Iterator
from pathlib import Path

from llm_localrun.files.folders import FolderListing, walk
from llm_localrun.files.huggingface import HuggingFaceStore, hub_files


class LlamaCppStore(HuggingFaceStore):
    """The files of both layouts. Deleting one is the same as in the hub's cache."""

    name = "llamacpp"
    precedence = 50
    overrides = ("LLAMA_CACHE",)
    linux = ("$XDG_CACHE_HOME/llama.cpp",)
    mac = ("~/Library/Caches/llama.cpp",)
    windows = ("$LOCALAPPDATA/llama.cpp",)

    def scan(self, folder: Path, problems: list[str]) -> Iterator[FolderListing]:
        yield from hub_files(folder, problems)
        # Not deep enough to find the hub's snapshots a second time.
        yield from walk(folder, problems, depth=2)
