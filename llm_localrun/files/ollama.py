"""Ollama's store: manifests/HOST/NAMESPACE/NAME/TAG name the blobs of each model.

Since 0.40 manifests-v2 comes first. A name that is in both folders is one model: the old entry is
left for older versions of Ollama, and counts where the new one is a link to nothing
(`manifest/paths.go`). What a manifest says is left to `ollama_manifest`.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from llm_localrun.errors import NotRemoved
from llm_localrun.files.base import SEVERAL_BLOBS, Store
from llm_localrun.files.folders import entries_below, entries_of, is_folder
from llm_localrun.files.found import FoundFile, ListedFile, existing, file_at, from_parts, listed
from llm_localrun.files.ollama_manifest import (
    V2_FOLDER,
    Manifest,
    manifest_or_empty,
    read_manifest,
)
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.system.logins import shown_address

_LEVELS = 4
"""Below `manifests`: host, namespace, name, tag."""
_PUBLIC_HOSTS = ("registry.ollama.ai", "ollama.com")
"""The first in `manifests`, the second in `manifests-v2`; both mean the same."""


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
        tags = [
            [tag for path in paths if (tag := listed(path, special=True))]
            for paths in _paths_by_name(folder, problems).values()
        ]
        blobs = [listed(entry.path) for entry in entries_of(str(folder / "blobs"), problems)]
        yield TagListing([files for files in tags if files], blobs)

    def remote_host_of(self, model: LocalModel, route: OnDisk) -> str | None:
        """A pull, or `ollama cp`, writes another manifest for the same name."""
        # Tags that are alike have one route, with the manifest of one of them.
        if model.served is None or _name(Path(route.manifest).parts[-_LEVELS:]) != model.name:
            return None
        manifest = manifest_or_empty(route.manifest)
        if host := manifest.setting("remote_host"):
            return host
        is_listed = model.served.digest in filter(None, (manifest.digest, manifest.listed_as))
        return "" if is_listed else None

    def files_to_delete(self, model: LocalModel, route: OnDisk) -> list[Path]:
        """Refuses: the store can belong to another user, so Ollama's server deletes the model."""
        raise NotRemoved(
            f"{model.name} is in Ollama's store, and Ollama does not answer",
            "Start it with `ollama serve`, and try again",
        )


@dataclass(frozen=True, slots=True)
class TagListing:
    """The manifests in a store and its blobs: no manifest is read until one of them changes."""

    tags: list[list[ListedFile]]
    """The manifests of each name, the one that counts first."""
    blobs: list[ListedFile | None]

    def found_files(self, store: str) -> Iterator[FoundFile]:
        """A file for each tag; several tags can have the same blob."""
        for tag, *older in self.tags:
            yield replace(_found(tag, older), store=store)


def tag_files(tag: Path) -> list[Path]:
    """The manifests of a tag, and the blobs that no other tag in its store names.

    Raises `NotRemoved` if another manifest cannot be read.
    """
    problems: list[str] = []
    needed: set[Path] = set()
    own: dict[Path, None] = {tag: None}
    unneeded: dict[Path, None] = {}
    for name, paths in _paths_by_name(tag.parents[4], problems).items():
        is_own = name == _name(tag.parts[-_LEVELS:])
        for path in map(Path, paths):
            manifest = read_manifest(path)
            if is_own:
                own[path] = None
                unneeded.update(dict.fromkeys(manifest.all_blobs() if manifest else ()))
            elif manifest:
                needed.update(manifest.all_blobs())
            elif existing(str(path)):
                problems.append(f"{path}: it is not a manifest")
    if problems:
        raise NotRemoved(
            f"{problems[0]}, so it is unknown which files other models share with {tag}",
            "Repair or delete that file, and try again",
        )
    return [*own, *(blob for blob in unneeded if blob not in needed)]


def _paths_by_name(store: Path, problems: list[str]) -> dict[str, list[str]]:
    """The manifests of each name, the one that counts first."""
    paths: dict[str, list[str]] = {}
    for manifests in (store / V2_FOLDER, store / "manifests"):
        for entry in entries_below(str(manifests), _LEVELS, problems):
            parts = Path(entry.path).relative_to(manifests).parts
            # Ollama writes a copy under a name that begins with a dot.
            if len(parts) == _LEVELS and not is_folder(entry) and entry.name[0] != ".":
                paths.setdefault(_name(parts), []).append(entry.path)
    return paths


def _found(tag: ListedFile, older: Sequence[ListedFile]) -> FoundFile:
    """The file that a tag names; if it cannot be run, the manifest stands for it."""
    path = Path(tag.path)
    parts = path.parts[-_LEVELS:]
    name = _name(parts)
    manifest = read_manifest(path)
    reason = _reason(manifest) if manifest else "its manifest cannot be read"
    blob = manifest.blob("model") if manifest and not reason else None
    found = file_at(str(blob), name) if blob else None
    if manifest is None or blob is None or found is None:
        reason = reason or "its blob is missing: pull it again"
        return replace(from_parts([tag], name), reason=reason)
    digests = (*_digests(manifest), *_digests_of_older(older, blob))
    return replace(
        found,
        projector=existing(str(manifest.blob("projector") or "")),
        manifest=tag.path,
        manifest_modified=tag.modified,
        manifest_digest=manifest.digest,
        fingerprints=(
            *(f"{OllamaStore.name}:{digest}" for digest in dict.fromkeys(digests)),
            f"blob:{blob.name}",
            *_hub_fingerprint(parts),
        ),
    )


def _digests(manifest: Manifest) -> Iterator[str]:
    """By which /api/tags may identify what llama.cpp runs of a tag.

    Where Ollama would choose MLX, the digest of the list identifies other weights.
    """
    yield manifest.digest
    if manifest.listed_as and not (manifest.has_mlx and sys.platform == "darwin"):
        yield manifest.listed_as


def _digests_of_older(older: Sequence[ListedFile], blob: Path) -> Iterator[str]:
    """The digests of entries for older versions of Ollama which name the same weights."""
    for entry in older:
        manifest = read_manifest(Path(entry.path))
        if manifest and manifest.blob("model") == blob:
            yield manifest.digest


def _reason(manifest: Manifest) -> str:
    """Why llm-localrun cannot run what the manifest names; "" if it can."""
    if manifest.listed_as and not manifest.layers:
        return "the manifests that its list names are missing: pull it again"
    if manifest.is_mlx or "tensor" in manifest.layers:
        return "its weights are safetensors, which llama.cpp does not load"
    models = len(manifest.layers.get("model", ()))
    if models == 1:
        return ""
    if models:
        return SEVERAL_BLOBS
    if host := manifest.setting("remote_host"):
        return f"it runs at {shown_address(host)}: no weights are here"
    return "its manifest names no weights"


def _name(parts: tuple[str, ...]) -> str:
    """The name that `ollama ls` shows: without the default host and namespace."""
    host, namespace, name, tag = parts
    if host not in _PUBLIC_HOSTS:
        return f"{host}/{namespace}/{name}:{tag}"
    return f"{name}:{tag}" if namespace == "library" else f"{namespace}/{name}:{tag}"


def _hub_fingerprint(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The fingerprint of a model from the Hugging Face hub, where tags are quantizations."""
    host, owner, repository, tag = parts
    if host not in ("hf.co", "huggingface.co"):
        return ()
    return (f"hf:{owner}/{repository}:".lower() + tag.upper(),)
