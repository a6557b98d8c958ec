"""The Hugging Face hub's cache. Newer llama.cpp uses its layout too.

models--OWNER--NAME/{refs/main, snapshots/COMMIT/….gguf, blobs}: the files of a snapshot are links
to blobs, or the files themselves where Windows allows no links.
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from llm_localrun.files.base import Store
from llm_localrun.files.folders import FolderListing, entries_of, is_folder, walk
from llm_localrun.files.found import QUANTIZATION
from llm_localrun.gguf.files import parts_of
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.system.json_files import read_text


class HuggingFaceStore(Store):
    """The cache of the library huggingface_hub."""

    name = "huggingface"
    precedence = 40
    overrides: ClassVar[tuple[str, ...]] = (
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HOME/hub",
    )
    linux = ("$XDG_CACHE_HOME/huggingface/hub",)

    def scan(self, folder: Path, problems: list[str]) -> Iterator[FolderListing]:
        return hub_files(folder, problems)

    def files_to_delete(self, model: LocalModel, route: OnDisk) -> list[Path]:
        """The links and the blobs that they lead to, with every other link to those."""
        return [file for part in parts_of(Path(route.path)) for file in _with_blob(part)]


def hub_files(root: Path, problems: list[str]) -> Iterator[FolderListing]:
    """The files of every snapshot; of several with one name, the one in the newest."""
    for entry in entries_of(str(root), problems):
        if entry.name.startswith("models--") and is_folder(entry):
            yield from _in_repository(Path(entry.path), problems)


def repository_fingerprint(owner: str, name: str) -> str:
    """The fingerprint of a file in a repository on the hub, without its quantization."""
    return f"hf:{owner}/{name}:".lower() + QUANTIZATION


def _in_repository(repository: Path, problems: list[str]) -> Iterator[FolderListing]:
    _, owner, name = (*repository.name.split("--", 2), "")[:3]
    seen: set[str] = set()
    for snapshot in _snapshots(repository, problems):
        start = len(str(snapshot))
        for listing in walk(snapshot, problems):
            files = [file for file in listing.files if file.path[start:] not in seen]
            seen.update(file.path[start:] for file in files)
            if files:
                yield FolderListing(files, (repository_fingerprint(owner, name),))


def _snapshots(repository: Path, problems: list[str]) -> list[Path]:
    """The folders of the commits, the one of `main` first."""
    main = read_text(repository / "refs" / "main").strip()
    entries = entries_of(str(repository / "snapshots"), problems)
    return [Path(entry.path) for entry in sorted(entries, key=lambda entry: entry.name != main)]


def _with_blob(path: Path) -> list[Path]:
    """`path`, and if it is a link in a snapshot, all links to its blob, and the blob."""
    snapshots = next((each for each in path.parents if each.name == "snapshots"), None)
    if snapshots is None or not path.is_symlink():
        return [path]
    blob = path.resolve()
    links = (link for link in sorted(snapshots.rglob(path.name)) if link.resolve() == blob)
    return [*links, blob]
