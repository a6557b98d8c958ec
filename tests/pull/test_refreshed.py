"""A newer list from a hub: what is added and updated, and what is left out."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from llm_localrun.errors import PullFailed
from llm_localrun.pull import refreshed
from llm_localrun.pull.refreshed import PUBLISHERS, refresh_list
from llm_localrun.recommended import models
from llm_localrun.recommended.models import (
    RecommendedModel,
    Use,
    read_recommended,
    recommended_named,
    refreshed_path,
)
from tests.fakes.http_server import Request, StandIn, json_reply, whole
from tests.fakes.hub import COMMIT, TOO_MANY, Chunks, Files, Hub, model, sha256
from tests.support.recommended import listed

APACHE = "license:apache-2.0"
TEMPLATE = "{% if tools %}{% endif %}{{ messages }}"
KNOWN = replace(
    listed("known-1b", 0.6),
    repository="unsloth/Known-1B-GGUF",
    revision="a" * 40,
    quantization="Q8_0",
    date="2026-01-01",
)


@dataclass
class Trending:
    """A hub with the repositories of several owners, which lists those of one as trending."""

    cdn: str
    files: Files
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    hubs: dict[str, Hub] = field(default_factory=dict)
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    odd: dict[str, Any] = field(default_factory=dict)
    """Replies to the lists of some owners."""
    replies: dict[str, bytes] = field(default_factory=dict)
    """Replies to other requests, by a part of their path; b"" closes the connection."""

    def offer(self, repo: str, *paths: str, content: bytes | None = None, **entry: Any) -> None:
        data = {path: content or model(path) for path in paths or ("X-Q4_K_M.gguf",)}
        self.hubs[repo] = Hub(self.cdn, data, repo=repo)
        self.files.content |= {sha256(each): each for each in data.values()}
        numbers = {"total": 1_200_000_000, "architecture": "llama", "chat_template": TEMPLATE}
        facts = {"id": repo, "sha": COMMIT, "gated": False, "gguf": numbers, "tags": [APACHE]}
        self.entries[repo] = {**facts, **entry}

    def __call__(self, request: Request) -> Chunks:
        parts = urlsplit(request.path)
        if parts.path == "/api/models":
            query = parse_qs(parts.query)
            self.queries.append(query)
            (owner,) = query["author"]
            listed = [e for repo, e in self.entries.items() if repo.startswith(f"{owner}/")]
            yield json_reply(self.odd.get(owner, listed))
            return
        for part, reply in self.replies.items():
            if part in parts.path:
                yield reply
                return
        for repo, hub in self.hubs.items():
            if f"/{repo}/" in parts.path:
                yield from hub(request)
                return
        raise AssertionError(request.path)


@pytest.fixture
def hub(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trending]:
    files = Files()
    for module in (models, refreshed):
        monkeypatch.setattr(module, "listed_models", lambda: (KNOWN,))
    with StandIn(files) as at_files:
        trending = Trending(at_files.url, files)
        with StandIn(trending) as at_hub:
            monkeypatch.setenv("HF_ENDPOINT", at_hub.url)
            yield trending


def added(repo: str) -> RecommendedModel | None:
    return next((each for each in read_recommended() if each.repository == repo), None)


def test_model_that_is_added(hub: Trending) -> None:
    repo = "Qwen/Tiny-2B-Instruct-GGUF"
    paths = ("Tiny-2B-Instruct-Q4_K_M.gguf", "Tiny-2B-Instruct-Q8_0.gguf", "mmproj-F16.gguf")
    hub.offer(repo, *paths)
    assert refresh_list() == (["tiny-2b"], [])
    new = recommended_named("tiny-2b")
    assert new == added(repo)
    assert new is not None
    assert (new.revision, new.quantization, new.license) == (COMMIT, "Q4_K_M", "Apache-2.0")
    assert new.uses == (Use.CHAT, Use.VISION, Use.TOOLS, Use.SMALL)
    assert new.good_at == "chat, pictures, tools"
    assert [file.path for file in new.files] == [paths[0]]
    assert new.projector is not None
    assert new.projector.sha256 == sha256(model(paths[2]))
    assert new.files[0].size == len(model(paths[0]))
    assert (new.parameters, new.active_parameters) == (1_200_000_000, 1_200_000_000)
    assert new.context_max == 32_768
    assert new.footprint.geometry is not None


def test_what_the_hub_is_asked(hub: Trending) -> None:
    hub.offer("Qwen/A-GGUF")
    refresh_list()
    assert [query["author"] for query in hub.queries] == [[owner] for owner in PUBLISHERS]
    asked = hub.queries[0]
    assert (asked["filter"], asked["sort"], asked["limit"]) == (["gguf"], ["trendingScore"], ["4"])
    assert {*asked["expand"]} >= {"gguf", "tags", "sha", "gated"}


@pytest.mark.parametrize(
    ("title", "facts", "uses"),
    [
        ("Tiny-Coder-7B-GGUF", {"gguf": {"total": 7_000_000_000}}, (Use.CODE,)),
        ("Tiny-7B-GGUF", {"gguf": {}}, (Use.CHAT,)),
        ("Tiny-0.6B-GGUF", {}, (Use.CHAT, Use.TOOLS, Use.SMALL)),
        ("Tiny-7B-GGUF", {"gguf": {"chat_template": "<think>"}}, (Use.CHAT, Use.THINKING)),
    ],
)
def test_uses(hub: Trending, title: str, facts: dict[str, Any], uses: tuple[Use, ...]) -> None:
    hub.offer(f"Qwen/{title}", **facts)
    refresh_list()
    new = added(f"Qwen/{title}")
    assert new is not None
    assert new.uses == uses


def test_embedding_model_by_its_header(hub: Trending) -> None:
    hub.offer("Qwen/Tiny-GGUF", content=model("embeds", pooling_type=1))
    refresh_list()
    new = added("Qwen/Tiny-GGUF")
    assert new is not None
    assert (new.uses, new.purpose, new.good_at) == ((Use.EMBED,), "embedding", "embedding")


@pytest.mark.parametrize(
    ("title", "name", "active"),
    [
        ("Qwen9-30B-A3B-Instruct-2607-GGUF", "qwen9-30b-a3b-2607", 3_000_000_000),
        ("gemma-9-4b-it-qat-q4_0-gguf", "gemma-9-4b", 30_000_000_000),
        ("LFM9_8B-A500M", "lfm9-8b-a500m", 500_000_000),
    ],
)
def test_names(hub: Trending, title: str, name: str, active: int) -> None:
    hub.offer(f"google/{title}", gguf={"total": 30_000_000_000})
    assert refresh_list() == ([name], [])
    new = recommended_named(name)
    assert new is not None
    assert new.active_parameters == active


@pytest.mark.parametrize(
    "facts",
    [
        {"tags": []},
        {"tags": ["license:other"]},
        {"tags": None},
        {"gated": "manual"},
        {"gguf": {}},
        {"pipeline_tag": "feature-extraction"},
        {"pipeline_tag": "text-to-image"},
        {"repo": "Qwen/Tiny-1B-abliterated-GGUF"},
        {"repo": "Qwen/Tiny-1B-Reranker-GGUF"},
        {"repo": "Qwen/Tiny-1B-Guard-GGUF"},
        {"paths": ("README.md",)},
        {"paths": ("imatrix.gguf",)},
        {"content": b"no GGUF file at all"},
        {"content": model("cut")[:100]},
        {"content": model("flat", block_count=0)},
        {"content": model("new").replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lxama")},
        {"sha": "f" * 40},
    ],
    ids=lambda facts: str(facts)[:60],
)
def test_what_is_left_out(hub: Trending, facts: dict[str, Any]) -> None:
    """A repository that cannot be recommended costs only itself."""
    hub.offer(facts.pop("repo", "Qwen/Tiny-GGUF"), *facts.pop("paths", ()), **facts)
    hub.offer("google/Good-1B-GGUF")
    assert refresh_list() == (["good-1b"], [])
    assert [each.name for each in read_recommended()] == ["known-1b", "good-1b"]


def test_newer_revision_of_a_listed_model(hub: Trending) -> None:
    paths = ("K-Q4_K_M.gguf", "K-Q8_0.gguf", "mmproj-F16.gguf")
    hub.offer(KNOWN.repository, *paths, tags=[], gguf=None)
    assert refresh_list() == ([], ["known-1b"])
    (new,) = read_recommended()
    assert (new.name, new.revision, new.files[0].path) == ("known-1b", COMMIT, "K-Q8_0.gguf")
    # It is not recommended for pictures, so it needs no projector.
    kept = ("projector", "uses", "good_at", "license", "sampling", "parameters", "source")
    assert all(getattr(new, name) == getattr(KNOWN, name) for name in kept)


def test_nothing_is_newer(hub: Trending) -> None:
    hub.offer(KNOWN.repository, sha=KNOWN.revision)
    assert refresh_list() == ([], [])
    assert read_recommended() == (KNOWN,)


def test_several_publishers_of_one_model(hub: Trending) -> None:
    """The one that trends most wins, and what the package lists before all."""
    hub.offer("unsloth/Tiny-1B-GGUF", trendingScore=3)
    hub.offer("bartowski/Tiny-1B-Instruct-GGUF", trendingScore=7)
    hub.offer("Qwen/Known-1B-GGUF", trendingScore=9)
    assert refresh_list() == (["tiny-1b"], [])
    assert added("bartowski/Tiny-1B-Instruct-GGUF")


@pytest.mark.parametrize(
    "odd",
    [
        [None, 3, {}, {"id": 5}, {"id": ""}, {"id": "Qwen/../x"}, {"id": "no-owner"}],
        [{"id": "Qwen/A-1B-GGUF", "sha": 1, "tags": 1, "gguf": [], "trendingScore": "x"}],
    ],
)
def test_odd_entries_of_a_list(hub: Trending, odd: Any) -> None:
    """Repositories of other owners are left out as well."""
    hub.offer("google/Good-1B-GGUF")
    hub.odd["Qwen"] = [*odd, hub.entries["google/Good-1B-GGUF"]]
    assert refresh_list() == (["good-1b"], [])


@pytest.mark.parametrize("odd", [{}, 3, "no list"])
def test_reply_that_is_no_list(hub: Trending, odd: Any) -> None:
    hub.odd["mistralai"] = odd
    with pytest.raises(PullFailed, match="not that of a Hugging Face hub"):
        refresh_list()
    assert not refreshed_path().exists()


def test_limited_hub(user_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StandIn(lambda _: iter([TOO_MANY])) as at_hub:
        monkeypatch.setenv("HF_ENDPOINT", at_hub.url)
        with pytest.raises(PullFailed, match="requests"):
            refresh_list()


def test_list_replaces_the_one_before(hub: Trending) -> None:
    hub.offer("Qwen/Old-1B-GGUF")
    refresh_list()
    del hub.entries["Qwen/Old-1B-GGUF"]
    hub.offer("Qwen/New-1B-GGUF")
    refresh_list()
    assert [each["name"] for each in json.loads(refreshed_path().read_text())] == ["new-1b"]


GONE = whole(b"", status=404)
OLD = ("Qwen/Old-1B-GGUF", KNOWN.repository)


@pytest.fixture
def refreshed_once(hub: Trending) -> Trending:
    """A hub that has been asked before: two of its repositories are on the user's list."""
    hub.offer(OLD[0])
    hub.offer(OLD[1], "K-Q8_0.gguf")
    assert refresh_list() == (["old-1b"], ["known-1b"])
    return hub


