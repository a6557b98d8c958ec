"""Finding GGUF files in every tool's store, on every system, whatever lies in the way."""

import codecs
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import files
from llm_localrun.files import scan, variables
from llm_localrun.files.base import store_folders, stores
from llm_localrun.files.found import with_stem
from llm_localrun.models import LocalModel, ScannedFile, ScannedStore, Snapshot
from tests.support.models import file_route
from tests.support.trees import (
    COMMIT,
    LIBRARY,
    LLAMA,
    MIB,
    OLD_COMMIT,
    digest_of,
    docker_model,
    gguf,
    header,
    hub_file,
    jan_model,
    layer,
    llm_gguf_index,
    manifest,
    ollama_model,
    plant,
    projector,
    ramalama_model,
    write,
)


def entries(below: Path, *folders: str) -> list[ScannedFile]:
    """What is found `below`: the machine that runs the tests may have models of its own."""
    found = scan(folders, Snapshot()).files
    return [entry for entry in found if Path(entry.path).is_relative_to(below)]


def models(found: Iterable[ScannedFile]) -> list[LocalModel]:
    return [entry.model for entry in found if entry.model is not None]


def named(below: Path, *folders: str) -> list[tuple[str, str]]:
    return [(file_route(model).store, model.name) for model in models(entries(below, *folders))]


def refused(below: Path, *folders: str) -> dict[str, str]:
    """Why files hold no model, by their names."""
    found = entries(below, *folders)
    return {Path(entry.path).name: entry.reason for entry in found if entry.model is None}


def report_on(store: str, *folders: str) -> ScannedStore:
    reports = scan(folders, Snapshot()).stores
    return next(report for report in reports if report.store == store)


