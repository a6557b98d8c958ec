"""Finds the GGUF files that any tool has left on this machine.

Looks into a file's header once and remembers what it found until the file changes. Where each tool
keeps its files was read from its documentation or source.
"""

import contextlib
import hashlib
import json
import mmap
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from llm_localrun.catalogue import FileEntry, LocalModel
from llm_localrun.errors import BadModelFile
from llm_localrun.gguf.header import Header, NotGGUF, find_text, read_summary
from llm_localrun.gguf.names import (
    file_type_name,
    is_model_name,
    is_projector_name,
    part_stems,
    quality,
    quantization_in,
    shard_of,
)
from llm_localrun.model_names import parse_name, projected_words
from llm_localrun.places import home, write_atomically

_MIN_SIZE = 2**20
"""Bytes; less is no model but a vocabulary or an unfinished download."""
_MAX_DEPTH = 6
_MAX_HEADER = 64 * 2**20
_EMBEDDING_ARCHITECTURES = ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3")


@dataclass(frozen=True, slots=True)
class Found:
    """A GGUF file in somebody's store; `size` is the sum of a split file's parts."""

    path: Path
    name: str
    store: str
    size: int
    modified: float
    projector: str = ""


def find_files(folders: Iterable[str]) -> Iterator[Found]:
    """Every GGUF file in llm-localrun's own folder, in `folders` and in the tools' stores."""
    seen: set[str] = set()
    for found in _all_files(folders):
        real = os.path.realpath(found.path)
        if real not in seen:
            seen.add(real)
            yield found


def scan(found: Iterable[Found], before: Iterable[FileEntry]) -> list[FileEntry]:
    """An entry for each file, read from its header only if it changed since `before`."""
    files = [file for file in found if _is_text(str(file.path))]
    paths = {str(file.path) for file in files}
    known = {entry.path: entry for entry in before if entry.path in paths}
    # An id stays with its path, whatever comes or goes beside it.
    ids = {path: entry.model.id for path, entry in known.items() if entry.model is not None}
    taken = {*ids.values()}
    entries = []
    for file in files:
        path = str(file.path)
        last = known.get(path)
        model = last.model if last is not None and _is_as(last, file) else model_in(file)
        if model is not None:
            model_id = ids.get(path) or unique_id(model, taken)
            model = model.model_copy(update={"id": model_id})
        entries.append(_entry(file, model))
    return entries


def _is_as(last: FileEntry, file: Found) -> bool:
    """Whether what was found out of `last` still holds."""
    projector = last.model.projector if last.model is not None else file.projector
    return (last.size, last.modified, projector) == (file.size, file.modified, file.projector)


def _is_text(path: str) -> bool:
    """Whether a path can be kept in a file and shown: Linux lets names be any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def unique_id(model: LocalModel, taken: set[str]) -> str:
    """A file's name is its id; a second file of the name adds what tells its path."""
    model_id = f"local/gguf/{model.name}"
    if model_id in taken:
        model_id += "@" + hashlib.sha256(str(model.path).encode()).hexdigest()[:6]
    taken.add(model_id)
    return model_id


def _entry(file: Found, model: LocalModel | None) -> FileEntry:
    return FileEntry(path=str(file.path), size=file.size, modified=file.modified, model=model)


def model_in(file: Found) -> LocalModel | None:
    """The model in `file`; None if it holds none that can be run by itself."""
    try:
        with file.path.open("rb") as opened:
            header = read_summary(opened)
            template = _chat_template(opened)
    except (OSError, NotGGUF):
        return None
    if header.architecture in ("", "clip") or header.text("general.type") in ("adapter", "mmproj"):
        return None
    return LocalModel(
        id=f"local/gguf/{file.name}",
        name=file.name,
        purpose="embedding" if _is_embedding(header) else "chat",
        path=str(file.path),
        store=file.store,
        architecture=header.architecture,
        quantization=quantization_in(file.name)
        or file_type_name(header.number("general.file_type")),
        parameters=parse_name(f"model-{header.text('general.size_label')}").parameters,
        size=file.size,
        context_max=header.of_architecture("context_length"),
        modified=file.modified,
        capabilities=_capabilities(template, file.projector),
        projector=file.projector,
        marks=(f"path:{os.path.realpath(file.path)}",),
    )


def _chat_template(opened: BinaryIO) -> str:
    """The template that a file carries, by which llama.cpp knows what its model can do."""
    with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        size = min(len(mapped), _MAX_HEADER)
        return find_text(mapped, "tokenizer.chat_template", size)


def _capabilities(template: str, projector: str) -> tuple[str, ...]:
    can = {
        "tools": "tools" in template,
        "thinking": "<think>" in template or "enable_thinking" in template,
        **_senses(projector),
    }
    return tuple(name for name, has in can.items() if has)


