"""Files and stores as the tools write them to a disk: tiny GGUFs in the real layouts.

The layouts are those of the tools' documentation or source, not of what scans them. Every
file takes almost no disk space: what is beyond its header is a hole.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.lmstudio import MODELS, Model
from tests.support.gguf_files import pair

MIB = 2**20
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD_COMMIT = "f" * 40
SHA = "5f0c" * 16
LIBRARY = "registry.ollama.ai/library"


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def field(key: str, value: int | str | bytes | list[str]) -> bytes:
    if isinstance(value, list):
        return pair(key, [*value])
    if isinstance(value, int):
        return string(key) + struct.pack("<II", 4, value)
    return string(key) + struct.pack("<I", 8) + string(value)


def header(*fields: bytes, count: int | None = None) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, count or len(fields)) + b"".join(fields)


LLAMA = field("general.architecture", "llama")


def write(path: Path, data: bytes | str, size: int = 0) -> Path:
    """A file of at least `size` bytes, which takes no disk space beyond `data`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.truncate(max(size, file.tell()))
    return path


def gguf(
    path: Path,
    metadata: Mapping[str, int | str | list[str]] | None = None,
    *,
    architecture: str = "llama",
    size: int = 2 * MIB,
) -> Path:
    fields = {"general.architecture": architecture, **(metadata or {})}
    return write(path, header(*(field(key, value) for key, value in fields.items())), size)


def flag(key: str, value: bool) -> bytes:
    return string(key) + struct.pack("<I?", 7, value)


def projector(path: Path, *, vision: bool = True, audio: bool | None = None) -> Path:
    """The file of a projector for images or sound; its header does not mention audio for None."""
    fields = [field("general.architecture", "clip"), flag("clip.has_vision_encoder", vision)]
    if audio is not None:
        fields.append(flag("clip.has_audio_encoder", audio))
    return write(path, header(*fields), 2 * MIB)


# The Hugging Face hub's cache.


