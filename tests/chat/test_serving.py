"""Contexts: what is asked of each kind of server before a prompt, and what is refused."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_localrun.catalogue import get_catalogue, model_at
from llm_localrun.chat.models import LocalChat
from llm_localrun.engine.state import list_running
from llm_localrun.errors import PromptTooLong
from llm_localrun.memory import machine
from llm_localrun.models import LocalModel, RunsOn
from llm_localrun.name_cache import CachePolicy
from llm_localrun.servers import base
from llm_localrun.tokens.count import Prompt
from llm_localrun.tokens.learned import ModelFacts, read_facts, write_facts
from llm_localrun.wire import http
from llm_localrun.wire.request import ChatMessage, ChatRequest
from tests.conftest import CONFIG, configure, store_key
from tests.fakes.http_server import Request, StandIn, events, json_reply
from tests.fakes.llama_server import llama_server
from tests.fakes.lmstudio import LMStudio
from tests.fakes.openai_compatible import completion
from tests.fakes.sglang import SmallSglang
from tests.fakes.vllm import SmallVllm
from tests.support import tiny_models
from tests.support.corpus import CORPUS
from tests.support.drive import WAYS, Outcome, ask, failure, served
from tests.support.models import local_model
from tests.support.windows import QUESTION, SECRET, long_prompt, reading_ollama, says

in_every_way = pytest.mark.parametrize("way", WAYS)

LONG = long_prompt(24_000)
"""6,000 tokens."""
ESTIMATE = Prompt(ChatRequest((ChatMessage("user", LONG),), {}, stream=False)).estimate({})
ESTIMATED = f"{ESTIMATE.tokens:,}"
ANSWER = f"{SECRET}."
SERVERS = {name: kind.title for name, kind in base.server_kinds().items()}
GEMMA = "google/gemma-4-26b-a4b"


def paths(server: StandIn) -> list[str]:
    return [request.path for request in server.requests]


def context_of(outcome: Outcome) -> int | None:
    size: int | None = (outcome.json or {}).get("context_size")
    return size


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(PromptTooLong) as caught:
        act()
    return str(caught.value)


# Ollama


def at_ollama(server: StandIn, **known: Any) -> LocalModel:
    return served(server.url, "ollama", **{"context_max": 131_072, "size": 10**8, **known})


def windows_of(server: StandIn) -> list[int | None]:
    """The `num_ctx` of each chat request."""
    chats = (request for request in server.requests if request.path == "/api/chat")
    return [chat.body.get("options", {}).get("num_ctx") for chat in chats]


@in_every_way
def test_long_prompt_at_ollama_is_answered_from_its_first_line(way: str) -> None:
    ollama = reading_ollama()
    with StandIn(ollama) as server:
        outcome = ask(at_ollama(server), LONG, way)
    assert (outcome.text, context_of(outcome)) == (ANSWER, 8192)
    assert paths(server) == ["/api/ps", "/api/show", "/api/chat"]
    assert (windows_of(server), ollama.overflows) == ([8192], 0)


@in_every_way
def test_long_prompt_at_ollama_with_a_context_that_was_asked_for(way: str) -> None:
    """The server counts it: an estimate would be too high."""
    with StandIn(reading_ollama()) as server:
        said = refused(lambda: ask(at_ollama(server), LONG, way, context_size=4096))
        assert paths(server) == ["/api/version", "/api/chat"]
    assert said == (
        f"The prompt takes 6,000 tokens and Ollama at {server.url} holds 4,096."
        " Shorten it, or enlarge the context with -o context_size 8192."
    )


@in_every_way
def test_ollama_that_would_cut_is_not_sent_what_may_not_fit(way: str) -> None:
    """Versions before 0.12.6 do not know `truncate`."""
    with StandIn(reading_ollama(cuts=True)) as server:
        said = refused(lambda: ask(at_ollama(server), LONG, way, context_size=4096))
        assert paths(server) == ["/api/version"]
    assert said.startswith(f"The prompt takes about {ESTIMATED} tokens and Ollama at {server.url}")


def test_prompt_that_cannot_fit_with_any_vocabulary_is_not_sent() -> None:
    with StandIn(reading_ollama()) as server:
        said = refused(lambda: ask(at_ollama(server), LONG, context_size=1024))
        assert server.requests == []
    assert said.startswith(f"The prompt takes about {ESTIMATED} tokens and Ollama at {server.url}")


@in_every_way
def test_short_prompt_asks_nothing_of_ollama(way: str) -> None:
    with StandIn(reading_ollama()) as server:
        ask(at_ollama(server), "Hello", way)
        ask(at_ollama(server), long_prompt(6000), way)
    assert paths(server) == ["/api/chat"] * 2
    assert windows_of(server) == [None, None]


def test_context_that_has_grown_stays_while_the_model_is_loaded() -> None:
    ollama = reading_ollama()
    with StandIn(ollama) as server:
        model = at_ollama(server)
        for prompt in ("Hello", LONG, "Hello", LONG):
            ask(model, prompt)
        assert (windows_of(server), ollama.loads) == ([None, 8192, 8192, 8192], [4096, 8192])
        server.requests.clear()
        ollama.loaded = 0
        ask(model, "Hello")
        ask(model, "Hello")
    # It was asked once more what is loaded, and not again.
    assert paths(server) == ["/api/ps", "/api/chat", "/api/chat"]
    assert windows_of(server) == [None, None]


def test_context_that_is_large_enough_is_used_as_it_is() -> None:
    ollama = reading_ollama(default=32_768, loaded=32_768)
    with StandIn(ollama) as server:
        ask(at_ollama(server), LONG)
    assert (windows_of(server), ollama.loads) == ([32_768], [])


def test_answer_that_is_to_be_long_makes_room() -> None:
    with StandIn(reading_ollama()) as server:
        ask(at_ollama(server), "Hello", max_tokens=20_000)
    assert windows_of(server) == [32_768]


@pytest.mark.parametrize(("context_size", "window"), [("max", 40_960), (16_384, 16_384)])
def test_context_that_was_asked_for(context_size: Any, window: int) -> None:
    with StandIn(reading_ollama(trained=40_960)) as server:
        outcome = ask(at_ollama(server, context_max=40_960), LONG, context_size=context_size)
    assert (windows_of(server), context_of(outcome)) == ([window], window)
    assert paths(server) == ["/api/chat"]


def test_prompt_that_is_longer_than_what_the_model_was_trained_for() -> None:
    with StandIn(reading_ollama(trained=8192)) as server:
        model = at_ollama(server, context_max=8192)
        said = refused(lambda: ask(model, long_prompt(40_000)))
        assert "takes 10,000 tokens and Ollama at" in said
        assert said.endswith("this one was trained for 8,192 tokens.")
        assert windows_of(server) == [8192]
        # The estimate is too high for this one.
        assert ask(model, long_prompt(32_400)).text == ANSWER


def test_model_in_a_cloud_has_the_context_it_has(user_path: Path) -> None:
    with StandIn(reading_ollama(default=131_072)) as server:
        model = at_ollama(server, runs_on=RunsOn.CLOUD)
        configure(user_path, **CONFIG, allow=[model.id])
        assert ask(model, LONG).text == ANSWER
    assert (paths(server), windows_of(server)) == (["/api/chat"], [None])


KEEPS_A_LOT = {
    "llama.block_count": 32,
    "llama.embedding_length": 4096,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 32,
}
"""A megabyte for two tokens."""


@pytest.mark.parametrize(
    ("free", "window"),
    [
        pytest.param(10**11, 16_384, id="plenty"),
        pytest.param(7 * 10**9, 12_288, id="for less than the next power of two"),
        pytest.param(10**9, 9692, id="not even for what is needed, which is for Ollama to say"),
    ],
)
def test_memory_bounds_how_far_the_context_is_rounded_up(
    free: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_ram", lambda: free)
    with StandIn(reading_ollama(keys=KEEPS_A_LOT)) as server:
        ask(at_ollama(server), long_prompt(34_000))
    (given,) = windows_of(server)
    assert given == pytest.approx(window, abs=100)


@in_every_way
def test_count_of_the_server_replaces_the_estimate(way: str) -> None:
    """The server refuses the prompt, and gets it once more in a context for what it has counted."""
    ollama = reading_ollama(tokens_of=lambda text: 2 * len(text))
    with StandIn(ollama) as server:
        outcome = ask(at_ollama(server), LONG, way)
        assert (outcome.text, context_of(outcome)) == (ANSWER, 65_536)
        assert (windows_of(server), ollama.loads) == ([8192, 65_536], [8192, 65_536])


def test_count_of_the_server_exceeds_what_the_model_was_trained_for() -> None:
    ollama = reading_ollama(tokens_of=lambda text: 2 * len(text), trained=32_768)
    with StandIn(ollama) as server:
        said = refused(lambda: ask(at_ollama(server, context_max=32_768), LONG))
    assert said.startswith("The prompt takes 48,000 tokens and Ollama at")
    assert said.endswith("this one was trained for 32,768 tokens.")
    assert (windows_of(server), ollama.loads) == ([8192], [8192])


@in_every_way
def test_prompt_that_is_refused_twice_is_an_error(way: str) -> None:
    """The server counts more the second time than the first."""
    counts = iter([9000, 20_000])
    with StandIn(reading_ollama(tokens_of=lambda _text: next(counts))) as server:
        said = refused(lambda: ask(at_ollama(server), LONG, way))
    assert said.startswith("The prompt takes 20,000 tokens and Ollama at")
    assert windows_of(server) == [8192, 16_384]


MEDIUM = long_prompt(9000)
"""About 2,300 tokens, and with the answer less than 4,096."""
TAGS = ("smollm2:135m", "mine:latest")
FILES = dict.fromkeys(TAGS, "the file")


@pytest.mark.parametrize(
    ("settings", "known", "windows", "loads"),
    [
        pytest.param({"default": 2048}, {}, [None, 4096], [2048, 4096], id="not known before"),
        pytest.param(
            {"default": 2048}, {"context_default": 2048}, [4096], [4096], id="in the Modelfile"
        ),
        pytest.param(
            {"default": 2048, "loaded": 2048},
            {"context_loaded": 2048, "loaded": True},
            [4096],
            [4096],
            id="loaded",
        ),
        pytest.param(
            {"default": 2048, "loaded": 8192},
            {"context_loaded": 2048, "loaded": True},
            [8192],
            [],
            id="has grown since",
        ),
        pytest.param(
            {"default": 16_384},
            {"context_default": 16_384},
            [None],
            [16_384],
            id="large enough in the Modelfile",
        ),
    ],
)
@in_every_way
def test_context_below_the_usual_one_grows(
    settings: Any, known: Any, windows: list[int | None], loads: list[int], way: str
) -> None:
    ollama = reading_ollama(**settings)
    with StandIn(ollama) as server:
        assert ask(at_ollama(server, **known), MEDIUM, way).text == ANSWER
        assert (windows_of(server), ollama.loads) == (windows, loads)
        ask(at_ollama(server, **known), "Hello", way)
    assert ollama.loads == loads


def test_context_that_a_server_gives_is_learned_from_a_refusal() -> None:
    ollama = reading_ollama(default=2048)
    with StandIn(ollama) as server:
        model = at_ollama(server)
        for prompt in (MEDIUM, "Hello", MEDIUM):
            ask(model, prompt)
        assert (windows_of(server), ollama.loads) == ([None, 4096, 4096, 4096], [2048, 4096])
        ollama.loaded = 0
        server.requests.clear()
        ask(model, MEDIUM)
    assert (windows_of(server), ollama.loads[2:]) == ([4096], [4096])


def test_short_prompt_stays_in_a_small_context() -> None:
    """Half of it is room enough for an answer whose length nobody has asked for."""
    ollama = reading_ollama(default=512)
    with StandIn(ollama) as server:
        model = at_ollama(server, context_default=512)
        ask(model, "Hello")
        assert paths(server) == ["/api/ps", "/api/chat"]
        ask(model, "Hello", max_tokens=600)
    assert (windows_of(server), ollama.loads) == ([None, 4096], [512, 4096])


def test_short_prompt_stays_in_a_small_context_beside_one_that_has_grown() -> None:
    ollama = reading_ollama(default=2048, loaded=2048)
    write_facts("local/ollama/another:latest", ModelFacts(context_size=8192))
    with StandIn(ollama) as server:
        ask(at_ollama(server), "Hello")
    assert (windows_of(server), ollama.loads) == ([2048], [])


@pytest.mark.parametrize("running", TAGS)
@pytest.mark.parametrize("prompt", [MEDIUM, "Hello"])
def test_trained_context_is_kept_by_a_model_whose_own_is_smaller(running: str, prompt: str) -> None:
    ollama = reading_ollama(
        files=FILES, num_ctx={TAGS[0]: 2048}, trained=4096, loaded=4096, running=running
    )
    with StandIn(ollama) as server:
        known = {"context_max": 4096, "context_default": 2048}
        ask(at_ollama(server, architecture="llama", **known), prompt)
    assert (windows_of(server), ollama.loads) == ([4096], [])


@pytest.mark.parametrize(
    ("own", "default", "order", "loads"),
    [
        pytest.param(8192, 4096, (0, 1, 0, 1, 1, 0), [8192], id="larger than the default"),
        pytest.param(8192, 4096, (1, 0, 1, 0), [4096], id="after the default"),
        pytest.param(2048, 4096, (0, 1, 0, 1), [2048], id="smaller than the default"),
        pytest.param(2048, 4096, (1, 0, 0, 1), [4096], id="smaller, after the default"),
        pytest.param(16_384, 32_768, (0, 1, 0, 1), [16_384], id="as large as the trained one"),
        pytest.param(
            2048, 32_768, (1, 0, 1, 0), [16_384] * 2, id="default above the trained one, not known"
        ),
    ],
)
def test_tags_of_one_file_with_contexts_of_their_own(
    own: int, default: int, order: tuple[int, ...], loads: list[int]
) -> None:
    ollama = reading_ollama(files=FILES, num_ctx={TAGS[0]: own}, default=default, trained=16_384)
    with StandIn(ollama) as server:
        known = {"context_max": 16_384, "architecture": "llama"}
        models = [
            served(server.url, "ollama", TAGS[0], **known, context_default=own),
            served(server.url, "ollama", TAGS[1], **known),
        ]
        for index in order:
            ask(models[index], "Hello")
    assert ollama.loads == loads


def test_default_above_what_the_model_was_trained_for() -> None:
    """Asking for the trained context would reload what has it because it cannot have more."""
    ollama = reading_ollama(default=262_144, trained=16_384)
    with StandIn(ollama) as server:
        model = at_ollama(server, context_max=16_384)
        for prompt in ("Hello", LONG, "Hello"):
            ask(model, prompt)
        assert (windows_of(server), ollama.loads) == ([None] * 3, [16_384])


def test_tag_that_does_not_know_the_default_keeps_what_another_needed() -> None:
    ollama = reading_ollama(files=FILES, default=2048)
    with StandIn(ollama) as server:
        first, second = (served(server.url, "ollama", name, context_max=8192) for name in TAGS)
        for model, prompt in [(first, MEDIUM), (second, "Hi"), (first, "Hi"), (second, MEDIUM)]:
            ask(model, prompt)
    assert (windows_of(server), ollama.loads) == ([None, *[4096] * 4], [2048, 4096])


def test_tags_of_one_file_share_what_is_loaded() -> None:
    ollama = reading_ollama(files=FILES)
    with StandIn(ollama) as server:
        first, second = (
            served(server.url, "ollama", name, context_max=131_072, architecture="llama")
            for name in TAGS
        )
        for model, prompt in [(first, "Hello"), (second, "Hello"), (first, LONG)]:
            ask(model, prompt)
        for model, prompt in [(second, "Hello"), (second, LONG), (first, "Hello"), (second, "Hi")]:
            ask(model, prompt)
        assert (ollama.loads, ollama.running) == ([4096, 8192], TAGS[0])
        ask(second, long_prompt(40_000))
        ask(first, LONG)
        ask(first, "Hello")
        assert (ollama.loads, ollama.running) == ([4096, 8192, 16_384], TAGS[1])
        ollama.loaded = 0
        server.requests.clear()
        ask(first, "Hello")
        ask(second, "Hello")
    assert paths(server) == ["/api/ps", "/api/chat", "/api/chat"]
    assert windows_of(server) == [None, None]


@pytest.mark.parametrize("name", ["other:latest", "nomic-embed-text:latest"])
def test_runner_of_another_file_says_nothing_about_a_model(name: str) -> None:
    ollama = reading_ollama(loaded=65_536, running=name)
    with StandIn(ollama) as server:
        ask(at_ollama(server, architecture="llama"), LONG)
        ask(at_ollama(server, architecture="llama"), "Hello")
    assert (windows_of(server), ollama.loads) == ([8192, 8192], [8192])


@pytest.mark.parametrize(("asked", "window"), [("max", 40_960), (16_384, 16_384)])
def test_context_that_was_asked_for_stays_while_the_model_is_loaded(
    asked: Any, window: int
) -> None:
    ollama = reading_ollama(trained=40_960)
    with StandIn(ollama) as server:
        model = at_ollama(server, context_max=40_960)
        ask(model, "Hello", context_size=asked)
        for prompt in ("Hello", LONG, "Hello"):
            ask(model, prompt)
        assert (windows_of(server), ollama.loads) == ([window] * 4, [window])
        ollama.loaded = 0
        ask(model, "Hello")
    assert ollama.loads == [window, 4096]


@pytest.mark.parametrize("kind", ["ollama", "lmstudio"])
@in_every_way
def test_context_above_what_the_model_was_trained_for(kind: str, way: str) -> None:
    with StandIn(answering) as server:
        model = served(server.url, kind, "m", context_max=8192)
        said = failure(lambda: ask(model, "Hello", way, context_size=8193))
        assert server.requests == []
    assert said == (
        "m was trained for a context of 8,192 tokens, not 8,193. Use -o context_size 8192 or less."
    )


def test_prompt_that_was_cut_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with StandIn(reading_ollama(cuts=True, trained=4096)) as server:
        outcome = ask(at_ollama(server), LONG)
    assert outcome.text == "I do not know."
    assert capsys.readouterr().err == (
        f"Ollama at {server.url} read 2,048 tokens of a prompt of about {ESTIMATED}: it may"
        " have cut it. Install a newer version.\n"
    )


# What is learned about a model.


def test_estimate_learns_from_what_a_server_counts(user_path: Path) -> None:
    """Of a vocabulary with which three characters of Chinese take two tokens, not six."""
    prompt = CORPUS["chinese"] * 5
    ollama = reading_ollama(tokens_of=lambda text: round(len(text) * 2 / 3))
    with StandIn(ollama) as server:
        model = at_ollama(server)
        for _ in range(8):
            ask(model, prompt)
            ollama.loaded = 0
    assert ollama.overflows == 0
    before, *_, after = windows_of(server)
    assert (before, after) == (8192, None)
    factors = read_facts(model.id).script_factors
    assert 0.5 < factors["CJK"] < 0.6
    assert read_facts("local/ollama/another").script_factors == {}


@pytest.mark.parametrize("tokens", [0, 1, 300])
def test_nothing_is_learned_from_what_cannot_be(tokens: int, user_path: Path) -> None:
    """Ollama before 0.30 left out what it had cached."""
    with StandIn(reading_ollama(loaded=16_384)) as server:
        ollama = replace(reading_ollama(), tokens_of=lambda _text: tokens)
        server.respond = ollama
        ask(at_ollama(server), LONG)
    assert read_facts("local/ollama/smollm2:135m").script_factors == {}


# LM Studio

LOAD, UNLOAD = "/api/v1/models/load", "/api/v1/models/unload"
LIST, CHAT = "/api/v1/models", "/v1/chat/completions"


def at_lmstudio(server: StandIn, name: str = GEMMA, **known: Any) -> LocalModel:
    return served(server.url, "lmstudio", name, **{"context_max": 262_144, **known})


@in_every_way
def test_long_prompt_at_lm_studio_is_answered_from_its_first_line(way: str) -> None:
    studio = LMStudio(says=says, load_seconds=0.01)
    with StandIn(studio) as server:
        outcome = ask(at_lmstudio(server), LONG, way)
    assert (outcome.text, context_of(outcome)) == (ANSWER, 8192)
    assert (outcome.json or {})["load_seconds"] == 0.01
    assert paths(server) == [LIST, LOAD, CHAT]
    assert [(each.id, each.context_length) for each in studio.instances] == [(GEMMA, 8192)]


@in_every_way
def test_long_prompt_at_lm_studio_with_a_context_that_was_asked_for(way: str) -> None:
    studio = LMStudio(says=says)
    with StandIn(studio) as server:
        said = refused(lambda: ask(at_lmstudio(server), LONG, way, context_size=4096))
    assert said == (
        f"The prompt takes at least 6,000 tokens and LM Studio at {server.url} holds 4,096."
        " Shorten it, or enlarge the context with -o context_size 8192."
    )
    assert paths(server) == [LIST, LOAD, CHAT]


def test_conversation_that_lm_studio_would_cut_is_not_sent() -> None:
    """It keeps the first message, and cuts what follows without an error."""
    studio = LMStudio(says=says)
    with StandIn(studio) as server:
        conversation = LocalChat(at_lmstudio(server)).conversation()
        conversation.prompt("Hello").text()
        server.requests.clear()
        said = refused(lambda: conversation.prompt(LONG, context_size=4096).text())
    assert f"LM Studio at {server.url} holds 4,096. " in said
    assert "takes about" in said
    assert paths(server) == [LIST]


@in_every_way
def test_lm_studio_that_answers_an_overflow_with_nothing(way: str) -> None:
    """Some of its builds do."""

    def respond(request: Request) -> Iterable[bytes | float]:
        return [events()] if request.path == CHAT else studio(request)

    studio = LMStudio(says=says)
    with StandIn(respond) as server:
        said = refused(lambda: ask(at_lmstudio(server), LONG, way, context_size=4096))
        assert said.startswith(f"The prompt takes about {ESTIMATED} tokens and LM Studio at")
        said = failure(lambda: ask(at_lmstudio(server), "Hello", way))
        assert "sent an answer that ends before it is complete" in said


@in_every_way
def test_short_prompt_asks_nothing_of_lm_studio(way: str) -> None:
    with StandIn(LMStudio()) as server:
        ask(at_lmstudio(server), "Hello", way)
    assert paths(server) == [CHAT]


def test_instance_that_is_too_small_is_replaced_by_one_with_its_settings() -> None:
    studio = LMStudio(says=says)
    studio.load(GEMMA, context_length=4096, flash_attention=False, num_experts=2)
    with StandIn(studio) as server:
        assert ask(at_lmstudio(server, context_loaded=4096, loaded=True), LONG).text == ANSWER
    assert paths(server) == [LIST, UNLOAD, LOAD, CHAT]
    (instance,) = studio.instances
    config = instance.config
    assert (config["context_length"], config["flash_attention"], config["num_experts"]) == (
        8192,
        False,
        2,
    )


def test_all_copies_are_replaced(user_path: Path) -> None:
    studio = LMStudio(says=says)
    for context_length in (2048, 4096):
        studio.load(GEMMA, context_length=context_length)
    other = studio.load("granite-3.0-2b-instruct")
    with StandIn(studio) as server:
        ask(at_lmstudio(server), LONG)
    assert [each.id for each in studio.instances] == [other.id, GEMMA]


def test_instance_that_is_large_enough_answers() -> None:
    studio = LMStudio(says=says)
    studio.load(GEMMA, context_length=4096)
    studio.load(GEMMA, context_length=65_536)
    studio.load(GEMMA, identifier="mine", context_length=16_384)
    with StandIn(studio) as server:
        outcome = ask(at_lmstudio(server), LONG)
    assert (outcome.text, context_of(outcome)) == (ANSWER, 16_384)
    assert paths(server) == [LIST, CHAT]
    assert server.requests[-1].body["model"] == "mine"
    assert len(studio.instances) == 3


@pytest.mark.parametrize(
    ("context_size", "trained", "loaded"),
    [(8192, 8192, 8192), (2048, 4096, 4096), ("max", 4096, 4096)],
)
def test_context_asked_of_lm_studio(context_size: Any, trained: int, loaded: int) -> None:
    name = "granite-3.0-2b-instruct"
    studio = LMStudio()
    studio.load(name, context_length=4096)
    with StandIn(studio) as server:
        model = at_lmstudio(server, name, context_max=trained)
        assert context_of(ask(model, "Hello", context_size=context_size)) == loaded
    assert [each.context_length for each in studio.instances] == [loaded]


def test_variant_is_loaded_as_itself() -> None:
    studio = LMStudio(says=says)
    studio.load(GEMMA, context_length=65_536)
    with StandIn(studio) as server:
        assert ask(at_lmstudio(server, f"{GEMMA}@q8_0"), LONG).text == ANSWER
    assert {(each.variant, each.context_length) for each in studio.instances} >= {
        (f"{GEMMA}@q8_0", 8192)
    }


def test_load_that_fails() -> None:
    studio = LMStudio(unloadable=frozenset({GEMMA}))
    with StandIn(studio) as server:
        said = failure(lambda: ask(at_lmstudio(server), LONG))
    assert said == (
        f"LM Studio at {server.url} says: The model process exited with SIGABRT."
        " Use a smaller -o context_size, or unload other models there."
    )


def test_load_that_takes_too_long() -> None:
    with StandIn(LMStudio(load_seconds=5.0)) as server:
        said = failure(lambda: ask(at_lmstudio(server), LONG, timeout=0.3))
    assert said.startswith(f"LM Studio at {server.url} did not load {GEMMA} within 0.3 seconds.")


@pytest.mark.parametrize("api", ["v0", "old"])
def test_lm_studio_that_is_too_old_to_load_a_model(api: Any) -> None:
    studio = LMStudio(says=says, api=api)
    studio.load("granite-3.0-2b-instruct")
    with StandIn(studio) as server:
        model = at_lmstudio(server, "granite-3.0-2b-instruct", context_loaded=4096, loaded=True)
        said = refused(lambda: ask(model, LONG))
        assert said.endswith("Shorten it, or start the server with a larger context.")
        assert paths(server).count(CHAT) == 1
        said = failure(lambda: ask(model, "Hello", context_size=8192))
        assert said.startswith(f"LM Studio at {server.url} holds 4,096 tokens, not 8,192. ")
    assert paths(server).count(CHAT) == 1


@pytest.mark.parametrize("characters", range(2000, 20_000, 1500))
@pytest.mark.parametrize("kind", ["ollama", "lmstudio"])
def test_prompt_is_answered_whole_or_not_at_all(kind: str, characters: int) -> None:
    """Around the sizes at which something has to be done."""
    ollama, studio = reading_ollama(trained=4096), LMStudio(says=says)
    model_name = "granite-3.0-2b-instruct" if kind == "lmstudio" else "smollm2:135m"
    with StandIn(studio if kind == "lmstudio" else ollama) as server:
        model = served(server.url, kind, model_name, context_max=4096)
        try:
            assert ask(model, long_prompt(characters)).text == ANSWER
        except PromptTooLong:
            assert characters >= 4 * 4096
    assert ollama.overflows == (kind == "ollama" and characters >= 4 * 4096)


# Servers whose context is fixed when they start.


def answering(_request: Request) -> list[bytes]:
    return [json_reply(completion("Hello", finish_reason="stop"))]


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        ("vllm", "--max-model-len 8192"),
        ("sglang", "--context-length 8192"),
        ("openai", "a larger context"),
    ],
)
def test_fixed_server(kind: str, flag: str) -> None:
    with StandIn(answering) as server:
        model = served(server.url, kind, "m", context_loaded=4096)
        start = f"tart the server with {flag}."
        said = failure(lambda: ask(model, "Hello", context_size=8000))
        assert "holds 4,096 tokens, not 8,000. " in said
        assert said.endswith(f"S{start}")
        assert server.requests == []
        for enough in (4096, 1000, "max"):
            assert context_of(ask(model, "Hello", context_size=enough)) == 4096
    assert paths(server) == [CHAT] * 3


def test_server_that_does_not_say_what_it_holds() -> None:
    with StandIn(answering) as server:
        model = served(server.url, "openai", "m")
        said = failure(lambda: ask(model, "Hello", context_size=8192))
        assert said.startswith("OpenAI-compatible server at ")
        assert said.endswith("does not say how large its context is. Leave out -o context_size.")
        assert server.requests == []
        ask(model, LONG)
    assert paths(server) == [CHAT]


# llama-server counts.

COUNT = "/v1/chat/completions/input_tokens"


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        pytest.param({COUNT: {"input_tokens": 4095}}, [COUNT], id="in one go"),
        pytest.param(
            {"/apply-template": {"prompt": "..."}, "/tokenize": {"tokens": [0] * 4095}},
            [COUNT, "/apply-template", "/tokenize"],
            id="in two",
        ),
    ],
)
def test_llama_server_counts_the_prompt(answers: dict[str, Any], asked: list[str]) -> None:
    with StandIn(llama_server(posts=answers)) as server:
        model = served(server.url, "llamacpp", "m", context_loaded=4096)
        assert ask(model, LONG).text == "Hello."
        assert paths(server) == [*asked, CHAT]
        smaller = served(server.url, "llamacpp", "m", context_loaded=4095)
        assert "takes 4,095 tokens" in refused(lambda: ask(smaller, LONG))
    counted = server.requests[0].body
    assert counted == server.requests[len(asked)].body


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {COUNT: {"input_tokens": "many"}, "/apply-template": {"prompt": 7}},
        {"/apply-template": {"prompt": "..."}, "/tokenize": {"tokens": "many"}},
        {"/apply-template": {"prompt": "..."}},
    ],
)
def test_llama_server_that_does_not_count(answers: dict[str, Any]) -> None:
    with StandIn(llama_server(posts=answers)) as server:
        model = served(server.url, "llamacpp", "m", context_loaded=4096)
        assert ask(model, LONG).text == "Hello."
    assert paths(server)[-1] == CHAT


# vLLM and SGLang count, too.

BOTH = pytest.mark.parametrize(("kind", "fake"), [("vllm", SmallVllm), ("sglang", SmallSglang)])
NUMBERS = "7" * 4 * 931
"""931 tokens here, and estimated at four times as many."""
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")


@BOTH
@in_every_way
def test_server_counts_a_chat(kind: str, fake: type[SmallVllm], way: str) -> None:
    """It is asked only if the bytes of a prompt do not show that it fits."""
    with StandIn(fake()) as server:
        model = served(server.url, kind, "m", context_loaded=4096)
        ask(model, "Hello", way)
        assert paths(server) == [CHAT]
        server.requests.clear()
        model = served(server.url, kind, "m", context_loaded=1024)
        assert ask(model, NUMBERS, way).text == "Hello."
        assert paths(server) == ["/tokenize", CHAT]
        assert server.requests[0].body == server.requests[1].body
        server.requests.clear()
        said = refused(lambda: ask(model, long_prompt(4 * 1024), way))
        assert said.startswith(f"The prompt takes 1,024 tokens and {SERVERS[kind]} at {server.url}")
        assert paths(server) == ["/tokenize"]


@pytest.mark.parametrize(
    ("kind", "fake", "said"),
    [
        (
            "vllm",
            SmallVllm,
            "at least 1,025 tokens and vLLM at URL holds 1,024. Shorten it, or "
            "start the server with a larger --max-model-len.",
        ),
        (
            "sglang",
            SmallSglang,
            "1,500 tokens and SGLang at URL holds 1,024. Shorten it, or start "
            "the server with --context-length 4096.",
        ),
    ],
)
@in_every_way
def test_server_that_is_too_old_to_count(
    kind: str, fake: type[SmallVllm], said: str, way: str
) -> None:
    with StandIn(fake(counts=False)) as server:
        model = served(server.url, kind, "m", context_loaded=1024)
        assert ask(model, NUMBERS, way).text == "Hello."
        told = refused(lambda: ask(model, long_prompt(4 * 1500), way))
    assert told == f"The prompt takes {said}".replace("URL", server.url)
    assert paths(server) == ["/tokenize", CHAT] * 2


@in_every_way
def test_image_for_a_model_that_cannot_see(way: str) -> None:
    """It is estimated at more tokens than the context holds."""
    image = llm.Attachment(type="image/png", content=PNG)
    with StandIn(SmallVllm()) as server:
        model = served(server.url, "vllm", "m", context_loaded=1024)
        said = failure(lambda: ask(model, "Look", way, attachments=[image]))
        assert paths(server) == ["/tokenize", CHAT]
    assert said == (
        f"vLLM at {server.url} says: m is not a multimodal model (HTTP 400)."
        " Choose a model that can see or hear what you attach:"
        " `llm localrun recommend --for vision`."
    )


@in_every_way
def test_answer_for_which_sglang_has_no_room(way: str) -> None:
    with StandIn(SmallSglang()) as server:
        model = served(server.url, "sglang", "m", context_loaded=1024)
        said = refused(lambda: ask(model, long_prompt(4 * 900), way, max_tokens=200))
        assert said == (
            "The prompt takes 900 tokens, its answer may take 200 more, and SGLang at"
            f" {server.url} holds 1,024. Use -o max_tokens 123 or less."
        )
        ask(model, long_prompt(4 * 900), way, max_tokens=123)


# KoboldCpp and text-generation-webui cut a prompt to have room for its answer.


@pytest.mark.parametrize("kind", ["koboldcpp", "textgen"])
def test_server_that_cuts_gets_no_prompt_that_may_not_fit(kind: str) -> None:
    with StandIn(answering) as server:
        model = served(server.url, kind, "m", context_loaded=8192)
        ask(model, LONG)
        ask(model, "Hello", max_tokens=7000)
        said = refused(lambda: ask(model, LONG, max_tokens=3000))
        assert refused(lambda: ask(model, long_prompt(40_000))).startswith("The prompt takes about")
    most = 8192 - ESTIMATE.tokens - 1
    assert said.startswith(f"The prompt takes about {ESTIMATED} tokens, its answer may take 3,000")
    assert said.endswith(f"holds 8,192. Use -o max_tokens {most} or less.")
    assert paths(server) == [CHAT] * 2


# Answers that are longer than any context


@pytest.mark.parametrize(
    ("kind", "known", "options", "said"),
    [
        ("vllm", {"context_loaded": 1024, "context_max": 1024}, {}, "1,024 tokens, less than -o"
         " max_tokens 9000. Use -o max_tokens 1023 or less, or start the server with"
         " a larger --max-model-len."),
        ("llamacpp", {"context_loaded": 4096, "context_max": 8192}, {}, "4,096 tokens, less than"
         " -o max_tokens 9000. Use -o max_tokens 4095 or less."),
        ("llamacpp", {"context_loaded": 4096, "context_max": 9500}, {}, "4,096 tokens, less than"
         " -o max_tokens 9000. Use -o max_tokens 4095 or less, or start the server with -c 9500."),
        ("omlx", {"context_max": 8192}, {}, "8,192 tokens, less than -o max_tokens 9000. Use -o"
         " max_tokens 8191 or less."),
        *(
            (kind, {"context_max": 8192}, {}, "8,192 tokens, less than -o max_tokens 9000. Use -o"
             " max_tokens 8191 or less.")
            for kind in ("ollama", "lmstudio")
        ),
        *(
            (kind, {"context_max": 32_768}, {"context_size": 4096}, "4,096 tokens, less than -o"
             " max_tokens 9000. Use -o max_tokens 4095 or less, or enlarge the context with -o"
             " context_size 16384.")
            for kind in ("ollama", "lmstudio")
        ),
    ],
)  # fmt: skip
@in_every_way
def test_answer_above_the_context_is_refused(
    kind: str, known: Any, options: Any, said: str, way: str
) -> None:
    with StandIn(answering) as server:
        model = served(server.url, kind, "m", **known)
        told = failure(lambda: ask(model, "Hello", way, max_tokens=9000, **options))
    trained_for = f"local/{kind}/m was trained for a context of"
    held = f"{SERVERS[kind]} at {server.url} holds"
    assert told == f"{trained_for if known == {'context_max': 8192} else held} {said}"
    assert server.requests == []


@pytest.mark.parametrize(
    ("kind", "known", "said"),
    [
        ("vllm", {"context_loaded": 1024, "context_max": 1024}, "Start the server with a larger"
         " --max-model-len."),
        ("llamacpp", {"context_loaded": 4096, "context_max": 8192}, "Start the server with -c"
         " 8192."),
        ("llamacpp", {"context_loaded": 8192, "context_max": 8192}, "Use -o context_size 8192 or"
         " less."),
        ("lemonade", {"context_loaded": 4096, "context_max": 8192}, "Start the server with a larger"
         " context."),
        ("ollama", {"context_max": 8192}, "Use -o context_size 8192 or less."),
        ("lmstudio", {"context_max": 8192}, "Use -o context_size 8192 or less."),
    ],
)  # fmt: skip
def test_no_context_is_suggested_that_the_model_cannot_have(
    kind: str, known: Any, said: str
) -> None:
    with StandIn(answering) as server:
        model = served(server.url, kind, "m", **known)
        told = failure(lambda: ask(model, "Hello", context_size=100_000_000))
    assert told.endswith(f"tokens, not 100,000,000. {said}")
    assert server.requests == []


def test_real_llama_server_counts(
    user_path: Path, warm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(model_at(next((warm / "localrun" / "models").iterdir())), "Hi", max_tokens=1)
    engine = max(
        list_running(warm / "localrun" / "engine"), key=lambda each: each.spec.context_size
    )
    monkeypatch.setenv("LLM_USER_PATH", str(user_path))
    store_key(user_path, "box", engine.key)
    configure(user_path, **CONFIG, endpoints=[{"name": "box", "url": engine.url, "key": "box"}])
    (model,) = get_catalogue(CachePolicy.REFRESH).models
    said = refused(lambda: ask(model, "hello " * 9000))
    assert said == (
        f"The prompt takes 9,031 tokens and llama-server at {engine.url} holds 8,192."
        " Shorten it, or choose a model with a larger context: this one was trained for 8,192"
        " tokens."
    )


# The engine


@pytest.fixture
def folder(user_path: Path) -> Path:
    return user_path / "localrun" / "engine"


@pytest.fixture
def starter(starter_model: Path) -> LocalModel:
    name = starter_model.stem
    return local_model(
        id=f"local/gguf/{name}", name=name, path=str(starter_model), context_max=8192
    )


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each time that something is asked of a server before a request."""
    asked: list[None] = []
    probe = http.Probe

    def counting(*arguments: Any) -> Any:
        asked.append(None)
        return probe(*arguments)

    monkeypatch.setattr(base, "Probe", counting)
    return asked


GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}
FOUR_HUNDRED_TOKENS = long_prompt(1600)


def test_engine_is_restarted_with_room_and_answers_from_the_first_line(
    starter: LocalModel, folder: Path
) -> None:
    """The same on a smaller scale: `benchmarks/long_prompt.py` asks 6,000 tokens of it."""
    assert context_of(ask(starter, "Hi", max_tokens=1, context_size=256)) == 256
    outcome = ask(starter, FOUR_HUNDRED_TOKENS, **GREEDY)
    assert SECRET in outcome.text.lower()
    assert context_of(outcome) == 8192
    said = refused(lambda: ask(starter, FOUR_HUNDRED_TOKENS, context_size=256))
    assert said == (
        f"The prompt takes {outcome.input} tokens and llama.cpp holds 256."
        " Shorten it, or enlarge the context with -o context_size 4096."
    )
    # All that took them: nothing was evaluated of the prompt that was refused.
    assert 350 < (outcome.input or 0) < 450


def test_engine_is_not_started_for_sizes_that_it_cannot_have(
    starter: LocalModel, folder: Path
) -> None:
    assert failure(lambda: ask(starter, "Hi", max_tokens=9000)) == (
        f"{starter.id} was trained for a context of 8,192 tokens, less than -o max_tokens 9000."
        " Use -o max_tokens 8191 or less."
    )
    assert failure(lambda: ask(starter, "Hi", max_tokens=9000, context_size=256)) == (
        "llama.cpp holds 256 tokens, less than -o max_tokens 9000. Use -o max_tokens 255 or less."
    )
    said = failure(lambda: ask(starter, "Hi", context_size=100_000_000))
    assert said.endswith("not 100,000,000. Use -o context_size 8192 or less.")
    assert list_running(folder) == []


