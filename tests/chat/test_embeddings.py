"""Embedding: a real model on the real engine against its original, Ollama and LM Studio."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import llm
import pytest
import sqlite_utils

from llm_localrun.chat.models import LocalEmbedding
from llm_localrun.engine.state import list_running
from llm_localrun.errors import LocalRunError
from tests.conftest import CONFIG, Llm, configure, put_starter, stop_engines
from tests.fakes.http_server import TRANSCRIPTS, Request, StandIn, json_reply, whole
from tests.fakes.lmstudio import LMStudio
from tests.support.drive import failure, served
from tests.support.embedding_model import FILE_NAME

MINILM = "local/gguf/all-MiniLM-L6-v2.F32"
STARTER = "local/gguf/SmolLM2-135M-Instruct.Q4_1"
NOMIC = "text-embedding-nomic-embed-text-v1.5"

ORIGINALS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data/minilm_vectors.json").read_text("utf-8")
)
TEXTS: list[str] = [each["text"] for each in ORIGINALS]

# llm leaves its database open.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")


@pytest.fixture(scope="session")
def embedding_user(
    embedding_model: Path, starter_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A user directory with a model that embeds and one that chats; the engine stays warm."""
    user = tmp_path_factory.mktemp("embedding")
    configure(user, **CONFIG)
    put_starter(user, starter_model)
    (user / "localrun" / "models" / FILE_NAME).hardlink_to(embedding_model)
    yield user
    stop_engines(user)