def hub_file(
    hub: Path, name: str, sha: str, commit: str = COMMIT, repository: str = "org/repo"
) -> Path:
    """A file of a snapshot: a link into `blobs`."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / sha
    if not blob.exists():
        gguf(blob)
    link = folder / "snapshots" / commit / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


# Ollama's store.


def layer(kind: str = "model", sha: str = SHA) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{sha}"}


def manifest(store: Path, tag: str, layers: Any, config: Mapping[str, Any] | None = None) -> Path:
    """A tag, without its blobs."""
    content = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"digest": f"sha256:{blob(store, json.dumps(config or {}))}"},
        "layers": layers,
    }
    return write(store / "manifests" / tag, json.dumps(content))


def blob(store: Path, content: str) -> str:
    """Keeps a text; returns the digest that it goes by."""
    digest = hashlib.sha256(content.encode()).hexdigest()
    write(store / "blobs" / f"sha256-{digest}", content)
    return digest


def v2_entry(store: Path, tag: str, digest: str, way: str = "link") -> Path:
    """A name in `manifests-v2` (0.40) for a blob: a link to it, or a copy."""
    entry = store / "manifests-v2" / tag.replace("registry.ollama.ai", "ollama.com")
    entry.parent.mkdir(parents=True, exist_ok=True)
    target = store / "blobs" / f"sha256-{digest}"
    if way == "link":
        entry.symlink_to(os.path.relpath(target, entry.parent))
    elif way == "hard link":
        entry.hardlink_to(target)
    else:
        entry.write_bytes(target.read_bytes())
    return entry


def runnable(
    store: Path, sha: str = SHA, runner: str = "llamacpp", kind: str = "model", **texts: str
) -> str:
    """Keeps a manifest of 0.40 for weights with a digest, and layers of text; returns its own."""
    content = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"digest": f"sha256:{blob(store, '{}')}"},
        "layers": [layer(kind, sha), *(layer(key, blob(store, texts[key])) for key in texts)],
        **({"runner": runner} if runner else {}),
        "format": "safetensors" if runner == "mlx" else "gguf",
    }
    return blob(store, json.dumps(content))


def manifest_list(store: Path, *children: Any) -> str:
    """Keeps a list of manifests, whole ones or those with a digest; returns its digest."""
    entries = [
        {
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "digest": f"sha256:{child}",
        }
        if isinstance(child, str)
        else child
        for child in children
    ]
    media_type = "application/vnd.ollama.manifest.list.v2+json"
    content = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    return blob(store, json.dumps(content))


def anchor(store: Path, tag: str, sha: str, *digests: str) -> Path:
    """What 0.40 leaves in `manifests` for older versions: it names the manifests as layers."""
    media_type = "application/vnd.ollama.manifest.list.v2+json"
    named = [{"mediaType": media_type, "digest": f"sha256:{digest}"} for digest in digests]
    return manifest(store, tag, [layer(sha=sha), *named])


def ollama_model(
    store: Path,
    tag: str,
    weights: Path | None = None,
    config: Mapping[str, Any] | None = None,
    **texts: str,
) -> Path:
    """A tag with a model of its own, `weights` if they are given, and layers of text by kind.

    Returns the manifest.
    """
    sha = hashlib.sha256(tag.encode()).hexdigest()
    target = store / "blobs" / f"sha256-{sha}"
    if weights is None:
        gguf(target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(weights)
    layers = [layer(sha=sha), *(layer(kind, blob(store, text)) for kind, text in texts.items())]
    return manifest(store, tag, layers, config)


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# Docker Model Runner's store.


def docker_model(store: Path, *tags: str, kinds: tuple[str, ...] = ("gguf.v3",)) -> list[Path]:
    """A model under some tags, of layers of some kinds; returns the layers' blobs."""
    blobs, layers = [], []
    for number, kind in enumerate(kinds):
        sha = hashlib.sha256(f"{tags} {number}".encode()).hexdigest()
        make = projector if kind == "mmproj" else gguf
        blobs.append(make(store / "blobs" / "sha256" / sha))
        layers.append({"mediaType": f"application/vnd.docker.ai.{kind}", "digest": f"sha256:{sha}"})
    content = json.dumps({"schemaVersion": 2, "layers": layers})
    digest = hashlib.sha256(content.encode()).hexdigest()
    write(store / "manifests" / "sha256" / digest, content)
    index = store / "models.json"
    models = json.loads(index.read_text())["models"] if index.exists() else []
    files = [each["digest"] for each in layers]
    models.append({"id": f"sha256:{digest}", "tags": list(tags), "files": files})
    write(index, json.dumps({"models": models}))
    return blobs


# Jan, RamaLama, llm-gguf.


def jan_model(data: Path, model_id: str, path: str = "", **more: str) -> Path:
    """A model and its model.yml, which may point elsewhere; returns the file."""
    folder = data / "llamacpp" / "models" / model_id
    own = f"llamacpp/models/{model_id}/model.gguf"
    values = {"embedding": "false", "model_path": path or own, "name": model_id, **more}
    lines = "".join(f"{key}: {value}\n" for key, value in values.items())
    write(folder / "model.yml", f"{lines}size_bytes: {2 * MIB}\n")
    return gguf(data / (path or own))


def ramalama_model(root: Path, name: str, tag: str, files: Mapping[str, str]) -> Path:
    """A model of RamaLama's, TRANSPORT/OWNER/NAME, of files by their types; returns its folder."""
    folder = root / "store" / name
    entries = []
    for file, kind in files.items():
        sha = f"sha256-{hashlib.sha256(file.encode()).hexdigest()}"
        make = projector if kind == "mmproj" else gguf
        make(folder / "blobs" / sha)
        link = folder / "snapshots" / "sha256-51ab" / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../blobs/{sha}")
        entries.append({"hash": sha.replace("-", ":"), "name": file, "type": kind})
    ref = {"hash": "sha256:51ab", "path": f"{tag}.json", "files": entries}
    write(folder / "refs" / f"{tag}.json", json.dumps(ref))
    return folder / "snapshots" / "sha256-51ab"