def test_every_store_in_one_scan(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    found = models(entries(tmp_path))
    assert [(file_route(m).store, file_route(m).path, m.name) for m in found] == [
        (p.store, str(p.path), p.name) for p in planted
    ]
    for plan, model in zip(planted, found, strict=True):
        assert set(plan.fingerprints) | {f"path:{plan.path.resolve()}"} <= set(model.fingerprints)
    assert refused(tmp_path) == {
        "mmproj-model-f16.gguf": "it is a projector, which lets another model see or hear",
        "120b-cloud": "it runs at https://ollama.com: no weights are here",
    }


def test_report_on_every_store(tmp_path: Path) -> None:
    stores = [planted.store for planted in plant(tmp_path)]
    reports = scan([], Snapshot()).stores
    read = {report.store: report for report in reports if report.status == "read"}
    assert set(stores) <= set(read)
    assert all(report.problem == "" for report in reports)
    # The cloud's stub is one of Ollama's, the projector one of LM Studio's.
    assert (read["ollama"].files, read["lmstudio"].files, read["jan"].files) == (4, 3, 1)
    assert report_on("lemonade").status == "missing"


# Where each tool keeps its models.


@pytest.mark.parametrize(
    ("system", "store", "path"),
    [
        *(
            (system, store, path)
            for system in ("linux", "darwin", "win32")
            for store, path in (
                ("localrun", "user/localrun/models"),
                ("lmstudio", "home/.lmstudio/models"),
                ("huggingface", "home/.cache/huggingface/hub"),
                ("ollama", "home/.ollama/models"),
                ("gpt4all", "home/.cache/gpt4all"),
                ("llm-gguf", "user/gguf"),
                ("docker", "home/.docker/models"),
                ("ramalama", "home/.local/share/ramalama"),
                ("lemonade", "home/.cache/lemonade"),
                ("models", "home/models"),
                ("jan", "home/jan"),
            )
        ),
        ("linux", "llamacpp", "home/.cache/llama.cpp"),
        ("darwin", "llamacpp", "home/Library/Caches/llama.cpp"),
        ("win32", "llamacpp", "home/AppData/Local/llama.cpp"),
        ("linux", "gpt4all", "home/.local/share/nomic.ai/GPT4All"),
        ("darwin", "gpt4all", "home/Library/Application Support/nomic.ai/GPT4All"),
        ("win32", "gpt4all", "home/AppData/Local/nomic.ai/GPT4All"),
        ("linux", "jan", "home/.local/share/Jan/data"),
        ("linux", "jan", "home/.config/Jan/data"),
        ("darwin", "jan", "home/Library/Application Support/Jan/data"),
        ("win32", "jan", "home/AppData/Roaming/Jan/data"),
        ("linux", "msty", "home/.config/MstyStudio/models"),
        ("darwin", "msty", "home/Library/Application Support/MstyStudio/models"),
        ("win32", "msty", "home/AppData/Roaming/MstyStudio/models"),
        ("linux", "models", "home/Models"),
    ],
)
def test_place(
    system: str, store: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert (store, tmp_path / path) in [
        (folder.store.name, folder.path) for folder in store_folders([])
    ]


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (
            "linux",
            {
                ("ollama", "/usr/share/ollama/.ollama/models"),
                ("ollama", "/var/lib/ollama/.ollama/models"),
                ("ramalama", "/var/lib/ramalama"),
                ("models", "/models"),
            },
        ),
        ("darwin", {("models", "/models")}),
        ("win32", {("models", "D:/models")}),
    ],
)
def test_places_outside_of_the_home(
    system: str,
    expected: set[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    outside = {
        (folder.store.name, str(folder.path))
        for folder in store_folders([])
        if not folder.path.is_relative_to(tmp_path)
    }
    assert outside == expected


@pytest.mark.parametrize(
    ("variable", "store", "path"),
    [
        ("OLLAMA_MODELS", "ollama", "x"),
        ("HF_HUB_CACHE", "huggingface", "x"),
        ("HUGGINGFACE_HUB_CACHE", "huggingface", "x"),
        ("HF_HOME", "huggingface", "x/hub"),
        ("XDG_CACHE_HOME", "huggingface", "x/huggingface/hub"),
        ("XDG_CACHE_HOME", "llamacpp", "x/llama.cpp"),
        ("LLAMA_CACHE", "llamacpp", "x"),
        ("XDG_DATA_HOME", "gpt4all", "x/nomic.ai/GPT4All"),
        ("XDG_DATA_HOME", "jan", "x/Jan/data"),
        ("JAN_DATA_FOLDER", "jan", "x"),
        ("XDG_CONFIG_HOME", "msty", "x/MstyStudio/models"),
        ("MODELS_PATH", "docker", "x"),
        ("RAMALAMA_STORE", "ramalama", "x"),
    ],
)
def test_variable_says_where(
    variable: str, store: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv(variable, str(tmp_path / "x"))
    found = [folder.path for folder in store_folders([]) if folder.store.name == store]
    assert found[0] == tmp_path / path


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"),
        ("HUGGINGFACE_HUB_CACHE", "HF_HOME"),
        ("HF_HOME", "XDG_CACHE_HOME"),
    ],
)
def test_variables_of_the_hub_have_an_order(
    earlier: str, later: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(earlier, str(tmp_path / "x"))
    monkeypatch.setenv(later, str(tmp_path / "y"))
    (folder,) = (folder for folder in store_folders([]) if folder.store.name == "huggingface")
    assert folder.path.is_relative_to(tmp_path / "x")


@pytest.mark.parametrize(
    ("store", "file", "settings"),
    [
        ("gpt4all", ".config/nomic.ai/GPT4All.ini", "[General]\nmodelPath={path}\nfontSize=1\n"),
        ("gpt4all", ".config/nomic.ai/GPT4All.ini", '[General]\nmodelPath="{path}"\n'),
        ("jan", ".local/share/Jan/settings.json", '{"data_folder": "{path}"}'),
        ("jan", ".config/Jan/settings.json", '{"data_folder": "{path}", "more": 1}'),
        (
            "msty",
            ".config/MstyStudio/Gifnoc.nosj",
            '{"localAIService": {"host": "127.0.0.1", "modelsPath": "{path}"}}',
        ),
        ("lmstudio", ".lmstudio/settings.json", '{"downloadsFolder": "{path}"}'),
        ("lmstudio", ".lmstudio/settings.json", '\ufeff{"downloadsFolder": "{path}"}'),
        ("lmstudio", ".cache/lm-studio/settings.json", '{"downloadsFolder": "{path}"}'),
    ],
)
def test_settings_say_where(store: str, file: str, settings: str, tmp_path: Path) -> None:
    chosen = str(tmp_path / "chosen folder")
    write(tmp_path / "home" / file, settings.replace("{path}", chosen))
    assert chosen in [
        str(folder.path) for folder in store_folders([]) if folder.store.name == store
    ]


def test_folder_that_two_names_lead_to_is_looked_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf(tmp_path / "disk" / "m.gguf")
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "disk"))
    assert named(tmp_path, str(tmp_path / "link")) == [("folders", "m")]
    reports = scan([str(tmp_path / "link")], Snapshot()).stores
    assert "llamacpp" not in [report.store for report in reports]


