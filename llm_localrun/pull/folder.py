"""The folder for models that llm-localrun gets: what lies where in it, and nothing outside it."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from llm_localrun.errors import PullFailed
from llm_localrun.system.paths import home


def models_folder() -> Path:
    return home() / "models"


def partial_folder() -> Path:
    """For what is half done: on the disk that the models go to, which may be another than ours."""
    return models_folder() / ".partial"


def place_in(folder: Path, parts: Sequence[str]) -> Path:
    """The path that `parts` name below `folder`; a link on the way must not lead out of it.

    Raises `PullFailed`.
    """
    target = folder.joinpath(*parts)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise PullFailed(
            f"{target.parent} leads out of {folder}", "Remove the link in it, and try again"
        )
    return target


def delete(files: Iterable[Path], folder: Path) -> int:
    """Deletes `files`, and the folders below `folder` that this empties; the bytes that they held.

    Raises OSError.
    """
    freed = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            freed += file.lstat().st_size
            file.unlink()
        _remove_emptied(file.parent, folder)
    return freed


def _remove_emptied(emptied: Path, folder: Path) -> None:
    with contextlib.suppress(OSError):
        while emptied != folder and emptied.is_relative_to(folder):
            emptied.rmdir()
            emptied = emptied.parent
