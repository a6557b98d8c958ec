"""What llm-localrun has pulled: `pulled.json` beside the models.

It is what `rm` may delete, what `verify` holds a file against and what `update` asks for anew. A
file that stands in no record is somebody else's.
"""

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from llm_localrun.errors import PullFailed
from llm_localrun.system import locks
from llm_localrun.system.atomic import write_atomically

QUANTIZED = "quantize"
"""The source of what was made here: `rm` and `verify` know it, there is nothing newer of it."""
_PATIENCE = 10.0


class _Value(BaseModel):
    # A newer version may have written more.
    model_config = ConfigDict(frozen=True, extra="ignore")


class PulledFile(_Value):
    """A file below the models folder, with slashes in its `path`; `size` is bytes."""

    path: str
    size: int
    sha256: str


class Pulled(_Value):
    """What one REF has brought. `files` begins with what the model is run by; empty at a server."""

    ref: str
    source: str
    """Who had it: huggingface, url, starter, ollama or lmstudio; or `QUANTIZED`."""
    files: tuple[PulledFile, ...] = ()
    commit: str = ""
    """Of the repository, at which the files were."""
    mark: str = ""
    """By which a web server tells this version of the file."""
    pulled_at: float = 0.0

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def paths(self, folder: Path) -> list[Path]:
        return [folder / file.path for file in self.files]


class _Records(_Value):
    pulled: tuple[Pulled, ...] = ()


def read_records(folder: Path) -> tuple[Pulled, ...]:
    """What was pulled into `folder`, the oldest first.

    Raises `PullFailed` if that cannot be read.
    """
    path = folder / "pulled.json"
    try:
        return _Records.model_validate_json(path.read_bytes()).pulled
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise PullFailed.from_os_error("read", path, error) from None
    except ValidationError:
        raise PullFailed(
            f"{path} is damaged", "Delete it: the models stay, but count as not pulled"
        ) from None


def keep(record: Pulled, folder: Path) -> Pulled:
    """Notes `record`, in place of what its REF brought before. Raises `PullFailed` and OSError."""
    stamped = record.model_copy(update={"pulled_at": time.time()})
    _change(folder, lambda records: (*_without(record.ref, records), stamped))
    return stamped


def forget(ref: str, folder: Path) -> None:
    """Drops the record of `ref`. Raises `PullFailed` and OSError."""
    _change(folder, lambda records: _without(ref, records))


def _without(ref: str, records: tuple[Pulled, ...]) -> tuple[Pulled, ...]:
    return tuple(record for record in records if record.ref != ref)


def _change(folder: Path, change: Callable[[tuple[Pulled, ...]], tuple[Pulled, ...]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locks.exclusive(folder / "pulled.lock", _PATIENCE):
            records = _Records(pulled=change(read_records(folder)))
            write_atomically(folder / "pulled.json", records.model_dump_json(indent=2).encode())
    except TimeoutError:
        raise PullFailed(
            f"Another command keeps {folder / 'pulled.lock'}", "Stop it, and try again"
        ) from None
