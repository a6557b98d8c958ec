"""`rm`, `verify`, `du`, `outdated` and `update`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.system import locks
from tests.conftest import CONFIG, configure, put_starter
from tests.fakes.http_server import Request, StandIn, json_reply
from tests.fakes.hub import COMMIT, model, sha256
from tests.fakes.ollama import Ollama
from tests.support.pulling import Q4, Q8, REPO, World, done, failed, run
from tests.support.trees import (
    LIBRARY,
    anchor,
    digest_of,
    docker_model,
    gguf,
    layer,
    manifest,
    manifest_list,
    ollama_model,
    ramalama_model,
    runnable,
    v2_entry,
)

NEWER = "f" * 40
FOLDER = "tiny-org/Tiny-1B-GGUF"
PROJECTOR = {"mmproj-F16.gguf": model("f16")}


def file_of_another_tool(folder: Path, name: str = "Other-7B-Q4_0.gguf") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(model("other"))
    return path


def cached(hub: Path, data: bytes, *commits: str) -> list[Path]:
    """A file in the cache of huggingface_hub, linked to from the snapshots of `commits`."""
    repository = hub / "models--org--Other-7B-GGUF"
    blob = repository / "blobs" / sha256(data)
    links = [repository / "snapshots" / commit / "Other-7B-Q4_0.gguf" for commit in commits]
    for path in (blob, *links):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    for link in links:
        link.symlink_to(os.path.relpath(blob, link.parent))
    return [blob, *links]


def blobs_of(tag: Path) -> list[dict[str, str]]:
    """The configuration and the layers that a manifest of Ollama's names."""
    content = json.loads(tag.read_text())
    return [content["config"], *content["layers"]]


def path_of(store: Path, blob: dict[str, str]) -> Path:
    return store / "blobs" / blob["digest"].replace(":", "-")


# rm


@pytest.mark.parametrize(
    "name", ["local-tiny-1b", "local/gguf/Tiny-1B-Q4_K_M", f"hf:{REPO}:Q4_K_M"]
)
def test_rm_deletes_what_was_pulled(world: World, name: str) -> None:
    done("pull", f"{REPO}:Q4_K_M")
    assert done("rm", name) == "Deleted local/gguf/Tiny-1B-Q4_K_M: 1 MB freed\n"
    assert (world.there, world.records) == ({}, [])
    assert sorted(path.name for path in world.models.iterdir()) == [".partial", "pulled.json"]
    assert failed("rm", "local-tiny-1b").startswith("Error: No local model")


def test_rm_of_all_parts(world: World) -> None:
    world.offer(**{f"Big-Q8_0-0000{n}-of-00002.gguf": model(f"{n}") for n in (1, 2)}, **PROJECTOR)
    done("pull", REPO)
    assert len(world.there) == 3
    done("rm", "local-big")
    assert world.there == {}


def test_projector_stays_for_who_else_needs_it(world: World) -> None:
    world.offer(q4=Q4, q8=Q8, **PROJECTOR)
    for quantization in ("Q4_K_M", "Q8_0"):
        done("pull", REPO, "-q", quantization)
    done("rm", f"hf:{REPO}:Q4_K_M")
    assert set(world.there) == {f"{FOLDER}/Tiny-1B-Q8_0.gguf", f"{FOLDER}/mmproj-F16.gguf"}
    done("rm", f"hf:{REPO}:Q8_0")
    assert world.there == {}


def test_rm_needs_a_name_without_doubt(world: World) -> None:
    for quantization in ("Q4_K_M", "Q8_0"):
        done("pull", REPO, "-q", quantization)
    assert failed("rm", "local-tiny-1b") == (
        "Error: 'local-tiny-1b' can mean several models. Give the id of one:"
        " local/gguf/Tiny-1B-Q4_K_M, local/gguf/Tiny-1B-Q8_0."
    )
    assert len(world.there) == 2


