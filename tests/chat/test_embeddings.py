"""Embedding: a real model on the real engine against its original, Ollama and LM Studio."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import click
import llm
import pytest
import sqlite_utils
from llm.plugins import pm

from llm_localrun.catalogue import write_snapshot
from llm_localrun.chat.models import LocalEmbedding
from llm_localrun.engine.state import list_running
from llm_localrun.errors import LocalRunError
from llm_localrun.models import EndpointReport, ServerStatus, Snapshot
from llm_localrun.system.paths import engine_folder
from tests.conftest import CONFIG, Invoke, Llm, configure, put_starter, stop_engines
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

# llm leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


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
    # [CLS] and [SEP] are two more tokens.
    assert len(minilm.embed("word " * 510)) == 384
    assert failure(lambda: minilm.embed("word " * 511)) == (
        'The text "word word word word word word word word …" is too long.'
        " It takes 513 tokens, and all-MiniLM-L6-v2.F32 holds 512."
        " Split it, or choose an embedding model with a larger context."
    )


def test_vectors_before_a_text_that_is_too_long_come(minilm: Any) -> None:
    vectors = minilm.embed_multi([*TEXTS[:3], "word " * 600, TEXTS[3]])
    for original in ORIGINALS[:3]:
        assert cosine(next(vectors), original["vector"]) > 0.99
    assert "It takes 602 tokens" in failure(lambda: next(vectors))


def test_context_grows_to_what_the_model_was_trained_for(
    embedding_model: Path, user_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = user_path / "localrun" / "models"
    models.mkdir()
    (models / FILE_NAME).hardlink_to(embedding_model)
    monkeypatch.setattr("llm_localrun.engine_defaults.CONTEXT_SIZE", 256)
    model: Any = llm.get_embedding_model(MINILM)  # type: ignore[no-untyped-call]
    assert len(model.embed("word " * 100)) == 384
    assert "602 tokens" in failure(lambda: model.embed("word " * 600))
    assert [engine.spec.context_size for engine in list_running(engine_folder())] == [256]
    assert [len(vector) for vector in model.embed_multi(["word " * 400, "word"])] == [384, 384]
    assert 512 in [engine.spec.context_size for engine in list_running(engine_folder())]


@pytest.mark.parametrize("known", [{}, {"context_max": 512, "context_loaded": 512}])
def test_llama_server_itself(known: dict[str, Any], minilm: Any, home: Path) -> None:
    """It counts the texts if its context is known, and else refuses a batch as a whole."""
    minilm.embed("hello")
    (engine,) = (e for e in list_running(home / "localrun/engine") if e.spec.settings.embedding)
    texts = [*TEXTS[:3], "word " * 600, TEXTS[3]]
    model = embedding(engine.url, "llamacpp", "m", **known)
    vectors = model.embed_batch(texts, key=engine.key)
    for original in ORIGINALS[:3]:
        assert cosine(next(vectors), original["vector"]) > 0.99
    said = failure(lambda: next(vectors))
    assert said.startswith('The text "word word')
    assert "602 tokens" in said


def test_one_long_text_of_many_on_the_command_line(
    home: Path, run_llm: Llm, tmp_path: Path
) -> None:
    texts = [f"text number {number}" for number in range(1, 101)]
    texts[56] = "word " * 600

    def embed_multi(*options: str) -> "subprocess.CompletedProcess[str]":
        lines = (json.dumps({"id": n, "content": t}) for n, t in enumerate(texts, 1))
        (tmp_path / "items.jsonl").write_text("\n".join(lines))
        given = ("--format", "nl", "-m", "local-all-minilm-l6", "--store", "-d", database)
        return run_llm("embed-multi", "many", str(tmp_path / "items.jsonl"), *given, *options)

    database = str(tmp_path / "e.db")
    done = embed_multi()
    assert done.returncode == 1
    assert done.stderr == (
        'Error: Text 57 of this run ("word word word word word word word word …") is too long.'
        " It takes 602 tokens, and all-MiniLM-L6-v2.F32 holds 512. Split it, or choose an"
        " embedding model with a larger context. The other texts are stored.\n"
    )
    assert stored(database) == {str(n): texts[n - 1] for n in range(1, 101) if n != 57}
    assert "Text 1 of this run (" in embed_multi("--batch-size", "1").stderr
    texts[56] = "a short text"
    done = embed_multi()
    assert (done.returncode, done.stderr) == (0, "")
    assert stored(database) == {str(n): text for n, text in enumerate(texts, 1)}
    similar = run_llm("similar", "many", "-c", "a short text", "-n", "1", "-d", database)
    assert json.loads(similar.stdout)["id"] == "57"


def stored(database: str) -> dict[str, str]:
    """The content that a database of llm's has for each id."""
    opened = sqlite_utils.Database(database)
    rows = {row["id"]: row["content"] for row in opened["embeddings"].rows}
    opened.close()
    return rows


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


