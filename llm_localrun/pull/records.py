"""The models folder: which paths in it may be written, and the record of what was pulled into it.

`pulled.json` lists every pull. `rm` deletes only files that it lists, `verify` compares files with
it, and `update` pulls its entries again. File names from the network are checked here before they
become paths. Downloading is left to `download`.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from llm_localrun.errors import PullFailed
from llm_localrun.system import locks
from llm_localrun.system.atomic import read_regular, write_atomically
from llm_localrun.system.logins import hide_passwords
from llm_localrun.system.paths import models_folder

QUANTIZED = "quantize"
"""The `source` of files that `quantize` made: there are no updates for them."""
_LOCK_TIMEOUT_S = 10.0

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: reserved with any suffix, too.
_DEVICE = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³])(?:\..*)?", re.I)
_FORBIDDEN_CHARACTERS = frozenset('<>:"/\\|?*')
_MAX_NAME_BYTES = 200
"""File systems allow 255; suffixes are added while a file is downloaded."""


# File names from the network


def is_safe_name(path: str) -> bool:
    """Whether `path`, with slashes, names a file below its folder on every operating system."""
    return all(map(_is_safe_part, path.split("/")))


def _is_safe_part(name: str) -> bool:
    return (
        bool(name)
        and name.isprintable()
        and not _FORBIDDEN_CHARACTERS & set(name)
        and not name.startswith((".", "~", " "))
        and not name.endswith((".", " "))
        and not _DEVICE.fullmatch(name)
        and len(name.encode()) <= _MAX_NAME_BYTES
    )


# Files in the folder


def target_path(name: str) -> Path:
    """The path of `name`, with slashes, below the models folder.

    Raises `PullFailed` if the name is unsafe, or if a link leads out of the folder.
    """
    if not is_safe_name(name):
        raise PullFailed(
            f"{name[:80]!r} is not a safe file name", "Nothing was written. Choose another file"
        )
    folder = models_folder()
    path = folder / name
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise PullFailed(
            f"{path.parent} leads out of {folder}", "Remove the link in it, and try again"
        )
    return path


def bytes_on_disk(found: os.stat_result) -> int:
    """The bytes of a file, without its holes: less than its size if it is sparse."""
    blocks: int | None = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else min(found.st_size, 512 * blocks)


def delete(files: Iterable[Path], folder: Path) -> int:
    """Deletes `files`, and the folders below `folder` that become empty. Returns the bytes freed.

    Raises OSError.
    """
    freed = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            freed += bytes_on_disk(file.lstat())
            file.unlink()
        _remove_empty(file.parent, folder)
    return freed


def _remove_empty(folder: Path, top: Path) -> None:
    with contextlib.suppress(OSError):
        while folder != top and folder.is_relative_to(top):
            folder.rmdir()
            folder = folder.parent


# Records


# A newer version may have written more fields, which pydantic ignores.


class PulledFile(BaseModel, frozen=True):
    """A file below the models folder. `path` has slashes, `size` is in bytes."""

    path: str
    size: int
    sha256: str


class PullRecord(BaseModel, frozen=True):
    """The result of one pull. `files[0]` is the file that is run; a server's pull has no files."""

    ref: str
    source: str
    """`huggingface`, `url`, `starter`, the kind of the server that pulled it, or `QUANTIZED`."""
    files: tuple[PulledFile, ...] = ()
    commit: str = ""
    """The repository's commit that the files are from."""
    etag: str = Field(default="", validation_alias=AliasChoices("etag", "mark"))
    """The web server's validator for this version: an ETag or a Last-Modified date."""
    pulled_at: float = 0.0
    """Seconds since the epoch."""

    @property
    def shown_ref(self) -> str:
        """`ref` without what may be a key in an address."""
        return hide_passwords(self.ref)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def paths(self) -> list[Path]:
        """The paths of its files in the models folder."""
        folder = models_folder()
        return [folder / file.path for file in self.files]


class _RecordList(BaseModel):
    pulled: tuple[PullRecord, ...] = ()


def unshared_paths(records: Iterable[PullRecord], others: Iterable[PullRecord]) -> set[Path]:
    """The files of `records` that none of `others` names: models can share a projector."""
    needed = {path for record in others for path in record.paths}
    return {path for record in records for path in record.paths} - needed


def read_records() -> tuple[PullRecord, ...]:
    """The records, the oldest first. Raises `PullFailed` if they cannot be read."""
    path = models_folder() / "pulled.json"
    try:
        return _RecordList.model_validate_json(read_regular(path)).pulled
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise PullFailed.from_os_error("read", path, error) from None
    except ValidationError:
        raise PullFailed(
            f"{path} is damaged", "Delete it: the models stay, but no longer count as pulled"
        ) from None


def save_record(record: PullRecord) -> PullRecord:
    """Saves `record` with the current time; it replaces the record with the same REF.

    Raises `PullFailed` and OSError.
    """
    stamped = record.model_copy(update={"pulled_at": time.time()})
    _replace_record(record.ref, (stamped,))
    return stamped


def drop_record(ref: str) -> None:
    """Removes the record of `ref`. Raises `PullFailed` and OSError."""
    _replace_record(ref, ())


def _replace_record(ref: str, new: tuple[PullRecord, ...]) -> None:
    """Removes the record of `ref`, and puts `new` at the end of the records."""
    folder = models_folder()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locks.exclusive(folder / "pulled.lock", _LOCK_TIMEOUT_S):
            others = (record for record in read_records() if record.ref != ref)
            records = _RecordList(pulled=(*others, *new))
            write_atomically(folder / "pulled.json", records.model_dump_json(indent=2).encode())
    except TimeoutError:
        raise PullFailed(
            f"Another command holds the lock {folder / 'pulled.lock'}",
            "Wait for that command, and try again",
        ) from None