@pytest.fixture
def home(embedding_user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_USER_PATH", str(embedding_user))
    return embedding_user


@pytest.fixture
def minilm(home: Path) -> Any:
    return llm.get_embedding_model("local-all-minilm-l6")  # type: ignore[no-untyped-call]


def cosine(one: Iterable[float], other: Iterable[float]) -> float:
    one, other = list(one), list(other)
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.hypot(*one) / math.hypot(*other)


# With the real engine


@pytest.mark.parametrize("original", ORIGINALS, ids=[text[:20] for text in TEXTS])
def test_vectors_are_the_originals(original: dict[str, Any], minilm: Any) -> None:
    vector = minilm.embed(original["text"])
    assert len(vector) == 384
    assert all(type(number) is float for number in vector)
    assert cosine(vector, original["vector"]) > 0.99


@pytest.mark.parametrize("make", [list, tuple, iter, lambda texts: (text for text in texts)])
def test_many_at_once_are_the_same_in_their_order(
    make: Callable[[list[str]], Iterable[str]], minilm: Any
) -> None:
    vectors = list(minilm.embed_multi(make(TEXTS)))
    assert len(vectors) == len(TEXTS)
    for vector, original in zip(vectors, ORIGINALS, strict=True):
        assert cosine(vector, original["vector"]) > 0.99


def test_text_that_is_too_long_is_no_shorter_one(minilm: Any) -> None:
    assert len(minilm.embed("word " * 500)) == 384
    said = failure(lambda: minilm.embed("word " * 600))
    assert "602" in said
    assert "Split the text" in said


def test_commands(home: Path, run_llm: Llm, tmp_path: Path) -> None:
    def output(*arguments: str) -> str:
        done = run_llm(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    vector = json.loads(output("embed", "-m", "local-all-minilm-l6", "-c", TEXTS[0]))
    assert cosine(vector, ORIGINALS[0]["vector"]) > 0.99
    items = tmp_path / "items.jsonl"
    texts = {"cat": "A cat sleeps on the sofa", "car": "The engine of a car", "sum": "2 + 2 = 4"}
    lines = [json.dumps({"id": id_, "content": text}) for id_, text in texts.items()]
    items.write_text("\n".join(lines))
    given = ("--format", "nl", "-m", "local-all-minilm-l6", "--store", "-d", str(tmp_path / "e.db"))
    output("embed-multi", "things", str(items), *given)
    similar = output("similar", "things", "-c", "a kitten", "-d", str(tmp_path / "e.db"))
    nearest, *others = [json.loads(line) for line in similar.splitlines()]
    assert (nearest["id"], nearest["content"]) == ("cat", texts["cat"])
    assert nearest["score"] > max(other["score"] for other in others) + 0.1
    database = sqlite_utils.Database(tmp_path / "e.db")
    assert [row["model"] for row in database["collections"].rows] == [MINILM]
    database.close()


def test_each_kind_of_model_is_offered_for_what_it_is(home: Path) -> None:
    chats = {each.model.model_id for each in llm.get_models_with_aliases()}
    embeds = {each.model.model_id for each in llm.get_embedding_models_with_aliases()}
    assert STARTER in chats - embeds
    assert MINILM in embeds - chats
    with pytest.raises(llm.UnknownModelError):
        llm.get_model(MINILM)
    with pytest.raises(llm.UnknownModelError):
        llm.get_embedding_model(STARTER)  # type: ignore[no-untyped-call]


def test_chat_model_does_not_embed_on_the_command_line(home: Path, run_llm: Llm) -> None:
    done = run_llm("embed", "-m", "local-smollm2", "-c", "hello")
    assert done.returncode == 1
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr
    done = run_llm("-m", "local-all-minilm-l6", "hello")
    assert done.returncode == 1
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_one_engine_embeds_for_all(minilm: Any, home: Path) -> None:
    minilm.embed("hello")
    again: Any = llm.get_embedding_model(MINILM)  # type: ignore[no-untyped-call]
    assert again is not minilm
    again.embed("hello")
    engines = list_running(home / "localrun/engine")
    assert len([engine for engine in engines if engine.spec.settings.embedding]) == 1


# With servers


def embedding(url: str, kind: str, name: str) -> LocalEmbedding:
    return LocalEmbedding(served(url, kind, name, purpose="embedding"))


def vectors_of(request: Request) -> list[bytes]:
    """A vector for each text of a request to Ollama: what number the text ends in."""
    texts = request.body["input"]
    vectors = [[float(text.rpartition(" ")[2]), 1.0] for text in texts]
    return [json_reply({"model": request.body["model"], "embeddings": vectors})]


def test_batches_are_asked_for_as_they_are_wanted() -> None:
    taken: list[int] = []

    def texts() -> Iterator[str]:
        for number in range(70):
            taken.append(number)
            yield f"text {number}"

    with StandIn(vectors_of) as server:
        vectors = embedding(server.url, "ollama", "all-minilm").embed_batch(texts())
        assert server.requests == []
        assert next(vectors) == [0.0, 1.0]
        assert len(server.requests) == 1
        assert len(taken) <= 32
        assert [vector[0] for vector in vectors] == [float(number) for number in range(1, 70)]
    assert [len(request.body["input"]) for request in server.requests] == [32, 32, 6]


def test_batches_of_llms_own() -> None:
    with StandIn(vectors_of) as server:
        model = embedding(server.url, "ollama", "all-minilm")
        vectors = list(model.embed_multi([f"text {number}" for number in range(70)]))
    assert [vector[0] for vector in vectors] == [float(number) for number in range(70)]
    assert [len(request.body["input"]) for request in server.requests] == [32, 32, 6]


def test_nothing_to_embed_is_nothing_to_ask() -> None:
    with StandIn(vectors_of) as server:
        assert list(embedding(server.url, "ollama", "all-minilm").embed_batch(iter(()))) == []
    assert server.requests == []


# The heads in this file end their lines without a carriage return.
RECORDED = re.findall(
    r">>> POST /api/embed\n>>> (.*)\n---\nHTTP/1.1 (\d+) .*\n(?:[\w-]+: .*\n)+\n(.*)\n",
    (TRANSCRIPTS / "ollama-0.32.15" / "embed.txt").read_text("utf-8"),
)


def test_ollama_as_recorded() -> None:
    (asked, _, said) = RECORDED[1]
    with StandIn(lambda _: [whole(said.encode())]) as server:
        model = embedding(server.url, "ollama", "smollm2-embed")
        vectors = list(model.embed_batch(["hello", "world"]))
    assert vectors == json.loads(said)["embeddings"]
    (request,) = server.requests
    assert request.path == "/api/embed"
    assert request.body == {**json.loads(asked), "truncate": False}


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (0, "This server does not support embeddings. Start it with `--embeddings` (HTTP 501)"),
        (4, "invalid input type (HTTP 400)"),
        (5, "the input length exceeds the context length (HTTP 400)"),
    ],
)
def test_errors_of_ollama_as_recorded(number: int, message: str) -> None:
    _, status, said = RECORDED[number]
    with StandIn(lambda _: [whole(said.encode(), status=int(status))]) as server:
        model = embedding(server.url, "ollama", "smollm2-embed")
        message_shown = failure(lambda: model.embed("hello"))
    assert message_shown.startswith(f"Ollama at {server.url} says: {message}. ")