def _senses(projector: str) -> dict[str, bool]:
    """What a model is able to take through its projector."""
    if not projector:
        return {}
    try:
        with Path(projector).open("rb") as opened:
            metadata = read_summary(opened).metadata
    except (OSError, NotGGUF):
        return {}
    return {
        "vision": metadata.get("clip.has_vision_encoder") is True,
        "audio": metadata.get("clip.has_audio_encoder") is True,
    }


def open_file(path: Path) -> FileEntry:
    """The entry for the file at `path`, which a user has named. Raises `BadModelFile`."""
    if (found := found_at(path)) is None:
        raise BadModelFile(
            f"there is no model file {path}, or a part of it is missing",
            "Check the path; `llm localrun models` lists the files that were found",
        )
    try:
        with path.open("rb") as opened:
            read_summary(opened)
    except NotGGUF as error:
        raise BadModelFile(
            f"{path} is no GGUF model: {error}", "Fetch it again, or choose another file"
        ) from None
    except OSError as error:
        raise BadModelFile(f"{path} cannot be read: {error.strerror}", "Choose another") from None
    found = _with_projector(found)
    if (model := model_in(found)) is None:
        raise BadModelFile(
            f"{path} holds no model that can be run by itself",
            "A projector or an adapter belongs to a model: run that",
        )
    return _entry(found, model)


def is_same(entry: FileEntry) -> bool:
    """Whether the file of `entry` is there, holds a model and has not changed since."""
    found = found_at(Path(entry.path))
    return (
        entry.model is not None
        and found is not None
        and (found.size, found.modified) == (entry.size, entry.modified)
    )


def _is_embedding(header: Header) -> bool:
    pooling = header.of_architecture("pooling_type")
    return (
        bool(pooling)
        or header.architecture in _EMBEDDING_ARCHITECTURES
        or header.architecture.endswith("-embedding")
    )


def found_at(path: Path, store: str = "files") -> Found | None:
    """The GGUF file at `path`, with all its parts; None if it or one of them is missing."""
    shard = shard_of(path.stem)
    try:
        parts = [path.with_name(f"{stem}{path.suffix}") for stem in part_stems(path.stem)]
        stats = [part.stat() for part in parts]
    except (OSError, ValueError):
        return None
    if not stats:
        return None
    return Found(
        path=path.absolute(),
        name=shard[0] if shard else path.name.removesuffix(".gguf"),
        store=store,
        size=sum(stat.st_size for stat in stats),
        modified=max(stat.st_mtime for stat in stats),
    )


# Files that a user has named by their path stay known, so that `-c` and aliases find them again.


def _known_files() -> Path:
    return home() / "known-files.json"


def remember(path: Path) -> None:
    """Keeps the file at `path` in the catalogue; on a full disk, for this once only."""
    known = remembered()
    if str(path) not in known:
        with contextlib.suppress(OSError):
            write_atomically(_known_files(), json.dumps([*known, str(path)], indent=2).encode())


def remembered() -> list[str]:
    """The paths that users have named."""
    paths = _read_json(_known_files())
    return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []


# Where the tools keep their files.


def _all_files(folders: Iterable[str]) -> Iterator[Found]:
    yield from _in_folder(home() / "models", "localrun")
    for folder in folders:
        yield from _in_folder(_expanded(folder), "folders")
    yield from _in_folder(_lmstudio_models(), "lmstudio")
    yield from _in_huggingface(_huggingface_hub())
    yield from _in_folder(_llamacpp_cache(), "llamacpp")
    for root in _ollama_stores():
        yield from _in_ollama(root)
    for path in remembered():
        if (found := found_at(Path(path))) is not None:
            yield _with_projector(found)


def _in_folder(root: Path, store: str) -> Iterator[Found]:
    paths = list(_walk(root))
    projectors = [path for path in paths if is_projector_name(path.stem)]
    for path in paths:
        found = found_at(path, store) if is_model_name(path.stem) else None
        if found is not None and found.size >= _MIN_SIZE:
            yield replace(found, projector=_projector_for(found, projectors))


def _with_projector(model: Found) -> Found:
    """A file that was named by itself, with the projector beside it."""
    beside = model.path.parent.glob("*.gguf")
    projectors = (path for path in beside if is_projector_name(path.stem))
    return replace(model, projector=_projector_for(model, projectors))


def _projector_for(model: Found, projectors: Iterable[Path]) -> str:
    """The projector beside `model`, or "": one that bears its name, else one that bears none.

    Where there are several the one of the highest precision is taken, as llama.cpp does.
    """
    words = parse_name(model.name).words
    beside = [path for path in projectors if path.parent == model.path.parent]
    named = [path for path in beside if projected_words(path.stem) == words]
    nameless = [path for path in beside if not projected_words(path.stem)]
    best = sorted(named or nameless, key=lambda path: quality(quantization_in(path.stem)))
    return str(best[-1]) if best else ""


