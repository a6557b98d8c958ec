"""Finding GGUF files in every tool's store, and what is read from their headers."""

import codecs
import json
import os
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.catalogue import FileEntry, LocalModel
from llm_localrun.discovery.stores import Found, find_files, remember, remembered, scan

MIB = 2**20
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD_COMMIT = "f" * 40
SHA = "5f0c" * 16


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def field(key: str, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return string(key) + struct.pack("<II", 4, value)
    return string(key) + struct.pack("<I", 8) + string(value)


def header(*fields: bytes, count: int | None = None) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, count or len(fields)) + b"".join(fields)


def write(path: Path, data: bytes | str, size: int = 0) -> Path:
    """A file of at least `size` bytes, which takes no room on the disk beyond `data`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.truncate(max(size, file.tell()))
    return path


def gguf(
    path: Path,
    metadata: Mapping[str, int | str] | None = None,
    *,
    architecture: str = "llama",
    size: int = 2 * MIB,
) -> Path:
    fields = {"general.architecture": architecture, **(metadata or {})}
    return write(path, header(*(field(key, value) for key, value in fields.items())), size)


def found(below: Path, *folders: str) -> list[Found]:
    """What is found `below`: the machine that runs the tests may have models of its own."""
    return [file for file in find_files(folders) if below in file.path.parents]


def named(below: Path, *folders: str) -> list[tuple[str, str]]:
    return [(file.store, file.name) for file in found(below, *folders)]


def models(entries: Iterable[FileEntry]) -> list[LocalModel]:
    return [entry.model for entry in entries if entry.model is not None]


def model_names(below: Path, *folders: str) -> list[str]:
    return [model.name for model in models(scan(found(below, *folders), []))]


LMSTUDIO = "home/.lmstudio/models/org/repo"
SNAPSHOT = f"models--org--repo/snapshots/{COMMIT}"


@pytest.mark.parametrize(
    ("file", "environment", "store"),
    [
        ("user/localrun/models/m.gguf", {}, "localrun"),
        ("user/localrun/models/a/b/m.gguf", {}, "localrun"),
        (f"{LMSTUDIO}/m.gguf", {}, "lmstudio"),
        ("home/.cache/lm-studio/models/org/repo/m.gguf", {}, "lmstudio"),
        (f"home/.cache/huggingface/hub/{SNAPSHOT}/m.gguf", {}, "huggingface"),
        (f"home/.cache/huggingface/hub/{SNAPSHOT}/UD-Q4_K_XL/m.gguf", {}, "huggingface"),
        (f"x/huggingface/hub/{SNAPSHOT}/m.gguf", {"XDG_CACHE_HOME": "x"}, "huggingface"),
        (f"x/hub/{SNAPSHOT}/m.gguf", {"HF_HOME": "x", "XDG_CACHE_HOME": "y"}, "huggingface"),
        (f"x/{SNAPSHOT}/m.gguf", {"HUGGINGFACE_HUB_CACHE": "x", "HF_HOME": "y"}, "huggingface"),
        (
            f"x/{SNAPSHOT}/m.gguf",
            {"HF_HUB_CACHE": "x", "HUGGINGFACE_HUB_CACHE": "y", "HF_HOME": "z"},
            "huggingface",
        ),
        ("home/.cache/llama.cpp/m.gguf", {}, "llamacpp"),
        ("x/llama.cpp/m.gguf", {"XDG_CACHE_HOME": "x"}, "llamacpp"),
        ("x/m.gguf", {"LLAMA_CACHE": "x", "XDG_CACHE_HOME": "y"}, "llamacpp"),
        # Newer ones keep what they fetch as the Hugging Face hub does.
        (f"x/{SNAPSHOT}/m.gguf", {"LLAMA_CACHE": "x"}, "llamacpp"),
    ],
)
def test_store_is_looked_through(
    file: str,
    environment: dict[str, str],
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for variable, folder in environment.items():
        monkeypatch.setenv(variable, str(tmp_path / folder))
    gguf(tmp_path / file)
    assert [(f.store, f.name, f.path) for f in found(tmp_path)] == [(store, "m", tmp_path / file)]


def test_cache_of_llamacpp_on_a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    gguf(tmp_path / "home" / "Library" / "Caches" / "llama.cpp" / "m.gguf")
    assert named(tmp_path) == [("llamacpp", "m")]


def test_no_store_at_all(tmp_path: Path) -> None:
    assert found(tmp_path) == []


def test_folders_of_the_user(tmp_path: Path) -> None:
    gguf(tmp_path / "disk" / "a.gguf")
    gguf(tmp_path / "home" / "mine" / "b.gguf")
    folders = (str(tmp_path / "disk"), "~/mine", str(tmp_path / "missing"))
    assert named(tmp_path, *folders) == [("folders", "a"), ("folders", "b")]


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        (b'{"downloadsFolder": "%s"}', "elsewhere"),
        (codecs.BOM_UTF8 + b'{"downloadsFolder": "%s"}', "elsewhere"),
        (b'{"downloadsFolder": ""}', "home/.lmstudio/models"),
        (b'{"downloadsFolder": null}', "home/.lmstudio/models"),
        (b'{"language": "de"}', "home/.lmstudio/models"),
    ],
)
def test_settings_of_lmstudio(settings: bytes, folder: str, tmp_path: Path) -> None:
    chosen = settings.replace(b"%s", os.fsencode(tmp_path / "elsewhere"))
    write(tmp_path / "home" / ".lmstudio" / "settings.json", chosen)
    gguf(tmp_path / folder / "org" / "repo" / "m.gguf")
    assert named(tmp_path) == [("lmstudio", "m")]


def test_pointer_to_the_home_of_lmstudio(tmp_path: Path) -> None:
    write(tmp_path / "home" / ".lmstudio-home-pointer", f"{tmp_path / 'moved'}\n")
    gguf(tmp_path / LMSTUDIO / "left-behind.gguf")
    gguf(tmp_path / "moved" / "models" / "org" / "repo" / "m.gguf")
    assert named(tmp_path) == [("lmstudio", "m")]


def hub_file(hub: Path, name: str, sha: str, commit: str = COMMIT) -> Path:
    """A file as the Hugging Face hub keeps it: a link into `blobs`."""
    repository = hub / "models--org--repo"
    blob = repository / "blobs" / sha
    if not blob.exists():
        gguf(blob)
    link = repository / "snapshots" / commit / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def test_hub_offers_the_commit_that_main_is_at(tmp_path: Path) -> None:
    hub = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    new = hub_file(hub, "new.gguf", "a")
    hub_file(hub, "old.gguf", "b", OLD_COMMIT)
    write(hub / "models--org--repo" / "blobs" / "c.incomplete", header(), 2 * MIB)
    write(hub / "models--org--repo" / "refs" / "main", COMMIT)
    assert [(file.name, file.path) for file in found(tmp_path)] == [("new", new)]


@pytest.mark.parametrize("main", [None, b"", b"0" * 40, b"\xff\xfe", b"a\x00b"])
def test_hub_without_a_main_offers_each_blob_once(main: bytes | None, tmp_path: Path) -> None:
    hub = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    for commit in (COMMIT, OLD_COMMIT):
        hub_file(hub, "m.gguf", "a", commit)
    if main is not None:
        write(hub / "models--org--repo" / "refs" / "main", main)
    assert named(tmp_path) == [("huggingface", "m")]


def layer(kind: str = "model", sha: str = SHA) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{sha}"}


def manifest(store: Path, tag: str, layers: Any) -> None:
    content = {"schemaVersion": 2, "config": {"digest": "sha256:aa"}, "layers": layers}
    write(store / "manifests" / tag, json.dumps(content))


OLLAMA = Path("home", ".ollama", "models")
LIBRARY = "registry.ollama.ai/library"


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        (f"{LIBRARY}/smollm2/135m", "smollm2:135m"),
        (f"{LIBRARY}/gemma3/latest", "gemma3:latest"),
        ("registry.ollama.ai/ada/mine/latest", "ada/mine:latest"),
        ("hf.co/bartowski/Foo-GGUF/Q4_K_M", "hf.co/bartowski/Foo-GGUF:Q4_K_M"),
        ("registry.example/library/m/v1", "registry.example/library/m:v1"),
    ],
)
def test_model_of_ollama_has_the_name_that_ollama_shows(
    tag: str, name: str, tmp_path: Path
) -> None:
    store = tmp_path / OLLAMA
    blob = gguf(store / "blobs" / f"sha256-{SHA}")
    manifest(store, tag, [layer("template", "dd"), layer(), layer("projector", "cc")])
    assert [(f.store, f.name, f.path) for f in found(tmp_path)] == [("ollama", name, blob)]


def test_store_of_ollama_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "big"))
    for store, sha in ((tmp_path / "big", "aa"), (tmp_path / OLLAMA, "bb")):
        gguf(store / "blobs" / f"sha256-{sha}")
        manifest(store, f"{LIBRARY}/m/{sha}", [layer(sha=sha)])
    assert named(tmp_path) == [("ollama", "m:aa")]


def test_two_tags_of_one_blob_are_one_model(tmp_path: Path) -> None:
    store = tmp_path / OLLAMA
    gguf(store / "blobs" / f"sha256-{SHA}")
    for tag in ("4b", "latest"):
        manifest(store, f"{LIBRARY}/gemma3/{tag}", [layer()])
    assert named(tmp_path) == [("ollama", "gemma3:4b")]


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param(None, id="cloud"),
        pytest.param([], id="none"),
        pytest.param([layer("adapter"), layer("template")], id="no model"),
        pytest.param([layer("tensor"), layer("json")], id="safetensors"),
        pytest.param([layer(sha="00" * 32)], id="blob is not there"),
        pytest.param([layer(sha="7e87")], id="blob is no GGUF"),
        pytest.param([{**layer(), "digest": "../../../../disk/m.gguf"}], id="leads elsewhere"),
        pytest.param([{"mediaType": "application/vnd.ollama.image.model"}], id="no digest"),
        pytest.param(["model", 5, None], id="layers are no objects"),
        pytest.param("layers", id="layers are a text"),
        pytest.param(5, id="layers are a number"),
        pytest.param(True, id="layers are a truth"),
    ],
)
def test_manifest_without_a_model_of_its_own(layers: Any, tmp_path: Path) -> None:
    store = tmp_path / OLLAMA
    gguf(store / "blobs" / "sha256-600d")
    gguf(tmp_path / "disk" / "m.gguf")
    write(store / "blobs" / "sha256-7e87", "{}", 2 * MIB)
    manifest(store, f"{LIBRARY}/a-bad-one/latest", layers)
    manifest(store, f"{LIBRARY}/good/latest", [layer(sha="600d")])
    assert model_names(tmp_path) == ["good:latest"]


def test_all_stores_in_one_scan_and_each_file_once(tmp_path: Path) -> None:
    gguf(tmp_path / "user" / "localrun" / "models" / "own.gguf")
    gguf(tmp_path / "disk" / "disk.gguf")
    shared = gguf(tmp_path / LMSTUDIO / "shared.gguf")
    hub = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    hub_link = hub_file(hub, "hub.gguf", "a")
    (tmp_path / "disk" / "link-to-hub.gguf").symlink_to(hub_link)
    (tmp_path / "disk" / "link-to-shared.gguf").symlink_to(shared)
    gguf(tmp_path / "home" / ".cache" / "llama.cpp" / "org_repo_cached.gguf")
    write(tmp_path / "home" / ".cache" / "llama.cpp" / "manifest=org=repo=latest.json", "{}")
    store = tmp_path / OLLAMA
    (store / "blobs").mkdir(parents=True)
    (store / "blobs" / f"sha256-{SHA}").symlink_to(shared)
    gguf(store / "blobs" / "sha256-bb")
    manifest(store, f"{LIBRARY}/also-shared/latest", [layer()])
    manifest(store, f"{LIBRARY}/smollm2/135m", [layer(sha="bb")])
    remember(gguf(tmp_path / "Downloads" / "remembered.gguf"))
    remember(shared)
    assert named(tmp_path, str(tmp_path / "disk")) == [
        ("localrun", "own"),
        ("folders", "disk"),
        ("folders", "link-to-hub"),
        ("folders", "link-to-shared"),
        ("llamacpp", "org_repo_cached"),
        ("ollama", "smollm2:135m"),
        ("files", "remembered"),
    ]


def test_remembered_files(tmp_path: Path) -> None:
    one, two = (gguf(tmp_path / name, size=1024) for name in ("one.gguf", "two.gguf"))
    for path in (one, two, one):
        remember(path)
    assert remembered() == [str(one), str(two)]
    one.unlink()
    assert named(tmp_path) == [("files", "two")]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ([1, 2, 3], [("Big-Q8_0", 6 * MIB)]),
        ([2, 3], []),
        ([1, 3], []),
        ([1, 2], []),
        ([1], []),
    ],
)
def test_split_file_needs_all_its_parts(
    present: list[int], expected: list[tuple[str, int]], tmp_path: Path
) -> None:
    for part in present:
        gguf(tmp_path / LMSTUDIO / f"Big-Q8_0-{part:05}-of-00003.gguf")
    gguf(tmp_path / LMSTUDIO / "elsewhere" / "Big-Q8_0-00004-of-00004.gguf")
    assert [(file.name, file.size) for file in found(tmp_path)] == expected
    assert model_names(tmp_path) == [name for name, _ in expected]


@pytest.mark.parametrize(
    "name",
    [
        "mmproj-F16.gguf",
        "mmproj-model-f16.gguf",
        "gemma-3-4b-it.mmproj-Q8_0.gguf",
        "gemma-3-4b-it-MMPROJ-f16.gguf",
        "Qwen3-8B-imatrix.gguf",
        "imatrix_unsloth.gguf",
        "mtp-glm.gguf",
        "eagle3-llama.gguf",
        "dflash-qwen.gguf",
        "dspark-qwen.gguf",
        "ggml-vocab-llama.gguf",
        "._model.gguf",
        "model.gguf.part",
        "model.gguf.incomplete",
        "model.gguf.part1of2",
        "model.gguf.download",
        "model.tmp",
        "model.bin",
        "model",
    ],
)
def test_name_that_is_no_models(name: str, tmp_path: Path) -> None:
    gguf(tmp_path / LMSTUDIO / name)
    gguf(tmp_path / LMSTUDIO / "real.GGUF")
    assert named(tmp_path) == [("lmstudio", "real.GGUF")]


LLAMA = field("general.architecture", "llama")


@pytest.mark.parametrize(
    ("data", "size"),
    [
        pytest.param(header(LLAMA), MIB - 1, id="too small"),
        pytest.param(b"", 0, id="empty"),
        pytest.param(b"A story about a model.\n", 2 * MIB, id="text"),
        pytest.param(b"", 2 * MIB, id="zeros"),
        pytest.param(b"GGUF", 2 * MIB, id="magic alone"),
        pytest.param(b"ggml" + bytes(20), 2 * MIB, id="older format"),
        pytest.param(b"GGUF" + struct.pack("<I", 99), 2 * MIB, id="unknown version"),
        pytest.param(header(), 2 * MIB, id="says nothing"),
        pytest.param(header(LLAMA, field("general.type", "adapter")), 2 * MIB, id="LoRA"),
        pytest.param(header(LLAMA, field("general.type", "mmproj")), 2 * MIB, id="projector"),
        pytest.param(header(field("general.architecture", "clip")), 2 * MIB, id="clip"),
        pytest.param(header(field("general.type", "imatrix")), 2 * MIB, id="matrix"),
        pytest.param(header(field("general.architecture", 7)), 2 * MIB, id="numbered"),
        pytest.param(header(LLAMA, string("k") + struct.pack("<I", 99)), 2 * MIB, id="new type"),
        pytest.param(
            header(LLAMA, string("k") + struct.pack("<IQ", 8, 2**63)), 2 * MIB, id="long text"
        ),
        pytest.param(
            header(LLAMA, string("k") + struct.pack("<IIQ", 9, 4, 2**31)), 2 * MIB, id="long list"
        ),
        pytest.param(
            header(LLAMA, string("k") + struct.pack("<IIQ", 9, 10, 2**63)),
            2 * MIB,
            id="list beyond all files",
        ),
        pytest.param(
            header(LLAMA, string("k") + struct.pack("<IIQ", 9, 9, 1)), 2 * MIB, id="nested list"
        ),
        pytest.param(struct.pack("<Q", 2**62) + header(LLAMA), 2 * MIB, id="shifted"),
        pytest.param(header(struct.pack("<Q", 2**62), count=1), 2 * MIB, id="long key"),
    ],
)
def test_content_that_is_no_model(data: bytes, size: int, tmp_path: Path) -> None:
    write(tmp_path / LMSTUDIO / "bad.gguf", data, size)
    gguf(tmp_path / LMSTUDIO / "good.gguf")
    assert model_names(tmp_path) == ["good"]


SIZES = ("8B", 8_000_000_000), ("135M", 135_000_000), ("8x7B", 56_000_000_000), ("E4B", 4 * 10**9)


@pytest.mark.parametrize(
    ("name", "architecture", "metadata", "facts"),
    [
        ("Qwen3-8B-Q4_K_M", "qwen3", {}, {"quantization": "Q4_K_M", "architecture": "qwen3"}),
        ("SmolLM2.Q4_1", "llama", {"general.file_type": 7}, {"quantization": "Q4_1"}),
        ("qwen3-ud-q4_k_xl", "qwen3", {"general.file_type": 15}, {"quantization": "UD-Q4_K_XL"}),
        ("model", "llama", {"general.file_type": 15}, {"quantization": "Q4_K_M"}),
        ("model", "llama", {"general.file_type": 15 + 1024}, {"quantization": "Q4_K_M"}),
        ("model", "llama", {"general.file_type": 999}, {"quantization": ""}),
        ("model", "llama", {"general.file_type": "Q4_K_M"}, {"quantization": ""}),
        ("model", "llama", {}, {"quantization": "", "parameters": None, "context_max": None}),
        ("model", "llama", {"llama.context_length": 8192}, {"context_max": 8192}),
        ("model", "llama", {"qwen3.context_length": 8192}, {"context_max": None}),
        *(
            ("model", "llama", {"general.size_label": label}, {"parameters": number})
            for label, number in SIZES
        ),
        ("model", "llama", {"general.size_label": "big"}, {"parameters": None}),
        ("model", "llama", {"general.size_label": "9" * 400 + "B"}, {"parameters": None}),
        *(
            ("model", architecture, {}, {"purpose": purpose})
            for architecture, purpose in [
                ("llama", "chat"),
                ("some-new-one", "chat"),
                ("bert", "embedding"),
                ("nomic-bert", "embedding"),
                ("nomic-bert-moe", "embedding"),
                ("jina-bert-v2", "embedding"),
                ("jina-bert-v3", "embedding"),
                ("gemma-embedding", "embedding"),
            ]
        ),
        ("model", "qwen3", {"qwen3.pooling_type": 3}, {"purpose": "embedding"}),
    ],
)
def test_what_name_and_header_say(
    name: str,
    architecture: str,
    metadata: dict[str, int | str],
    facts: dict[str, Any],
    tmp_path: Path,
) -> None:
    path = gguf(tmp_path / LMSTUDIO / f"{name}.gguf", metadata, architecture=architecture)
    (model,) = models(scan(found(tmp_path), []))
    always = {
        "id": f"local/gguf/{name}",
        "name": name,
        "path": str(path),
        "store": "lmstudio",
        "size": 2 * MIB,
        "modified": path.stat().st_mtime,
        "runs_on": "this machine",
        "endpoint": None,
        "loaded": None,
        "context_loaded": None,
    }
    expected = {**always, **facts}
    assert {field: getattr(model, field) for field in expected} == expected


def test_text_that_is_not_unicode_is_shown_as_well_as_can_be(tmp_path: Path) -> None:
    name = string("general.name") + struct.pack("<I", 8) + string(b"\xff\xfe")
    write(tmp_path / LMSTUDIO / "m.gguf", header(LLAMA, name), 2 * MIB)
    assert model_names(tmp_path) == ["m"]


def test_namesakes_have_ids_of_their_own(tmp_path: Path) -> None:
    folders = [tmp_path / LMSTUDIO, tmp_path / LMSTUDIO / "a", tmp_path / LMSTUDIO / "b"]
    paths = [gguf(folder / "m.gguf") for folder in folders]
    first = scan(found(tmp_path), [])
    ids = {model.path: model.id for model in models(first)}
    assert len({*ids.values()}) == 3
    assert ids[str(paths[0])] == "local/gguf/m"
    assert {model.name for model in models(first)} == {"m"}
    assert models(scan(found(tmp_path), first)) == models(first)
    assert models(scan(found(tmp_path), [])) == models(first)
    paths[1].unlink()
    without = {model.path: model.id for model in models(scan(found(tmp_path), []))}
    assert without == {str(path): ids[str(path)] for path in (paths[0], paths[2])}


@pytest.mark.parametrize("change", ["a namesake goes", "a namesake comes"])
def test_id_stays_when(change: str, tmp_path: Path) -> None:
    earlier = tmp_path / "user" / "localrun" / "models" / "m.gguf"
    file = gguf(tmp_path / LMSTUDIO / "m.gguf")
    if change == "a namesake goes":
        gguf(earlier)
    before = scan(found(tmp_path), [])
    if change == "a namesake goes":
        earlier.unlink()
    else:
        gguf(earlier)
    after = scan(found(tmp_path), before)
    first, second = (
        next(model.id for model in models(entries) if model.path == str(file))
        for entries in (before, after)
    )
    assert first == second


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file has been opened."""
    counter: Counter[str] = Counter()
    path_open = Path.open

    def counting(path: Path, *args: Any, **kwargs: Any) -> Any:
        counter[path.name] += 1
        return path_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counting)
    return counter