LMSTUDIO = "home/.lmstudio/models/org/repo"


@pytest.mark.parametrize(
    ("file", "store"),
    [
        ("user/localrun/models/a/b/m.gguf", "localrun"),
        (f"{LMSTUDIO}/m.gguf", "lmstudio"),
        ("home/.cache/lm-studio/models/org/repo/m.gguf", "lmstudio"),
        (
            f"home/.cache/huggingface/hub/models--o--r/snapshots/{COMMIT}/UD-Q4_K_XL/m.gguf",
            "huggingface",
        ),
        ("home/.cache/llama.cpp/m.gguf", "llamacpp"),
        # Newer ones keep what they fetch as the Hugging Face hub does.
        (f"home/.cache/llama.cpp/models--o--r/snapshots/{COMMIT}/m.gguf", "llamacpp"),
        ("home/.local/share/Jan/data/models/m/m.gguf", "jan"),
        ("user/gguf/models/m.gguf", "llm-gguf"),
        ("home/models/a/b/c/m.gguf", "models"),
    ],
)
def test_store_is_looked_through(file: str, store: str, tmp_path: Path) -> None:
    gguf(tmp_path / file)
    (model,) = models(entries(tmp_path))
    assert (file_route(model).store, model.name, file_route(model).path) == (
        store,
        "m",
        str(tmp_path / file),
    )


def test_no_store_at_all(tmp_path: Path) -> None:
    assert entries(tmp_path) == []


def test_folders_of_the_user(tmp_path: Path) -> None:
    gguf(tmp_path / "disk" / "a.gguf")
    gguf(tmp_path / "home" / "mine" / "b.gguf")
    folders = (str(tmp_path / "disk"), "~/mine", str(tmp_path / "missing"))
    assert named(tmp_path, *folders) == [("folders", "a"), ("folders", "b")]


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        (b'{"downloadsFolder": "%s"}', "another folder"),
        (codecs.BOM_UTF8 + b'{"downloadsFolder": "%s"}', "another folder"),
        (b'{"downloadsFolder": ""}', "home/.lmstudio/models"),
        (b'{"downloadsFolder": null}', "home/.lmstudio/models"),
        (b'{"language": "de"}', "home/.lmstudio/models"),
    ],
)
def test_settings_of_lmstudio(settings: bytes, folder: str, tmp_path: Path) -> None:
    chosen = settings.replace(b"%s", os.fsencode(tmp_path / "another folder"))
    write(tmp_path / "home" / ".lmstudio" / "settings.json", chosen)
    gguf(tmp_path / folder / "org" / "repo" / "m.gguf")
    assert named(tmp_path) == [("lmstudio", "m")]


def test_pointer_to_the_home_of_lmstudio(tmp_path: Path) -> None:
    write(tmp_path / "home" / ".lmstudio-home-pointer", f"{tmp_path / 'moved'}\n")
    gguf(tmp_path / LMSTUDIO / "left-behind.gguf")
    gguf(tmp_path / "moved" / "models" / "org" / "repo" / "m.gguf")
    assert named(tmp_path) == [("lmstudio", "m")]


@pytest.mark.parametrize("main", [None, b"", b"0" * 40, b"\xff\xfe", b"a\x00b"])
def test_hub_without_a_main_offers_each_blob_once(main: bytes | None, tmp_path: Path) -> None:
    hub = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    for commit in (COMMIT, OLD_COMMIT):
        hub_file(hub, "m.gguf", "a", commit)
    if main is not None:
        write(hub / "models--org--repo" / "refs" / "main", main)
    assert named(tmp_path) == [("huggingface", "m")]


def test_hub_keeps_what_only_an_older_commit_has(tmp_path: Path) -> None:
    hub = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    new = hub_file(hub, "m-Q8_0.gguf", "a")
    hub_file(hub, "m-Q8_0.gguf", "b", OLD_COMMIT)
    old = hub_file(hub, "m-Q4_K_M.gguf", "c", OLD_COMMIT)
    write(hub / "models--org--repo" / "blobs" / "d.incomplete", header(), 2 * MIB)
    write(hub / "models--org--repo" / "refs" / "main", COMMIT)
    write(hub / "version.txt", "1")
    found = {file_route(model).path: model.fingerprints[-1] for model in models(entries(tmp_path))}
    assert found == {str(new): "hf:org/repo:Q8_0", str(old): "hf:org/repo:Q4_K_M"}


