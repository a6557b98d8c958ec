"""A scan of the stores: what is read of a file, when it is read again, which are the same."""

import builtins
import io
import json
import os
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.errors import BadModelFile
from llm_localrun.files import is_same, open_file, remember, scan
from llm_localrun.files.named import forget, remembered
from llm_localrun.gguf.header import Tensor
from llm_localrun.gguf.tensor_types import TensorType
from llm_localrun.models import LocalModel, ScannedFile, Snapshot
from tests.support.gguf_files import Value
from tests.support.gguf_files import write as write_gguf
from tests.support.models import file_route
from tests.support.trees import (
    LIBRARY,
    LLAMA,
    MIB,
    digest_of,
    field,
    gguf,
    header,
    hub_file,
    ollama_model,
    plant,
    projector,
    string,
    write,
)


def scanned(folder: Path, before: Iterable[ScannedFile] = ()) -> list[ScannedFile]:
    """What is found in a folder that the user has added."""
    entries = scan([str(folder)], Snapshot(files=tuple(before))).files
    return [entry for entry in entries if Path(entry.path).is_relative_to(folder)]


LLAMA_KEYS: dict[str, Value] = {"general.architecture": "llama"}


def models(entries: Iterable[ScannedFile]) -> list[LocalModel]:
    return [entry.model for entry in entries if entry.model is not None]


SIZES = ("8B", 8_000_000_000), ("135M", 135_000_000), ("8x7B", 56_000_000_000), ("E4B", 4 * 10**9)


PROJECTOR = "it is a projector, which lets another model see or hear"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"Once upon a time\n", "it does not begin with GGUF", id="text"),
        pytest.param(bytes(50), "it does not begin with GGUF", id="zeros"),
        pytest.param(b"GGUF" + bytes(50), "its version is 0; 2 and 3 are known", id="magic alone"),
        pytest.param(b"ggml" + bytes(20), "it does not begin with GGUF", id="older format"),
        pytest.param(header(), "its header names no architecture", id="says nothing"),
        pytest.param(
            header(LLAMA, field("general.type", "adapter")),
            "it is an adapter (LoRA) for another model",
            id="LoRA",
        ),
        pytest.param(header(LLAMA, field("general.type", "mmproj")), PROJECTOR, id="projector"),
        pytest.param(header(field("general.architecture", "clip")), PROJECTOR, id="clip"),
        pytest.param(
            header(field("general.type", "imatrix")), "it is an importance matrix", id="matrix"
        ),
        pytest.param(
            header(field("general.architecture", 7)),
            "its header names no architecture",
            id="numbered",
        ),
        pytest.param(
            header(field("general.architecture", "mllama")),
            "only Ollama's own engine knows its architecture, mllama",
            id="Ollama's own",
        ),
        pytest.param(
            header(field("general.architecture", "gemma3"), field("gemma3.vision.block_count", 27)),
            "its projector is inside it, which only Ollama's own engine loads",
            id="projector inside",
        ),
        pytest.param(
            header(LLAMA, string("k") + struct.pack("<I", 99)),
            "its header contains a value of the unknown type 99",
            id="new type",
        ),
        pytest.param(
            header(LLAMA, string("k") + struct.pack("<IIQ", 9, 9, 1)),
            "its header contains a value of the unknown type 9",
            id="nested list",
        ),
    ],
)
def test_content_that_is_no_model(data: bytes, reason: str, tmp_path: Path) -> None:
    write(tmp_path / "bad.gguf", data, 2 * MIB)
    gguf(tmp_path / "good.gguf")
    bad, good = scanned(tmp_path)
    assert (bad.model, bad.reason) == (None, reason)
    assert good.model is not None


