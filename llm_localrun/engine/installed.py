"""The builds of llama.cpp that `llm localrun engine install` has installed.

Each is a folder `localrun/engines/<tag>-<backend>/` with a record, `installed.json`, that says
where the build comes from. A folder without a record does not count. Downloading and unpacking is
left to `pull.install`, deciding which build runs a model to `engine.builds`.
"""

import sys
from enum import Enum
from pathlib import Path

from pydantic import ValidationError

from llm_localrun.models import FrozenValue
from llm_localrun.system.atomic import read_own
from llm_localrun.system.paths import builds_folder

RECORD = "installed.json"
SERVER = "llama-server.exe" if sys.platform == "win32" else "llama-server"


class Backend(Enum):
    """What a build of llama.cpp computes with."""

    CPU = "cpu"
    VULKAN = "vulkan"
    CUDA = "cuda"
    ROCM = "rocm"
    METAL = "metal"

    @property
    def has_gpu(self) -> bool:
        return self is not Backend.CPU


class HashOrigin(Enum):
    """Who says which SHA-256 a download must have."""

    PINNED = "pinned"
    """llm-localrun itself."""
    LISTING = "listing"
    """The list of the release's files."""


class InstalledBuild(FrozenValue):
    """One installed build, as its record says."""

    tag: str
    """The release, such as b11391."""
    backend: Backend
    program: str
    """llama-server, as a path relative to the folder: llama-b11391/llama-server."""
    urls: tuple[str, ...] = ()
    """Where its archives come from."""
    sha256: tuple[str, ...] = ()
    """Of the archives, in the order of `urls`."""
    hash_origin: HashOrigin = HashOrigin.LISTING
    version: str = ""
    """What `llama-server --version` printed."""
    devices: tuple[str, ...] = ()
    """The titles of the GPUs that it found when it was installed."""
    tokens_per_second: float | None = None
    """Of the answer that was measured when it was installed."""
    untried: str = ""
    """Why no answer was measured; "" if one was."""
    size: int = 0
    """Bytes of its files."""
    installed_at: float = 0.0
    """Seconds since the epoch."""

    @property
    def name(self) -> str:
        return name_of(self.tag, self.backend)

    @property
    def number(self) -> int:
        return number_of(self.tag)

    @property
    def folder(self) -> Path:
        return builds_folder() / self.name

    @property
    def server(self) -> Path:
        """The program llama-server."""
        return self.folder / self.program

    def is_named_by(self, llama_server: str | None) -> bool:
        """Whether the setting `llama_server` of config.json means this build."""
        return llama_server in (self.name, str(self.server))

    @property
    def is_whole(self) -> bool:
        """Whether its files are those that were installed, as far as their sizes tell."""
        try:
            return self.server.is_file() and size_of(self.folder) == self.size
        except OSError:
            return False


def name_of(tag: str, backend: Backend) -> str:
    """The name of a build, which is that of its folder: b11391-vulkan."""
    return f"{tag}-{backend.value}"


def number_of(tag: str) -> int:
    """The number of a release: newer ones have larger numbers. 0 if the tag has none."""
    digits = tag.removeprefix("b")
    return int(digits) if digits.isdecimal() else 0


def size_of(folder: Path) -> int:
    """Bytes of the files in the folder of a build, without its record. Raises OSError."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files if path != folder / RECORD)


def list_installed() -> list[InstalledBuild]:
    """The installed builds, the newest release first.

    Folders without a valid record are left out.
    """
    found = (_read(path) for path in builds_folder().glob(f"*/{RECORD}"))
    builds = [build for build in found if build is not None]
    return sorted(builds, key=lambda build: (build.number, build.name), reverse=True)


def _read(record: Path) -> InstalledBuild | None:
    try:
        build = InstalledBuild.model_validate_json(read_own(record))
    except (OSError, ValidationError):
        return None
    return build if build.name == record.parent.name else None
