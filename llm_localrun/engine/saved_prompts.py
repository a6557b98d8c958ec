"""Evaluated prompts on disk: how a conversation continues when its slot was used for another one.

llama.cpp's slots share one cache, and every token in it slows all requests. So a request saves the
conversations that its engine holds for others before it displaces them, in `localrun/prompts/`:

    <engine>.<slot>                             while llama.cpp writes it
    <engine>.<conversation>                     as long as the engine runs
    <conversation>.<model>.<checksum>           when it has ended

where each part but the first two is a digest. Nothing is flushed to the disk, and the file is
removed when the conversation returns: what returns soon is never written. An engine that ends saves
what its slots hold as well, and seals all its files. The next engine with the same model, settings
and build of llama.cpp restores them. The checksum is in the name so that one rename makes the file
complete: llama.cpp (b11549) aborts on a truncated file, which only a machine that ends leaves. How
much of a new prompt a file covers is left to llama.cpp, which compares tokens.

Imports only the standard library: the engine's host process uses this module.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_localrun.engine import slots
from llm_localrun.engine.slots import BLOCK_CHARACTERS, Slot, SlotContents
from llm_localrun.engine.state import EnginePaths, EngineState
from llm_localrun.engine_defaults import PREFIX_CACHE_MIB
from llm_localrun.system.atomic import open_own

_READ_BYTES = 2**20
_TIMEOUT_S = 60.0
_FEW_CHARACTERS_PER_TOKEN, _MANY_CHARACTERS_PER_TOKEN = 2, 8
"""Usual texts are between. Chinese may have one, so it may take twice the memory."""
_MIN_SAVED_TOKENS = 100
"""Evaluating fewer tokens again takes no longer than restoring them."""


@dataclass(frozen=True, slots=True)
class KeepLimits:
    """How much is kept of the conversations that a request displaces."""

    file_bytes: int
    """For the files of all engines together; 0 for none."""
    token_bytes: float
    """What an evaluated token takes."""

    @property
    def blocks(self) -> float:
        """The longest prompt of usual text that llama.cpp's memory has space for."""
        max_tokens = PREFIX_CACHE_MIB * 2**20 / max(self.token_bytes, 1)
        return max_tokens * _FEW_CHARACTERS_PER_TOKEN / BLOCK_CHARACTERS

    def may_take(self, contents: SlotContents) -> bool:
        """Whether a file of `contents` may be small enough to be kept."""
        characters = (len(contents.prefixes) - 1) * BLOCK_CHARACTERS
        return characters / _MANY_CHARACTERS_PER_TOKEN * self.token_bytes <= self.file_bytes


def make_way(
    paths: EnginePaths,
    engine: EngineState,
    slot: Slot,
    contents: SlotContents,
    limits: KeepLimits,
) -> None:
    """Saves what `contents` displaces from `slot`, and empties the other slots if all are idle.

    llama.cpp keeps in memory what it displaces, as long as `PREFIX_CACHE_MIB` suffices. A
    conversation that cannot be saved is evaluated again if it is not there either.
    """
    previous, max_blocks = slot.previous, limits.blocks
    if previous.is_cut_by(contents):
        is_saved = _try_to_save(paths, engine, slot, limits)
        # What is restored overwrites the slot.
        will_be_lost = not is_saved and find_saved(paths, engine, contents.conversation)
        if will_be_lost or (previous.is_lost_to(contents) and len(previous.prefixes) > max_blocks):
            _displace(engine, slot, max_blocks)
    for idle in slots.acquire_idle(paths, slot):
        with idle.held():
            _try_to_save(paths, engine, idle, limits)
            # First, because a slot that is only believed to be empty does no harm.
            idle.record(SlotContents())
            _displace(engine, idle, max_blocks)


def save(paths: EnginePaths, engine: EngineState, slot: Slot, max_bytes: int) -> bool:
    """Saves the conversation in a slot, if llm logs it. Returns whether it did. Raises OSError.

    The files of all engines together get `max_bytes`; 0 saves none.
    """
    if not (slot.previous.conversation and max_bytes):
        return False
    partial = partial_path(paths, slot.number)
    body = {"filename": partial.name}
    reply = _ask(engine, f"/slots/{slot.number}?action=save", body)
    # An error reply has no such field.
    if reply.get("n_saved", 0) < _MIN_SAVED_TOKENS:
        partial.unlink(missing_ok=True)
        return False
    return keep(paths, partial, slot.previous.conversation, max_bytes)