def test_unchanged_files_are_not_opened_again(tmp_path: Path, opened: Counter[str]) -> None:
    folder = tmp_path / LMSTUDIO
    for name in ("m.gguf", "Big-00001-of-00002.gguf", "Big-00002-of-00002.gguf"):
        gguf(folder / name)
    write(folder / "text.gguf", "Once upon a time", 2 * MIB)
    remember(gguf(tmp_path / "remembered.gguf"))
    opened.clear()
    first = scan(found(tmp_path), [])
    contents = {"m.gguf", "Big-00001-of-00002.gguf", "text.gguf", "remembered.gguf"}
    assert contents <= opened.keys()
    opened.clear()
    assert scan(found(tmp_path), first) == first
    assert contents & opened.keys() == set()


def test_unchanged_blobs_of_ollama_are_not_opened_again(
    tmp_path: Path, opened: Counter[str]
) -> None:
    store = tmp_path / OLLAMA
    blob = gguf(store / "blobs" / f"sha256-{SHA}")
    manifest(store, f"{LIBRARY}/m/latest", [layer()])
    first = scan(found(tmp_path), [])
    opened.clear()
    assert scan(found(tmp_path), first) == first
    assert opened[blob.name] == 0


@pytest.mark.parametrize("change", ["size", "time", "content and time"])
def test_changed_file_is_looked_into_again(change: str, tmp_path: Path) -> None:
    file = gguf(tmp_path / LMSTUDIO / "m.gguf", {"llama.context_length": 2048})
    first = scan(found(tmp_path), [])
    if change != "time":
        gguf(file, {"llama.context_length": 4096}, size=(3 if change == "size" else 2) * MIB)
    if change != "size":
        os.utime(file, (1e9, 1e9))
    (model,) = models(scan(found(tmp_path), first))
    assert model.context_max == (2048 if change == "time" else 4096)
    assert (model.size, model.modified) == (file.stat().st_size, file.stat().st_mtime)


