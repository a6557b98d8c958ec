"""Ollama's manifests, which name the layers of a model, and the blobs that the layers are.

https://github.com/ollama/ollama, `manifest/` and `types/model/name.go` (0.32, 0.40). Since 0.40 a
manifest can be a list of manifests, one for each program that runs the model: "runner" llamacpp,
ggml (a file that only Ollama's own llama.cpp may load) or mlx. What the layers mean for running a
model is left to `modelfile`, which manifest a name means to `ollama`.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm_localrun.system.atomic import open_regular, read_up_to
from llm_localrun.system.json_files import list_at, parse_json, text_at

V2_FOLDER = "manifests-v2"
"""Of 0.40: its entries are links to blobs, or copies of them."""
_LAYER = "application/vnd.ollama.image."
_LIST = "application/vnd.ollama.manifest.list.v2+json"
_MAX_TEXT = 2**20
"""Bytes of a template or another layer that are read."""
_MAX_MANIFEST = 2**22
"""Bytes; one for MLX names a thousand tensors."""
_MAX_CHILDREN = 64
_BLOB = re.compile(r"sha256-([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest: the digests of its layers (`sha256:…`) by kind: `model`, `template`, `config` …

    `blobs` is the folder of the files that the digests name.
    """

    blobs: Path
    digest: str
    """SHA-256 of the manifest itself: that of the chosen one in a list."""
    layers: Mapping[str, Sequence[str]]
    runner: str = ""
    """What runs it, in small letters; "" before 0.40."""
    is_mlx: bool = False
    """Whether only MLX can run it."""
    listed_as: str = ""
    """SHA-256 of the list that it is in, by which /api/tags identifies the model."""
    has_mlx: bool = False
    """Whether the list has a manifest for MLX here too."""
    blob_digests: tuple[str, ...] = ()
    """Of every blob that the file names, directly or through a list, and of its own content."""

    def blob(self, kind: str) -> Path | None:
        """The file of the first layer of a kind; None if there is no such layer."""
        digests = self.layers.get(kind, ())
        return _blob(self.blobs, digests[0]) if digests else None

    def all_blobs(self) -> list[Path]:
        """The files of all layers, and of the manifests, whether they exist or not."""
        blobs = (_blob(self.blobs, digest) for digest in self.blob_digests)
        return [blob for blob in blobs if blob is not None]

    def text(self, kind: str) -> str:
        """The text of the first layer of a kind; "" if there is none that can be read."""
        blob = self.blob(kind)
        if blob is None:
            return ""
        try:
            with open_regular(blob) as file:
                return read_up_to(file, _MAX_TEXT).decode("utf-8", "replace")
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
    """The manifest at `path` = STORE/FOLDER/HOST/NAMESPACE/NAME/TAG; None if it is not one.

    Of a list it is the one that llama.cpp is most likely to run.
    """
    blobs = path.parents[4] / "blobs"
    expected = _linked_digest(path, blobs) if path.parents[3].name == V2_FOLDER else ""
    read = None if expected is None else _read(path, expected)
    if read is None:
        return None
    content, digest = read
    if text_at(content, "mediaType") != _LIST:
        return _manifest(blobs, content, digest)
    entries = list_at(content, "manifests")[:_MAX_CHILDREN]
    children = [child for entry in entries if (child := _child(blobs, entry))]
    chosen = min(children, key=_rank, default=_EMPTY)
    held = [f"sha256:{digest}", *(text_at(entry, "digest") for entry in entries)]
    return replace(
        chosen,
        blobs=blobs,
        digest=chosen.digest or digest,
        listed_as=digest,
        has_mlx=any(child.is_mlx for child in children),
        blob_digests=(*held, *(each for child in children for each in child.blob_digests)),
    )


def _child(blobs: Path, entry: Any) -> Manifest | None:
    """The manifest that a list has or names; None if it is not here. Lists hold no lists."""
    content, digest = entry, ""
    is_inline = list_at(entry, "layers") or text_at(entry, "config", "digest")
    if not is_inline:
        blob = _blob(blobs, text_at(entry, "digest"))
        match = _BLOB.fullmatch(blob.name) if blob else None
        read = _read(blob, match[1]) if blob and match else None
        if read is None:
            return None
        content, digest = read
    if text_at(content, "mediaType") == _LIST:
        return None
    named = {key: text_at(content, key) or text_at(entry, key) for key in ("runner", "format")}
    return _manifest(blobs, {**content, **named}, digest)


def _rank(child: Manifest) -> int:
    """The place of a manifest in the order in which llama.cpp is likely to run them."""
    return 3 if child.is_mlx else {"llamacpp": 0, "ggml": 2}.get(child.runner, 1)


def _manifest(blobs: Path, content: Mapping[str, Any], digest: str) -> Manifest:
    layers: defaultdict[str, list[str]] = defaultdict(list)
    for layer in list_at(content, "layers"):
        layers[text_at(layer, "mediaType").removeprefix(_LAYER)].append(text_at(layer, "digest"))
    layers["config"].append(text_at(content, "config", "digest"))
    runner = text_at(content, "runner").lower()
    return Manifest(
        blobs,
        digest,
        dict(layers),
        runner=runner,
        is_mlx=runner == "mlx" or text_at(content, "format").lower() == "safetensors",
        blob_digests=(f"sha256:{digest}", *(each for kind in layers.values() for each in kind)),
    )


def _linked_digest(path: Path, blobs: Path) -> str | None:
    """The digest of the blob that an entry is a link to; "" if it is a file of its own.

    None for a link that leads elsewhere.
    """
    try:
        if not path.is_symlink():
            return ""
        target = Path(os.path.realpath(path))
        match = _BLOB.fullmatch(target.name)
        return match[1] if match and target.samefile(blobs / target.name) else None
    except (OSError, ValueError):
        return None


def _read(path: Path, expected: str = "") -> tuple[dict[str, Any], str] | None:
    """The JSON object in a file, and its SHA-256; None if there is none, or not the `expected`."""
    try:
        with open_regular(path) as file:
            data = read_up_to(file, _MAX_MANIFEST + 1)
    except (OSError, ValueError):
        return None
    digest = hashlib.sha256(data).hexdigest()
    content = parse_json(data) if len(data) <= _MAX_MANIFEST and expected in ("", digest) else None
    return (content, digest) if isinstance(content, dict) else None


_EMPTY = Manifest(Path(), "", {})


def manifest_or_empty(path: str) -> Manifest:
    """The manifest at `path`; one without layers if there is none, or `path` is ""."""
    return (read_manifest(Path(path)) if path else None) or _EMPTY


def _blob(blobs: Path, digest: str) -> Path | None:
    algorithm, _, number = digest.partition(":")
    if algorithm != "sha256" or not number.isalnum():
        return None
    return blobs / f"sha256-{number}"