@pytest.mark.parametrize(
    ("folder", "mark"),
    [
        ("models--unsloth--Qwen3-8B-GGUF", "hf:unsloth/qwen3-8b-gguf:Q4_K_M"),
        ("models--a--b--c", "hf:a/b--c:Q4_K_M"),
        ("models--gpt2", "hf:gpt2/:Q4_K_M"),
    ],
)
def test_repository_of_the_hub(folder: str, mark: str, tmp_path: Path) -> None:
    hub = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    gguf(hub / folder / "snapshots" / COMMIT / "m-q4_k_m.gguf")
    gguf(hub / folder.replace("models--", "datasets--") / "snapshots" / COMMIT / "m.gguf")
    (model,) = models(entries(tmp_path))
    assert mark in model.fingerprints


OLLAMA = Path("home", ".ollama", "models")


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
    written = ollama_model(tmp_path / OLLAMA, tag, template="{{ .Prompt }}")
    (model,) = models(entries(tmp_path))
    assert (file_route(model).store, model.name, file_route(model).manifest) == (
        "ollama",
        name,
        str(written),
    )
    assert f"ollama:{digest_of(written)}" in model.fingerprints


def test_several_tags_of_ollama_for_one_blob(tmp_path: Path) -> None:
    """Tags that are alike are one model; one that is run in another way is another."""
    store = tmp_path / OLLAMA
    first = ollama_model(store, f"{LIBRARY}/gemma3/4b", template="{{ .Prompt }}")
    content = json.loads(first.read_text())
    write(store / "manifests" / LIBRARY / "gemma3" / "latest", first.read_text())
    content["layers"] = [*content["layers"], layer("system", "5e")]
    write(store / "manifests" / LIBRARY / "pirate" / "latest", json.dumps(content))
    found = models(entries(tmp_path))
    assert [model.name for model in found] == ["gemma3:4b", "pirate:latest"]
    assert len({file_route(model).path for model in found}) == 1
    assert len({model.id for model in found}) == 2
    fingerprints = [[mark for mark in model.fingerprints if "ollama:" in mark] for model in found]
    assert [len(each) for each in fingerprints] == [1, 1]
    assert fingerprints[0] != fingerprints[1]


@pytest.mark.parametrize(
    ("layers", "config", "reason"),
    [
        pytest.param(
            None,
            {"remote_host": "https://ollama.com:443"},
            "it runs at https://ollama.com:443: no weights are here",
            id="cloud",
        ),
        pytest.param(None, {}, "its manifest names no weights", id="null"),
        pytest.param([], {}, "its manifest names no weights", id="none"),
        pytest.param(
            [layer("adapter"), layer("template")],
            {},
            "its manifest names no weights",
            id="no model",
        ),
        pytest.param(
            [layer("tensor"), layer("json")],
            {"model_format": "safetensors"},
            "its weights are safetensors, which llama.cpp does not load",
            id="safetensors",
        ),
        pytest.param(
            [layer(), layer(sha="600d")],
            {},
            "its weights are in several blobs, which llama.cpp does not join",
            id="several",
        ),
        pytest.param([layer(sha="00")], {}, "its blob is missing: pull it again", id="no blob"),
        pytest.param([layer(sha="7e87")], {}, "it does not begin with GGUF", id="no GGUF"),
        pytest.param(
            [{**layer(), "digest": "../../../../disk/m.gguf"}],
            {},
            "its blob is missing: pull it again",
            id="leads elsewhere",
        ),
        pytest.param(
            [{"mediaType": "application/vnd.ollama.image.model"}],
            {},
            "its blob is missing: pull it again",
            id="no digest",
        ),
        *(
            pytest.param(layers, {}, "its manifest names no weights", id=str(layers))
            for layers in (["model", 5, None], "layers", 5, True)
        ),
    ],
)
def test_model_of_ollama_that_cannot_be_run_here(
    layers: Any, config: dict[str, str], reason: str, tmp_path: Path
) -> None:
    store = tmp_path / OLLAMA
    gguf(store / "blobs" / "sha256-600d")
    gguf(tmp_path / "disk" / "m.gguf")
    write(store / "blobs" / "sha256-7e87", "{}", 2 * MIB)
    manifest(store, f"{LIBRARY}/a-bad-one/latest", layers, config)
    manifest(store, f"{LIBRARY}/good/latest", [layer(sha="600d")])
    assert named(tmp_path) == [("ollama", "good:latest")]
    assert [*refused(tmp_path).values()] == [reason]


