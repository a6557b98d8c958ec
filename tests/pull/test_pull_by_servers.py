"""Models that Ollama and LM Studio pull for us, and that Ollama deletes."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.servers import lmstudio_admin
from tests.conftest import CONFIG, configure
from tests.fakes.http_server import StandIn
from tests.fakes.lmstudio import MODELS, LMStudio
from tests.fakes.ollama import GONE, UNKNOWN, Ollama
from tests.support.pulling import done, failed, run

GRANITE = MODELS[3]
"""On no disk of a server that is made with the others."""
OTHERS = MODELS[:3]


def use(user_path: Path, kind: str, server: StandIn) -> None:
    configure(user_path, **CONFIG, endpoints=[{"name": kind, "url": server.url}])


def records(user_path: Path) -> list[dict[str, Any]]:
    pulled: list[dict[str, Any]]
    pulled = json.loads((user_path / "localrun/models/pulled.json").read_text())["pulled"]
    return pulled


def pulls(server: StandIn, path: str) -> list[Any]:
    return [request.body for request in server.requests if request.path == path]


# Ollama


@pytest.mark.parametrize(
    ("name", "listed"),
    [("qwen3:8b", "qwen3:8b"), ("qwen3", "qwen3:latest"), ("me/x:q8", "me/x:q8")],
)
def test_ollama_pulls(user_path: Path, name: str, listed: str) -> None:
    with StandIn(Ollama(registry={name: [5_000_000_000, 1_000]})) as server:
        use(user_path, "ollama", server)
        result = run("pull", f"ollama:{name}")
        assert result.exit_code == 0, result.output
        assert pulls(server, "/api/pull") == [{"model": name, "stream": True}]
    assert result.stdout.startswith(f"Ready: local/ollama/{listed}\nTry it: llm -m local-")
    said = [line.partition(": ")[2] for line in result.stderr.splitlines()]
    assert said == [
        "pulling manifest",
        "downloading, 0 MB of 5.0 GB (0%)",
        "downloading, 2.5 GB of 5.0 GB (50%)",
        "downloading, 5.0 GB of 5.0 GB (100%)",
        "downloading, 5.0 GB of 5.0 GB (99%)",
        "downloading, 5.0 GB of 5.0 GB (100%)",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert [(r["ref"], r["source"], r["files"]) for r in records(user_path)] == [
        (f"ollama:{name}", "ollama", [])
    ]


def test_ollama_cannot_pull(user_path: Path) -> None:
    with StandIn(Ollama()) as server:
        use(user_path, "ollama", server)
        said = failed("pull", f"ollama:{GONE.request['model']}")
    assert "says: pull model manifest: Get" in said
    assert said.endswith(
        "no such host. Check the name at https://ollama.com/library, and the network."
    )
    assert not (user_path / "localrun/models/pulled.json").exists()


def test_ollama_ends_before_it_is_done(user_path: Path) -> None:
    with StandIn(Ollama(registry={"x": [10]}, ends_early=True)) as server:
        use(user_path, "ollama", server)
        assert "ended with 'writing manifest' before it was done" in failed("pull", "ollama:x")


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("ollama:x", "Error: No Ollama answers on this machine. Start it with `ollama serve`."),
        ("lmstudio:a/b", "Error: No LM Studio answers on this machine. Start its server with"),
    ],
)
def test_no_server_is_there(ref: str, said: str) -> None:
    assert failed("pull", ref).startswith(said)


def test_ollama_deletes_what_was_pulled_and_nothing_else(user_path: Path) -> None:
    ollama = Ollama(registry={"qwen3": [10]}, has=["gemma3:4b"])
    with StandIn(ollama) as server:
        use(user_path, "ollama", server)
        done("pull", "ollama:qwen3")
        said = failed("rm", "local-gemma3-4b")
        assert said.startswith("Error: local/ollama/gemma3:4b was not pulled by llm-localrun.")
        assert done("rm", "local-qwen3") == "Deleted local/ollama/qwen3:latest\n"
        assert (ollama.has, records(user_path)) == (["gemma3:4b"], [])
        done("rm", "local-gemma3-4b", "--force")
        assert ollama.has == []
        assert pulls(server, "/api/delete") == [{"model": "qwen3:latest"}, {"model": "gemma3:4b"}]


def test_ollama_does_not_know_what_is_to_be_deleted(
    user_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ollama, "_delete", lambda *_: UNKNOWN.reply())
    with StandIn(Ollama(has=["gemma3:4b"])) as server:
        use(user_path, "ollama", server)
        assert "says: model 'corsair' not found" in failed("rm", "local-gemma3-4b", "--force")


def test_ollama_is_asked_again_by_update(user_path: Path) -> None:
    with StandIn(Ollama(registry={"qwen3": [10]})) as server:
        use(user_path, "ollama", server)
        done("pull", "ollama:qwen3")
        assert done("outdated").split() == [
            *("pulled", "state", "ollama:qwen3", "unknown"),
            *("`llm", "localrun", "update`", "downloads", "it", "again"),
        ]
        assert len(pulls(server, "/api/pull")) == 1
        assert done("update") == "ollama:qwen3: downloaded again\n"
        assert len(pulls(server, "/api/pull")) == 2


# LM Studio


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmstudio_admin, "_EVERY", 0.0)


LINK = "https://huggingface.co/lmstudio-community/granite-GGUF"
IN_REPOSITORY = "lmstudio:hf:lmstudio-community/granite-GGUF"


@pytest.mark.parametrize(
    ("ref", "body"),
    [
        ("lmstudio:ibm/granite", {"model": "ibm/granite"}),
        (IN_REPOSITORY, {"model": LINK}),
        (f"{IN_REPOSITORY}:q8_0", {"model": LINK, "quantization": "Q8_0"}),
    ],
)
def test_lmstudio_downloads(user_path: Path, ref: str, body: dict[str, str]) -> None:
    name = "@".join(body.values())
    with StandIn(LMStudio(models=OTHERS, catalogue={name: GRANITE})) as server:
        use(user_path, "lmstudio", server)
        result = run("pull", ref)
        assert result.exit_code == 0, result.output
        assert pulls(server, "/api/v1/models/download") == [body]
    said = [line.partition(": ")[2] for line in result.stderr.splitlines()]
    assert said == [
        "downloading, 0 MB of 1.6 GB (0%)",
        "downloading, 534 MB of 1.6 GB (33%)",
        "paused in lm studio, 1.1 GB of 1.6 GB (66%)",
    ]
    assert [(r["source"], r["files"]) for r in records(user_path)] == [("lmstudio", [])]


def test_lmstudio_has_it_already(user_path: Path) -> None:
    with StandIn(LMStudio(catalogue={"google/gemma-4-26b-a4b": MODELS[0]})) as server:
        use(user_path, "lmstudio", server)
        assert done("pull", "lmstudio:google/gemma-4-26b-a4b", "--quiet") == (
            "Ready: local/lmstudio/google/gemma-4-26b-a4b\n"
            "Try it: llm -m local-gemma4-26b 'Name the primary colors'\n"
        )


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("lmstudio:ibm/other", 'says: Model "ibm/other" not found (HTTP 404)'),
        ("lmstudio:ibm/granite", "could not download ibm/granite. LM Studio's own window says why"),
    ],
)
def test_lmstudio_cannot_download(user_path: Path, ref: str, said: str) -> None:
    name = "ibm/granite"
    server = LMStudio(models=OTHERS, catalogue={name: GRANITE}, undownloadable=frozenset({name}))
    with StandIn(server) as stand_in:
        use(user_path, "lmstudio", stand_in)
        assert said in failed("pull", ref)


def test_lmstudio_before_there_were_downloads(user_path: Path) -> None:
    with StandIn(LMStudio(api="v0")) as server:
        use(user_path, "lmstudio", server)
        assert "Unexpected endpoint or method." in failed("pull", "lmstudio:ibm/granite")


def test_key_of_lmstudio(user_path: Path) -> None:
    token = "sk-lm-AbCd1234:20characters0000000"
    with StandIn(LMStudio(models=OTHERS, catalogue={"ibm/x": GRANITE}, token=token)) as server:
        use(user_path, "lmstudio", server)
        assert "An LM Studio API token is required" in failed("pull", "lmstudio:ibm/x")
        (user_path / "keys.json").write_text(json.dumps({"localrun-lmstudio": token}))
        done("pull", "lmstudio:ibm/x")


def test_lmstudio_deletes_nothing(user_path: Path) -> None:
    with StandIn(LMStudio(models=(GRANITE,))) as server:
        use(user_path, "lmstudio", server)
        said = failed("rm", "local-granite", "--force")
    assert said == "Error: LM Studio lets nobody delete a model from outside. Delete it there."
