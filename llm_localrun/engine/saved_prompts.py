"""Evaluated prompts on disk: how a conversation continues after its engine has ended.

An engine that ends saves what its slots hold in `localrun/prompts/`, one file for each
conversation. The next engine with the same model, settings and build of llama.cpp restores it. A
file is named

    <conversation>.<model>.<checksum>

where each part is a digest. The checksum is in the name so that one rename makes the file complete:
llama.cpp (b11549) aborts on a truncated file. How much of a new prompt the file covers is left to
llama.cpp, which compares tokens. Making llama.cpp save and restore its slots is left to `host` and
`serve`.

Imports only the standard library: the engine's host process uses this module.
"""

import hashlib
from pathlib import Path

from llm_localrun.engine.state import EnginePaths, EngineState
from llm_localrun.system.atomic import open_own

_READ_BYTES = 2**20


def find_saved(paths: EnginePaths, engine: EngineState, conversation: str) -> Path | None:
    """The file from which `engine` can restore `conversation`."""
    if not conversation:
        return None
    return next(iter(paths.prompts.glob(f"{_key(engine, conversation)}.*")), None)


def is_intact(file: Path) -> bool:
    """Whether the content of `file` matches the checksum in its name."""
    try:
        return file.suffix == f".{_checksum(file)}"
    except OSError:
        return False


def partial_path(paths: EnginePaths, number: int) -> Path:
    """Where llama.cpp writes the content of slot `number` until `store` renames it."""
    return paths.prompts / f"{paths.id}.{number}"


def store(partial: Path, engine: EngineState, conversation: str, max_bytes: int) -> None:
    """Renames the complete `partial` file of `conversation`, and replaces an older file of it.

    Then removes the oldest files until all together have at most `max_bytes`. Raises OSError.
    """
    key = _key(engine, conversation)
    target = partial.with_name(f"{key}.{_checksum(partial)}")
    older = [path for path in partial.parent.glob(f"{key}.*") if path != target]
    partial.replace(target)
    for path in older:
        path.unlink(missing_ok=True)
    _remove_oldest(partial.parent, max_bytes)


def _remove_oldest(folder: Path, max_bytes: int) -> None:
    # Complete files have two dots in their names, partial ones have one.
    files = [(path, path.stat()) for path in folder.glob("*.*.*")]
    total = 0
    for path, stat in sorted(files, key=lambda each: each[1].st_mtime, reverse=True):
        total += stat.st_size
        if total > max_bytes:
            path.unlink(missing_ok=True)


def _key(engine: EngineState, conversation: str) -> str:
    spec, settings = engine.spec, engine.spec.settings
    model = (
        *(spec.path, spec.file_size, spec.file_modified, spec.file_stamp, engine.build),
        *(settings.kv_cache_type, settings.flash_attention, settings.lora, settings.projector),
    )
    return f"{_digest(conversation)}.{_digest(repr(model))}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _checksum(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open_own(file) as data:
        while chunk := data.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