@pytest.mark.parametrize("content", ["", "{", '{"schemaVersion": 2, "layers": [{"mediaT', "\x00"])
def test_manifest_that_is_cut_off(content: str, tmp_path: Path) -> None:
    write(tmp_path / OLLAMA / "manifests" / LIBRARY / "m" / "latest", content)
    assert refused(tmp_path) == {"latest": "its manifest cannot be read"}


def test_what_else_lies_in_a_store_of_ollama(tmp_path: Path) -> None:
    store = tmp_path / OLLAMA
    ollama_model(store, f"{LIBRARY}/good/latest")
    write(store / "manifests" / LIBRARY / "good" / ".DS_Store", "")
    write(store / "manifests" / ".DS_Store", "")
    write(store / "blobs" / "sha256-ab-partial-0", header(LLAMA), 2 * MIB)
    gguf(store / "manifests" / LIBRARY / "deep" / "er" / "latest")
    assert named(tmp_path) == [("ollama", "good:latest")]


# Docker Model Runner, Jan, RamaLama, llm-gguf.

DOCKER = Path("home", ".docker", "models")


@pytest.mark.parametrize(
    ("tags", "name", "fingerprints"),
    [
        (["docker.io/ai/gemma3:4B-Q4_K_M"], "ai/gemma3:4B-Q4_K_M", ["ai/gemma3:4B-Q4_K_M"]),
        (["index.docker.io/ai/gemma3:latest"], "ai/gemma3:latest", ["ai/gemma3:latest"]),
        (["ai/m:latest", "ai/m:7B"], "ai/m:latest", ["ai/m:latest", "ai/m:7B"]),
        (
            ["hf.co/unsloth/m-GGUF:Q4_K_M"],
            "hf.co/unsloth/m-GGUF:Q4_K_M",
            ["hf.co/unsloth/m-GGUF:Q4_K_M"],
        ),
    ],
)
def test_model_of_docker(
    tags: list[str], name: str, fingerprints: list[str], tmp_path: Path
) -> None:
    weights, sees = docker_model(tmp_path / DOCKER, *tags, kinds=("gguf.v3", "mmproj"))
    docker_model(tmp_path / DOCKER, kinds=("gguf.v3",))
    (model,) = models(entries(tmp_path))
    assert (file_route(model).store, model.name, file_route(model).path) == (
        "docker",
        name,
        str(weights),
    )
    assert file_route(model).projector == str(sees)
    assert model.can("vision", if_unknown=False)
    assert set(model.fingerprints) == {
        f"path:{weights}",
        *(f"docker:{mark}" for mark in fingerprints),
    }


@pytest.mark.parametrize(
    ("kinds", "reasons"),
    [
        (("safetensors",), []),
        (
            ("gguf.v3", "gguf.v3"),
            ["its weights are in several blobs, which llama.cpp does not join"],
        ),
    ],
)
def test_model_of_docker_that_cannot_be_run(
    kinds: tuple[str, ...], reasons: list[str], tmp_path: Path
) -> None:
    docker_model(tmp_path / DOCKER, "ai/m:latest", kinds=kinds)
    assert models(entries(tmp_path)) == []
    assert [*refused(tmp_path).values()] == reasons


@pytest.mark.parametrize(
    "index",
    [
        {"models": None},
        {"models": [5, None, {}]},
        {"models": [{"id": "sha256:00", "tags": ["ai/m"]}]},
        {"models": [{"id": "../../x", "tags": ["ai/m"]}]},
        {"models": [{"id": 5, "tags": 5}]},
        {"models": [{"id": "sha256:00", "tags": ["\ud800", "", None]}]},
    ],
    ids=str,
)
def test_broken_index_of_docker_is_no_error(index: Any, tmp_path: Path) -> None:
    write(tmp_path / DOCKER / "models.json", json.dumps(index))
    assert entries(tmp_path) == []


JAN = Path("home", ".local", "share", "Jan", "data")


@pytest.mark.parametrize(
    "where", ["next to its settings", "below the data folder", "another folder"]
)
def test_model_of_jan(where: str, tmp_path: Path) -> None:
    path = {
        "next to its settings": "",
        "below the data folder": "models/elsewhere.gguf",
        "another folder": str(tmp_path / "disk" / "m-Q8_0.gguf"),
    }[where]
    file = jan_model(tmp_path / JAN, "Menlo/Jan-nano", path)
    (model,) = models(entries(tmp_path))
    assert (file_route(model).store, model.name, file_route(model).path) == (
        "jan",
        "Menlo/Jan-nano",
        str(file),
    )
    assert {f"path:{file}", "name:jan:Menlo/Jan-nano"} <= set(model.fingerprints)
    assert model.quantization == ("Q8_0" if where == "another folder" else "")


