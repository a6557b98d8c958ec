"""Ollama's manifests, which name the layers of a model, and the blobs that the layers are.

https://github.com/ollama/ollama, `manifest/` and `types/model/name.go` (0.32). What the layers
mean for running a model is left to `modelfile`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from llm_localrun.system.json_files import list_at, parse_json, text_at

_LAYER = "application/vnd.ollama.image."
_MAX_TEXT = 2**20
"""Bytes of a template or another layer that are read."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest: the digests of its layers (`sha256:…`) by kind: `model`, `template`, `config` …

    `blobs` is the folder of the files that the digests name.
    """

    blobs: Path
    digest: str
    """SHA-256 of the manifest itself, by which /api/tags identifies models."""
    layers: Mapping[str, Sequence[str]]

    def blob(self, kind: str) -> Path | None:
        """The file of the first layer of a kind; None if there is no such layer."""
        digests = self.layers.get(kind, ())
        return _blob(self.blobs, digests[0]) if digests else None

    def all_blobs(self) -> list[Path]:
        """The files of all layers, whether they exist or not."""
        digests = chain.from_iterable(self.layers.values())
        blobs = (_blob(self.blobs, digest) for digest in digests)
        return [blob for blob in blobs if blob is not None]

    def text(self, kind: str) -> str:
        """The text of the first layer of a kind; "" if there is none that can be read."""
        blob = self.blob(kind)
        if blob is None:
            return ""
        try:
            with blob.open("rb") as file:
                return file.read(_MAX_TEXT).decode("utf-8", "replace")
        except OSError:
            return ""

    def json(self, kind: str) -> Any:
        """The JSON value in the first layer of a kind; None if there is none."""
        return parse_json(self.text(kind))

    def setting(self, key: str) -> str:
        """A text in the model's configuration, e.g. `renderer` or `remote_host`; "" if none."""
        value = text_at(self.json("config"), key)
        return value.encode("utf-8", "replace").decode()


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at `path` = STORE/manifests/HOST/NAMESPACE/NAME/TAG; None if it is not one."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError):
        return None
    manifest = parse_json(data)
    if not isinstance(manifest, dict):
        return None
    layers: defaultdict[str, list[str]] = defaultdict(list)
    for layer in list_at(manifest, "layers"):
        layers[text_at(layer, "mediaType").removeprefix(_LAYER)].append(text_at(layer, "digest"))
    layers["config"].append(text_at(manifest, "config", "digest"))
    return Manifest(path.parents[4] / "blobs", hashlib.sha256(data).hexdigest(), dict(layers))


_EMPTY = Manifest(Path(), "", {})


def manifest_or_empty(path: str) -> Manifest:
    """The manifest at `path`; one without layers if there is none, or `path` is ""."""
    return (read_manifest(Path(path)) if path else None) or _EMPTY


def _blob(blobs: Path, digest: str) -> Path | None:
    algorithm, _, number = digest.partition(":")
    if algorithm != "sha256" or not number.isalnum():
        return None
    return blobs / f"sha256-{number}"
