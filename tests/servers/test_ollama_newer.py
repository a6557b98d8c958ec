"""What Ollama added from 0.33 to 0.40, and models of its list that have moved to a cloud."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import catalogue
from llm_localrun.catalogue import get_catalogue
from llm_localrun.chat.models import LocalEmbedding
from llm_localrun.cli import table
from llm_localrun.errors import (
    BadReply,
    NotAllowed,
    NotRemoved,
    ServerRefused,
    ServerUnreachable,
)
from llm_localrun.models import LocalModel, RunsOn
from llm_localrun.name_cache import CachePolicy
from llm_localrun.servers import ollama
from llm_localrun.servers.base import open_server
from tests.conftest import CONFIG, Invoke, configure
from tests.fakes.http_server import Request, StandIn, json_reply
from tests.fakes.ollama import Ollama
from tests.support.drive import WAYS, ask, failure
from tests.support.models import file_route, served_route
from tests.support.trees import LIBRARY, digest_of, gguf, layer, manifest, ollama_model, write

in_every_way = pytest.mark.parametrize("way", WAYS)
CLOUD = "https://ollama.com:443"
THINKS = ("completion", "thinking")


def at(user: Path, server: StandIn, **config: Any) -> tuple[LocalModel, ...]:
    configure(user, **CONFIG, endpoints=[{"name": "box", "url": server.url}], **config)
    return get_catalogue(CachePolicy.REFRESH).models


def thinking(*values: Any, default: Any = None) -> Mapping[str, Any]:
    return {"values": list(values), "default": default}


@pytest.mark.parametrize(
    ("known", "levels"),
    [
        ({}, None),
        (thinking(), None),
        (thinking(False, True, default=True), ("off", "on")),
        (thinking(False), ("off",)),
        (thinking(True), ("on",)),
        (thinking("low", "medium", "high", default="medium"), ("low", "on", "medium", "high")),
        (thinking("low", "medium", "high"), ("low", "medium", "high")),
        (thinking(False, "low", "high", default=False), ("off", "low", "high")),
        (thinking(False, "minimal", "max", default="minimal"), ("off", "on", "max")),
        (thinking("minimal", "extreme"), None),
        (thinking(None, {}, 3, "high"), ("high",)),
        ({"values": "high"}, None),
        ({"default": True}, ("on",)),
    ],
)
def test_levels_that_a_model_has(
    known: Mapping[str, Any], levels: tuple[str, ...] | None, user_path: Path
) -> None:
    fake = Ollama(has=["m:1b"], capabilities=THINKS, version="0.40.12", thinking=dict(known))
    with StandIn(fake) as server:
        assert at(user_path, server)[0].think_levels == levels
        # It is remembered with the digest.
        server.requests.clear()
        assert at(user_path, server)[0].think_levels == levels
        assert "/api/show" not in [request.path for request in server.requests]


GPT_OSS = thinking("low", "medium", "high", default="medium")


@in_every_way
@pytest.mark.parametrize(
    ("known", "wanted", "sent"),
    [
        (GPT_OSS, "off", "low"),
        (GPT_OSS, "max", "high"),
        (GPT_OSS, "on", True),
        (GPT_OSS, "medium", "medium"),
        (thinking(False, True, default=True), "high", True),
        (thinking(False, True, default=True), "off", False),
        (thinking(False), "off", False),
        ({}, "max", "max"),
    ],
)
def test_level_that_is_sent(
    known: Mapping[str, Any], wanted: str, sent: Any, way: str, user_path: Path
) -> None:
    """Another one would be replaced without a word."""
    fake = Ollama(has=["m:1b"], capabilities=THINKS, version="0.40.12", thinking=dict(known))
    with StandIn(fake) as server:
        ask(at(user_path, server)[0], "Hi", way, think=wanted)
        assert server.requests[-1].body["think"] == sent


def test_model_that_cannot_think_according_to_its_values(user_path: Path) -> None:
    fake = Ollama(
        has=["m:1b"], capabilities=THINKS, version="0.40.12", thinking=dict(thinking(False))
    )
    with StandIn(fake) as server:
        said = failure(lambda: ask(at(user_path, server)[0], "Hi", think="high"))
    assert said.startswith("local/box/m:1b cannot think.")


def test_newer_version_is_asked_again(user_path: Path) -> None:
    """It may say more of the same file."""
    fake = Ollama(has=["m:1b"], capabilities=THINKS, version="0.33.0")
    with StandIn(fake) as server:
        assert at(user_path, server)[0].think_levels is None
    assert at(user_path, server)[0].think_levels is None
    fake.version, fake.thinking = "0.40.12", dict(thinking(True))
    with StandIn(fake, port=server.port) as again:
        assert at(user_path, again)[0].think_levels == ("on",)


@in_every_way
@pytest.mark.parametrize(
    ("version", "cached", "details", "logged"),
    [("", 5, None, None), ("0.40.12", 0, None, 0), ("0.40.12", 5, {"cached_tokens": 5}, 5)],
)
def test_cached_tokens_are_logged(
    version: str, cached: int, details: Any, logged: Any, way: str, user_path: Path
) -> None:
    fake = Ollama(has=["m:1b"], version=version, cached=cached, tokens_of=lambda _: 9)
    with StandIn(fake) as server:
        outcome = ask(at(user_path, server)[0], "Hi", way)
    assert (outcome.details, (outcome.json or {}).get("cached_tokens")) == (details, logged)


# A name that is listed once for each runner.


def entry(name: str, digest: str, kind: str) -> dict[str, Any]:
    return {"name": name, "model": name, "digest": digest, "details": {"format": kind}}


@pytest.mark.parametrize(
    ("system", "named"), [("linux", "aa" * 32), ("win32", "aa" * 32), ("darwin", "bb" * 32)]
)
def test_two_entries_of_one_name(
    system: str, named: str, user_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_localrun.servers.ollama.sys.platform", system)
    mlx, gguf_entry = entry("m:4b", "bb" * 32, "safetensors"), entry("m:4b", "aa" * 32, "gguf")
    fake = Ollama(runners=(mlx, gguf_entry, gguf_entry), version="0.40.12")
    other = ({"aa" * 32, "bb" * 32} - {named}).pop()
    with StandIn(fake) as server:
        found = at(user_path, server)
        assert {model.id: served_route(model).digest for model in found} == {
            "local/box/m:4b": named,
            f"local/box/sha256-{other[:12]}": other,
        }
        for model in found:
            ask(model, "Hi")
        chats = [r.body["model"] for r in server.requests if r.path == "/api/chat"]
        assert chats == [model.name for model in found]
        server.requests.clear()
        for model in found:
            with pytest.raises(NotRemoved, match=r"has 2 models called m:4b .*`ollama rm m:4b`"):
                open_server(served_route(model).endpoint, None).delete(model.name)
        assert [request.method for request in server.requests] == ["GET", "GET"]


def test_names_of_two_entries_of_one_name(
    user_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digest says nothing, so it is no alias; its model is shown to be the same."""
    monkeypatch.setattr(table, "terminal_width", lambda: 120)
    shared = entry("q:8b", "aa" * 32, "gguf"), entry("q:8b", "bb" * 32, "safetensors")
    with StandIn(Ollama(runners=shared, version="0.40.12")) as server:
        configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": server.url}])
        variant = f"local/box/sha256-{'bb' * 6}"
        facts = json.loads(invoke("localrun", "models", "--json").stdout)
        assert {fact["id"]: (fact["variant_of"], fact["aliases"]) for fact in facts} == {
            "local/box/q:8b": ("", ["local-q-8b-box", "local-q-8b", "local-q", "local"]),
            variant: ("q:8b", []),
        }
        assert f"{variant}: another variant of q:8b" in invoke("localrun", "models").stderr
        shown = invoke("localrun", "show", variant).stdout
        assert "another variant of q:8b" in shown
        assert "local/box/q:8b" in shown
        assert variant in invoke("localrun", "show", "local/box/q:8b").stdout