@pytest.mark.parametrize(
    ("path", "reply", "said"),
    [
        ("/api/models/", TOO_MANY, "too many requests"),
        ("/api/models/", b"", "cannot be reached"),
        ("/resolve/", TOO_MANY, "too many requests"),
    ],
)
def test_hub_that_fails_while_repositories_are_read(
    refreshed_once: Trending, path: str, reply: bytes, said: str
) -> None:
    """The list from before stays."""
    before = refreshed_path().read_bytes()
    refreshed_once.offer("google/New-1B-GGUF")
    refreshed_once.replies[path] = reply
    with pytest.raises(PullFailed, match=said):
        refresh_list()
    assert refreshed_path().read_bytes() == before


def test_no_file_can_be_read(refreshed_once: Trending) -> None:
    before = read_recommended()
    refreshed_once.replies["/resolve/"] = b""
    assert refresh_list() == ([], [])
    assert read_recommended() == before


@pytest.mark.parametrize("repo", OLD)
@pytest.mark.parametrize("path", ["/api/models/{}/revision/", "/{}/resolve/"])
@pytest.mark.parametrize("reply", [GONE, whole(b"", status=503), whole(b"{}")])
def test_repository_that_cannot_be_read_keeps_its_entry(
    refreshed_once: Trending, repo: str, path: str, reply: bytes
) -> None:
    before = added(repo)
    refreshed_once.offer("google/New-1B-GGUF")
    refreshed_once.replies[path.format(repo)] = reply
    newer, updated = refresh_list()
    assert before is not None
    assert (before.name in [*newer, *updated], "new-1b" in newer) == (False, True)
    assert before == added(repo)
    assert len(read_recommended()) == 3


@pytest.mark.parametrize(
    ("repo", "lies"),
    [(f"Qwen/{'Long-' * 16}1B-GGUF", {}), ("Qwen/Odd-1B-GGUF", {"X-Q4_K_M.gguf": "no hash"})],
)
def test_model_that_the_list_cannot_have(hub: Trending, repo: str, lies: dict[str, str]) -> None:
    """It costs only itself."""
    hub.offer(repo)
    hub.hubs[repo].lies = lies
    hub.offer("google/Good-1B-GGUF")
    assert refresh_list() == (["good-1b"], [])
    assert [each.name for each in read_recommended()] == ["known-1b", "good-1b"]


def test_engine_knows_every_architecture_that_is_let_in() -> None:
    """The names stand in the library, each followed by a zero."""
    xllamacpp = pytest.importorskip("xllamacpp")
    folder = Path(xllamacpp.__file__).parent
    library = next(path for path in folder.iterdir() if path.suffix in (".so", ".pyd"))
    content = library.read_bytes()
    known = refreshed._architectures()
    assert len(known) > 100
    assert [name for name in known if name.encode() + b"\0" not in content] == []