def keep(paths: EnginePaths, partial: Path, conversation: str, max_bytes: int) -> bool:
    """Makes the complete `partial` file that of `conversation`. Raises OSError.

    Then removes the oldest files that do not fit into `max_bytes` together with the later ones. A
    file that is larger than that is not kept. Returns whether it is.
    """
    if partial.stat().st_size > max_bytes:
        partial.unlink()
        return False
    partial.replace(_kept_path(paths, conversation))
    total = 0
    for path in sorted(_complete(paths.prompts, "*"), key=_modified, reverse=True):
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            if total + size <= max_bytes:
                total += size
            else:
                path.unlink()
    return _kept_path(paths, conversation).exists()


def _try_to_save(paths: EnginePaths, engine: EngineState, slot: Slot, limits: KeepLimits) -> bool:
    with contextlib.suppress(OSError):
        return limits.may_take(slot.previous) and save(paths, engine, slot, limits.file_bytes)
    return False


def _displace(engine: EngineState, slot: Slot, max_blocks: float) -> None:
    """Makes llama.cpp move what a slot holds to its memory of displaced prompts.

    More than `max_blocks` is erased: llama.cpp keeps the last one however large it is.
    """
    path = f"/slots/{slot.number}?action=erase"
    body: dict[str, Any] = {}
    if len(slot.previous.prefixes) <= max_blocks:
        # The slot then holds one token. A request for an empty one gets nothing from that memory.
        path, body = "/completion", {"prompt": ".", "n_predict": 0, "id_slot": slot.number}
    with contextlib.suppress(OSError):
        _ask(engine, path, body)


def _ask(engine: EngineState, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        reply = slots.ask(engine, "POST", path, body, _TIMEOUT_S)
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}


def find_saved(paths: EnginePaths, engine: EngineState, conversation: str) -> Path | None:
    """The file from which `engine` can restore `conversation`."""
    if not conversation:
        return None
    kept = _kept_path(paths, conversation)
    if kept.exists():
        return kept
    return next(iter(paths.prompts.glob(f"{_key(engine, conversation)}.*")), None)


def is_intact(file: Path, engine: str = "") -> bool:
    """Whether `file` holds all that was saved: `engine` keeps it, or its checksum matches."""
    if engine and file.name.startswith(f"{engine}."):
        return True
    try:
        return file.suffix == f".{_checksum(file)}"
    except OSError:
        return False


def partial_path(paths: EnginePaths, number: int) -> Path:
    """Where llama.cpp writes the content of slot `number` until it is complete."""
    return paths.prompts / f"{paths.id}.{number}"


def _kept_path(paths: EnginePaths, conversation: str) -> Path:
    return paths.prompts / f"{paths.id}.{_digest(conversation)}"


def seal(paths: EnginePaths, engine: EngineState) -> None:
    """Makes the files of an engine that ends those of the next one, the latest first."""
    model = _model_key(engine)
    for kept in sorted(_complete(paths.prompts, paths.id), key=_modified, reverse=True):
        key = f"{kept.suffix[1:]}.{model}"
        with contextlib.suppress(OSError):
            target = kept.with_name(f"{key}.{_checksum(kept)}")
            older = [path for path in paths.prompts.glob(f"{key}.*") if path != target]
            kept.replace(target)
            for path in older:
                path.unlink(missing_ok=True)


def _complete(folder: Path, engine: str) -> list[Path]:
    """The files that llama.cpp has written completely: others end with the number of a slot."""
    return [path for path in folder.glob(f"{engine}.*") if len(path.suffix) > 2]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _key(engine: EngineState, conversation: str) -> str:
    return f"{_digest(conversation)}.{_model_key(engine)}"


def _model_key(engine: EngineState) -> str:
    spec, settings = engine.spec, engine.spec.settings
    model = (
        *(spec.path, spec.file_size, spec.file_modified, spec.file_stamp, engine.build),
        *(settings.kv_cache_type, settings.flash_attention, settings.lora, settings.projector),
    )
    return _digest(repr(model))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _checksum(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open_own(file) as data:
        while chunk := data.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