@pytest.mark.parametrize("store", ["own", "lmstudio", "named"])
def test_files_of_others_stay_unless_the_user_insists(
    world: World, tmp_path: Path, store: str
) -> None:
    folders = {
        "own": world.models,
        "lmstudio": tmp_path / "home/.lmstudio/models/org/repo",
        "named": tmp_path / "remote_host",
    }
    path = file_of_another_tool(folders[store])
    notes = path.with_name("notes.txt")
    notes.write_text("mine")
    name = str(path) if store == "named" else "local-other-7b"
    said = failed("rm", name)
    assert said.startswith(
        "Error: local/gguf/Other-7B-Q4_0 was not pulled by llm-localrun: its file"
    )
    assert said.endswith("Delete it where it came from, or with --force if you are sure.")
    assert path.exists()
    done("rm", name, "--force")
    assert not path.exists()
    assert notes.exists()


def test_rm_from_the_cache_of_the_hub(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content goes too, and no link that leads nowhere stays."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    paths = cached(tmp_path / "hub", model("other"), COMMIT, NEWER)
    failed("rm", "local-other-7b")
    assert all(path.exists() for path in paths)
    assert done("rm", "local-other-7b", "--force").endswith(": 1 MB freed\n")
    assert not any(os.path.lexists(path) for path in paths)


def test_rm_leaves_the_store_of_ollama_to_ollama(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    manifest = store / "manifests/registry.ollama.ai/library/other/7b"
    blob = store / "blobs" / f"sha256-{sha256(Q4)}"
    for path in (manifest, blob):
        path.parent.mkdir(parents=True)
    blob.write_bytes(Q4)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{sha256(Q4)}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    assert "is in Ollama's store, and Ollama does not answer" in failed(
        "rm", "local-other-7b", "--force"
    )
    assert blob.exists()


@pytest.mark.parametrize("shared", ["weights", "a template", "nothing"])
def test_rm_from_the_store_of_msty(world: World, tmp_path: Path, shared: str) -> None:
    """The manifest goes, and the blobs that no other manifest names."""
    store = tmp_path / "home/.config/MstyStudio/models"
    gone = ollama_model(store, f"{LIBRARY}/gone/1b", template="{{ .Prompt }}", system="Sing.")
    config, weights, template, system = blobs_of(gone)
    layers = {
        "weights": [weights],
        "a template": [layer(sha="ab" * 32), template],
        "nothing": [layer(sha="ab" * 32)],
    }[shared]
    kept = manifest(store, f"{LIBRARY}/kept/1b", layers, {"name": "another"})
    gguf(store / "blobs" / f"sha256-{'ab' * 32}")
    others = blobs_of(kept)
    assert "was not pulled by llm-localrun" in failed("rm", "local-gone")
    assert done("rm", "local-gone", "--force").startswith("Deleted local/gguf/gone:1b: ")
    assert not gone.exists()
    assert kept.exists()
    needed = {path_of(store, each) for each in others}
    assert {path for path in (store / "blobs").iterdir() if path in needed} == needed
    for each in (config, weights, template, system):
        assert path_of(store, each).exists() is (each in others)


def test_rm_of_one_of_two_tags_of_msty(world: World, tmp_path: Path) -> None:
    """Tags that are alike share everything: only the one that is named goes."""
    store = tmp_path / "home/.config/MstyStudio/models"
    first = ollama_model(store, f"{LIBRARY}/m/1b")
    second = first.with_name("latest")
    second.write_bytes(first.read_bytes())
    done("rm", "local/gguf/m:1b", "--force")
    assert (first.exists(), second.exists()) == (False, True)
    assert all(path_of(store, each).exists() for each in blobs_of(second))
    done("rm", "local/gguf/m:latest", "--force")
    assert [*(store / "blobs").iterdir()] == []


def test_rm_from_msty_of_a_list_of_manifests(world: World, tmp_path: Path) -> None:
    """As of Ollama 0.40: the links, the lists and what they name go; `du` counts a tag once."""
    store = tmp_path / "home/.config/MstyStudio/models"
    for name, sha in (("gone", "ab" * 32), ("kept", "cd" * 32)):
        gguf(store / "blobs" / f"sha256-{sha}")
        child = runnable(store, sha, system=f"You are {name}.")
        listed = manifest_list(store, child)
        v2_entry(store, f"{LIBRARY}/{name}/1b", listed)
        anchor(store, f"{LIBRARY}/{name}/1b", sha, listed, child)
    kept = {path for path in store.rglob("*") if path.is_symlink() and "kept" in str(path)}
    facts = json.loads(done("du", "--json"))
    assert sorted(fact["name"] for fact in facts) == ["local/gguf/gone:1b", "local/gguf/kept:1b"]
    assert done("rm", "local-gone", "--force").startswith("Deleted local/gguf/gone:1b: ")
    assert {path for path in store.rglob("1b") if path.is_symlink()} == kept
    assert [path.parent.name for path in store.glob("manifests/*/*/*/*")] == ["kept"]
    # The weights, the system prompt, the manifest, the list, and the configuration.
    assert len([*(store / "blobs").iterdir()]) == 5
    (fact,) = json.loads(done("du", "--json"))
    assert fact["name"] == "local/gguf/kept:1b"


def test_rm_from_msty_beside_a_manifest_that_is_damaged(world: World, tmp_path: Path) -> None:
    store = tmp_path / "home/.config/MstyStudio/models"
    tag = ollama_model(store, f"{LIBRARY}/m/1b")
    damaged = tag.parents[1] / "other" / "1b"
    damaged.parent.mkdir()
    damaged.write_text("{")
    said = failed("rm", "local-m", "--force")
    assert said == (
        f"Error: {damaged}: it is not a manifest, so it is unknown which files other models share"
        f" with {tag}. Repair or delete that file, and try again."
    )
    assert tag.exists()
    assert all(path_of(store, each).exists() for each in blobs_of(tag))


def test_rm_from_msty_by_its_server(world: World, tmp_path: Path, user_path: Path) -> None:
    """Msty runs Ollama: while that answers, it deletes the model itself."""
    store = tmp_path / "home/.config/MstyStudio/models"
    tag = ollama_model(store, f"{LIBRARY}/tiny/1b")
    ollama = Ollama(has=["tiny:1b"])

    def answer(request: Request) -> Iterator[bytes]:
        if request.path == "/api/tags" and ollama.has:
            yield json_reply({"models": [{"name": "tiny:1b", "digest": digest_of(tag)}]})
        else:
            yield from ollama(request)

    with StandIn(answer) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "msty", "url": server.url}])
        (fact,) = json.loads(done("du", "--json"))
        assert (fact["name"], fact["store"]) == ("local/msty/tiny:1b", "msty")
        assert done("rm", "local-tiny", "--force") == "Deleted local/msty/tiny:1b\n"
    assert ollama.has == []
    assert tag.exists()


