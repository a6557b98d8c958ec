"""Ollama's store: manifests/HOST/NAMESPACE/NAME/TAG name the blobs of each model.

What a manifest says is left to `ollama_manifest`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from llm_localrun.errors import NotRemoved
from llm_localrun.files.base import SEVERAL_BLOBS, Store
from llm_localrun.files.folders import entries_below, entries_of, is_folder
from llm_localrun.files.found import FoundFile, ListedFile, existing, file_at, listed
from llm_localrun.files.ollama_manifest import Manifest, read_manifest
from llm_localrun.models import LocalModel, OnDisk

_LEVELS = 4
"""Below `manifests`: host, namespace, name, tag."""


class OllamaStore(Store):
    """A model for each tag."""

    name = "ollama"
    pulled_by = "ollama"
    precedence = 60
    overrides: ClassVar[tuple[str, ...]] = ("OLLAMA_MODELS",)
    linux: ClassVar[tuple[str, ...]] = (
        "~/.ollama/models",
        "/usr/share/ollama/.ollama/models",
        "/var/lib/ollama/.ollama/models",
    )
    mac = ("~/.ollama/models",)
    windows = ("~/.ollama/models",)

    def scan(self, folder: Path, problems: list[str]) -> Iterator["TagListing"]:
        manifests = folder / "manifests"
        tags = [tag for path in _tag_paths(manifests, problems) if (tag := listed(path))]
        blobs = [listed(entry.path) for entry in entries_of(str(folder / "blobs"), problems)]
        yield TagListing(manifests, tags, blobs)

    def files_to_delete(self, model: LocalModel, route: OnDisk) -> list[Path]:
        """Refuses: the store can belong to another user, so Ollama's server deletes the model."""
        raise NotRemoved(
            f"{model.name} is in Ollama's store, and Ollama does not answer",
            "Start it with `ollama serve`, and try again",
        )


@dataclass(frozen=True, slots=True)
class TagListing:
    """The manifests in a store and its blobs: no manifest is read until one of them changes."""

    manifests: Path
    tags: list[ListedFile]
    blobs: list[ListedFile | None]

    def found_files(self, store: str) -> Iterator[FoundFile]:
        """A file for each tag; several tags can have the same blob."""
        for tag in self.tags:
            yield replace(_found(tag, self.manifests), store=store)


def tag_files(tag: Path) -> list[Path]:
    """The manifest of a tag, and the blobs that no other manifest in its store names.

    Raises `NotRemoved` if another manifest cannot be read.
    """
    manifest = read_manifest(tag)
    if manifest is None:
        return [tag]
    problems: list[str] = []
    needed: set[Path] = set()
    for path in _tag_paths(tag.parents[3], problems):
        other = read_manifest(Path(path))
        if other is None:
            problems.append(f"{path}: it is not a manifest")
        elif path != str(tag):
            needed.update(other.all_blobs())
    if problems:
        raise NotRemoved(
            f"{problems[0]}, so it is unknown which files other models share with {tag}",
            "Repair or delete that file, and try again",
        )
    return [tag, *(blob for blob in manifest.all_blobs() if blob not in needed)]


def _tag_paths(manifests: Path, problems: list[str]) -> Iterator[str]:
    for entry in entries_below(str(manifests), _LEVELS, problems):
        level = len(Path(entry.path).relative_to(manifests).parts)
        if level == _LEVELS and not is_folder(entry):
            yield entry.path


def _found(tag: ListedFile, manifests: Path) -> FoundFile:
    """The file that a tag names; if it cannot be run, the manifest stands for it."""
    path = Path(tag.path)
    parts = path.relative_to(manifests).parts
    name = _name(parts)
    manifest = read_manifest(path)
    reason = _reason(manifest) if manifest else "its manifest cannot be read"
    blob = manifest.blob("model") if manifest and not reason else None
    found = file_at(str(blob), name) if blob else None
    if manifest is None or found is None:
        reason = reason or "its blob is missing: pull it again"
        return FoundFile(tag.path, name, tag.size, tag.modified, tag.identity, reason=reason)
    return replace(
        found,
        projector=existing(str(manifest.blob("projector") or "")),
        manifest=tag.path,
        manifest_modified=tag.modified,
        manifest_digest=manifest.digest,
        fingerprints=(f"{OllamaStore.name}:{manifest.digest}", *_hub_fingerprint(parts)),
    )


def _reason(manifest: Manifest) -> str:
    """Why llm-localrun cannot run what the manifest names; "" if it can."""
    models = len(manifest.layers.get("model", ()))
    if models == 1:
        return ""
    if models:
        return SEVERAL_BLOBS
    if "tensor" in manifest.layers:
        return "its weights are safetensors, which llama.cpp does not load"
    if host := manifest.setting("remote_host"):
        return f"it runs at {host}: no weights are here"
    return "its manifest names no weights"


def _name(parts: tuple[str, ...]) -> str:
    """The name that `ollama ls` shows: without the default host and namespace."""
    host, namespace, name, tag = parts
    if host != "registry.ollama.ai":
        return f"{host}/{namespace}/{name}:{tag}"
    return f"{name}:{tag}" if namespace == "library" else f"{namespace}/{name}:{tag}"


def _hub_fingerprint(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The fingerprint of a model from the Hugging Face hub, where tags are quantizations."""
    host, owner, repository, tag = parts
    if host not in ("hf.co", "huggingface.co"):
        return ()
    return (f"hf:{owner}/{repository}:".lower() + tag.upper(),)