# Names, architectures and keys in headers, and what each model is for.
PURPOSES: list[tuple[str, str, dict[str, Any], str]] = [
    ("model", "modern-bert", {}, "embedding"),
    ("model", "qwen3", {"qwen3.pooling_type": 0}, "chat"),
    *(("model", "qwen3", {"qwen3.pooling_type": kind}, "embedding") for kind in (1, 2, 3)),
    ("model", "qwen3", {"qwen3.pooling_type": 4}, "rerank"),
    ("model", "bert", {"bert.pooling_type": 4}, "rerank"),
    ("model", "qwen3", {"qwen3.pooling_type": 5}, "other"),
    ("model", "qwen3", {"llama.pooling_type": 4}, "chat"),
    # A head to classify, which embedding models may have besides their pooling.
    ("model", "bert", {"bert.classifier.output_labels": ["LABEL_0"]}, "rerank"),
    (
        "model",
        "bert",
        {"bert.pooling_type": 2, "bert.classifier.output_labels": ["LABEL_0"]},
        "embedding",
    ),
    # Only the name tells what many a reranker is.
    ("bge-reranker-v2-m3-Q8_0", "bert", {"bert.pooling_type": 2}, "rerank"),
    ("Qwen3-Reranker-0.6B", "qwen3", {}, "rerank"),
    ("model", "bert", {"general.name": "Bge Reranker V2 M3"}, "rerank"),
    ("model", "lfm2", {"lfm2.decision.type": "nimble"}, "decision"),
    ("model", "clef", {"clef.decision.type": "of the future", "clef.pooling_type": 1}, "decision"),
    ("rerank-nimble", "lfm2", {"lfm2.decision.type": "nimble"}, "decision"),
    ("model", "lfm2", {"llama.decision.type": "nimble"}, "chat"),
    ("decision-maker-8b", "llama", {}, "chat"),
]


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
        *(
            (name, architecture, keys, {"purpose": purpose})
            for name, architecture, keys, purpose in PURPOSES
        ),
    ],
)
def test_what_name_and_header_say(
    name: str,
    architecture: str,
    metadata: dict[str, int | str],
    facts: dict[str, Any],
    tmp_path: Path,
) -> None:
    path = gguf(tmp_path / f"{name}.gguf", metadata, architecture=architecture)
    (model,) = models(scanned(tmp_path))
    always = {
        "id": f"local/gguf/{name}",
        "name": name,
        "size": 2 * MIB,
        "modified": path.stat().st_mtime,
        "runs_on": "this machine",
        "served": None,
        "loaded": None,
        "context_loaded": None,
    }
    expected = {**always, **facts}
    assert {field: getattr(model, field) for field in expected} == expected
    assert (file_route(model).path, file_route(model).store) == (str(path), "folders")


def test_text_that_is_not_unicode_is_shown_as_well_as_can_be(tmp_path: Path) -> None:
    name = string("general.name") + struct.pack("<I", 8) + string(b"\xff\xfe")
    write(tmp_path / "m.gguf", header(LLAMA, name), 2 * MIB)
    assert [model.name for model in models(scanned(tmp_path))] == ["m"]


def test_namesakes_have_ids_of_their_own(tmp_path: Path) -> None:
    folders = [tmp_path, tmp_path / "a", tmp_path / "b"]
    paths = [gguf(folder / "m.gguf") for folder in folders]
    first = scanned(tmp_path)
    ids = {file_route(model).path: model.id for model in models(first)}
    assert len({*ids.values()}) == 3
    assert ids[str(paths[0])] == "local/gguf/m"
    assert {model.name for model in models(first)} == {"m"}
    assert models(scanned(tmp_path, first)) == models(first)
    assert models(scanned(tmp_path)) == models(first)
    paths[1].unlink()
    without = {file_route(model).path: model.id for model in models(scanned(tmp_path))}
    assert without == {str(path): ids[str(path)] for path in (paths[0], paths[2])}


@pytest.mark.parametrize("change", ["a namesake goes", "a namesake comes"])
def test_id_stays_when(change: str, tmp_path: Path) -> None:
    earlier = tmp_path / "user" / "localrun" / "models" / "m.gguf"
    file = gguf(tmp_path / "m.gguf")
    if change == "a namesake goes":
        gguf(earlier)
    before = scanned(tmp_path)
    if change == "a namesake goes":
        earlier.unlink()
    else:
        gguf(earlier)
    after = scanned(tmp_path, before)
    first, second = (
        next(model.id for model in models(entries) if file_route(model).path == str(file))
        for entries in (before, after)
    )
    assert first == second


def test_file_that_is_too_small(tmp_path: Path) -> None:
    gguf(tmp_path / "m.gguf", size=MIB - 1)
    assert [entry.reason for entry in scanned(tmp_path)] == ["it is smaller than a megabyte"]


