"""Checks the files of a model: their SHA-256, headers and chat template, and that they load.

Computing the SHA-256 is left to `download`, loading the model to `engine.launch`, and showing the
results to `cli`.
"""

import os
import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from llm_localrun.config import read_config
from llm_localrun.engine.launch import find_or_start
from llm_localrun.engine.memory_check import ensure_fits
from llm_localrun.engine.settings import engine_request
from llm_localrun.engine.stop import stop_if_idle
from llm_localrun.errors import BadModelFile, ConfigError, EngineFailed, LoadFailed, NotEnoughMemory
from llm_localrun.files.modelfile import template_of
from llm_localrun.gguf.files import parts_of
from llm_localrun.gguf.header import NotGGUF, read_header
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.pull.download import sha256_steps
from llm_localrun.pull.records import PullRecord
from llm_localrun.system.atomic import open_regular
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.progress import Progress

_TOO_LARGE = "Close other programs, or verify it on a machine with more memory"
# The hub's cache and Ollama name a file after the SHA-256 of its content.
_CONTENT_NAME = re.compile(r"(?:sha256-)?([0-9a-f]{64})")


class CheckState(str, Enum):
    """The result of a check."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class FileCheck:
    """A check and its result: `("header of x.gguf", OK, "llama, 272 tensors")`."""

    what: str
    state: CheckState
    detail: str = ""


def verify(
    model: LocalModel, records: Iterable[PullRecord]
) -> Generator[Progress, None, list[FileCheck]]:
    """Compares every file of `model` with `records`, and loads the model.

    Yields progress and returns the checks. Raises `BadModelFile` if the model has no file here.
    """
    on_disk = model.on_disk
    if on_disk is None:
        raise BadModelFile(
            f"{model.id} has no file on this machine that could be checked",
            "Its server checks it when it is pulled: pull it again",
        )
    hashes = _recorded_hashes(records)
    checks: list[FileCheck] = []
    projectors = [Path(on_disk.projector)] if on_disk.projector else []
    for path in (*parts_of(Path(on_disk.path)), *projectors):
        checks.append((yield from _check_hash(path, hashes)))
        checks.append(_check_header(path))
    checks.append(_check_template(model, on_disk))
    if all(check.state != CheckState.FAILED for check in checks):
        yield Progress("Loading")
        checks.append(_check_load(model, on_disk))
    return checks


def _recorded_hashes(records: Iterable[PullRecord]) -> dict[str, str]:
    """The SHA-256 of each recorded file, by its path with links resolved."""
    files = (pair for record in records for pair in zip(record.paths, record.files, strict=True))
    return {os.path.realpath(path): file.sha256 for path, file in files}


def _check_hash(path: Path, hashes: dict[str, str]) -> Generator[Progress, None, FileCheck]:
    what = f"SHA-256 of {path.name}"
    real_path = os.path.realpath(path)
    match = _CONTENT_NAME.fullmatch(Path(real_path).name)
    expected = hashes.get(real_path) or (match[1] if match else "")
    if not expected:
        return FileCheck(what, CheckState.UNKNOWN, "the expected value is not known")
    try:
        digest = yield from sha256_steps(path)
    except OSError as error:
        return FileCheck(what, CheckState.FAILED, error.strerror or "it cannot be read")
    if digest != expected:
        detail = "the file is damaged or was changed: pull it again"
        return FileCheck(what, CheckState.FAILED, detail)
    return FileCheck(what, CheckState.OK)


def _check_header(path: Path) -> FileCheck:
    what = f"header of {path.name}"
    try:
        with open_regular(path) as file:
            header = read_header(file, path.stat().st_size)
    except (OSError, NotGGUF) as error:
        return FileCheck(what, CheckState.FAILED, str(error))
    detail = f"{header.architecture}, {len(header.tensors)} tensors"
    return FileCheck(what, CheckState.OK, detail)


def _check_template(model: LocalModel, on_disk: OnDisk) -> FileCheck:
    """Without a template, llama.cpp uses its own, which may not be the model's."""
    what = "chat template"
    if model.purpose != "chat":
        return FileCheck(what, CheckState.OK, f"{model.purpose} models need none")
    try:
        if template_of(on_disk):
            return FileCheck(what, CheckState.OK)
    except BadModelFile:
        return FileCheck(what, CheckState.UNKNOWN, "the file cannot be read")
    return FileCheck(what, CheckState.UNKNOWN, "the file has none")


def _check_load(model: LocalModel, on_disk: OnDisk) -> FileCheck:
    """Loads the model in the engine. An engine that runs it already is proof enough.

    Only what llama.cpp says of the file counts against it, not that memory or the engine is
    missing.
    """
    try:
        wanted = engine_request(model, on_disk, {}, read_config())
        request = ensure_fits(model, wanted, may_shrink=True, remedy=_TOO_LARGE)
        engine, is_new = find_or_start(request, engine_folder(), keep_alive=0.0)
    except (BadModelFile, LoadFailed, ConfigError) as error:
        return FileCheck("loads", CheckState.FAILED, str(error))
    except (NotEnoughMemory, EngineFailed) as error:
        return FileCheck("loads", CheckState.UNKNOWN, str(error))
    if is_new:
        stop_if_idle(engine, engine_folder())
    return FileCheck("loads", CheckState.OK, f"in {engine.load_seconds:.1f} s")