def test_model_of_jan_that_sees(tmp_path: Path) -> None:
    own = "llamacpp/models/m/mmproj.gguf"
    sees = projector(tmp_path / JAN / own)
    jan_model(tmp_path / JAN, "m", mmproj_path=f'"{own}"')
    jan_model(tmp_path / JAN, "blind", mmproj_path="nowhere.gguf")
    found = {model.name: file_route(model).projector for model in models(entries(tmp_path))}
    assert found == {"m": str(sees), "blind": ""}


@pytest.mark.parametrize(
    "settings",
    ["", "model_path:", "model_path: nowhere.gguf", "- model_path", "model_path: .", "\x00: \x00"],
)
def test_broken_settings_of_a_model_of_jan(settings: str, tmp_path: Path) -> None:
    folder = tmp_path / JAN / "llamacpp" / "models" / "m"
    write(folder / "model.yml", settings)
    gguf(folder / "m-Q8_0.gguf")
    assert named(tmp_path) == [("jan", "m-Q8_0")]


def test_model_of_ramalama(tmp_path: Path) -> None:
    root = tmp_path / "home" / ".local" / "share" / "ramalama"
    files = {"granite-Q4_0.gguf": "model", "mmproj-f16.gguf": "mmproj", "config.json": "other"}
    granite = ramalama_model(root, "huggingface/ibm-granite/granite-3b-GGUF", "latest", files)
    small = ramalama_model(root, "ollama/library/smollm", "135m", {"smollm": "gguf_model"})
    found = {model.name: model for model in models(entries(tmp_path))}
    assert {name: file_route(model).path for name, model in found.items()} == {
        "granite-3b-GGUF:latest": str(granite / "granite-Q4_0.gguf"),
        "smollm:135m": str(small / "smollm"),
    }
    first = found["granite-3b-GGUF:latest"]
    assert file_route(first).projector == str(granite / "mmproj-f16.gguf")
    assert "hf:ibm-granite/granite-3b-gguf:Q4_0" in first.fingerprints
    assert not any(mark.startswith("hf:") for mark in found["smollm:135m"].fingerprints)


def test_files_that_llm_gguf_knows(tmp_path: Path) -> None:
    folder = tmp_path / "user" / "gguf"
    chat, embed = gguf(tmp_path / "disk" / "chat.gguf"), gguf(tmp_path / "disk" / "embed.gguf")
    sees = projector(tmp_path / "disk" / "mmproj.gguf")
    llm_gguf_index(folder, {"chat": chat, "gone": tmp_path / "gone.gguf"})
    llm_gguf_index(folder, {"embed": embed}, "embed-models.json")
    index = json.loads((folder / "models.json").read_text())
    index["gguf/chat"]["clip_model_path"] = str(sees)
    index["gguf/odd"] = {"path": 5}
    index["gguf/odder"] = 5
    write(folder / "models.json", json.dumps(index))
    found = {
        file_route(model).path: file_route(model).projector for model in models(entries(tmp_path))
    }
    assert found == {str(chat): str(sees), str(embed): ""}


# Which files make one, and which are no models.