def _walk(root: Path) -> Iterator[Path]:
    """The *.gguf files below `root`; folders that cannot be read are passed over."""
    base = len(root.parts)
    if "\0" in str(root) or not _is_text(str(root)):
        return
    for folder, subfolders, files in os.walk(root):
        here = Path(folder)
        if len(here.parts) - base >= _MAX_DEPTH:
            subfolders.clear()
        subfolders.sort()
        yield from (here / name for name in sorted(files) if name.lower().endswith(".gguf"))


def _lmstudio_models() -> Path:
    home_folder = _lmstudio_home()
    settings = _read_json(home_folder / "settings.json")
    chosen = settings.get("downloadsFolder") if isinstance(settings, dict) else None
    return Path(chosen) if isinstance(chosen, str) and chosen else home_folder / "models"


def _lmstudio_home() -> Path:
    """As LM Studio finds it: a pointer file, the old place if it exists, the usual one."""
    try:
        pointed = (_home() / ".lmstudio-home-pointer").read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        pointed = ""
    old = _home() / ".cache" / "lm-studio"
    if pointed:
        return Path(pointed)
    return old if old.is_dir() else _home() / ".lmstudio"


def _huggingface_hub() -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(variable):
            return _expanded(folder)
    if folder := os.environ.get("HF_HOME"):
        return _expanded(folder) / "hub"
    return _cache_home() / "huggingface" / "hub"


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache")


def _home() -> Path:
    return _expanded("~")


def _expanded(folder: str) -> Path:
    """A leading ~ stays where it is if nobody knows whose home that is."""
    return Path(os.path.expanduser(folder))  # noqa: PTH111  # Path.expanduser raises instead


def _llamacpp_cache() -> Path:
    if folder := os.environ.get("LLAMA_CACHE"):
        return _expanded(folder)
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "llama.cpp"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", _home())) / "llama.cpp"
    return _cache_home() / "llama.cpp"


def _in_huggingface(hub: Path) -> Iterator[Found]:
    """models--OWNER--NAME/snapshots/COMMIT/…gguf, of the commit that refs/main names if it does."""
    for repository in sorted(hub.glob("models--*")):
        try:
            commit = (repository / "refs" / "main").read_text().strip()
        except (OSError, UnicodeDecodeError):
            commit = ""
        snapshots = repository / "snapshots"
        main = snapshots / commit
        yield from _in_folder(main if commit and main.is_dir() else snapshots, "huggingface")


def _ollama_stores() -> list[Path]:
    if folder := os.environ.get("OLLAMA_MODELS"):
        return [_expanded(folder)]
    service = "usr/share/ollama", "var/lib/ollama"
    return [
        _home() / ".ollama" / "models",
        *(Path("/") / place / ".ollama" / "models" for place in service),
    ]


def _in_ollama(root: Path) -> Iterator[Found]:
    """manifests/HOST/NAMESPACE/NAME/TAG points to blobs/sha256-HEX."""
    manifests = root / "manifests"
    try:
        tags = sorted(path for path in manifests.glob("*/*/*/*") if path.is_file())
    except OSError:
        return
    for tag in tags:
        layers = _ollama_layers(_read_json(tag))
        blob, projector = (
            _ollama_blob(root, layers.get(kind, "")) for kind in ("model", "projector")
        )
        found = found_at(blob, "ollama") if blob is not None else None
        if found is not None:
            is_there = projector is not None and projector.is_file()
            name = _ollama_name(tag.relative_to(manifests).parts)
            yield replace(found, name=name, projector=str(projector) if is_there else "")


def _ollama_name(parts: tuple[str, ...]) -> str:
    """As Ollama shows it: the default host and namespace are left out."""
    host, namespace, name, tag = parts
    if host != "registry.ollama.ai":
        return f"{host}/{namespace}/{name}:{tag}"
    return f"{name}:{tag}" if namespace == "library" else f"{namespace}/{name}:{tag}"


def _ollama_layers(manifest: Any) -> dict[str, str]:
    """The digests in a manifest, by the kind of layer: `model`, `projector`, …"""
    layers = manifest.get("layers") if isinstance(manifest, Mapping) else None
    digests: dict[str, str] = {}
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, Mapping):
            kind = str(layer.get("mediaType")).removeprefix("application/vnd.ollama.image.")
            digests.setdefault(kind, str(layer.get("digest")))
    return digests


def _ollama_blob(root: Path, digest: str) -> Path | None:
    algorithm, _, number = digest.partition(":")
    if algorithm != "sha256" or not number.isalnum():
        return None
    return root / "blobs" / f"sha256-{number}"


def _read_json(path: Path) -> Any:
    """What is in a JSON file of another program; None if that cannot be read."""
    try:
        # Some tools on Windows begin their files with a byte order mark.
        return json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