# Files


def test_file_and_server_are_joined_by_the_weights(
    user_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list may name another digest than the store here shows."""
    store = tmp_path / "store"
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    sha = hashlib.sha256(b"m:1b").hexdigest()
    weights = gguf(store / "blobs" / f"sha256-{sha}")
    manifest(store, f"{LIBRARY}/m/1b", [layer(sha=sha)])
    fake = Ollama(has=["m:1b"])
    with StandIn(fake) as server:
        joined = [model for model in at(user_path, server) if model.served]
        assert [file_route(model).path for model in joined] == [str(weights)]
        # Two tags with the same weights are run in different ways.
        manifest(store, f"{LIBRARY}/other/1b", [layer(sha=sha), layer("system", "5e")])
        assert [m.on_disk for m in at(user_path, server) if m.served] == [None]


# Models that have moved


def grow_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes everything that is known by now more than a minute old."""
    now = time.time()
    monkeypatch.setattr(catalogue, "is_fresh", lambda taken_at: taken_at >= now)


def asked(server: StandIn) -> list[str]:
    """The paths of the requests since this was last called."""
    paths = [request.path for request in server.requests]
    server.requests.clear()
    return paths


@in_every_way
@pytest.mark.parametrize("is_old", [True, False])
def test_model_that_moved_to_a_cloud(
    is_old: bool, way: str, user_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A list that is less than a minute old is not asked about again: then the reply tells."""
    fake = Ollama(has=["m:1b"])
    with StandIn(fake) as server:
        (model,) = at(user_path, server)
        assert model.runs_on is RunsOn.THIS_MACHINE
        fake.remote = {"m:1b": CLOUD}
        server.requests.clear()
        if is_old:
            grow_old(monkeypatch)
        else:
            assert ask(model, "Hi", way).text == "Hello."
            said = capsys.readouterr().err
            assert "passed this prompt on to ollama.com: local/box/m:1b does not run on" in said
        (known,) = get_catalogue(CachePolicy.CACHED).models
        assert known.runs_on is (RunsOn.THIS_MACHINE if is_old else RunsOn.CLOUD)
        # The second time, a program still holds the model as it was.
        for held in (known, model):
            with pytest.raises(NotAllowed, match=r"in a cloud \(ollama.com\)"):
                ask(held, "Hi", way)
        assert asked(server) == (["/api/show"] if is_old else ["/api/chat"])
        (known,) = get_catalogue(CachePolicy.CACHED).models
        assert (known.runs_on, known.remote_host) == (RunsOn.CLOUD, "ollama.com")
        at(user_path, server, allow=["local/box/m:1b"])
        assert ask(known, "Hi", way).text == "Hello."
        assert "passed this prompt" not in capsys.readouterr().err


def failing(fake: Ollama, show: str) -> Callable[[Request], Iterator[bytes | float]]:
    """The server, whose /api/show does not work."""

    def respond(request: Request) -> Iterator[bytes | float]:
        if request.path != "/api/show" or not show:
            yield from fake(request)
        elif show == "silent":
            yield 5.0
        else:
            yield json_reply({"error": "internal"}, 500) if show == "500" else json_reply([])

    return respond


@in_every_way
@pytest.mark.parametrize(
    ("show", "error", "said"),
    [
        ("500", ServerRefused, "internal"),
        ("silent", ServerUnreachable, "sent nothing for 0.2 seconds. Check whether it is busy,"),
        ("a list", BadReply, "Ollama at"),
    ],
)
def test_nothing_is_sent_if_the_place_is_unknown(
    show: str,
    error: type[Exception],
    said: str,
    way: str,
    user_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ollama, "_PLACE_TIMEOUT_S", 0.2)
    fake = Ollama(has=["m:1b"])
    with StandIn(fake) as server:
        (model,) = at(user_path, server)
        server.respond = failing(fake, show)
        grow_old(monkeypatch)
        server.requests.clear()
        for _ in range(2):
            with pytest.raises(error, match=said):
                ask(model, "Hi", way)
        assert asked(server) == ["/api/show", "/api/show"]


def test_model_that_is_gone_is_dropped(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def respond(request: Request) -> Iterator[bytes]:
        gone = json_reply({"error": "model 'm:1b' not found"}, 404)
        yield from [gone] if request.path == "/api/show" else fake(request)

    fake = Ollama(has=["m:1b"])
    with StandIn(fake) as server:
        (model,) = at(user_path, server)
        server.respond = respond
        grow_old(monkeypatch)
        with pytest.raises(ServerRefused, match="not found"):
            ask(model, "Hi")
        assert get_catalogue(CachePolicy.CACHED).models == ()


def test_server_is_asked_once_a_minute(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StandIn(Ollama(has=["m:1b"])) as server:
        (model,) = at(user_path, server)
        server.requests.clear()
        ask(model, "Hi")
        assert asked(server) == ["/api/chat"]
        for _ in range(2):
            grow_old(monkeypatch)
            for _ in range(3):
                ask(model, "Hi")
            assert asked(server) == ["/api/show", *["/api/chat"] * 3]


CHANGES: dict[str, Callable[[Path], object]] = {
    "none": lambda _: None,
    "a stub": lambda store: manifest(store, f"{LIBRARY}/m/1b", None, {"remote_host": CLOUD}),
    "another": lambda store: manifest(store, f"{LIBRARY}/m/1b", [layer()]),
    "gone": lambda store: (store / "manifests" / LIBRARY / "m" / "1b").unlink(),
}


@pytest.mark.parametrize("is_old", [True, False])
@pytest.mark.parametrize(
    ("change", "show", "paths", "error"),
    [
        ("none", "500", ["/api/chat"], None),
        ("a stub", "", [], NotAllowed),
        ("a stub", "500", [], NotAllowed),
        ("another", "", ["/api/show", "/api/chat"], None),
        ("another", "500", ["/api/show"], ServerRefused),
        ("gone", "", ["/api/show", "/api/chat"], None),
        ("gone", "500", ["/api/show"], ServerRefused),
    ],
)
def test_manifest_here_says_whether_to_ask(
    change: str,
    show: str,
    paths: list[str],
    error: type[Exception] | None,
    is_old: bool,
    user_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    written = ollama_model(store, f"{LIBRARY}/m/1b")
    fake = Ollama(has=["m:1b"])
    with StandIn(listing(fake, {"m:1b": digest_of(written)})) as server:
        (model,) = at(user_path, server)
        assert file_route(model).manifest == str(written)
        CHANGES[change](store)
        server.respond = failing(fake, show)
        if is_old:
            grow_old(monkeypatch)
        server.requests.clear()
        with pytest.raises(error) if error else nullcontext():
            ask(model, "Hi")
        assert asked(server) == paths


def test_manifest_of_another_tag_shows_nothing(
    user_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags that are alike have one route, with the manifest of one of them."""
    store = tmp_path / "store"
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    written = ollama_model(store, f"{LIBRARY}/m/1b")
    write(written.with_name("also"), written.read_text())
    names = ["m:1b", "m:also"]
    fake = Ollama(has=names)
    with StandIn(listing(fake, dict.fromkeys(names, digest_of(written)))) as server:
        found = at(user_path, server)
        tags = {model.name: Path(file_route(model).manifest).name for model in found}
        (moved,) = (model for model in found if model.name != f"m:{tags[model.name]}")
        manifest(store, f"{LIBRARY}/{moved.name.replace(':', '/')}", None, {"remote_host": CLOUD})
        fake.remote = {moved.name: CLOUD}
        server.requests.clear()
        with pytest.raises(NotAllowed):
            ask(moved, "Hi")
        assert asked(server) == ["/api/show"]


def listing(fake: Ollama, digests: Mapping[str, str]) -> Callable[[Request], Iterator[bytes]]:
    """The server, whose list names the digests of manifests in a store here."""

    def respond(request: Request) -> Iterator[bytes]:
        listed = [{"name": name, "digest": digest} for name, digest in digests.items()]
        tags = json_reply({"models": listed})
        yield from [tags] if request.path == "/api/tags" else fake(request)

    return respond


def embed(model: LocalModel) -> list[float]:
    return LocalEmbedding(model).embed("A secret")


@pytest.mark.parametrize("is_old", [True, False])
def test_embedding_model_that_moved_to_a_cloud(
    is_old: bool, user_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reply would tell, so the server is asked each time."""
    fake = Ollama(has=["e:1b"], capabilities=("embedding",))
    with StandIn(fake) as server:
        (model,) = at(user_path, server)
        if is_old:
            grow_old(monkeypatch)
        server.requests.clear()
        for _ in range(2):
            assert embed(model) == [0.6, 0.8]
        assert asked(server) == ["/api/show", "/api/embed"] * 2
        fake.remote = {"e:1b": CLOUD}
        for _ in range(2):
            with pytest.raises(NotAllowed, match=r"in a cloud \(ollama.com\)"):
                embed(model)
        assert asked(server) == ["/api/show"]


def test_reply_with_vectors_may_tell_where_they_were_made(
    user_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The manifest here may be that of another Ollama than the one that answers."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "store"))
    written = ollama_model(tmp_path / "store", f"{LIBRARY}/e/1b")

    def respond(request: Request) -> Iterator[bytes]:
        vectors = {"model": "e:1b", "embeddings": [[0.6, 0.8]], "remote_host": CLOUD}
        is_embed = request.path == "/api/embed"
        yield from [json_reply(vectors)] if is_embed else known(request)

    known = listing(Ollama(capabilities=("embedding",)), {"e:1b": digest_of(written)})
    with StandIn(respond) as server:
        (model,) = at(user_path, server)
        server.requests.clear()
        assert embed(model) == [0.6, 0.8]
        assert "passed this prompt on to ollama.com" in capsys.readouterr().err
        with pytest.raises(NotAllowed):
            embed(model)
        assert asked(server) == ["/api/embed"]
