"""Searching a hub: what is asked, in which order matches come, and what odd replies cost."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from llm_localrun.memory.fit import MARGIN_BYTES
from llm_localrun.memory.footprint import Setting
from llm_localrun.pull import hub_search, huggingface
from llm_localrun.pull.hub_search import Match, recommended_matching, search_hub
from llm_localrun.pull.refs import search_words
from tests.fakes.http_server import Request, Respond, StandIn, chunk, head, json_reply, text
from tests.fakes.hub import TOO_MANY
from tests.support.drive import failure
from tests.support.hub_models import HELPER, HELPER_NAME, offer_ten, recommend_helper
from tests.support.pulling import REPO, World

QWEN3_4B = "unsloth/Qwen3-4B-GGUF"


@pytest.fixture
def ten(world: World) -> World:
    offer_ten(world)
    return world


def search(words: str, limit: int = 5, memory: int | None = None) -> list[Match]:
    return search_hub(words, limit, memory, "Q4_K_M")


def refs(words: str, limit: int = 5) -> list[str]:
    return [each.ref for each in search(words, limit)]


def asked(world: World) -> list[dict[str, list[str]]]:
    """The searches that the hub was asked for."""
    parts = [urlsplit(request.path) for request in world.at_hub.requests]
    return [parse_qs(each.query) for each in parts if each.path == "/api/models"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (
            "qwen3",
            [
                "Qwen/Qwen3-14B-GGUF",
                QWEN3_4B,
                "unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF",
            ],
        ),
        # As the hub has it, 4B is in 14B.
        ("qwen 4b", [QWEN3_4B, "bartowski/Qwen2.5-Coder-14B-Instruct-GGUF", "Qwen/Qwen3-14B-GGUF"]),
        ("Qwen3 14B", ["Qwen/Qwen3-14B-GGUF"]),
        (
            "coder",
            [
                "bartowski/Qwen2.5-Coder-14B-Instruct-GGUF",
                *["unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF"],
            ],
        ),
        ("zebra", []),
    ],
)
def test_exact_words_come_first_and_then_downloads(
    ten: World, words: str, found: list[str]
) -> None:
    assert refs(words) == found


def test_what_is_asked(ten: World) -> None:
    (match,) = search("little helper")
    assert match == Match(
        HELPER,
        "Q4_K_M",
        1_200_448,
        fits=True,
        downloads=70,
        license="apache-2.0",
    )
    assert asked(ten) == [
        {
            "search": ["little helper"],
            "filter": ["gguf"],
            "sort": ["downloads"],
            "limit": ["20"],
            "expand": ["downloads", "tags"],
        }
    ]
    # One request for its files, one for a header.
    assert len(ten.at_hub.requests) == 3
    assert len(ten.at_files.requests) == 1


@pytest.mark.parametrize(
    ("words", "query"),
    [
        ("llama3.2", "llama 3.2"),
        ("phi4", "phi 4"),
        ("Qwen3-4B", "qwen 3 4b"),
        ("mixtral 8x7b", "mixtral 8 x 7b"),
        ("_", "_"),
    ],
)
def test_words_are_asked_for_in_the_spelling_of_the_hub(ten: World, words: str, query: str) -> None:
    search(words)
    assert [each["search"] for each in asked(ten)] == [[query]]


def test_only_what_is_shown_is_asked_for_its_files(ten: World) -> None:
    assert len(search("gguf", limit=2)) == 2
    assert len(ten.at_hub.requests) == 1 + 2 * 2


def test_variant_that_fits(ten: World) -> None:
    """With a little more memory, the one that is preferred fits."""
    files = ten.hub.repositories[HELPER].files
    files["Little-Helper-1B-Q8_0.gguf"] = ten.hub.repositories[REPO].files["Tiny-1B-Q8_0.gguf"]

    def found(memory: int, preferred: str) -> tuple[str, bool | None]:
        (match,) = search_hub("helper", 5, memory, preferred)
        return match.quantization, match.fits

    enough = 2**30
    assert found(enough, "Q8_0") == ("Q8_0", True)
    assert found(enough, "Q4_K_M") == ("Q4_K_M", True)
    assert found(2_000_000, "Q8_0") == ("Q4_K_M", False)


ODD: list[Any] = [
    3,
    None,
    [],
    {},
    {"id": None},
    {"id": "no-owner"},
    {"id": "evil/\x1b[31mred"},
    {"id": "evil/../../etc"},
    {"id": "evil/" + "x" * 300},
    {"id": "evil/-rf"},
]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(odd)[:20])
def test_an_odd_entry_costs_only_itself(ten: World, odd: Any) -> None:
    ten.hub.odd_entries = [odd]
    assert refs("helper") == [HELPER]


@pytest.mark.parametrize(
    "odd",
    [
        {"downloads": "many"},
        {"downloads": -1},
        {"downloads": 10**30},
        {"downloads": 1.5},
        {"tags": "gguf"},
        {"tags": [3, None]},
        {"tags": None, "downloads": None},
    ],
    ids=str,
)
def test_an_odd_field_is_unknown(ten: World, odd: dict[str, Any]) -> None:
    ten.hub.odd_entries = [{"id": HELPER, **odd}]
    ten.hub.others = [each for each in ten.hub.others if each.name != HELPER]
    assert search("helper")[0].ref == HELPER
    (match,) = search("helper")
    assert (match.downloads, match.license, match.fits) == (None, "", None)
    assert match.problem.startswith(f"There is no repository {HELPER} at http://127.0.0.1:")


def test_a_repository_that_cannot_be_read_costs_only_its_row(ten: World) -> None:
    first = ten.hub.repositories["ggml-org/gpt-oss-20b-GGUF"]
    first.files.clear()
    matches = search("gguf", limit=3)
    assert [each.problem for each in matches] == [f"{first.name} holds no GGUF files", "", ""]
    assert (matches[0].quantization, matches[0].size, matches[0].fits) == ("", None, None)


def test_a_gated_repository_is_listed(ten: World) -> None:
    ten.hub.gated = True
    (match,) = search("helper", memory=2**40)
    assert match.downloads == 70
    assert "is restricted. (HTTP 401)" in match.problem


def test_a_slow_repository_costs_only_its_row(ten: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_search, "_PATIENCE_S", 4.0)
    name = "ggml-org/gpt-oss-20b-GGUF"
    released = ten.hub.held[name] = threading.Event()
    slow, *others = search("gguf", limit=3)
    released.set()
    assert (slow.ref, slow.problem) == (name, "it did not answer within 4 s")
    assert all(each.size and not each.problem for each in others)
    (left,) = [each for each in threading.enumerate() if each.name == f"fit {name}"]
    left.join()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (TOO_MANY, " received too many requests from you (HTTP 429). Try again in 55 seconds."),
        (text("no", 401), " refuses to list repositories (HTTP 401). Check your token"),
        (text("no", 503), " answered with an error: "),
        (text("<html>"), "The reply of http://127.0.0.1:"),
        (json_reply({"models": []}), "The reply of http://127.0.0.1:"),
        (json_reply([3]), "The reply of http://127.0.0.1:"),
        (json_reply([[]] * 3), "is not that of a Hugging Face hub. Check HF_ENDPOINT."),
    ],
)
def test_refusals(ten: World, reply: bytes, said: str) -> None:
    ten.hub.refusal = reply
    assert said in failure(lambda: search("helper"))
    assert len(ten.at_hub.requests) == 1


def endless(_: Request) -> Iterator[bytes]:
    yield head("application/json")
    while True:
        yield chunk(b"[" * 10_000)


def dripping_list(_: Request) -> Iterator[bytes | float]:
    yield head("application/json")
    while True:
        yield chunk(b" ")
        yield 0.05


def dripping_head(_: Request) -> Iterator[bytes | float]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-Odd: 1\r\n"
        yield 0.05


@pytest.mark.parametrize(
    ("respond", "said"),
    [
        (endless, " has more than 2 MiB. Check HF_ENDPOINT."),
        (dripping_list, " did not send its list of repositories within 2 s. Try again later"),
        (dripping_head, " did not send its list of repositories within 2 s. Try again later"),
    ],
)
def test_list_without_an_end(
    world: World, monkeypatch: pytest.MonkeyPatch, respond: Respond, said: str
) -> None:
    monkeypatch.setattr(huggingface, "_LIST_WAIT_S", 2.0)
    monkeypatch.setattr(huggingface, "_LIST_BYTES", 2 * 2**20)
    with StandIn(respond) as at_hub:
        monkeypatch.setenv("HF_ENDPOINT", at_hub.url)
        assert said in failure(lambda: search("helper"))
        if respond is not dripping_head:
            # The reply is given up.
            assert at_hub.closed_early.wait(30)


def test_error_with_a_text(ten: World) -> None:
    ten.hub.refusal = json_reply({"error": "The index is rebuilt"}, 500)
    assert "answered with an error: The index is rebuilt" in failure(lambda: search("helper"))


def test_offline_mode(ten: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in failure(lambda: search("helper"))
    assert not ten.at_hub.requests


def test_the_token_is_sent(ten: World, user_path: Any) -> None:
    (user_path / "keys.json").write_text(json.dumps({"localrun-huggingface": "hf_secret"}))
    search("helper")
    assert {each.headers.get("authorization") for each in ten.at_hub.requests} == {
        "Bearer hf_secret"
    }
    assert {each.headers.get("authorization") for each in ten.at_files.requests} == {None}


def test_recommended_models_are_found_by_the_beginnings_of_words(ten: World) -> None:
    recommend_helper(ten)
    for words in ("little", "LITTLE help", "a-lab", "little helper 1b"):
        assert [each.ref for each in recommended_matching(words, None)] == [HELPER_NAME], words
    assert recommended_matching("little zebra", None) == []
    (match,) = recommended_matching("little", 1_000)
    assert (match.quantization, match.fits, match.context_size) == ("Q4_K_M", False, 0)


@pytest.mark.parametrize(
    ("context_size", "fits"), [(512, False), (4095, False), (4096, True), (8192, True)]
)
def test_recommended_models_need_a_useful_context(
    ten: World, context_size: int, fits: bool
) -> None:
    footprint = recommend_helper(ten).footprint
    memory = footprint.need(Setting(context_size)).total + MARGIN_BYTES
    (match,) = recommended_matching("little", memory - (not fits))
    assert match.fits is fits


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("qwen", "qwen"),
        ("qwen 3 4b", "qwen 3 4b"),
        ("Qwen9.5-4B", "Qwen9.5-4B"),
        ("qwen3:8b", "qwen3 8b"),
        ("starter pack", "starter pack"),
        ("starter", ""),
        ("starter:tiny", ""),
        ("starter:huge", ""),
        ("ollama", "ollama"),
        ("ollama:qwen3", ""),
        ("ollama:a b", ""),
        ("hf:qwen", ""),
        ("qwen3-0.6b", ""),
        ("Qwen3-0.6B", ""),
        (REPO, ""),
        (f"{REPO} Q8_0", ""),
        ("./x.gguf", ""),
        ("-x", ""),
        ("a\x1b[31mb", ""),
        ("https://example.org", ""),
        ("", ""),
    ],
)
def test_words(ref: str, words: str) -> None:
    assert search_words(ref) == words