def test_lmstudio() -> None:
    server = LMStudio()
    with StandIn(server) as box:
        model = embedding(box.url, "lmstudio", NOMIC)
        one, two = model.embed_batch(["one", "two"])
        assert (model.embed("one"), model.embed("two")) == (one, two)
    assert one != two
    request = box.requests[0]
    assert request.path == "/v1/embeddings"
    assert request.body == {"model": NOMIC, "input": ["one", "two"], "encoding_format": "float"}


def data(*indices: int) -> dict[str, Any]:
    entries = [{"index": index, "embedding": [float(index)]} for index in indices]
    return {"object": "list", "data": entries, "model": "m"}


def test_order_is_the_texts_whatever_the_servers_is() -> None:
    with StandIn(lambda _: [json_reply(data(2, 0, 1))]) as server:
        vectors = list(embedding(server.url, "vllm", "m").embed_batch(["a", "b", "c"]))
    assert vectors == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        ("ollama", {"embeddings": [[1.0]]}),
        ("ollama", {"embeddings": [[1.0], [2.0], [3.0]]}),
        ("ollama", {"embeddings": []}),
        ("vllm", data(0)),
        ("vllm", data(0, 1, 2)),
        ("vllm", data(0, 0)),
    ],
)
def test_as_many_vectors_as_texts(kind: str, reply: dict[str, Any]) -> None:
    """One too few would shift all that follow to other texts."""
    with StandIn(lambda _: [json_reply(reply)]) as server:
        model = embedding(server.url, kind, "m")
        said = failure(lambda: list(model.embed_batch(["a", "b"])))
    assert said.startswith(("Ollama at ", "vLLM at "))


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"embeddings": None},
        {"embeddings": [["a"], ["b"]]},
        {"embeddings": [None, None]},
        {"embeddings": [[], []]},
        {"embeddings": [[1.0], [1.0, 2.0]]},
        {"embeddings": [[float("nan")], [1.0]]},
    ],
)
def test_vectors_that_are_none(reply: dict[str, Any]) -> None:
    with StandIn(lambda _: [json_reply(reply)]) as server:
        model = embedding(server.url, "ollama", "m")
        with pytest.raises(LocalRunError):
            list(model.embed_batch(["a", "b"]))


@pytest.mark.parametrize("item", [b"text", b"\xff\xd8"])
def test_bytes_are_refused(item: bytes) -> None:
    with StandIn(vectors_of) as server:
        model = embedding(server.url, "ollama", "m")
        with pytest.raises(ValueError, match="does not support binary data"):
            model.embed(item)
        with pytest.raises(ValueError, match="does not support binary data"):
            list(model.embed_multi([item]))
        with pytest.raises((ValueError, LocalRunError), match=r"bytes|binary"):
            list(model.embed_batch([item]))
    assert server.requests == []


def test_server_that_is_off(user_path: Path) -> None:
    with StandIn(vectors_of) as server:
        pass
    said = failure(lambda: embedding(server.url, "ollama", "m").embed("a"))
    assert said == f"Ollama at {server.url} does not answer. Start it with `ollama serve`."


@pytest.mark.parametrize("name", ["mxbai", "other"])
def test_key_goes_along(name: str, user_path: Path) -> None:
    (user_path / "keys.json").write_text(json.dumps({"localrun-vllm": "secret"}))
    with StandIn(lambda _: [json_reply(data(0))]) as server:
        embedding(server.url, "vllm", name).embed("a")
    assert server.requests[0].headers["authorization"] == "Bearer secret"


def test_copy_of_a_file_keeps_its_kind(
    home: Path, embedding_model: Path, tmp_path: Path, run_llm: Llm
) -> None:
    """A file that is named by its path is an embedding model wherever it lies."""
    file = tmp_path / "mine.gguf"
    shutil.copy(embedding_model, file)
    done = run_llm("embed", "-m", str(file), "-c", TEXTS[0])
    assert done.returncode == 0, done.stderr
    assert cosine(json.loads(done.stdout), ORIGINALS[0]["vector"]) > 0.99
