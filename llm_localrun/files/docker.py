"""Docker Model Runner's store: models.json names models, manifests name the blobs of each.

https://github.com/docker/model-runner, pkg/distribution/internal/store and types (July 2026).
"""

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_localrun.errors import NotRemoved
from llm_localrun.files.base import SEVERAL_BLOBS, Store
from llm_localrun.files.found import FoundFile, ListedFile, from_parts, is_text, listed
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.system.json_files import list_at, read_json, text_at

_WEIGHTS = "application/vnd.docker.ai.gguf.v3"
_PROJECTOR = "application/vnd.docker.ai.mmproj"


class DockerStore(Store):
    """Models of one blob or more, which several tags can share."""

    name = "docker"
    precedence = 110
    overrides = ("MODELS_PATH",)
    linux = ("~/.docker/models",)

    def scan(self, folder: Path, problems: list[str]) -> Iterator[FoundFile]:
        """A file for each model that has a tag."""
        for model in list_at(read_json(folder / "models.json"), "models"):
            tags = [tag for tag in list_at(model, "tags") if isinstance(tag, str)]
            names = [_short(tag) for tag in tags if tag and is_text(tag)]
            if names:
                yield from self._in_model(folder, text_at(model, "id"), names)

    def _in_model(self, root: Path, digest: str, names: list[str]) -> Iterator[FoundFile]:
        blobs = _blobs(root, list_at(read_json(_at(root, "manifests", digest)), "layers"))
        weights, projectors = blobs.get(_WEIGHTS, []), blobs.get(_PROJECTOR, [])
        if not weights:
            return
        yield replace(
            from_parts(weights, names[0]),
            projector=projectors[0].path if projectors else "",
            fingerprints=tuple(f"{self.name}:{name}" for name in names),
            reason="" if len(weights) == 1 else SEVERAL_BLOBS,
        )

    def files_to_delete(self, model: LocalModel, route: OnDisk) -> list[Path]:
        """Refuses: Docker keeps an index of its blobs, which models can share."""
        prefix = f"{self.name}:"
        known = [each for each in model.fingerprints if each.startswith(prefix)]
        tags = sorted(each.removeprefix(prefix) for each in set(known)) or [model.name]
        commands = " and ".join(f"`docker model rm {shlex.quote(tag)}`" for tag in tags)
        raise NotRemoved(
            f"{route.path} is in Docker Model Runner's store, which only Docker can change",
            f"Run {commands}",
        )


def _blobs(root: Path, layers: list[Any]) -> dict[str, list[ListedFile]]:
    """The files of the layers that exist, by media type."""
    blobs: dict[str, list[ListedFile]] = {}
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
    """As `docker model ls` shows it: without the default registry."""
    return tag.removeprefix("index.").removeprefix("docker.io/")
