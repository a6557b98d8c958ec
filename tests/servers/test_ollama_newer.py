"""What Ollama added from 0.33 to 0.40, and models of its list that have moved to a cloud."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_localrun import catalogue
from llm_localrun.catalogue import get_catalogue
from llm_localrun.errors import NotAllowed, NotRemoved
from llm_localrun.models import LocalModel, RunsOn
from llm_localrun.name_cache import CachePolicy
from llm_localrun.servers.base import open_server
from tests.conftest import CONFIG, configure
from tests.fakes.http_server import Request, StandIn, json_reply
from tests.fakes.ollama import Ollama
from tests.support.drive import WAYS, ask, failure
from tests.support.models import file_route, served_route
from tests.support.trees import LIBRARY, digest_of, gguf, layer, manifest, ollama_model

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
        with pytest.raises(NotRemoved, match="`ollama rm`"):
            open_server(served_route(found[1]).endpoint, None).delete(f"sha256-{other[:12]}")


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


@in_every_way
@pytest.mark.parametrize("is_old", [True, False])
def test_model_that_moved_to_a_cloud(
    is_old: bool, way: str, user_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A list that is a minute old is not asked about again: then the reply tells."""
    fake = Ollama(has=["m:1b"])
    with StandIn(fake) as server:
        (model,) = at(user_path, server)
        assert model.runs_on is RunsOn.THIS_MACHINE
        fake.remote = {"m:1b": CLOUD}
        monkeypatch.setattr(catalogue, "is_fresh", lambda _: not is_old)
        server.requests.clear()
        if not is_old:
            assert ask(model, "Hi", way).text == "Hello."
            said = capsys.readouterr().err
            assert "passed this prompt on to ollama.com: local/box/m:1b does not run on" in said
        (known,) = get_catalogue(CachePolicy.CACHED).models
        assert known.runs_on is (RunsOn.THIS_MACHINE if is_old else RunsOn.CLOUD)
        with pytest.raises(NotAllowed, match=r"in a cloud \(ollama.com\)"):
            ask(known, "Hi", way)
        paths = [request.path for request in server.requests]
        assert paths == (["/api/show"] if is_old else ["/api/chat"])
        (known,) = get_catalogue(CachePolicy.CACHED).models
        assert (known.runs_on, known.remote_host) == (RunsOn.CLOUD, "ollama.com")
        at(user_path, server, allow=["local/box/m:1b"])
        assert ask(known, "Hi", way).text == "Hello."
        assert "passed this prompt" not in capsys.readouterr().err


@pytest.mark.parametrize("change", ["none", "another manifest", "no manifest"])
def test_manifest_here_says_whether_to_ask(
    change: str, user_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    written = ollama_model(store, f"{LIBRARY}/m/1b")
    fake = Ollama(has=["m:1b"])
    digest = digest_of(written)

    def respond(request: Request) -> Iterator[bytes]:
        listed = {"models": [{"name": "m:1b", "digest": digest}]}
        yield from [json_reply(listed)] if request.path == "/api/tags" else fake(request)

    with StandIn(respond) as server:
        (model,) = at(user_path, server)
        assert file_route(model).manifest == str(written)
        # Whatever the age of the list.
        monkeypatch.setattr(catalogue, "is_fresh", lambda _: change != "none")
        if change == "another manifest":
            manifest(store, f"{LIBRARY}/m/1b", None, {"remote_host": CLOUD})
        elif change == "no manifest":
            written.unlink()
        server.requests.clear()
        ask(model, "Hi")
        paths = [request.path for request in server.requests]
        assert paths == (["/api/chat"] if change == "none" else ["/api/show", "/api/chat"])