def llm_gguf_index(folder: Path, models: Mapping[str, Path], name: str = "models.json") -> None:
    content = {f"gguf/{key}": {"path": str(path), "aliases": []} for key, path in models.items()}
    write(folder / name, json.dumps(content))


# All of them.


@dataclass(frozen=True)
class Planted:
    """A model that is to be found: whose, where, under what name, by which fingerprints."""

    store: str
    path: Path
    name: str
    fingerprints: tuple[str, ...] = ()


def plant(below: Path) -> list[Planted]:
    """A home and a user directory (`below`/home and `below`/user) with a model in every store.

    In the order in which the stores are scanned, on Linux.
    """
    home = below / "home"
    cache, data = home / ".cache", home / ".local" / "share"
    return [
        Planted("localrun", gguf(below / "user/localrun/models/Own-1B-Q8_0.gguf"), "Own-1B-Q8_0"),
        *_plant_hub(home, cache),
        *_plant_ollama(home / ".ollama" / "models"),
        _plant_msty(home / ".config" / "MstyStudio" / "models"),
        *(
            Planted("gpt4all", gguf(folder / f"{name}.gguf"), name, (f"name:gpt4all:{name}.gguf",))
            for folder, name in (
                (data / "nomic.ai" / "GPT4All", "Meta-Llama-3-8B-Instruct.Q4_0"),
                (cache / "gpt4all", "orca-mini-3b-gguf2-q4_0"),
            )
        ),
        _plant_jan(data / "Jan" / "data"),
        *_plant_indexed(below, home, data),
    ]


def _plant_hub(home: Path, cache: Path) -> list[Planted]:
    repository = home / ".lmstudio/models/lmstudio-community/Qwen3-8B-GGUF"
    served = gguf(repository / "Qwen3-8B-Q4_K_M.gguf", size=3 * MIB)
    seeing = gguf(repository.parent / "gemma-3-4b-it-GGUF" / "gemma-3-4b-it-Q4_K_M.gguf")
    eye = projector(seeing.parent / "mmproj-model-f16.gguf")
    hub = cache / "huggingface" / "hub"
    cached = hub_file(hub, "Phi-4-Q6_K.gguf", "ab12", repository="unsloth/Phi-4-GGUF")
    write(cached.parents[2] / "refs" / "main", COMMIT)
    old = gguf(cache / "llama.cpp" / "ggml-org_SmolVLM-500M-Instruct-GGUF_SmolVLM-Q8_0.gguf")
    hf = "hf:lmstudio-community"
    return [
        Planted(
            "lmstudio",
            served,
            "Qwen3-8B-Q4_K_M",
            (f"{hf}/qwen3-8b-gguf:Q4_K_M", f"size:{3 * MIB}:Q4_K_M"),
        ),
        Planted(
            "lmstudio",
            seeing,
            "gemma-3-4b-it-Q4_K_M",
            (
                f"{hf}/gemma-3-4b-it-gguf:Q4_K_M",
                *(f"size:{size}:Q4_K_M" for size in (2 * MIB, 2 * MIB + eye.stat().st_size)),
            ),
        ),
        Planted("huggingface", cached, "Phi-4-Q6_K", ("hf:unsloth/phi-4-gguf:Q6_K",)),
        Planted("llamacpp", old, old.stem),
    ]