@pytest.mark.parametrize("tags", [("ai/smollm2:360M",), ("ai/smollm2:360M", "mine:latest")])
def test_rm_leaves_the_store_of_docker_to_docker(
    world: World, tmp_path: Path, tags: tuple[str, ...]
) -> None:
    store = tmp_path / "home/.docker/models"
    blobs = docker_model(store, *(f"docker.io/{tag}" for tag in tags), kinds=("gguf.v3", "mmproj"))
    before = {path for path in store.rglob("*") if path.is_file()}
    said = failed("rm", "local-smollm2", "--force")
    # Nor does it suggest --force first.
    assert failed("rm", "local-smollm2") == said
    commands = " and ".join(f"`docker model rm {tag}`" for tag in tags)
    assert said == (
        f"Error: {blobs[0]} is in Docker Model Runner's store, which only Docker can change."
        f" Run {commands}."
    )
    assert {path for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("huggingface/ibm/granite-3b", "huggingface://ibm/granite-3b:latest"),
        ("ollama/library/granite-3b", "ollama://library/granite-3b:latest"),
        ("file/home/ada/granite-3b", "file:///home/ada/granite-3b:latest"),
    ],
)
def test_rm_leaves_the_store_of_ramalama_to_ramalama(
    world: World, tmp_path: Path, name: str, url: str
) -> None:
    root = tmp_path / "home/.local/share/ramalama"
    snapshot = ramalama_model(root, name, "latest", {"granite-3b-Q4_0.gguf": "model"})
    before = {path for path in root.rglob("*") if not path.is_dir()}
    said = failed("rm", "local-granite", "--force")
    # Nor does it suggest --force first.
    assert failed("rm", "local-granite") == said
    assert said == (
        f"Error: {snapshot / 'granite-3b-Q4_0.gguf'} is in RamaLama's store, which only RamaLama"
        f" can change. Run `ramalama rm {url}`."
    )
    assert {path for path in root.rglob("*") if not path.is_dir()} == before


