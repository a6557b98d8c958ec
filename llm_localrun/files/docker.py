"""Docker Model Runner's store: models.json names models, their manifests the blobs that they are.

https://github.com/docker/model-runner, pkg/distribution/internal/store and types (July 2026).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_localrun.files.found import Found, Listed, from_parts, is_text, listed
from llm_localrun.system.json_files import list_at, read_json, text_at

_WEIGHTS = "application/vnd.docker.ai.gguf.v3"
_PROJECTOR = "application/vnd.docker.ai.mmproj"


def docker_files(root: Path) -> Iterator[Found]:
    """A file for each model that has a tag."""
    for model in list_at(read_json(root / "models.json"), "models"):
        tags = [tag for tag in list_at(model, "tags") if isinstance(tag, str)]
        names = [_short(tag) for tag in tags if tag and is_text(tag)]
        if names:
            yield from _in_model(root, text_at(model, "id"), names)


def _in_model(root: Path, digest: str, names: list[str]) -> Iterator[Found]:
    blobs = _blobs(root, list_at(read_json(_at(root, "manifests", digest)), "layers"))
    weights, projectors = blobs.get(_WEIGHTS, []), blobs.get(_PROJECTOR, [])
    if not weights:
        return
    found = replace(
        from_parts(weights, "docker", names[0]),
        projector=projectors[0].path if projectors else "",
        fingerprints=tuple(f"docker:{name}" for name in names),
    )
    several = "its weights are in several blobs, which llama.cpp does not join"
    yield found if len(weights) == 1 else replace(found, reason=several)


def _blobs(root: Path, layers: list[Any]) -> dict[str, list[Listed]]:
    """The files of the layers that are there, by their media type."""
    blobs: dict[str, list[Listed]] = {}
    for layer in layers:
        blob = listed(str(_at(root, "blobs", text_at(layer, "digest"))))
        if blob is not None:
            blobs.setdefault(text_at(layer, "mediaType"), []).append(blob)
    return blobs


def _at(root: Path, folder: str, digest: str) -> Path:
    algorithm, _, number = digest.partition(":")
    is_digest = algorithm.isalnum() and number.isalnum()
    return root / folder / algorithm / number if is_digest else root / folder / "none"


def _short(tag: str) -> str:
    """As Docker lists it: without the default registry and organisation of the whole name."""
    return tag.removeprefix("index.").removeprefix("docker.io/")