def embedding(url: str, kind: str, name: str, **known: Any) -> LocalEmbedding:
    return LocalEmbedding(served(url, kind, name, purpose="embedding", **known))


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
    ],
)
def test_errors_of_ollama_as_recorded(number: int, message: str) -> None:
    _, status, said = RECORDED[number]
    with StandIn(lambda _: [whole(said.encode(), status=int(status))]) as server:
        model = embedding(server.url, "ollama", "smollm2-embed")
        message_shown = failure(lambda: model.embed("hello"))
    assert message_shown.startswith(f"Ollama at {server.url} says: {message}. ")


# What servers say to a batch with a text of more than 512 tokens. Sources: the recording of Ollama
# 0.32.15; llama.cpp b11434; LM Studio's examples, issue 29; issues of vLLM (19798), SGLang and
# PubSec-Info-Assistant (755); Text Embeddings Inference 1.8.
REFUSALS: list[tuple[str, int, Any]] = [
    ("ollama", 400, json.loads(RECORDED[5][2])),
    ("ollama", 400, {"error": "input length exceeds maximum context length"}),
    (
        "llamacpp",
        500,
        {
            "error": {
                "code": 500,
                "message": "input (602 tokens) is too large to process. increase the physical batch"
                " size (current batch size: 512)",
                "type": "server_error",
            }
        },
    ),
    (
        "llamacpp",
        400,
        {
            "error": {
                "code": 400,
                "message": "input (602 tokens) is larger than the max context size (512 tokens)."
                " skipping",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 602,
                "n_ctx": 512,
            }
        },
    ),
    ("lmstudio", 400, {"error": "Input length 602 exceeds context length 512"}),
    (
        "vllm",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 512 tokens. However, you requested"
            " 602 tokens in the input for embedding generation. Please reduce the length of the"
            " input.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    (
        "vllm",
        400,
        {
            "error": {
                "message": "You passed 602 input tokens and requested 0 output tokens. However, the"
                " model's context length is only 512 tokens, resulting in a maximum input length of"
                " 512 tokens. Please reduce the length of the input prompt.",
                "type": "BadRequestError",
            }
        },
    ),
    (
        "sglang",
        400,
        {
            "object": "error",
            "message": "The input (602 tokens) is longer than the model's context length (512"
            " tokens).",
        },
    ),
    (
        "openai",
        413,
        {
            "error": "Input validation error: `inputs` must have less than 512 tokens. Given: 602",
            "error_type": "Validation",
        },
    ),
]


def refusing(status: int, refusal: Any) -> Callable[[Request], list[bytes]]:
    """Refuses a batch with a text of more than 99 characters; it counts no tokens."""

    def respond(request: Request) -> list[bytes]:
        texts = (request.body or {}).get("input")
        if texts is None:
            return [json_reply({"error": "not found"}, 404)]
        if any(len(text) > 99 for text in texts):
            return [json_reply(refusal, status)]
        if request.path == "/api/embed":
            return vectors_of(request)
        return [json_reply(data(*range(len(texts))))]

    return respond


@pytest.mark.parametrize(("kind", "status", "refusal"), REFUSALS)
def test_server_that_refuses_a_batch(kind: str, status: int, refusal: Any) -> None:
    """The text at fault is looked for, and those before it are embedded."""
    texts = [f"text {number}" for number in range(8)]
    texts[5] = "tale " * 30
    with StandIn(refusing(status, refusal)) as server:
        vectors = embedding(server.url, kind, "m").embed_batch(texts)
        received = [next(vectors) for _ in range(5)]
        said = failure(lambda: next(vectors))
    assert len(received) == 5
    assert said.startswith(f'The text "{"tale " * 8}…" is too long. ')
    assert "512" in said or kind in ("ollama",)
    assert said.endswith("Split it, or choose an embedding model with a larger context.")
    asked = [request.body["input"] for request in server.requests if "input" in request.body]
    assert [len(batch) for batch in asked] == [8, 4, 4, 2, 1, 1]
    assert texts[6:] not in asked


def test_another_error_is_no_text_that_is_too_long() -> None:
    with StandIn(refusing(500, {"error": "out of memory"})) as server:
        said = failure(lambda: list(embedding(server.url, "ollama", "m").embed_batch(["x" * 200])))
    assert said.startswith(f"Ollama at {server.url} says: out of memory (HTTP 500).")
    assert len(server.requests) == 1