def test_rm_from_the_cache_of_llama_cpp(world: World, tmp_path: Path) -> None:
    """Newer llama.cpp keeps files as the hub does."""
    paths = cached(tmp_path / "home/.cache/llama.cpp", model("other"), COMMIT)
    done("rm", "local-other-7b", "--force")
    assert not any(os.path.lexists(path) for path in paths)


def test_record_of_a_file_that_is_gone_can_be_dropped(world: World) -> None:
    done("pull", f"{REPO}:Q4_K_M")
    (world.models / f"{FOLDER}/Tiny-1B-Q4_K_M.gguf").unlink()
    said = f"Forgot hf:{REPO}:Q4_K_M: no model of it is listed\n"
    assert done("rm", f"hf:{REPO}:Q4_K_M") == said
    assert world.records == []


def test_rm_of_unfinished_downloads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_localrun.pull.download._MAX_TRIES", 1)
    world.files.cuts = [2**18, 1_000_000]
    failed("pull", f"{REPO}:Q8_0")
    assert json.loads(done("du", "--json"))[-1]["size"] == 1_000_000
    (half,) = world.unfinished
    with locks.exclusive(half.with_suffix(".lock"), 0.0):
        assert done("rm", "--unfinished") == "Deleted unfinished downloads: 0 MB freed\n"
    assert done("rm", "--unfinished") == "Deleted unfinished downloads: 1 MB freed\n"
    assert world.unfinished == []


@pytest.mark.parametrize("arguments", [(), ("local-x", "--unfinished")])
def test_rm_of_what(arguments: tuple[str, ...]) -> None:
    assert run("rm", *arguments).exit_code == 2


def test_damaged_records(world: World) -> None:
    done("pull", f"{REPO}:Q4_K_M")
    (world.models / "pulled.json").write_text("{")
    assert "pulled.json is damaged. Delete it: the models stay" in failed("rm", "local-tiny-1b")


def test_records_of_a_newer_version(world: World) -> None:
    done("pull", f"{REPO}:Q4_K_M")
    path = world.models / "pulled.json"
    path.write_text(path.read_text().replace('"commit"', '"signature": "?", "commit"'))
    done("rm", "local-tiny-1b")


# verify


def states(name: str) -> dict[str, str]:
    return {
        check["what"]: check["state"] for check in json.loads(run("verify", name, "--json").stdout)
    }


def test_verify_a_good_model(user_path: Path, starter_model: Path) -> None:
    """The real model in the real engine, checked against the record of its pull."""
    put_starter(user_path, starter_model)
    done("pull", "starter", "--tiny")
    name = starter_model.name
    assert states("local-smollm2") == {
        f"SHA-256 of {name}": "ok",
        f"header of {name}": "ok",
        "chat template": "ok",
        "loads": "ok",
    }
    assert run("verify", "local-smollm2").exit_code == 0
    assert done("ps", "--json") == "[]\n"


def test_verify_a_model_that_does_not_load(world: World) -> None:
    """Its header is valid, but it has almost no data."""
    done("pull", f"{REPO}:Q4_K_M")
    result = run("verify", "local-tiny-1b")
    assert result.exit_code == 1
    assert "loads" in result.stdout.splitlines()[-1]
    assert "failed" in result.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("damage", "failing"),
    [
        (lambda data: data[:-4] + b"\0\0\0\0", "SHA-256 of Tiny-1B-Q4_K_M.gguf"),
        (lambda data: data[:-100_000], "header of Tiny-1B-Q4_K_M.gguf"),
    ],
)
def test_verify_a_damaged_file(world: World, damage: Any, failing: str) -> None:
    done("pull", f"{REPO}:Q4_K_M")
    path = world.models / f"{FOLDER}/Tiny-1B-Q4_K_M.gguf"
    path.write_bytes(damage(Q4))
    found = states("local/gguf/Tiny-1B-Q4_K_M")
    assert found[failing] == "failed"
    assert "loads" not in found
    assert run("verify", "local-tiny-1b").exit_code == 1