def test_part_of_many_is_found_without_asking_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name can claim 99,999 parts."""
    for part in (99_997, 99_999):
        gguf(tmp_path / LMSTUDIO / f"Big-{part:05}-of-99999.gguf")
    stems: list[str] = []

    def counting(path: str, stem: str) -> str:
        stems.append(stem)
        return with_stem(path, stem)

    monkeypatch.setattr("llm_localrun.files.folders.with_stem", counting)
    assert [*refused(tmp_path).values()] == ["part 1 of 99999 is missing"]
    assert len(stems) < 20


@pytest.mark.parametrize(
    ("present", "size", "missing"),
    [([1, 2, 3], 6 * MIB, 0), ([2, 3], 0, 1), ([1, 3], 0, 2), ([1, 2], 0, 3), ([3], 0, 1)],
)
def test_split_file_needs_all_its_parts(
    present: list[int], size: int, missing: int, tmp_path: Path
) -> None:
    for part in present:
        gguf(tmp_path / LMSTUDIO / f"Big-Q8_0-{part:05}-of-00003.gguf")
    found = models(entries(tmp_path))
    assert [(model.name, model.size) for model in found] == ([("Big-Q8_0", size)] if size else [])
    reasons = [f"part {missing} of 3 is missing"] if missing else []
    assert [*refused(tmp_path).values()] == reasons
    if size:
        assert f"size:{size}:Q8_0" in found[0].fingerprints


@pytest.mark.parametrize(
    "name",
    [
        "mmproj-F16.gguf",
        "gemma-3-4b-it-MMPROJ-f16.gguf",
        "Qwen3-8B-imatrix.gguf",
        "mtp-glm.gguf",
        "ggml-vocab-llama.gguf",
        "._model.gguf",
    ],
)
def test_name_that_is_no_models(name: str, tmp_path: Path) -> None:
    gguf(tmp_path / LMSTUDIO / name)
    gguf(tmp_path / LMSTUDIO / "real.GGUF")
    assert named(tmp_path) == [("lmstudio", "real.GGUF")]
    assert refused(tmp_path)[name].startswith("it ")


@pytest.mark.parametrize(
    "name",
    [
        "model.gguf.part",
        "model.gguf.incomplete",
        "model.gguf.part1of2",
        "model.gguf.download",
        "model.tmp",
        "model.bin",
        "model",
        ".cache/huggingface/download/model.gguf",
    ],
)
def test_name_that_is_not_looked_at(name: str, tmp_path: Path) -> None:
    gguf(tmp_path / LMSTUDIO / name)
    assert entries(tmp_path) == []


# What lies in the way.


def test_things_that_are_not_what_their_names_say(tmp_path: Path) -> None:
    folder = tmp_path / LMSTUDIO
    (folder / "folder.gguf").mkdir(parents=True)
    (folder / "dangling.gguf").symlink_to(tmp_path / "nowhere")
    (folder / "itself.gguf").symlink_to(folder / "itself.gguf")
    gguf(folder / "good.gguf")
    assert named(tmp_path) == [("lmstudio", "good")]
    assert refused(tmp_path) == {}


def test_links_between_folders(tmp_path: Path) -> None:
    """Those that lead elsewhere are followed, once; those that lead back are not."""
    here, there = tmp_path / "here", tmp_path / "there"
    gguf(here / "a.gguf")
    gguf(there / "below" / "b.gguf")
    for link, target in (
        (here / "itself", here),
        (here / "up", tmp_path),
        (here / "out", there),
        (here / "out-again", there),
        (there / "back", here),
        (there / "below" / "round", there),
        (here / "gone", tmp_path / "nowhere"),
    ):
        link.symlink_to(target, target_is_directory=True)
    found = entries(tmp_path, str(here))
    assert {file_route(model).path for model in models(found)} == {
        str(here / "a.gguf"),
        str(here / "out" / "below" / "b.gguf"),
    }
    assert report_on("folders", str(here)).files == 2


def test_depth_has_an_end(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    for name in "abcdefgh":
        folder = folder / name
        gguf(folder / f"{name}.gguf")
    found = [model.name for model in models(entries(tmp_path, str(tmp_path / "disk")))]
    assert found == ["a", "b", "c", "d", "e", "f"]


def test_breadth_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_localrun.files.folders._MAX_FOLDERS", 3)
    for name in "abcdef":
        gguf(tmp_path / "disk" / name / f"{name}.gguf")
    report = report_on("folders", str(tmp_path / "disk"))
    assert (report.files, report.status) == (2, "read")
    assert report.problem == "it has more than 3 folders: the rest was skipped"


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    for folder in (LMSTUDIO, OLLAMA / "manifests" / LIBRARY / "m"):
        odd = tmp_path / folder / os.fsdecode(b"\xff.gguf")
        gguf(odd)
        gguf(odd.parent / os.fsdecode(b"\xfe") / "m.gguf")
    gguf(tmp_path / LMSTUDIO / "gut-\u00fc-\u6a21.gguf")
    assert named(tmp_path) == [("lmstudio", "gut-\u00fc-\u6a21")]


UNPRIVILEGED = """
import json, os, sys
from llm_localrun.files import scan
from llm_localrun.files.base import stores
from llm_localrun.models import Snapshot
stores()
os.setuid(65534)
snapshot = scan(sys.argv[1:], Snapshot())
found = [(entry.path, entry.model and entry.model.name, entry.reason) for entry in snapshot.files]
said = [(report.path, report.status, report.files, report.problem) for report in snapshot.stores]
print(json.dumps([found, said]))
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to be root to be less")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    """As for a user who scans the store of Ollama's service: skipped, and said."""
    home = tmp_path / "open"
    forbidden = home / "closed"
    for path in ("good.gguf", "locked.gguf", "closed/m.gguf", "sub/closed/m.gguf"):
        gguf(home / path)
    (home / "locked.gguf").chmod(0)
    for closed in (forbidden, home / "sub" / "closed"):
        closed.chmod(0)
    for folder in (*tmp_path.parents[:2], tmp_path):
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(home), str(forbidden)],
        capture_output=True,
        text=True,
        check=True,
    )
    found, reports = json.loads(done.stdout)
    assert found == [
        [str(home / "good.gguf"), "good", ""],
        [str(home / "locked.gguf"), None, "it cannot be read: Permission denied"],
    ]
    assert [report for report in reports if report[0].startswith(str(home))] == [
        [str(home), "read", 2, f"{forbidden}: Permission denied (and 1 more)"],
        [str(forbidden), "unreadable", 0, "Permission denied"],
    ]