# Files that are cut off.


def with_tensor(path: Path, missing: int = 0, keys: Mapping[str, Value] = LLAMA_KEYS) -> Path:
    """A file of 4 MiB that lacks its last `missing` bytes."""
    write_gguf(path, keys, [Tensor("token_embd.weight", (MIB,), TensorType.F32, 0)], {})
    os.truncate(path, path.stat().st_size - missing)
    return path


def problems(entries: Iterable[ScannedFile]) -> list[str]:
    return [file_route(model).problem for model in models(entries)]


def test_file_that_is_cut_off_is_listed_with_that_problem(
    tmp_path: Path, opened: Counter[str]
) -> None:
    path = with_tensor(tmp_path / "m.gguf", missing=MIB)
    size = path.stat().st_size
    first = scanned(tmp_path)
    assert problems(first) == [f"it is cut off: {size:,} bytes of at least {size + MIB:,}"]
    opened.clear()
    assert scanned(tmp_path, first) == first
    assert opened[str(path)] == 0
    with_tensor(path)
    again = scanned(tmp_path, first)
    assert problems(again) == [""]
    assert [model.id for model in models(again)] == [model.id for model in models(first)]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_part_of_a_split_file_must_be_whole(tmp_path: Path, number: int) -> None:
    paths = [tmp_path / f"Big-0000{each}-of-00003.gguf" for each in (1, 2, 3)]
    for each, path in enumerate(paths, 1):
        with_tensor(path, int(each == number), LLAMA_KEYS if each == 1 else {"split.no": each})
    size = paths[number - 1].stat().st_size
    cut = f"it is cut off: {size:,} bytes of at least {size + 1:,}"
    part = "" if number == 1 else f"one of its parts is damaged: {paths[number - 1].name}: "
    assert problems(scanned(tmp_path)) == [part + cut]


@pytest.mark.parametrize("missing", [1, MIB, 4 * MIB])
def test_path_of_a_file_that_is_cut_off(tmp_path: Path, missing: int) -> None:
    path = with_tensor(tmp_path / "m.gguf", missing)
    with pytest.raises(BadModelFile) as caught:
        open_file(path)
    size = path.stat().st_size
    assert str(caught.value) == (
        f"{path} cannot be run: it is cut off: {size:,} bytes of at least {size + missing:,}."
        " Download it again, or choose another file."
    )


# When a file is read again.


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file has been opened."""
    counter: Counter[str] = Counter()
    real_open = builtins.open

    def counting(file: Any, *args: Any, **kwargs: Any) -> Any:
        counter[str(file)] += 1
        return real_open(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", counting)
    monkeypatch.setattr(io, "open", counting)
    return counter


def test_unchanged_files_are_not_opened_again(tmp_path: Path, opened: Counter[str]) -> None:
    """Neither models, nor manifests of Ollama's, nor what turned out to be no model."""
    planted = plant(tmp_path)
    split = [gguf(tmp_path / "disk" / f"Big-0000{part}-of-00002.gguf") for part in (1, 2)]
    text = write(tmp_path / "disk" / "text.gguf", "Once upon a time", 2 * MIB)
    named = gguf(tmp_path / "Downloads" / "named.gguf")
    remember(named)
    opened.clear()
    first = scan([str(tmp_path / "disk")], Snapshot())
    files = {str(path) for path in (*(plan.path for plan in planted), split[0], text, named)}
    manifests = {str(path) for path in tmp_path.glob("home/.ollama/models/manifests/*/*/*/*")}
    assert files | manifests <= opened.keys()
    opened.clear()
    assert scan([str(tmp_path / "disk")], first) is first
    assert not (files | manifests) & opened.keys()
    # One that is new does not make the others be opened.
    new = gguf(tmp_path / "disk" / "new.gguf")
    again = scan([str(tmp_path / "disk")], first)
    assert files & opened.keys() == set()
    assert str(new) in opened
    assert [entry for entry in again.files if entry.path != str(new)] == [*first.files]