def test_short_prompt_is_not_counted(starter: LocalModel, counts: list[None]) -> None:
    for _ in range(2):
        ask(starter, "Name the primary colours", max_tokens=1)
    assert counts == []


def test_long_prompt_is_counted_once(starter: LocalModel, counts: list[None]) -> None:
    refused(lambda: ask(starter, "hello " * 9000))
    assert len(counts) == 1


def test_engine_counts_what_was_estimated_too_low(
    tmp_path: Path, folder: Path, counts: list[None]
) -> None:
    """With a vocabulary of bytes a prompt takes five times as many tokens as are expected."""
    path = tiny_models.llama(layers=1, width=256, hidden=256).build(tmp_path / "tiny.gguf")
    model = local_model(id="local/gguf/tiny", name="tiny", path=str(path), context_max=131_072)
    outcome = ask(model, long_prompt(9000), max_tokens=1)
    assert outcome.input is not None
    # A space is written as three bytes.
    assert 9000 < outcome.input < 13_000
    assert context_of(outcome) == 16_384
    assert len(counts) == 1


def test_answer_that_is_to_be_long_gets_a_large_engine(tmp_path: Path, folder: Path) -> None:
    path = tiny_models.llama(layers=1, width=256, hidden=256).build(tmp_path / "tiny.gguf")
    model = local_model(id="local/gguf/tiny", name="tiny", path=str(path), context_max=16_384)
    assert context_of(ask(model, "Hi", max_tokens=9000, stop="<unk>")) == 16_384


def test_answer_that_lacks_room_says_so(
    starter: LocalModel, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = ask(starter, "Tell me a long story about a dragon", context_size=128, temperature=0)
    assert (outcome.json or {})["finish_reason"] == "length"
    assert capsys.readouterr().err == (
        "The answer stopped because the context of 128 tokens is full."
        " Enlarge it with -o context_size 256.\n"
    )
    ask(starter, "Tell me a long story", context_size=128, max_tokens=8)
    assert capsys.readouterr().err == ""


def test_max_is_what_the_model_was_trained_for(starter: LocalModel) -> None:
    assert context_of(ask(starter, "Hi", max_tokens=1, context_size="max")) == 8192


def test_prompts_are_what_they_are_said_to_be() -> None:
    assert len(LONG) == 24_000
    assert ESTIMATE.tokens == pytest.approx(6000, rel=0.05)
    assert LONG.endswith(QUESTION)
    assert json.dumps(LONG).isascii()