def counting(request: Request) -> list[bytes]:
    """Counts a token for each word, as llama-server and as vLLM; embeds what is not counted."""
    text = request.body.get("content", request.body.get("prompt"))
    if text is None:
        return [json_reply(data(*range(len(request.body["input"]))))]
    tokens = [1] * len(text.split())
    return [json_reply({"tokens": tokens, "count": len(tokens), "max_model_len": 512})]


@pytest.mark.parametrize(
    ("kind", "known", "problem"),
    [
        ("llamacpp", {"context_max": 512}, "m holds 512. Split it, or choose"),
        ("vllm", {"context_max": 512, "context_loaded": 512}, "m holds 512. Split it, or choose"),
        ("sglang", {"context_loaded": 512}, "m holds 512. Split it, or choose"),
        (
            "llamacpp",
            {"context_max": 2048, "context_loaded": 512},
            "llama-server at URL holds 512. Split it, or start the server with -c 2048 -b 2048"
            " -ub 2048.",
        ),
        (
            "vllm",
            {"context_max": 2048, "context_loaded": 512},
            "vLLM at URL holds 512. Split it, or start the server with --max-model-len 2048.",
        ),
    ],
)
def test_texts_are_counted_before_they_are_sent(
    kind: str, known: dict[str, Any], problem: str
) -> None:
    texts = ["word " * 100, "long " * 200, "word " * 600, "more", "more " * 700]
    with StandIn(counting) as server:
        vectors = embedding(server.url, kind, "m", **known).embed_batch(texts)
        assert [next(vectors), next(vectors)] == [[0.0], [1.0]]
        said = failure(lambda: next(vectors))
    expected = f"It takes 600 tokens, and {problem}".replace("URL", server.url)
    assert expected in said
    counted = {json.dumps(r.body) for r in server.requests if r.path == "/tokenize"}
    # A text whose bytes show that it fits is not counted.
    assert len(counted) == 3
    assert [r.body["input"] for r in server.requests if r.path != "/tokenize"] == [texts[:2]]


def test_llama_server_whose_physical_batch_is_smaller_than_its_context() -> None:
    """What counts as short enough is refused; the flags that help are named."""
    refuse = refusing(*REFUSALS[2][1:])

    def respond(request: Request) -> list[bytes]:
        return counting(request) if request.path == "/tokenize" else refuse(request)

    with StandIn(respond) as server:
        model = embedding(server.url, "llamacpp", "m", context_max=2048, context_loaded=2048)
        said = failure(lambda: model.embed("word " * 600))
    assert "input (602 tokens) is too large to process" in said
    assert said.endswith("Split it, or start the server with -c 2048 -b 2048 -ub 2048.")


def test_ollama_gets_a_context_for_long_texts() -> None:
    """Its default would refuse them; a model that was trained for less cannot have more."""
    loaded = {"name": "m8192", "context_length": 8192}

    def respond(request: Request) -> list[bytes]:
        is_loaded = any("options" in (each.body or {}) for each in server.requests)
        models = [loaded] if is_loaded else []
        return vectors_of(request) if request.body else [json_reply({"models": models})]

    with StandIn(respond) as server:
        for trained in (2048, 8192):
            model = embedding(server.url, "ollama", f"m{trained}", context_max=trained)
            for text in ("short 1", "word " * 5000 + "1", "short 1"):
                model.embed(text)
    bodies = [request.body for request in server.requests if request.path == "/api/embed"]
    larger = {"num_ctx": 8192}
    # A short text after a long one must not make Ollama load the model again.
    assert [body.get("options") for body in bodies] == [*[None] * 4, larger, larger]


@pytest.fixture
def offered() -> Iterator[Callable[[LocalEmbedding], None]]:
    """Registers an embedding model with llm for as long as the test runs."""

    class Plugin:
        __name__ = "offered"
        models: ClassVar[list[LocalEmbedding]] = []

        @llm.hookimpl
        def register_embedding_models(self, register: Callable[..., None]) -> None:
            for model in self.models:
                register(model)

    pm.register(Plugin(), name="offered")
    yield Plugin.models.append
    pm.unregister(name="offered")


