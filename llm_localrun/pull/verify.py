"""Whether a model's files are what they should be: hash, header, template, and that they load."""

import os
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from llm_localrun.config import read_config
from llm_localrun.engine.launch import EngineRequest, find_or_start
from llm_localrun.engine.memory_check import ensure_fits
from llm_localrun.engine.settings import engine_settings, read_limits
from llm_localrun.engine.stop import stop
from llm_localrun.errors import BadModelFile, ConfigError, EngineFailed, NotEnoughMemory
from llm_localrun.gguf.files import part_stems
from llm_localrun.gguf.header import Header, NotGGUF, read_header
from llm_localrun.models import LocalModel
from llm_localrun.pull.checksum import sha256_in_steps
from llm_localrun.pull.folder import models_folder
from llm_localrun.pull.records import Pulled
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.progress import Progress

State: TypeAlias = Literal["ok", "failed", "unknown"]

_TOO_LARGE = "Close other programs, or verify it on a machine with more memory"
# The hub's cache and Ollama call a file by the SHA-256 of what it holds.
_CONTENT_NAME = re.compile(r"(?:sha256-)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what came of it."""

    what: str
    state: State
    detail: str = ""


def verify(model: LocalModel, records: list[Pulled]) -> Generator[Progress, None, list[Check]]:
    """Checks every file of `model` against what `records` say, and loads it.

    Raises `BadModelFile` if it has no files here.
    """
    if model.path is None:
        raise BadModelFile(
            f"{model.id} has no file here that could be verified",
            "Whoever serves it checks it when it is pulled: pull it again",
        )
    checks = []
    headers = []
    for path in _files(model):
        checks.append((yield from _hash_check(path, _expected(path, records))))
        check, header = _header_check(path)
        checks.append(check)
        headers.append(header)
    checks.append(_template_check(model, headers[0]))
    if all(check.state != "failed" for check in checks):
        yield Progress("Loading")
        checks.append(_load_check(model))
    return checks


def _files(model: LocalModel) -> list[Path]:
    """Every part of the model, and its projector."""
    path = Path(model.path or "")
    parts = [path.with_name(f"{stem}{path.suffix}") for stem in part_stems(path.stem)]
    return [*parts, *([Path(model.projector)] if model.projector else [])]


def _expected(path: Path, records: list[Pulled]) -> str:
    """The SHA-256 that the file has to have; "" if nobody says."""
    real = Path(os.path.realpath(path))
    for record in records:
        for file in record.files:
            if os.path.realpath(models_folder() / file.path) == str(real):
                return file.sha256
    match = _CONTENT_NAME.fullmatch(real.name)
    return match[1] if match else ""


def _hash_check(path: Path, expected: str) -> Generator[Progress, None, Check]:
    what = f"SHA-256 of {path.name}"
    if not expected:
        return Check(what, "unknown", "nobody says what it has to be")
    try:
        digest = yield from sha256_in_steps(path)
    except OSError as error:
        return Check(what, "failed", error.strerror or "it cannot be read")
    if digest != expected:
        return Check(what, "failed", "the file is damaged, or was changed: pull it again")
    return Check(what, "ok")


def _header_check(path: Path) -> tuple[Check, Header | None]:
    what = f"header of {path.name}"
    try:
        with path.open("rb") as file:
            header = read_header(file, path.stat().st_size)
    except (OSError, NotGGUF) as error:
        return Check(what, "failed", str(error)), None
    detail = f"{header.architecture}, {len(header.tensors)} tensors"
    return Check(what, "ok", detail), header


def _template_check(model: LocalModel, header: Header | None) -> Check:
    """A model without a template is run with llama.cpp's own, which may not be what it knows."""
    what = "chat template"
    if model.purpose == "embedding":
        return Check(what, "ok", "an embedding model needs none")
    if header is not None and header.text("tokenizer.chat_template"):
        return Check(what, "ok")
    return Check(what, "unknown", "the file has none")


def _load_check(model: LocalModel) -> Check:
    """Whether the engine loads the model; if an engine has loaded it already, it does.

    A model that does not fit into the free memory is not loaded, and not said to be damaged.
    """
    config = read_config()
    assert model.on_disk is not None
    try:
        settings, limits = ensure_fits(
            model,
            engine_settings(model, model.on_disk, {}, config),
            read_limits(config),
            may_shrink=True,
            remedy=_TOO_LARGE,
        )
        request = EngineRequest(model.on_disk.path, model.name, settings)
        engine, is_new = find_or_start(request, engine_folder(), keep_alive=0.0, limits=limits)
    except NotEnoughMemory as error:
        return Check("loads", "unknown", str(error))
    except (BadModelFile, EngineFailed, ConfigError) as error:
        return Check("loads", "failed", str(error))
    if is_new:
        stop(engine, engine_folder())
    return Check("loads", "ok", f"in {engine.load_seconds:.1f} s")