STORES = (
    *("user/localrun/models", "home/.lmstudio", "home/.lmstudio/models", "home/.cache"),
    *("home/.cache/huggingface/hub", "home/.cache/llama.cpp", "home/.ollama/models"),
    *("home/.ollama/models/manifests", f"home/.ollama/models/manifests/{LIBRARY}"),
)


@pytest.mark.parametrize("instead", ["a file", "a dangling link", "a link to itself"])
@pytest.mark.parametrize("store", STORES)
def test_store_that_is_no_folder(store: str, instead: str, tmp_path: Path) -> None:
    path = tmp_path / store
    path.parent.mkdir(parents=True, exist_ok=True)
    if instead == "a file":
        path.write_text("not a folder")
    else:
        path.symlink_to(path if instead == "a link to itself" else tmp_path / "nowhere")
    gguf(tmp_path / "disk" / "good.gguf")
    assert named(tmp_path, str(tmp_path / "disk"), str(path)) == [("folders", "good")]


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
        "user/gguf/models.json",
        "home/.docker/models/models.json",
        "home/.local/share/Jan/settings.json",
        "home/.config/MstyStudio/Gifnoc.nosj",
        "home/.config/nomic.ai/GPT4All.ini",
        "home/.local/share/ramalama/store/hf/o/m/refs/latest.json",
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


# What a store is to the rest of the package.

MADE_UP = """
from llm_localrun.files.base import Store

class MadeUp(Store):
    name = "made-up"
    precedence = 65
    overrides = ("MADE_UP_MODELS", "MADE_UP_HOME/models")
    linux = ("$XDG_DATA_HOME/made-up",)
"""


@pytest.fixture
def made_up_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store that is added by one module."""
    write(tmp_path / "more" / "made_up.py", MADE_UP)
    monkeypatch.setattr(files, "__path__", [*files.__path__, str(tmp_path / "more")])
    stores.cache_clear()
    yield
    stores.cache_clear()
    del sys.modules["llm_localrun.files.made_up"]


def test_store_is_added_by_one_module(made_up_store: None, tmp_path: Path) -> None:
    gguf(tmp_path / "home/.local/share/made-up/new.gguf")
    gguf(tmp_path / "home/.lmstudio/models/org/repo/first.gguf")
    gguf(tmp_path / "home/models/last.gguf")
    assert [store for store, _ in named(tmp_path)] == ["lmstudio", "made-up", "models"]
    assert {"MADE_UP_MODELS", "MADE_UP_HOME", "XDG_DATA_HOME", "OLLAMA_MODELS"} <= {*variables()}


def test_stores_have_an_order_and_names_of_their_own() -> None:
    names = [store.name for store in stores()]
    assert names == [
        *("localrun", "folders", "lmstudio", "huggingface", "llamacpp", "ollama", "msty"),
        *("gpt4all", "jan", "llm-gguf", "docker", "ramalama", "lemonade", "models"),
    ]
    assert len({store.precedence for store in stores()}) == len(names)


def test_every_variable_of_a_store_is_known() -> None:
    """What `settings_stamp` watches."""
    assert set(variables()) == {
        *("OLLAMA_MODELS", "LLAMA_CACHE", "MODELS_PATH", "RAMALAMA_STORE", "JAN_DATA_FOLDER"),
        *("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA", "LOCALAPPDATA"),
    }