def test_command_goes_on_after_texts_that_are_too_long(
    offered: Callable[[LocalEmbedding], None], invoke: Invoke, tmp_path: Path
) -> None:
    """It names each, and says so too if it ends for another reason."""
    refusal = {"error": "the input length exceeds the context length"}
    texts = [f"text {number}" for number in range(1, 81)]
    texts[9], texts[31], texts[39] = "one\x1b[1m\n " * 20, "tale " * 30, "x" * 100
    items = tmp_path / "items.json"
    items.write_text(json.dumps([{"id": n, "content": t} for n, t in enumerate(texts, 1)]))
    command = ("embed-multi", "many", str(items), "--store", "-d", str(tmp_path / "e.db"))
    with StandIn(refusing(400, refusal)) as server:
        model = embedding(server.url, "ollama", "m")
        model.model_id = "offered"
        offered(model)
        done = invoke(*command, "-m", model.model_id)
    says = f"Ollama at {server.url} says: the input length exceeds the context length (HTTP 400)."
    assert done.exit_code == 1
    shown = r"one\x1b[1m " * 5
    assert done.stderr.rstrip("\n") == (
        f'Error: Text 10 of this run ("{shown}…") is too long.'
        f' {says} Text 32 of this run ("tale tale tale tale tale tale tale tale …") is too long.'
        f' {says} Text 40 of this run ("{"x" * 40}…") is too long. {says}'
        " Split it, or choose an embedding model with a larger context. The other texts are stored."
    )
    ids = {int(id_) for id_ in stored(str(tmp_path / "e.db"))}
    assert ids == {*range(1, 81)} - {10, 32, 40}
    assert click.get_current_context(silent=True) is None


def test_command_that_ends_for_another_reason_names_the_texts_too(
    offered: Callable[[LocalEmbedding], None], invoke: Invoke, tmp_path: Path
) -> None:
    refusal = {"error": "the input length exceeds the context length"}
    refuse = refusing(400, refusal)

    def respond(request: Request) -> list[bytes]:
        is_last = "text 40" in request.body["input"]
        return [json_reply({"error": "broken"}, 500)] if is_last else refuse(request)

    texts = ["tale " * 30, *(f"text {number}" for number in range(2, 41))]
    items = tmp_path / "items.json"
    items.write_text(json.dumps([{"id": n, "content": t} for n, t in enumerate(texts, 1)]))
    with StandIn(respond) as server:
        model = embedding(server.url, "ollama", "m")
        model.model_id = "offered"
        offered(model)
        done = invoke("embed-multi", "many", str(items), "-m", model.model_id)
    first, second = done.stderr.splitlines()
    assert first.startswith('Error: Text 1 of this run ("tale tale')
    assert "stored" not in first
    assert second.startswith(f"Error: Ollama at {server.url} says: broken (HTTP 500).")


def test_error_names_a_model_that_holds_more(user_path: Path) -> None:
    with StandIn(counting) as server:
        larger = served(server.url, "vllm", "bge-m3", purpose="embedding", context_max=8192)
        assert larger.served is not None
        answers = ServerStatus.ANSWERS
        report = EndpointReport(
            endpoint=larger.served.endpoint, status=answers, asked_at=0.0, models=(larger,)
        )
        write_snapshot(user_path / "localrun", Snapshot(taken_at=1.0, endpoints=(report,)))
        said = failure(
            lambda: embedding(server.url, "vllm", "m", context_max=512).embed("a " * 600)
        )
    assert said.endswith("with a larger context: local/vllm/bge-m3 holds 8,192 tokens.")


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


def data(*indices: Any, key: str = "index") -> dict[str, Any]:
    """A reply with the vector [0.0] for the first index, and so on."""
    entries = [{key: index, "embedding": [float(at)]} for at, index in enumerate(indices)]
    return {"object": "list", "data": entries, "model": "m"}


@pytest.mark.parametrize(
    ("reply", "order"),
    [
        (data(2, 0, 1), [1, 2, 0]),
        (data("2", 0, 1), [1, 2, 0]),
        (data(None, None, None), [0, 1, 2]),
        (data("a", {}, [0]), [0, 1, 2]),
        (data(0, 1, 2, key="position"), [0, 1, 2]),
        (data(0, None, 2), [0, 1, 2]),
    ],
)
def test_order_is_the_texts_whatever_the_servers_is(
    reply: dict[str, Any], order: list[int]
) -> None:
    """An entry without an index keeps its position."""
    with StandIn(lambda _: [json_reply(reply)]) as server:
        vectors = list(embedding(server.url, "vllm", "m").embed_batch(["a", "b", "c"]))
    assert vectors == [[float(at)] for at in order]


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        ("ollama", {"embeddings": [[1.0]]}),
        ("ollama", {"embeddings": [[1.0], [2.0], [3.0]]}),
        ("ollama", {"embeddings": []}),
        ("vllm", data(0)),
        ("vllm", data(0, 1, 2)),
        ("vllm", data(0, 0)),
        ("vllm", data(1, None)),
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
    with StandIn(lambda _: [json_reply({**data(0), "model": name})]) as server:
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