def _plant_ollama(store: Path) -> list[Planted]:
    manifest(store, f"{LIBRARY}/gpt-oss/120b-cloud", None, {"remote_host": "https://ollama.com"})
    tags = {
        "hf.co/bartowski/Mistral-7B-GGUF/Q5_K_M": "hf.co/bartowski/Mistral-7B-GGUF:Q5_K_M",
        f"{LIBRARY}/llama3.2/3b": "llama3.2:3b",
    }
    planted = [_plant_newer(store)]
    for tag, name in tags.items():
        written = ollama_model(store, tag, template="{{ .Prompt }}", params='{"num_ctx": 4096}')
        path = store / "blobs" / f"sha256-{hashlib.sha256(tag.encode()).hexdigest()}"
        planted.append(Planted("ollama", path, name, (f"ollama:{digest_of(written)}",)))
    return planted


def _plant_newer(store: Path) -> Planted:
    """A tag of 0.40: a list of one manifest, and an anchor for older versions."""
    tag, sha = f"{LIBRARY}/gemma4/4b", "9e" * 32
    path = gguf(store / "blobs" / f"sha256-{sha}")
    listed = manifest_list(store, runnable(store, sha))
    v2_entry(store, tag, listed)
    anchor(store, tag, sha, listed)
    return Planted("ollama", path, "gemma4:4b", (f"ollama:{listed}", f"blob:sha256-{sha}"))


def _plant_msty(store: Path) -> Planted:
    tag = f"{LIBRARY}/phi3/latest"
    written = ollama_model(store, tag)
    path = store / "blobs" / f"sha256-{hashlib.sha256(tag.encode()).hexdigest()}"
    return Planted("msty", path, "phi3:latest", (f"ollama:{digest_of(written)}",))


def _plant_jan(data: Path) -> Planted:
    model_id = "Menlo/Jan-nano-Q4_K_M"
    return Planted("jan", jan_model(data, model_id), model_id, (f"name:jan:{model_id}",))


def _plant_indexed(below: Path, home: Path, data: Path) -> list[Planted]:
    elsewhere = gguf(home / "elsewhere" / "SmolLM2-360M-Q4_K_M.gguf")
    llm_gguf_index(below / "user" / "gguf", {"smol": elsewhere})
    own = gguf(below / "user" / "gguf" / "models" / "TinyLlama-1.1B.gguf")
    (weights,) = docker_model(home / ".docker" / "models", "docker.io/ai/smollm2:360M-Q4_K_M")
    granite = ramalama_model(
        data / "ramalama", "huggingface/ibm/granite-3b", "latest", {"granite-Q4_0.gguf": "model"}
    )
    people = gguf(home / "models" / "Yi-6B-Q3_K_M.gguf")
    return [
        Planted("llm-gguf", elsewhere, elsewhere.stem),
        Planted("llm-gguf", own, own.stem, ("name:llm-gguf:TinyLlama-1.1B.gguf",)),
        Planted("docker", weights, "ai/smollm2:360M-Q4_K_M", ("docker:ai/smollm2:360M-Q4_K_M",)),
        Planted("ramalama", granite / "granite-Q4_0.gguf", "granite-3b:latest"),
        Planted("models", people, people.stem, ("name:models:Yi-6B-Q3_K_M.gguf",)),
    ]


def put_lmstudio_files(home: Path, models: Iterable[Model] = MODELS) -> None:
    """Writes sparse files of the models' sizes where LM Studio keeps them.

    They are `PUBLISHER/REPOSITORY/FILE`; the model that comes with LM Studio lies elsewhere.
    """
    for number, model in enumerate(models):
        record = model.record
        folder_name = ".internal/bundled-models" if record["type"] == "embedding" else "models"
        folder = home / ".lmstudio" / folder_name / record["publisher"] / f"repository-{number}"
        folder.mkdir(parents=True)
        size = model.size_bytes
        if record["format"] == "mlx":
            (folder / "config.json").write_text("{}")
            (folder / "tokenizer.json").write_bytes(b" " * 2**20)
            size -= 2 + 2**20
        name = "model.safetensors" if record["format"] == "mlx" else f"model-{number}.gguf"
        with (folder / name).open("wb") as file:
            file.truncate(size)
