"""Evaluated prompts on disk: how a conversation outlives the engine that it was held in.

An engine that ends leaves what its slots hold in `localrun/prompts/`, a file for each conversation;
the next one takes it from there. The name of a file says all that must fit:

    <conversation>.<model>.<checksum>

`model` stands for the file, what changes its numbers, and the build of llama.cpp. The checksum is
part of the name since llama.cpp (b11549) aborts on a file that is cut off: a name is given to a
whole file, at once. How far a prompt goes along with the one in a file is seen by llama.cpp, token
by token. Imports nothing but the standard library: the engine's host uses it too.
"""

import hashlib
from pathlib import Path

from llm_localrun.engine.state import EngineState, Paths

_CHUNK = 2**20


def find(paths: Paths, engine: EngineState, conversation: str) -> Path | None:
    """The file that holds `conversation` as `engine` can take it up."""
    if not conversation:
        return None
    return next(iter(paths.prompts.glob(f"{_key(engine, conversation)}.*")), None)


def is_whole(file: Path) -> bool:
    """Whether what `file` holds is what was put there."""
    try:
        return file.suffix == f".{_checksum(file)}"
    except OSError:
        return False


def part(paths: Paths, number: int) -> Path:
    """Where llama.cpp writes what slot `number` holds, before it has its name."""
    return paths.prompts / f"{paths.id}.{number}"


def keep(file: Path, engine: EngineState, conversation: str, most_bytes: int) -> None:
    """Gives the `part` that holds `conversation` its name, in the place of an older one.

    The files left longest ago go until all together have `most_bytes`. Raises OSError.
    """
    key = _key(engine, conversation)
    target = file.with_name(f"{key}.{_checksum(file)}")
    older = [path for path in file.parent.glob(f"{key}.*") if path != target]
    file.replace(target)
    for path in older:
        path.unlink(missing_ok=True)
    _bound(file.parent, most_bytes)


def _bound(folder: Path, most_bytes: int) -> None:
    # Names with two dots: parts, which others are writing, have one.
    files = [(path, path.stat()) for path in folder.glob("*.*.*")]
    total = 0
    for path, facts in sorted(files, key=lambda each: each[1].st_mtime, reverse=True):
        total += facts.st_size
        if total > most_bytes:
            path.unlink(missing_ok=True)


def _key(engine: EngineState, conversation: str) -> str:
    spec, settings = engine.spec, engine.spec.settings
    model = (
        *(spec.path, spec.file_size, spec.file_modified, engine.build),
        *(settings.kv_cache_type, settings.flash_attention, settings.lora, settings.projector),
    )
    return f"{_digest(conversation)}.{_digest(repr(model))}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _checksum(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as data:
        while chunk := data.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
