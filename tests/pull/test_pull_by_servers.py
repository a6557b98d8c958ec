"""Pulling models with Ollama and LM Studio, and deleting them with Ollama."""

import json
from pathlib import Path

import pytest

from llm_localrun.servers import lmstudio
from tests.fakes.http_server import StandIn
from tests.fakes.lmstudio import MODELS, LMStudio
from tests.fakes.ollama import GONE, UNKNOWN, Ollama
from tests.support.pulling import bodies_sent_to, done, failed, records_in, run, use_server

GRANITE = MODELS[3]
"""A model that a server with `OTHERS` does not have."""
OTHERS = MODELS[:3]


# Ollama


def test_what_llm_has_no_command_for_is_not_suggested_to_be_run(user_path: Path) -> None:
    fake = Ollama(registry={"nimble": [5_000_000]}, capabilities=("decision",))
    with StandIn(fake) as server:
        use_server(user_path, "ollama", server)
        said = done("pull", "ollama:nimble")
    assert said == (
        "Ready: local/ollama/nimble:latest\n"
        "It is a decision model: llm has no command for such models\n"
    )


@pytest.mark.parametrize(
    ("name", "listed"),
    [("qwen3:8b", "qwen3:8b"), ("qwen3", "qwen3:latest"), ("me/x:q8", "me/x:q8")],
)
def test_ollama_pulls(user_path: Path, reported: list[str], name: str, listed: str) -> None:
    with StandIn(Ollama(registry={name: [5_000_000_000, 1_000]})) as server:
        use_server(user_path, "ollama", server)
        result = run("pull", f"ollama:{name}")
        assert result.exit_code == 0, result.output
        assert bodies_sent_to(server, "/api/pull") == [{"model": name, "stream": True}]
    assert result.stdout.startswith(f"Ready: local/ollama/{listed}\nTry it: llm -m local-")
    assert result.stderr == ""
    title = f"ollama:{name}".rpartition("/")[2]
    assert reported == [
        f"{title}: pulling manifest",
        f"downloading {title}: 0 of 5.0 GB",
        f"downloading {title}: 2.5 of 5.0 GB",
        f"downloading {title}: 5.0 of 5.0 GB",
        f"{title}: verifying sha256 digest",
        f"{title}: writing manifest",
        f"{title}: success",
    ]
    assert [
        (r["ref"], r["source"], r["files"]) for r in records_in(user_path / "localrun/models")
    ] == [(f"ollama:{name}", "ollama", [])]


def test_ollama_cannot_pull(user_path: Path) -> None:
    with StandIn(Ollama()) as server:
        use_server(user_path, "ollama", server)
        said = failed("pull", f"ollama:{GONE.request['model']}")
    assert "says: pull model manifest: Get" in said
    assert said.endswith(
        "no such host. Check the name at https://ollama.com/library, and the network."
    )
    assert not (user_path / "localrun/models/pulled.json").exists()


def test_ollama_stops_early(user_path: Path) -> None:
    with StandIn(Ollama(registry={"x": [10]}, ends_early=True)) as server:
        use_server(user_path, "ollama", server)
        assert "stopped at 'writing manifest' before the pull was complete" in failed(
            "pull", "ollama:x"
        )


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("ollama:x", "Error: No Ollama answers on this machine. Start it with `ollama serve`."),
        ("lmstudio:a/b", "Error: No LM Studio answers on this machine. Start its server with"),
    ],
)
def test_server_is_off(ref: str, said: str) -> None:
    assert failed("pull", ref).startswith(said)


def test_ollama_deletes_only_pulled_models(user_path: Path) -> None:
    ollama = Ollama(registry={"qwen3": [10]}, has=["gemma3:4b"])
    with StandIn(ollama) as server:
        use_server(user_path, "ollama", server)
        done("pull", "ollama:qwen3")
        said = failed("rm", "local-gemma3-4b")
        assert said.startswith("Error: local/ollama/gemma3:4b was not pulled by llm-localrun.")
        assert done("rm", "local-qwen3") == "Deleted local/ollama/qwen3:latest\n"
        assert (ollama.has, records_in(user_path / "localrun/models")) == (["gemma3:4b"], [])
        done("rm", "local-gemma3-4b", "--force")
        assert ollama.has == []
        assert bodies_sent_to(server, "/api/delete") == [
            {"model": "qwen3:latest"},
            {"model": "gemma3:4b"},
        ]


