"""A reply that names another model than was asked is an error, before anything of it is shown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_localrun.catalogue import get_catalogue
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.servers.base import server_kinds
from tests.conftest import Llm, configure
from tests.fakes.http_server import Request, StandIn, events, json_reply, not_found
from tests.fakes.openai_compatible import completion
from tests.support.drive import WAYS, ask, failure, served

Json = dict[str, Any]


class Answering:
    """Answers every chat and every embedding in the name of `answers`, in the form of a kind."""

    def __init__(self, answers: str | None, lists: Mapping[str, Json] | None = None) -> None:
        self.answers = answers
        self.lists = dict(lists or {})

    def __call__(self, request: Request) -> Iterator[bytes]:
        named = {} if self.answers is None else {"model": self.answers}
        if request.method == "GET":
            reply = self.lists.get(request.path)
            yield json_reply(reply) if reply else not_found(request.path)
        elif request.path == "/api/chat":
            message = {"role": "assistant", "content": "Hi"}
            yield json_reply({**named, "message": message, "done": True, "done_reason": "stop"})
        elif request.path == "/api/embed":
            yield json_reply({**named, "embeddings": [[1.0]] * len(request.body["input"])})
        elif request.path == "/v1/embeddings":
            rows = [{"index": i, "embedding": [1.0]} for i in range(len(request.body["input"]))]
            yield json_reply({**named, "data": rows})
        elif request.body["stream"]:
            delta = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
            yield events({**named, "choices": [delta]})
        else:
            yield json_reply(completion("Hi", finish_reason="stop", **named))


PRECISE = sorted(
    kind
    for kind, cls in server_kinds().items()
    if cls.names_models_as_listed and not cls.is_private
)
OTHERS = sorted(
    kind
    for kind, cls in server_kinds().items()
    if not cls.names_models_as_listed and not cls.is_private
)


def test_the_kinds_that_name_their_models_as_listed() -> None:
    own = ["koboldcpp", "llamacpp", "lmstudio", "mlx", "ollama", "sglang", "textgen", "vllm"]
    assert own == PRECISE


@pytest.mark.parametrize(
    ("kind", "asked", "answers", "also_named"),
    [
        *((kind, "m:1b", "m:1b", ()) for kind in PRECISE),
        *((kind, "m:1b", "M:1B", ()) for kind in PRECISE),
        # One that does not name itself is believed.
        *((kind, "m:1b", None, ()) for kind in [*PRECISE, *OTHERS]),
        *((kind, "m:1b", "", ()) for kind in PRECISE),
        # What stands behind a proxy has names of its own.
        *((kind, "m:1b", "/models/m.gguf", ()) for kind in OTHERS),
        ("llamacpp", "uno", "one", ("one",)),
        ("vllm", "second", "first", ("first", "third")),
        ("ollama", "m", "m:latest", ()),
        ("ollama", "m:latest", "m", ()),
        ("ollama", "gpt-oss:120b-cloud", "gpt-oss:120b", ()),
        ("lmstudio", "qwen/qwen3-8b", "qwen/qwen3-8b:2", ()),
        ("lmstudio", "qwen/qwen3-8b@q4_k_m", "qwen/qwen3-8b", ()),
        ("lmstudio", "qwen/qwen3-8b", "qwen/qwen3-8b@q8_0", ()),
    ],
)
def test_a_name_of_the_model(
    kind: str, asked: str, answers: str | None, also_named: tuple[str, ...]
) -> None:
    with StandIn(Answering(answers)) as server:
        model = served(server.url, kind, asked).with_served(also_named=also_named)
        assert ask(model, "Hi").text == "Hi"


WRONG = [
    *((kind, "m:1b", "n:1b", ()) for kind in PRECISE),
    # The name of a variant is another model's, where variants are not instances of one.
    ("llamacpp", "m:q4", "m:q8", ()),
    ("vllm", "second", "fourth", ("first", "third")),
    ("ollama", "m:latest", "m:1b", ()),
    ("lmstudio", "qwen/qwen3-8b", "qwen/qwen3-14b", ()),
    ("lmstudio", "qwen/qwen3-8b", "qwen/qwen3", ()),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "asked", "answers", "also_named"), WRONG)
def test_the_name_of_another_model(
    way: str, kind: str, asked: str, answers: str, also_named: tuple[str, ...]
) -> None:
    with StandIn(Answering(answers)) as server:
        model = served(server.url, kind, asked).with_served(also_named=also_named)
        message = failure(lambda: ask(model, "Hi", way))
    title = server_kinds()[kind].title
    assert message == (
        f"{title} at {server.url} answers with the model {answers} instead of {asked}. Have it"
        f" serve {asked}, or run the other one: `llm localrun models` lists it."
    )


def entries(*names: str, **more: Any) -> Json:
    """A /v1/models."""
    return {"object": "list", "data": [{"id": name, "object": "model", **more} for name in names]}


def listed(server: StandIn, user_path: Path) -> Sequence[LocalModel]:
    configure(user_path, default_endpoints=False, endpoints=[{"name": "box", "url": server.url}])
    return get_catalogue(CachePolicy.FRESH).models


@pytest.mark.parametrize(
    ("answers", "listed_now", "is_wrong"),
    [
        # An alias, a snapshot, and what a gateway maps the name to.
        ("n", ["m", "n"], False),
        ("m-2026-11-01", ["m", "n"], False),
        ("/models/m.gguf", ["m"], False),
        # Restarted with another model.
        ("n", ["n"], True),
        ("new", ["new"], True),
    ],
)
def test_server_that_renames_models_is_asked_whether_it_lists_the_one_that_is_wanted(
    answers: str, listed_now: list[str], is_wrong: bool, user_path: Path
) -> None:
    server = Answering(answers, {"/v1/models": entries("m", "n")})
    with StandIn(server) as stand_in:
        model = next(each for each in listed(stand_in, user_path) if each.name == "m")
        server.lists = {"/v1/models": entries(*listed_now)}
        stand_in.requests.clear()
        if is_wrong:
            message = failure(lambda: ask(model, "Hi"))
            assert f"answers with the model {answers} instead of m" in message
            return
        assert ask(model, "Hi").text == "Hi"
        known = next(m for m in get_catalogue(CachePolicy.CACHED).models if m.name == "m")
        assert ask(known, "Hi").text == "Hi"
    paths = [request.path for request in stand_in.requests]
    assert paths == ["/v1/chat/completions", "/v1/models", "/v1/chat/completions"]


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"owned_by": "llamacpp", "aliases": ["one", "uno"]}, ("uno",)),
        ({"owned_by": "llamacpp", "aliases": None}, ()),
        ({"owned_by": "llamacpp"}, ()),
        ({"owned_by": "vllm", "root": "/models/one"}, ("two",)),
    ],
)
def test_other_names_come_from_the_list(
    entry: Json, names: tuple[str, ...], user_path: Path
) -> None:
    models = ["one", "two"] if entry["owned_by"] == "vllm" else ["one"]
    with StandIn(Answering("one", {"/v1/models": entries(*models, **entry)})) as server:
        (model,) = (each for each in listed(server, user_path) if each.name == "one")
        assert model.served and model.served.also_named == names


def test_models_of_one_vllm_with_different_weights_are_different(user_path: Path) -> None:
    rows = [entries("one", owned_by="vllm", root="a"), entries("two", owned_by="vllm", root="b")]
    both = {"object": "list", "data": [row["data"][0] for row in rows]}
    with StandIn(Answering("two", {"/v1/models": both})) as server:
        model = next(each for each in listed(server, user_path) if each.name == "one")
        assert "answers with the model two" in failure(lambda: ask(model, "Hi"))


@pytest.mark.parametrize("kind", ["llamacpp", "ollama"])
def test_vectors_of_another_model(kind: str) -> None:
    from llm_localrun.chat.models import LocalEmbedding

    with StandIn(Answering("other-embed")) as server:
        model = served(server.url, kind, "nomic-embed", purpose="embedding")
        assert "answers with the model other-embed" in failure(
            lambda: list(LocalEmbedding(model).embed_batch(["text"]))
        )


def test_server_that_was_restarted_with_another_model(run_llm: Llm, user_path: Path) -> None:
    """The old model leaves the list, the new one comes, and nothing is logged as the old one's."""
    server = Answering("old", {"/v1/models": entries("old", owned_by="llamacpp")})
    with StandIn(server) as stand_in:
        configure(
            user_path, default_endpoints=False, endpoints=[{"name": "box", "url": stand_in.url}]
        )
        assert run_llm("-m", "local/box/old", "Hi").stdout == "Hi\n"
        server.answers = "new"
        server.lists = {"/v1/models": entries("new", owned_by="llamacpp")}
        refused = run_llm("-m", "local/box/old", "Hi")
        assert refused.returncode == 1
        assert "answers with the model new instead of old" in refused.stderr
        rows = json.loads(run_llm("logs", "--json").stdout)
        assert [row["response"] for row in rows] == ["Hi"]
        assert run_llm("-m", "local", "Hi").stdout == "Hi\n"
        names = json.loads(run_llm("localrun", "models", "--json").stdout)
        assert [each["id"] for each in names] == ["local/box/new"]