def test_file_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    file = gguf(tmp_path / LMSTUDIO / "m.gguf")
    first = scan(found(tmp_path), [])
    file.unlink()
    assert scan(found(tmp_path), first) == []


def test_things_that_are_not_what_their_names_say(tmp_path: Path) -> None:
    folder = tmp_path / LMSTUDIO
    (folder / "folder.gguf").mkdir(parents=True)
    (folder / "dangling.gguf").symlink_to(tmp_path / "nowhere")
    (folder / "itself.gguf").symlink_to(folder / "itself.gguf")
    (folder / "round").symlink_to(folder, target_is_directory=True)
    gguf(folder / "good.gguf")
    assert named(tmp_path) == [("lmstudio", "good")]


STORES = (
    *("user/localrun/models", "home/.lmstudio", "home/.lmstudio/models", "home/.cache"),
    *("home/.cache/huggingface/hub", "home/.cache/llama.cpp", "home/.ollama/models"),
    *("home/.ollama/models/manifests", f"home/.ollama/models/manifests/{LIBRARY}"),
)


@pytest.mark.parametrize("instead", ["a file", "a dangling link", "a link to itself"])
@pytest.mark.parametrize("store", STORES)
def test_store_that_is_no_folder(store: str, instead: str, tmp_path: Path) -> None:
    place = tmp_path / store
    place.parent.mkdir(parents=True, exist_ok=True)
    if instead == "a file":
        place.write_text("not a folder")
    else:
        place.symlink_to(place if instead == "a link to itself" else tmp_path / "nowhere")
    gguf(tmp_path / "disk" / "good.gguf")
    assert named(tmp_path, str(tmp_path / "disk"), str(place)) == [("folders", "good")]