def test_ollama_cannot_delete(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ollama, "_delete", lambda *_: UNKNOWN.reply())
    with StandIn(Ollama(has=["gemma3:4b"])) as server:
        use_server(user_path, "ollama", server)
        assert "says: model 'corsair' not found" in failed("rm", "local-gemma3-4b", "--force")


def test_update_pulls_from_ollama_again(user_path: Path) -> None:
    with StandIn(Ollama(registry={"qwen3": [10]})) as server:
        use_server(user_path, "ollama", server)
        done("pull", "ollama:qwen3")
        assert done("outdated").split() == [
            *("pulled", "state", "ollama:qwen3", "unknown"),
            *("`llm", "localrun", "update`", "downloads", "it", "again"),
        ]
        assert len(bodies_sent_to(server, "/api/pull")) == 1
        assert done("update") == "ollama:qwen3: downloaded again\n"
        assert len(bodies_sent_to(server, "/api/pull")) == 2


# LM Studio


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmstudio, "_POLL_S", 0.0)


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
def test_lmstudio_downloads(
    user_path: Path, reported: list[str], ref: str, body: dict[str, str]
) -> None:
    name = "@".join(body.values())
    with StandIn(LMStudio(models=OTHERS, catalogue={name: GRANITE})) as server:
        use_server(user_path, "lmstudio", server)
        result = run("pull", ref)
        assert result.exit_code == 0, result.output
        assert bodies_sent_to(server, "/api/v1/models/download") == [body]
    assert result.stderr == ""
    title = ref.rpartition("/")[2].replace("q8_0", "Q8_0")
    assert reported == [
        f"downloading {title}: 0 of 1.6 GB",
        f"downloading {title}: 534 MB of 1.6 GB",
        f"{title}: paused in LM Studio: 1.1 of 1.6 GB",
    ]
    assert [(r["source"], r["files"]) for r in records_in(user_path / "localrun/models")] == [
        ("lmstudio", [])
    ]


def test_lmstudio_has_it_already(user_path: Path) -> None:
    with StandIn(LMStudio(catalogue={"google/gemma-4-26b-a4b": MODELS[0]})) as server:
        use_server(user_path, "lmstudio", server)
        assert done("pull", "lmstudio:google/gemma-4-26b-a4b", "--quiet") == (
            "Ready: local/lmstudio/google/gemma-4-26b-a4b\n"
            "Try it: llm -m local-gemma4-26b 'Name the primary colors'\n"
        )


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("lmstudio:ibm/other", 'says: Model "ibm/other" not found (HTTP 404)'),
        ("lmstudio:ibm/granite", "could not download ibm/granite. LM Studio's window says why"),
    ],
)
def test_lmstudio_cannot_download(user_path: Path, ref: str, said: str) -> None:
    name = "ibm/granite"
    server = LMStudio(models=OTHERS, catalogue={name: GRANITE}, undownloadable=frozenset({name}))
    with StandIn(server) as stand_in:
        use_server(user_path, "lmstudio", stand_in)
        assert said in failed("pull", ref)


def test_lmstudio_without_downloads(user_path: Path) -> None:
    with StandIn(LMStudio(api="v0")) as server:
        use_server(user_path, "lmstudio", server)
        assert "Unexpected endpoint or method." in failed("pull", "lmstudio:ibm/granite")


def test_key_of_lmstudio(user_path: Path) -> None:
    token = "sk-lm-AbCd1234:20characters0000000"
    with StandIn(LMStudio(models=OTHERS, catalogue={"ibm/x": GRANITE}, token=token)) as server:
        use_server(user_path, "lmstudio", server)
        assert "An LM Studio API token is required" in failed("pull", "lmstudio:ibm/x")
        (user_path / "keys.json").write_text(json.dumps({"localrun-lmstudio": token}))
        done("pull", "lmstudio:ibm/x")


def test_lmstudio_deletes_nothing(user_path: Path) -> None:
    with StandIn(LMStudio(models=(GRANITE,))) as server:
        use_server(user_path, "lmstudio", server)
        said = failed("rm", "local-granite", "--force")
    assert said == (
        "Error: LM Studio has no way for other programs to delete a model. Delete it there."
    )
