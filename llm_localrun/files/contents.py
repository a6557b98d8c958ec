"""Reads the header of a file that was found: the model in it, or why it cannot be run.

Finding files is left to `folders` and the stores, comparing and combining them to `scan`.
"""

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from llm_localrun.files.found import QUANTIZATION, FoundFile, listed, stem_of
from llm_localrun.files.ollama_manifest import manifest_or_empty
from llm_localrun.gguf.files import chat_template_in, parts_of
from llm_localrun.gguf.header import Header, NotGGUF, damage_of, read_summary
from llm_localrun.memory.geometry import geometry_of
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import file_type_name, quantization_in
from llm_localrun.names.roles import IS_IMPORTANCE_MATRIX, IS_PROJECTOR, purpose_of_header
from llm_localrun.system.atomic import open_regular
from llm_localrun.system.text import id_part
from llm_localrun.wire.think_tags import read_template

UNREADABLE = "it cannot be read"

# Architectures that only Ollama's own engine knows (model/models, 0.12).
_OLLAMA_ONLY = ("mllama", "gptoss", "qwen25vl")

# In templates, of Ollama too, beside the tags; the last one is gpt-oss's.
_THINKING = ("enable_thinking", ".Thinking", "<|channel|>")

_MAX_NAME = 100
"""Characters of an architecture or a size that a header names."""

# By `general.type` in the header.
_NO_MODEL = {
    "adapter": "it is an adapter (LoRA) for another model",
    "mmproj": IS_PROJECTOR,
    "imatrix": IS_IMPORTANCE_MATRIX,
}


def read_model(found: FoundFile, model_id: str = "") -> LocalModel | str:
    """The model in the file, or half a sentence that says why it holds none that can be run."""
    try:
        header, template, problem = _read(found)
    except NotGGUF as error:
        return str(error)
    except OSError as error:
        return f"{UNREADABLE}: {error.strerror}"
    if reason := _unfit(header):
        return reason
    quantization = (
        quantization_in(found.name)
        or quantization_in(stem_of(found.path))
        or file_type_name(header.number("general.file_type"))
    )
    size_label = header.text("general.size_label")[:_MAX_NAME]
    return LocalModel(
        id=model_id or f"local/gguf/{id_part(found.name)}",
        name=found.name,
        purpose=purpose_of_header(header, found.name),
        routes=(
            OnDisk(
                path=found.path,
                store=found.store,
                projector=found.projector,
                manifest=found.manifest,
                load_size=found.size + _size_of(found.projector),
                geometry=geometry_of(header) or (),
                problem=problem,
            ),
        ),
        architecture=header.architecture,
        quantization=quantization,
        parameters=parse_name(f"model-{size_label}").parameters if size_label else None,
        size=found.size,
        context_max=header.of_architecture("context_length"),
        modified=found.modified,
        capabilities=_capabilities(template, found),
        fingerprints=(
            f"path:{_real_path(found.path)}",
            *filled(found.fingerprints, quantization),
        ),
    )


def _read(found: FoundFile) -> tuple[Header, str, str]:
    """The summary of a file's header, its chat template, and why it cannot be loaded.

    Raises `NotGGUF` and OSError.
    """
    with open_regular(found.path, buffering=0) as opened:
        header = read_summary(opened)
        template = chat_template_in(opened, header)
        problem = damage_of(opened, header)
    return header, template, problem or _damage_of_others(found)


def _damage_of_others(found: FoundFile) -> str:
    """As `damage_of`, for the parts after the first, and the projector. Raises OSError."""
    for part in parts_of(Path(found.path))[1:] if found.parts > 1 else ():
        if problem := _damage_at(part):
            return f"one of its parts is damaged: {part.name}: {problem}"
    if not found.projector:
        return ""
    projector = Path(found.projector)
    try:
        problem = _damage_at(projector)
    except OSError as error:
        problem = f"{UNREADABLE}: {error.strerror}"
    return f"its projector is damaged: {projector.name}: {problem}" if problem else ""


def _damage_at(path: Path) -> str:
    with open_regular(path, buffering=0) as opened:
        try:
            return damage_of(opened, read_summary(opened))
        except NotGGUF as error:
            return str(error)


def _real_path(path: str) -> str:
    """The same as `os.path.realpath(path)`, but the folder of several files is resolved once."""
    folder, name = os.path.split(path)
    real = os.path.join(_real_folder(folder), name)  # noqa: PTH118
    return os.path.realpath(real) if os.path.islink(real) else real  # noqa: PTH114


# For the files of one folder, which a scan reads one after the other.
_real_folder = functools.lru_cache(maxsize=1)(os.path.realpath)


def forget_folders() -> None:
    """Forgets where links to folders led. Each scan calls this first, because links can change."""
    _real_folder.cache_clear()


def filled(fingerprints: Iterable[str], quantization: str) -> list[str]:
    """The fingerprints with the quantization filled in; without those that need an unknown one."""
    return [
        each.replace(QUANTIZATION, quantization.upper())
        for each in dict.fromkeys(fingerprints)
        if quantization or QUANTIZATION not in each
    ]


def _unfit(header: Header) -> str:
    """Why llama.cpp would not run a file with this header by itself; "" if it would."""
    kind, architecture = header.text("general.type"), header.architecture
    if not architecture or len(architecture) > _MAX_NAME:
        return _NO_MODEL.get(kind, "its header names no architecture")
    if architecture == "clip":
        return IS_PROJECTOR
    if architecture in _OLLAMA_ONLY:
        return f"only Ollama's own engine knows its architecture, {architecture}"
    if f"{architecture}.vision.block_count" in header.metadata:
        return "its projector is inside it, which only Ollama's own engine loads"
    return _NO_MODEL.get(kind, "")


def _size_of(path: str) -> int:
    """The bytes of a file; 0 if there is none."""
    file = listed(path) if path else None
    return file.size if file else 0


def _capabilities(template: str, found: FoundFile) -> tuple[str, ...]:
    # The template in Ollama's manifest is used instead of the one in the file.
    template = manifest_or_empty(found.manifest).text("template") or template
    can = {**template_abilities(template), **_senses(found.projector)}
    return tuple(name for name, has in can.items() if has)


def template_abilities(template: str) -> dict[str, bool]:
    """The capabilities that a model has by its chat template."""
    return {
        "tools": "tools" in template or ".Tools" in template,
        "thinking": any(word in template for word in _THINKING)
        or bool(read_template(template).tags),
    }


def _senses(projector: str) -> dict[str, bool]:
    """The capabilities that a model has from its projector."""
    if not projector:
        return {}
    try:
        with open_regular(projector, buffering=0) as opened:
            metadata = read_summary(opened).metadata
    except (OSError, NotGGUF):
        return {}
    return {
        "vision": metadata.get("clip.has_vision_encoder") is True,
        "audio": metadata.get("clip.has_audio_encoder") is True,
    }
