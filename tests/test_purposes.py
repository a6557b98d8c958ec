"""Models that llm has no command for, from end to end: listed by our commands, hidden from llm."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llm
import pytest

from tests.conftest import CONFIG, Invoke, Llm, configure, one_error
from tests.fakes.http_server import Request, Respond, StandIn, json_reply, whole
from tests.support.gguf_files import pair
from tests.support.trees import gguf

QWEN, NOMIC = "local/box/qwen3:4b", "local/box/nomic-embed-text:latest"
NIMBLE, RANKER, FLUX = "local/box/nimble:latest", "local/box/bge-ranks:latest", "local/box/flux:dev"
CAPABILITIES = {
    "nimble:latest": ["decision", "vision"],
    "bge-ranks:latest": ["embedding"],
    "flux:dev": ["image"],
}
RUNNABLE = {"qwen3:4b": ["completion"], "nomic-embed-text:latest": ["embedding"]}
NO_COMMAND = "llm has no command for such models"


def ollama(capabilities: dict[str, list[str]]) -> Respond:
    """An Ollama 0.40 with models of these capabilities; "bge-ranks" is a reranker by its header."""
    tags = [
        {"name": name, "digest": f"0a{number}", "size": 9**10, "capabilities": can}
        for number, (name, can) in enumerate(capabilities.items())
    ]

    def show(name: str) -> dict[str, Any]:
        info = {"general.architecture": "bert", "bert.pooling_type": 4 if "ranks" in name else 1}
        return {"capabilities": capabilities[name], "model_info": info if "bge" in name else {}}

    def respond(request: Request) -> Iterator[bytes]:
        if request.path == "/":
            yield whole(b"Ollama is running", "text/plain")
        elif request.path == "/api/show":
            yield json_reply(show(request.body["model"]))
        elif request.path == "/api/tags":
            yield json_reply({"models": tags})
        elif request.path == "/v1/models":
            yield json_reply({"data": [{"id": n, "owned_by": "library"} for n in capabilities]})
        else:
            yield json_reply({"error": "not found"}, 404)

    return respond


def prompts(box: StandIn) -> list[str]:
    """What was asked to run a model."""
    return [each.path for each in box.requests if each.path in ("/api/chat", "/api/embed")]


@pytest.fixture
def box(user_path: Path) -> Iterator[StandIn]:
    with StandIn(ollama({**CAPABILITIES, **RUNNABLE})) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        yield server


@pytest.fixture
def only_others(user_path: Path) -> Iterator[StandIn]:
    with StandIn(ollama(CAPABILITIES)) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        yield server


def test_they_are_listed_and_not_registered(box: StandIn, invoke: Invoke) -> None:
    assert invoke("localrun", "refresh").exit_code == 0
    listed = json.loads(invoke("localrun", "models", "--json").stdout)
    assert {model["id"]: model["purpose"] for model in listed} == {
        QWEN: "chat",
        NOMIC: "embedding",
        RANKER: "rerank",
        NIMBLE: "decision",
        FLUX: "other",
    }
    without_alias = {m["id"]: m["short_name"] for m in listed if not m["aliases"]}
    assert without_alias == {each: each for each in (RANKER, NIMBLE, FLUX)}
    for command in ("models", "embed-models"):
        said = invoke(command).stdout
        assert not any(name.removeprefix("local/box/") in said for name in without_alias), said
    known = [*llm.get_model_aliases(), *llm.get_embedding_model_aliases()]
    assert {*without_alias}.isdisjoint(known)
    assert {"local", "local-embed", QWEN, NOMIC} <= {*known}


def test_table_says_what_they_are_for(box: StandIn, invoke: Invoke) -> None:
    done = invoke("localrun", "models", env={"COLUMNS": "100"})
    rows = [line.split() for line in done.stdout.splitlines()[1:] if line]
    words = [word for row in rows for word in row if word in ("embed", "rerank", "decide", "other")]
    assert words == ["embed", "rerank", "decide", "other"]
    assert f"rerank, decide, other: {NO_COMMAND}\n" in done.stderr


OTHERS = [
    (RANKER, "a reranking model"),
    (NIMBLE, "a decision model"),
    (FLUX, "neither a chat model nor an embedding model"),
]


@pytest.mark.parametrize(("name", "what"), OTHERS)
def test_naming_one_is_an_error_that_says_what_it_is(
    name: str, what: str, box: StandIn, invoke: Invoke
) -> None:
    for _ in range(2):
        assert one_error(invoke("-m", name, "hi")) == (
            f"{name} is {what}: it cannot answer prompts. {NO_COMMAND}."
            " To chat: `llm -m local 'prompt'`."
        )
    assert one_error(invoke("embed", "-m", name, "-c", "hi")) == (
        f"{name} is {what}: it does not embed texts. Embed with `llm embed -m local-embed`."
        f" {NO_COMMAND}."
    )
    assert f"is {what}: " in one_error(invoke("-m", f"local/{name[6:].upper()}", "hi"))
    assert prompts(box) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("local-nimble", "local-nimble is a decision model: "),
        ("Local-BGE-ranks", "Local-BGE-ranks is a reranking model: "),
        ("local-nim", "No local model is called 'local-nim'. "),
        ("local-bge", "No local model is called 'local-bge'. "),
    ],
)
def test_name_that_would_be_its_alias(name: str, said: str, box: StandIn, invoke: Invoke) -> None:
    assert one_error(invoke("-m", name, "hi")).startswith(said)


@pytest.mark.parametrize("command", ["which", "show", "allow"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("local-nimble", f"a decision model: {NO_COMMAND}, and no alias. Use its id: {NIMBLE}."),
        (
            "Local-BGE-ranks",
            f"a reranking model: {NO_COMMAND}, and no alias. Use its id: {RANKER}.",
        ),
    ],
)
def test_our_commands_name_its_id(
    command: str, name: str, said: str, box: StandIn, invoke: Invoke
) -> None:
    assert one_error(invoke("localrun", command, name)) == f"{name} is {said}"


@pytest.mark.parametrize(("name", "what"), OTHERS)
def test_commands_about_one_model_say_what_it_is(
    name: str, what: str, box: StandIn, invoke: Invoke
) -> None:
    assert f"{what}: {NO_COMMAND}\n" in invoke("localrun", "show", name).stdout
    done = invoke("localrun", "which", name)
    assert done.stderr == f"{name} is {what}: {NO_COMMAND}\n"
    (row,) = json.loads(invoke("localrun", "which", name, "--json").stdout)
    assert (row["id"], row["purpose"], row["taken_by"]) == (
        name,
        {RANKER: "rerank", NIMBLE: "decision", FLUX: "other"}[name],
        None,
    )


def test_doctor_names_them(box: StandIn, invoke: Invoke) -> None:
    said = invoke("localrun", "doctor").stdout
    assert "2 of 5 models can run (llm has no command for " in said
    assert all(name in said for name in (NIMBLE, RANKER, FLUX))


def test_machine_that_has_no_other_models(only_others: StandIn, invoke: Invoke) -> None:
    said = one_error(invoke("-m", "local", "hi"))
    assert said.startswith("No model on this machine can chat: there is only local/box/")
    assert one_error(invoke("-m", NIMBLE, "hi")) == (
        f"{NIMBLE} is a decision model: it cannot answer prompts. {NO_COMMAND}."
        " Start LM Studio or Ollama, or get a small model: `llm localrun pull starter`."
    )
    done = invoke("localrun", "doctor")
    assert (done.exit_code, done.stderr) == (1, "No model can run.\n")
    assert "none of the models can run (llm has no command for " in done.stdout
    assert prompts(only_others) == []


FILES = [
    ("rank", {"bert.pooling_type": 4}, "bert", "a reranking model"),
    ("nimble", {"lfm2.decision.type": "nimble"}, "lfm2", "a decision model"),
    ("tokens", {"bert.pooling_type": 9}, "bert", OTHERS[-1][1]),
]


@pytest.mark.parametrize(("stem", "keys", "architecture", "what"), FILES)
def test_file_that_is_named_by_its_path(
    stem: str,
    keys: dict[str, Any],
    architecture: str,
    what: str,
    tmp_path: Path,
    user_path: Path,
    invoke: Invoke,
) -> None:
    configure(user_path, **CONFIG)
    path = str(gguf(tmp_path / f"{stem}.gguf", keys, architecture=architecture))
    assert one_error(invoke("-m", path, "hi")).startswith(
        f"{path} is {what}: it cannot answer prompts. {NO_COMMAND}. "
    )
    assert one_error(invoke("embed", "-m", path, "-c", "hi")).startswith(
        f"{path} is {what}: it does not embed texts. "
    )
    assert json.loads(invoke("localrun", "show", path, "--json").stdout)["aliases"] == []


def test_reranker_is_not_loaded_to_embed(
    embedding_model: Path, tmp_path: Path, user_path: Path, run_llm: Llm
) -> None:
    """llama.cpp would load it, and send vectors without meaning."""
    configure(user_path, **CONFIG)
    mean, rank = (pair("bert.pooling_type", kind) for kind in (1, 4))
    file = tmp_path / "ranks.gguf"
    content = embedding_model.read_bytes()
    assert content.count(mean) == 1
    file.write_bytes(content.replace(mean, rank))
    for command in (("-m", str(file), "hi"), ("embed", "-m", str(file), "-c", "hi")):
        done = run_llm(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"Error: {file} is a reranking model: it " in done.stderr
    assert not [*user_path.glob("localrun/engine/*.json")]


def test_served_model_is_what_its_file_says(
    tmp_path: Path, user_path: Path, invoke: Invoke
) -> None:
    """llama-server does not tell that it was started to embed, or with which kind of model."""
    folder = tmp_path / "models"
    for stem, kind in (("embeds", 1), ("ranks", 4)):
        gguf(folder / f"{stem}.gguf", {"bert.pooling_type": kind}, architecture="bert")
    entries = []
    for stem in ("embeds", "ranks"):
        status = {"value": "unloaded", "args": ["--model", str(folder / f"{stem}.gguf")]}
        entries.append({"id": f"smol-{stem}", "owned_by": "llamacpp", "status": status})

    def respond(request: Request) -> Iterator[bytes]:
        is_list = request.path == "/v1/models"
        yield json_reply({"data": entries}) if is_list else json_reply({"error": {}}, 404)

    with StandIn(respond) as server:
        endpoints = [{"name": "box", "url": server.url, "dialect": "llamacpp"}]
        settings = {**CONFIG, "folders": [str(folder)], "endpoints": endpoints}
        configure(user_path, **settings)
        models = json.loads(invoke("localrun", "models", "--json").stdout)
    assert {model["id"]: model["purpose"] for model in models} == {
        "local/box/smol-embeds": "embedding",
        "local/box/smol-ranks": "rerank",
    }
