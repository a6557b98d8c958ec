"""Ollama 0.40's store: `manifests-v2`, lists of manifests, and what is left for older versions.

The layouts are those of Ollama's `manifest/paths.go` and `manifest/manifest.go`.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.files import scan
from llm_localrun.files.modelfile import read_modelfile, template_of
from llm_localrun.files.ollama import tag_files
from llm_localrun.models import LocalModel, ScannedFile, Snapshot
from tests.support.models import file_route
from tests.support.trees import (
    LIBRARY,
    MIB,
    anchor,
    blob,
    digest_of,
    gguf,
    layer,
    manifest,
    manifest_list,
    runnable,
    v2_entry,
    write,
)

TAG = f"{LIBRARY}/m/4b"
NEW, OLD, MLX = "aa" * 32, "bb" * 32, "cc" * 32
"""The weights in upstream's format, in that of Ollama's llama.cpp, and those for MLX."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / ".ollama" / "models"
    for sha in (NEW, OLD):
        gguf(folder / "blobs" / f"sha256-{sha}")
    write(folder / "blobs" / f"sha256-{MLX}", "tensor")
    return folder


def found(store: Path) -> list[ScannedFile]:
    files = scan((), Snapshot()).files
    return [entry for entry in files if Path(entry.path).is_relative_to(store)]


def the_model(store: Path) -> LocalModel:
    (entry,) = found(store)
    assert entry.model is not None, entry.reason
    return entry.model


def weights_of(model: LocalModel) -> str:
    return Path(file_route(model).path).name.removeprefix("sha256-")


@pytest.mark.parametrize("way", ["link", "hard link", "copy"])
def test_name_that_is_only_in_the_new_folder(way: str, store: Path) -> None:
    digest = runnable(store, NEW, template="{{ .Prompt }}", params='{"num_ctx": 512}')
    entry = v2_entry(store, TAG, digest, way)
    model = the_model(store)
    route = file_route(model)
    assert (model.name, route.store, weights_of(model)) == ("m:4b", "ollama", NEW)
    assert (route.manifest, template_of(route)) == (str(entry), "{{ .Prompt }}")
    assert read_modelfile(route).parameters == {"num_ctx": 512}
    assert {f"ollama:{digest}", f"blob:sha256-{NEW}"} <= set(model.fingerprints)


def inline(runner: str, sha: str) -> dict[str, Any]:
    return {"runner": runner, "format": "gguf", "config": {}, "layers": [layer(sha=sha)]}


@pytest.mark.parametrize(
    ("children", "chosen"),
    [
        (lambda s: [runnable(s, NEW)], NEW),
        (lambda s: [runnable(s, OLD, "ggml"), runnable(s, NEW)], NEW),
        (lambda s: [runnable(s, OLD, "GGML"), runnable(s, NEW, "LlamaCpp")], NEW),
        (lambda s: [runnable(s, MLX, "mlx", "tensor"), runnable(s, OLD, "ggml")], OLD),
        (lambda s: [runnable(s, OLD, "ggml"), runnable(s, NEW, "")], NEW),
        (lambda s: [runnable(s, OLD, "ggml"), inline("llamacpp", NEW)], NEW),
        # Not pulled, a list in a list, and what is none.
        (lambda s: ["dd" * 32, runnable(s, OLD, "ggml")], OLD),
        (lambda s: [manifest_list(s, runnable(s, NEW)), runnable(s, OLD, "ggml")], OLD),
        (lambda s: [None, 5, {}, {"digest": "sha256:../../x"}, runnable(s, NEW)], NEW),
    ],
)
def test_manifest_that_llama_cpp_runs(
    children: Callable[[Path], list[Any]], chosen: str, store: Path
) -> None:
    digest = manifest_list(store, *children(store))
    v2_entry(store, TAG, digest)
    model = the_model(store)
    assert weights_of(model) == chosen
    assert f"ollama:{digest}" in model.fingerprints


SAFETENSORS = "its weights are safetensors, which llama.cpp does not load"


@pytest.mark.parametrize(
    ("digest", "reason"),
    [
        (lambda s: runnable(s, MLX, "mlx", "tensor"), SAFETENSORS),
        (lambda s: runnable(s, NEW, "mlx"), SAFETENSORS),
        (lambda s: manifest_list(s, runnable(s, MLX, "mlx", "tensor")), SAFETENSORS),
        (
            lambda s: manifest_list(s, "dd" * 32),
            "the manifests that its list names are missing: pull it again",
        ),
        (
            manifest_list,
            "the manifests that its list names are missing: pull it again",
        ),
        (lambda s: blob(s, "{"), "its manifest cannot be read"),
        (lambda s: blob(s, "[]"), "its manifest cannot be read"),
        (lambda s: runnable(s, "ee" * 32), "its blob is missing: pull it again"),
    ],
)
def test_what_llama_cpp_cannot_run(digest: Callable[[Path], str], reason: str, store: Path) -> None:
    """It costs itself, and no neighbor."""
    v2_entry(store, TAG, digest(store))
    v2_entry(store, f"{LIBRARY}/good/latest", runnable(store, OLD, "ggml"))
    assert {(e.model.name if e.model else "", e.name, e.reason) for e in found(store)} == {
        ("good:latest", "", ""),
        ("", "m:4b", reason),
    }