@pytest.mark.parametrize("change", ["size", "time", "content and time"])
def test_changed_file_is_looked_into_again(change: str, tmp_path: Path) -> None:
    file = gguf(tmp_path / "m.gguf", {"llama.context_length": 2048})
    first = scanned(tmp_path)
    if change != "time":
        gguf(file, {"llama.context_length": 4096}, size=(3 if change == "size" else 2) * MIB)
    if change != "size":
        os.utime(file, (1e9, 1e9))
    (model,) = models(scanned(tmp_path, first))
    assert model.context_max == (2048 if change == "time" else 4096)
    assert (model.size, model.modified) == (file.stat().st_size, file.stat().st_mtime)


def test_file_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    file = gguf(tmp_path / "m.gguf")
    first = scanned(tmp_path)
    file.unlink()
    assert scanned(tmp_path, first) == []


def test_file_that_could_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions are mended without the file's time changing."""
    gguf(tmp_path / "m.gguf")
    real_open = builtins.open

    def forbidding(file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(file).endswith("m.gguf"):
            raise PermissionError(13, "Permission denied")
        return real_open(file, *args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(builtins, "open", forbidding)
        first = scanned(tmp_path)
    assert [entry.reason for entry in first] == ["it cannot be read: Permission denied"]
    assert [model.name for model in models(scanned(tmp_path, first))] == ["m"]


def test_part_that_comes_later(tmp_path: Path) -> None:
    gguf(tmp_path / "Big-00001-of-00002.gguf")
    first = scanned(tmp_path)
    assert models(first) == []
    gguf(tmp_path / "Big-00002-of-00002.gguf")
    (model,) = models(scanned(tmp_path, first))
    assert (model.name, model.size) == ("Big", 4 * MIB)


def test_folder_that_is_no_longer_the_users_is_its_tools_again(tmp_path: Path) -> None:
    folder = tmp_path / "home" / ".lmstudio" / "models" / "org" / "repo"
    gguf(folder / "m-Q8_0.gguf")
    first = scanned(folder)
    again = scan([], Snapshot(files=tuple(first))).files
    assert [file_route(model).store for model in models((*first, *again))] == [
        "folders",
        "lmstudio",
    ]
    assert "hf:org/repo:Q8_0" in models(again)[0].fingerprints


# Ollama's manifests.


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".ollama" / "models"


def in_stores(before: Iterable[ScannedFile] = ()) -> list[ScannedFile]:
    return [*scan([], Snapshot(files=tuple(before))).files]


def test_manifest_that_has_changed_is_read_again(store: Path) -> None:
    written = ollama_model(store, f"{LIBRARY}/m/latest", template="{{ .Prompt }}")
    first = in_stores()
    assert is_same(first[0])
    os.utime(written, (1e9, 1e9))
    assert not is_same(first[0])
    ollama_again = written.read_text().replace('"schemaVersion": 2', '"schemaVersion":  2')
    write(written, ollama_again)
    (model,) = models(in_stores(first))
    assert f"ollama:{digest_of(written)}" in model.fingerprints
    assert model.id == models(first)[0].id


@pytest.mark.parametrize(
    ("template", "capabilities"),
    [
        ("{{ .Prompt }}", ()),
        ("{{ if .Tools }}{{ .Tools }}{{ end }}", ("tools",)),
        ("{{ .Thinking }}{{ .Tools }}", ("tools", "thinking")),
        (None, ("tools", "thinking")),
    ],
)
def test_what_a_model_of_ollama_can_do(
    template: str | None, capabilities: tuple[str, ...], store: Path, tmp_path: Path
) -> None:
    """Its own template stands before the one in the file."""
    own = {"tokenizer.chat_template": "{% if tools %}<think>{% endif %}"}
    weights = gguf(tmp_path / "weights", own)
    layers = {} if template is None else {"template": template}
    ollama_model(store, f"{LIBRARY}/m/latest", weights, {}, **layers)
    (model,) = models(in_stores())
    assert model.capabilities == capabilities


# Files that are the same.

Link = Callable[[Path, Path], None]
LINKS: dict[str, Link] = {
    "linked": lambda new, old: new.symlink_to(old),
    "hard-linked": lambda new, old: new.hardlink_to(old),
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_file_of_two_stores_is_one_with_the_marks_of_both(
    link: Link, store: Path, tmp_path: Path
) -> None:
    """As the tools do that share Ollama's blobs with LM Studio."""
    tag = f"{LIBRARY}/qwen3/8b"
    written = ollama_model(store, tag, template="{{ .Prompt }}{{ .Tools }}")
    (blob,) = (path for path in store.glob("blobs/*") if path.stat().st_size > MIB)
    shared = tmp_path / "home/.lmstudio/models/org/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"
    shared.parent.mkdir(parents=True)
    link(shared, blob)
    first = in_stores()
    (model,) = models(first)
    assert (file_route(model).store, model.name, file_route(model).path) == (
        "lmstudio",
        shared.stem,
        str(shared),
    )
    assert {
        f"ollama:{digest_of(written)}",
        f"size:{2 * MIB}:Q4_K_M",
        "hf:org/qwen3-8b-gguf:Q4_K_M",
    } <= set(model.fingerprints)
    assert (file_route(model).manifest, model.capabilities) == (str(written), ("tools",))
    assert is_same(first[0])
    again = in_stores(first)
    assert [entry is last for entry, last in zip(again, first, strict=True)] == [True]


def test_link_that_comes_later_joins(store: Path, tmp_path: Path) -> None:
    shared = gguf(tmp_path / "home/.lmstudio/models/org/repo/m-Q4_K_M.gguf")
    first = in_stores()
    written = ollama_model(store, f"{LIBRARY}/m/latest", shared, system="Be brief.")
    (model,) = models(in_stores(first))
    assert (model.id, model.name) == ("local/gguf/m-Q4_K_M", "m-Q4_K_M")
    assert file_route(model).manifest == str(written)
    assert f"ollama:{digest_of(written)}" in model.fingerprints


def test_blob_of_several_snapshots_and_links_is_one(tmp_path: Path) -> None:
    hub = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    first = hub_file(hub, "m.gguf", "a")
    hub_file(hub, "renamed.gguf", "a", "e" * 40)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "link.gguf").symlink_to(first)
    entries = scan([str(tmp_path / "disk")], Snapshot()).files
    (model,) = models(entries)
    assert (file_route(model).store, model.name) == ("folders", "link")
    assert {f"path:{first.resolve()}", "hf:org/repo:Q8_0"} & set(model.fingerprints) == {
        f"path:{first.resolve()}"
    }
    assert {"name:huggingface:m.gguf", "name:huggingface:renamed.gguf"} <= set(model.fingerprints)


def test_projector_of_ollama_goes_with_its_model(store: Path) -> None:
    sees = projector(store / "blobs" / "sha256-cc")
    tag = ollama_model(store, f"{LIBRARY}/llava/latest")
    manifest = json.loads(tag.read_text())
    projectors = {"mediaType": "application/vnd.ollama.image.projector", "digest": "sha256:cc"}
    write(tag, json.dumps({**manifest, "layers": [*manifest["layers"], projectors]}))
    (model,) = models(in_stores())
    assert (file_route(model).projector, model.capabilities) == (str(sees), ("vision",))


# Files that users have named.


def test_remembered_files(tmp_path: Path) -> None:
    one, two = (gguf(tmp_path / name, size=1024) for name in ("one.gguf", "two.gguf"))
    for path in (one, two, one):
        remember(path)
    assert remembered() == [str(one), str(two)]
    one.unlink()
    assert [(file_route(model).store, model.name) for model in models(in_stores())] == [
        ("files", "two")
    ]


def test_forgotten_file_is_found_no_more(tmp_path: Path) -> None:
    one, two = (gguf(tmp_path / name) for name in ("one.gguf", "two.gguf"))
    for path in (one, two):
        remember(path)
    forget(str(one))
    assert remembered() == [str(two)]
    assert [model.name for model in models(in_stores())] == ["two"]


def test_named_file_that_is_in_a_store_too_counts_as_in_that_store(tmp_path: Path) -> None:
    path = gguf(tmp_path / "disk" / "m.gguf")
    remember(path)
    (model,) = models(scan([str(tmp_path / "disk")], Snapshot()).files)
    assert file_route(model).store == "folders"


def test_files_remembered_at_once_are_all_kept(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.gguf" for number in range(20)]
    threads = [threading.Thread(target=remember, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(remembered()) == sorted(map(str, paths))
    files = {path.name for path in (tmp_path / "user" / "localrun").iterdir()}
    assert files == {"config.json", "known-files.json"}
