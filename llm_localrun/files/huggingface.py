"""The Hugging Face hub's cache, in which newer llama.cpp keeps what it fetches, too.

models--OWNER--NAME/{refs/main, snapshots/COMMIT/…gguf, blobs}: a snapshot's files are links to
blobs, or the files themselves where Windows allows no links.
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from collections.abc import Iterator
from pathlib import Path

from llm_localrun.files.folders import entries_of, is_folder, walk
from llm_localrun.files.found import QUANTIZATION, Group
from llm_localrun.system.json_files import read_text


def hub_files(root: Path, problems: list[str]) -> Iterator[Group]:
    """The files of every snapshot; of those of one name that of the newest one."""
    for entry in entries_of(str(root), problems):
        if entry.name.startswith("models--") and is_folder(entry):
            yield from _in_repository(Path(entry.path), problems)


def mark_of(owner: str, name: str) -> str:
    """The mark of a file of a repository on the hub."""
    return f"hf:{owner}/{name}:".lower() + QUANTIZATION


def _in_repository(repository: Path, problems: list[str]) -> Iterator[Group]:
    _, owner, name = (*repository.name.split("--", 2), "")[:3]
    seen: set[str] = set()
    for snapshot in _snapshots(repository, problems):
        start = len(str(snapshot))
        for group in walk(snapshot, problems):
            files = [file for file in group.files if file.path[start:] not in seen]
            seen.update(file.path[start:] for file in files)
            if files:
                yield Group(files, (mark_of(owner, name),))


def _snapshots(repository: Path, problems: list[str]) -> list[Path]:
    """The folders of the commits, the one that `main` is at before the others."""
    main = read_text(repository / "refs" / "main").strip()
    entries = entries_of(str(repository / "snapshots"), problems)
    return [Path(entry.path) for entry in sorted(entries, key=lambda entry: entry.name != main)]
