"""Ollama's store, and Msty's, which is one: manifests/HOST/NAMESPACE/NAME/TAG point to blobs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_localrun.files.folders import entries_of, is_folder
from llm_localrun.files.found import Found, Known, Unchanged, existing, file_at, listed
from llm_localrun.files.ollama_store import Manifest, read_manifest

_LEVELS = 4


def ollama_files(
    root: Path, store: str, known: Known, problems: list[str]
) -> Iterator[Found | Unchanged]:
    """A file for each tag; which of them are alike is for others to see."""
    manifests = root / "manifests"
    for path in _files(str(manifests), _LEVELS, problems):
        unchanged = _unchanged(path, known)
        if unchanged is not None:
            yield unchanged
        elif (found := _found(Path(path), manifests, store)) is not None:
            yield found


def _files(folder: str, levels: int, problems: list[str]) -> Iterator[str]:
    for entry in entries_of(folder, problems):
        if levels > 1 and is_folder(entry):
            yield from _files(entry.path, levels - 1, problems)
        elif levels == 1 and not is_folder(entry):
            yield entry.path


def _unchanged(path: str, known: Known) -> Unchanged | None:
    """The entry of the last scan, if neither manifest nor blob has changed: neither is read."""
    entry = known.by_manifest.get(path)
    manifest = listed(path)
    if entry is None or manifest is None or manifest.modified != entry.manifest_modified:
        return None
    blob = listed(entry.path)
    if blob is None or (blob.size, blob.modified) != (entry.size, entry.modified):
        return None
    return Unchanged(entry, blob.identity)


def _found(path: Path, manifests: Path, store: str) -> Found | None:
    manifest, file = read_manifest(path), listed(str(path))
    if file is None:
        return None
    name = _name(path.relative_to(manifests).parts)
    # What cannot be run is known by its manifest.
    itself = Found(str(path), name, store, file.size, file.modified, file.identity)
    if manifest is None:
        return replace(itself, reason="its manifest cannot be read")
    if reason := _reason(manifest):
        return replace(itself, reason=reason)
    blob = manifest.blob("model")
    found = file_at(str(blob), store, name) if blob else None
    if found is None:
        return replace(itself, reason="its blob is missing: pull it again")
    projector = manifest.blob("projector")
    return replace(
        found,
        projector=existing(str(projector)) if projector else "",
        manifest=str(path),
        manifest_modified=file.modified,
        fingerprints=(f"ollama:{manifest.digest}", *_hub_mark(path.relative_to(manifests).parts)),
    )


def _reason(manifest: Manifest) -> str:
    """Why there is nothing that llm-localrun could run; "" if there is."""
    models = len(manifest.layers.get("model", ()))
    if models == 1:
        return ""
    if models:
        return "its weights are in several blobs, which llama.cpp does not join"
    if "tensor" in manifest.layers:
        return "its weights are safetensors, which llama.cpp does not load"
    if host := manifest.setting("remote_host"):
        return f"it runs at {host}: no weights are here"
    return "its manifest names no weights"


def _name(parts: tuple[str, ...]) -> str:
    """As Ollama shows it: the default host and namespace are left out."""
    host, namespace, name, tag = parts
    if host != "registry.ollama.ai":
        return f"{host}/{namespace}/{name}:{tag}"
    return f"{name}:{tag}" if namespace == "library" else f"{namespace}/{name}:{tag}"


def _hub_mark(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The mark of a model that came from the Hugging Face hub, where tags are quantizations."""
    host, owner, repository, tag = parts
    if host not in ("hf.co", "huggingface.co"):
        return ()
    return (f"hf:{owner}/{repository}:".lower() + tag.upper(),)