def test_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf(tmp_path / LMSTUDIO / "good.gguf")
    gguf(tmp_path / LMSTUDIO / "locked.gguf")
    path_open = Path.open

    def forbidding(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "locked.gguf":
            raise PermissionError(13, "Permission denied")
        return path_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", forbidding)
    assert model_names(tmp_path) == ["good"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"null",
        b"5",
        b'"text"',
        b"[]",
        b"[5, null, {}]",
        b"{}",
        b"[" * 100_000,
        b'{"downloadsFolder": 5, "layers": {}}',
        b'{"downloadsFolder": ["x"], "layers": [[]]}',
        b'{"downloadsFolder": "\\u0000"}',
        b'{"downloadsFolder": "\\ud800"}',
        b'{"downloadsFolder": "~nobody-of-this-name"}',
        b'["\\u0000", "\\ud800"]',
    ],
)
@pytest.mark.parametrize(
    "file",
    [
        "home/.lmstudio/settings.json",
        f"home/.ollama/models/manifests/{LIBRARY}/m/latest",
        "user/localrun/known-files.json",
    ],
)
def test_broken_json_of_any_program_is_no_error(file: str, content: bytes, tmp_path: Path) -> None:
    write(tmp_path / file, content)
    gguf(tmp_path / "user" / "localrun" / "models" / "good.gguf")
    assert named(tmp_path) == [("localrun", "good")]


@pytest.mark.parametrize("pointer", [b"", b"\n", b"\xff\xfe", b"\x00", b"relative"])
def test_broken_pointer_of_lmstudio_is_no_error(pointer: bytes, tmp_path: Path) -> None:
    write(tmp_path / "home" / ".lmstudio-home-pointer", pointer)
    gguf(tmp_path / "user" / "localrun" / "models" / "good.gguf")
    assert named(tmp_path) == [("localrun", "good")]


@pytest.mark.parametrize("folder", ["", "~nobody-of-this-name/models", "\x00", "a" * 5000])
def test_broken_folder_of_the_user_is_no_error(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "user")
    gguf(tmp_path / "user" / "localrun" / "models" / "good.gguf")
    assert named(tmp_path, folder) == [("localrun", "good")]


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS"])
def test_broken_variable_is_no_error(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "~nobody-of-this-name/models")
    gguf(tmp_path / "user" / "localrun" / "models" / "good.gguf")
    assert named(tmp_path) == [("localrun", "good")]


def test_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    gguf(tmp_path / "user" / "localrun" / "models" / "good.gguf")
    assert named(tmp_path) == [("localrun", "good")]