def test_links_that_lead_elsewhere(store: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / f"sha256-{'ab' * 32}", json.dumps({"layers": [layer(sha=NEW)]}))
    renamed = store / "blobs" / f"sha256-{'cd' * 32}"
    write(renamed, outside.read_text())
    large = store / "blobs" / f"sha256-{'ef' * 32}"
    write(large, "{}", 5 * MIB)
    for number, target in enumerate((outside, renamed, large, store / "blobs", tmp_path)):
        link = store / "manifests-v2" / "ollama.com" / "library" / "bad" / str(number)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    loop = link.with_name("loop")
    loop.symlink_to(loop)
    pipe = link.with_name("pipe")
    os.mkfifo(pipe)
    v2_entry(store, TAG, runnable(store, NEW))
    entries = found(store)
    assert [e.model.name for e in entries if e.model] == ["m:4b"]
    assert {Path(e.path).name: e.reason for e in entries if not e.model} == dict.fromkeys(
        ("0", "1", "2", "pipe"), "its manifest cannot be read"
    )


@pytest.mark.parametrize("host", ["registry.ollama.ai", "ollama.com"])
def test_what_is_left_for_older_versions_is_the_same_model(host: str, store: Path) -> None:
    """Each version of Ollama lists it under the digest of its own entry."""
    child = runnable(store, NEW)
    listed = manifest_list(store, child)
    v2_entry(store, TAG, listed)
    left = anchor(store, TAG.replace("registry.ollama.ai", host), NEW, listed, child)
    # The manifest that Ollama converted, kept from the garbage collection of older versions.
    write(store / "manifests" / LIBRARY / "llamacpp" / child, (blob_at(store, child)).read_text())
    model = the_model(store)
    assert model.name == "m:4b"
    marks = {each for each in model.fingerprints if each.startswith("ollama:")}
    assert marks == {f"ollama:{each}" for each in (child, listed, digest_of(left))}


def blob_at(store: Path, digest: str) -> Path:
    return store / "blobs" / f"sha256-{digest}"


def test_older_entry_with_other_weights_is_another_version(store: Path) -> None:
    v2_entry(store, TAG, runnable(store, NEW))
    older = manifest(store, TAG, [layer(sha=OLD)])
    model = the_model(store)
    assert weights_of(model) == NEW
    assert f"ollama:{digest_of(older)}" not in model.fingerprints


def test_link_to_nothing_falls_back_to_the_old_folder(store: Path) -> None:
    v2_entry(store, TAG, "dd" * 32)
    older = manifest(store, TAG, [layer(sha=OLD)])
    model = the_model(store)
    assert (weights_of(model), file_route(model).manifest) == (OLD, str(older))
    older.unlink()
    assert found(store) == []


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_list_of_which_a_mac_runs_other_weights(
    system: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    digest = manifest_list(store, runnable(store, NEW), runnable(store, MLX, "mlx", "tensor"))
    v2_entry(store, TAG, digest)
    marks = the_model(store).fingerprints
    assert (f"ollama:{digest}" in marks) is (system == "linux")


def test_change_of_a_list_is_seen(store: Path) -> None:
    before = manifest_list(store, runnable(store, OLD, "ggml"))
    entry = v2_entry(store, TAG, before)
    first = scan((), Snapshot())
    assert scan((), first) is first
    entry.unlink()
    v2_entry(store, TAG, manifest_list(store, runnable(store, OLD, "ggml"), runnable(store, NEW)))
    names = [f.model for f in scan((), first).files if f.model]
    model = next(m for m in names if Path(file_route(m).path).is_relative_to(store))
    assert (weights_of(model), model.id) == (NEW, "local/gguf/m:4b")


def test_files_of_a_tag(store: Path) -> None:
    """Both entries, the list, its manifests and their layers; not what another tag names."""
    old, new = runnable(store, OLD, "ggml"), runnable(store, NEW, system="Sing.")
    listed = manifest_list(store, old, new)
    entry = v2_entry(store, TAG, listed)
    left = anchor(store, TAG, OLD, listed, old)
    v2_entry(store, f"{LIBRARY}/other/4b", manifest_list(store, runnable(store, NEW)))
    v2_entry(store, f"{LIBRARY}/gone/4b", "dd" * 32)
    expected = {listed, old, new, OLD, digest_of(write(store / "x", "Sing."))}
    there = {path for path in tag_files(entry) if os.path.lexists(path)}
    assert there == {entry, left, *(blob_at(store, digest) for digest in expected)}
