"""LM Studio's folder: PUBLISHER/REPOSITORY/….gguf, under names of the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path

from llm_localrun.files.base import Store
from llm_localrun.files.folders import FolderListing, walk
from llm_localrun.files.huggingface import repository_fingerprint
from llm_localrun.servers.lmstudio_home import models_folder
from llm_localrun.system.paths import user_home


class LMStudioStore(Store):
    """Files in folders of two levels."""

    name = "lmstudio"
    precedence = 30

    def configured_folder(self) -> str:
        return str(models_folder(user_home()))

    def repository_of(self, path: str) -> str:
        return "/".join(Path(path).parts[-3:-1])

    def scan(self, folder: Path, problems: list[str]) -> Iterator[FolderListing]:
        """The files of every repository."""
        for listing in walk(folder, problems):
            below = Path(listing.files[0].path).relative_to(folder).parts[:-1]
            hub = (repository_fingerprint(*below[:2]),) if len(below) >= 2 else ()
            yield FolderListing(listing.files, hub, has_sizes=True)