@pytest.mark.parametrize(("written", "state"), [(model("other"), "ok"), (Q8, "failed")])
def test_verify_with_the_checksum_in_the_name_of_a_hub_blob(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bytes, state: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    blob, _ = cached(tmp_path / "hub", model("other"), COMMIT)
    blob.write_bytes(written)
    assert states("local-other-7b")["SHA-256 of Other-7B-Q4_0.gguf"] == state


def test_verify_without_a_known_checksum(world: World) -> None:
    file_of_another_tool(world.models)
    assert states("local-other-7b")["SHA-256 of Other-7B-Q4_0.gguf"] == "unknown"


@pytest.mark.parametrize(("template", "state"), [("{{ .Prompt }}", "ok"), ("", "unknown")])
def test_verify_a_template_in_a_manifest_of_ollama(
    world: World, tmp_path: Path, template: str, state: str
) -> None:
    ollama_model(tmp_path / "home/.ollama/models", f"{LIBRARY}/m/1b", template=template)
    assert states("local-m")["chat template"] == state


# du


def test_du(world: World, tmp_path: Path) -> None:
    done("pull", f"{REPO}:Q8_0")
    file_of_another_tool(tmp_path / "home/.lmstudio/models/org/repo")
    facts = json.loads(done("du", "--json"))
    assert [(f["name"], f["size"], f["store"], f["pulled"]) for f in facts] == [
        ("local/gguf/Tiny-1B-Q8_0", len(Q8), "localrun", True),
        ("local/gguf/Other-7B-Q4_0", len(model("other")), "lmstudio", False),
    ]
    assert done("du").splitlines()[-1].split() == ["total", "4", "MB"]


def test_du_counts_a_file_once(world: World, tmp_path: Path, user_path: Path) -> None:
    """Tags of Ollama's with the same weights: two that are alike, and one with a system prompt."""
    store = tmp_path / "home/.config/MstyStudio/models"
    blob = gguf(store / "blobs" / f"sha256-{'ab' * 32}")
    # Without the hole that it has, which takes no space.
    blob.write_bytes(blob.read_bytes())
    weights = layer(sha="ab" * 32)
    first = manifest(store, f"{LIBRARY}/m/1b", [weights])
    other = manifest(store, f"{LIBRARY}/m/polite", [weights, layer("system", "cd" * 32)])
    digests = {"m:1b": digest_of(first), "m:also": digest_of(first), "m:polite": digest_of(other)}
    listed = [{"name": name, "digest": digest} for name, digest in digests.items()]
    fake = Ollama(has=[*digests])

    def answer(request: Request) -> Iterator[bytes]:
        tags = json_reply({"models": listed})
        yield from [tags] if request.path == "/api/tags" else fake(request)

    with StandIn(answer) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        *lines, total = done("du").splitlines()[1:]
    assert [line.split()[1:3] for line in lines] == [["2", "MB"]] * 3
    assert total.split() == ["total", "2", "MB"]


def test_du_without_models() -> None:
    assert run("du").stderr == "There are no models on the disk.\n"


# outdated and update


def test_unchanged_model_is_not_downloaded_again(world: World) -> None:
    done("pull", f"{REPO}:Q4_K_M")
    world.hub.commit = NEWER
    assert run("outdated").stderr == "No pulled model is out of date.\n"
    before = len(world.at_files.requests)
    assert done("update") == f"hf:{REPO}:Q4_K_M: up to date\n"
    assert len(world.at_files.requests) == before


def test_changed_model_is_updated(world: World) -> None:
    done("pull", f"{REPO}:Q4_K_M")
    world.offer(q4=Q8)
    world.hub.commit = NEWER
    assert done("outdated").splitlines()[1].split() == [f"hf:{REPO}:Q4_K_M", "newer"]
    assert world.there == {f"{FOLDER}/Tiny-1B-Q4_K_M.gguf": Q4}
    assert done("update", "local-tiny-1b") == f"hf:{REPO}:Q4_K_M: updated\n"
    assert world.there == {f"{FOLDER}/Tiny-1B-Q4_K_M.gguf": Q8}
    assert [(r["commit"], r["files"][0]["sha256"]) for r in world.records] == [(NEWER, sha256(Q8))]


def test_pinned_revision_is_up_to_date(world: World) -> None:
    done("pull", f"{REPO}@{COMMIT}:Q4_K_M")
    assert json.loads(done("outdated", "--json")) == [
        {"ref": f"hf:{REPO}@{COMMIT}:Q4_K_M", "state": "up to date", "problem": ""}
    ]


def test_update_deletes_parts_that_the_new_version_lacks(world: World) -> None:
    world.offer(**{f"Big-Q8_0-0000{n}-of-00003.gguf": model(f"{n}") for n in (1, 2, 3)})
    done("pull", REPO)
    parts = {f"Big-Q8_0-0000{n}-of-00002.gguf": model(f"new {n}") for n in (1, 2)}
    world.offer(**parts)
    done("update")
    assert world.there == {f"{FOLDER}/{name}": data for name, data in parts.items()}


def test_failed_update_keeps_the_old_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_localrun.pull.download._MAX_TRIES", 1)
    parts = {f"Big-Q8_0-0000{n}-of-00002.gguf": model(f"{n}") for n in (1, 2)}
    world.offer(**parts)
    done("pull", REPO)
    world.offer(**{name: model(f"new {name}") for name in parts})
    world.files.cuts = [2_000_000, 1000]
    assert "closed connection" in failed("update")
    assert world.there == {f"{FOLDER}/{name}": data for name, data in parts.items()}
    done("update")
    assert world.there == {f"{FOLDER}/{name}": model(f"new {name}") for name in parts}


def test_file_behind_a_url_that_has_changed(world: World) -> None:
    url = f"{world.at_files.url}/x.gguf"
    world.files.content = {"x.gguf": Q4}
    done("pull", url)
    assert run("outdated").stderr == "No pulled model is out of date.\n"
    world.files.content = {"x.gguf": Q8}
    assert "newer" in done("outdated")
    done("update")
    assert world.there == {"127.0.0.1/x.gguf": Q8}


@pytest.mark.parametrize("command", ["outdated", "update"])
def test_repository_that_is_gone(world: World, command: str) -> None:
    done("pull", f"{REPO}:Q4_K_M")
    world.hub.repo = "renamed/away"
    result = run(command)
    assert result.exit_code == 1
    assert f"here is no repository {REPO}" in result.output
    assert world.there == {f"{FOLDER}/Tiny-1B-Q4_K_M.gguf": Q4}


def test_update_does_not_restore_deleted_files(world: World) -> None:
    done("pull", f"{REPO}:Q4_K_M")
    (world.models / f"{FOLDER}/Tiny-1B-Q4_K_M.gguf").unlink()
    assert run("update").stderr == "No model was pulled.\n"
    assert world.there == {}


def test_update_of_a_model_that_was_not_pulled(world: World) -> None:
    file_of_another_tool(world.models)
    assert failed("update", "local-other-7b").startswith("Error: 'local-other-7b' was not pulled")


def test_starter_is_always_up_to_date(user_path: Path, starter_model: Path) -> None:
    put_starter(user_path, starter_model)
    done("pull", "starter", "--tiny")
    assert done("update") == "starter:tiny: up to date\n"


def test_other_commands_do_not_contact_the_hub(world: World) -> None:
    done("pull", f"{REPO}:Q4_K_M")
    world.at_hub.requests.clear()
    world.at_files.requests.clear()
    for command in (
        ["models"],
        ["du"],
        ["which", "local-tiny-1b"],
        ["refresh"],
        ["verify", "local"],
    ):
        run(*command)
    run("rm", "local-tiny-1b")
    assert world.at_hub.requests + world.at_files.requests == []
