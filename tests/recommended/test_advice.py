"""Where no model here will do, a message ends with a command that works."""

from collections.abc import Callable
from typing import Any

import pytest

from llm_localrun.models import LocalModel
from llm_localrun.names.aliases import Order
from llm_localrun.recommended import advice
from tests.conftest import Invoke, one_error
from tests.support.models import local_model
from tests.support.one_recommended import recommend_one
from tests.support.suggested import commands_in, parse


@pytest.fixture(autouse=True)
def one_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    recommend_one(monkeypatch)


def here(name: str, size: int = 10**9, **facts: Any) -> LocalModel:
    """A file on this machine."""
    facts = {"path": f"/{name}.gguf", "load_size": size, "size": size, **facts}
    return local_model(id=f"local/gguf/{name}", name=name, **facts)


SEES = here("Qwen3-VL-4B", capabilities=("vision", "tools"))
HUGE = here("Big-70B", 10**12, capabilities=("vision",))
DAMAGED = here("Seer-1B", capabilities=("vision",), problem="it is cut off")
ODD = here("My Eyes", capabilities=("audio", "thinking"))
ORDER = Order(lambda model: (model.size or 0) < 10**11, "Q4_K_M")
MODELS = [HUGE, DAMAGED, SEES, ODD]

BIG, MIDDLE, SMALL = here("Qwen3-8B", 8 * 10**9), here("Qwen3-4B", 10**9), here("Qwen3-1B", 10**8)
OTHER = here("Llama-3B", 10**9)
EMBEDDERS = [here(f"Vec-{size}B", size * 10**8, purpose="embedding") for size in (1, 8)]


@pytest.mark.parametrize(
    ("said", "command"),
    [
        (lambda: advice.how_to_get("chat"), "llm localrun pull starter"),
        (lambda: advice.how_to_get(None), "llm localrun pull starter"),
        (lambda: advice.how_to_get("embedding"), "llm localrun pull starter --embed"),
        (lambda: advice.how_to_find("qwen"), "llm localrun pull qwen"),
        (lambda: advice.how_to_find("Qwen3-0.6B"), "llm localrun pull qwen3-0.6b"),
        (lambda: advice.how_to_find("mistral-7b:q4"), "llm localrun pull mistral 7b"),
        (lambda: advice.how_to_find("smollm2:q8_0"), "llm localrun pull smollm2 -q Q8_0"),
        (lambda: advice.how_to_find("phi-4-iq4-xs"), "llm localrun pull phi 4 -q IQ4_XS"),
        (lambda: advice.how_to_find("Qwen3-0.6B-Q4_K_M"), "llm localrun pull qwen3-0.6b -q Q4_K_M"),
        (lambda: advice.how_to_find("qwen3-0.6b-q8-0"), "llm localrun pull qwen3-0.6b -q Q8_0"),
        (lambda: advice.how_to_find("qwen3-0.6b-q4-k-m"), "llm localrun pull qwen3-0.6b -q Q4_K_M"),
        (
            lambda: advice.how_to_find("x-ud-q4-k-xl"),
            "llm localrun pull x -q UD-Q4_K_XL",
        ),
        # Not of GGUF files.
        (lambda: advice.how_to_find("Qwen3-0.6B-AWQ"), "llm localrun pull qwen3-0.6b"),
        (lambda: advice.how_to_find("gemma-8bit"), "llm localrun pull gemma"),
        (lambda: advice.how_to_find("llama-3.1-8b"), "llm localrun pull llama 3.1 8b"),
        (lambda: advice.how_to_find("--help $(x) `y`"), "llm localrun pull help x y"),
        (lambda: advice.how_to_find(""), "llm localrun recommend"),
        (lambda: advice.how_to_find("--"), "llm localrun recommend"),
        (
            lambda: advice.with_ability("vision", MODELS, ORDER, ("-s", "a b")),
            "llm -m local/gguf/Qwen3-VL-4B -s 'a b' prompt",
        ),
        (
            lambda: advice.with_ability("tools", MODELS, ORDER),
            "llm -m local/gguf/Qwen3-VL-4B prompt",
        ),
        (
            lambda: advice.with_ability("audio", MODELS, ORDER),
            "llm -m 'local/gguf/My Eyes' prompt",
        ),
        (
            lambda: advice.with_ability("vision", [HUGE, DAMAGED], ORDER),
            "llm localrun recommend --for vision",
        ),
        (lambda: advice.with_ability("tools", [], ORDER), "llm localrun recommend --for tools"),
        (
            lambda: advice.with_ability("thinking", [], ORDER),
            "llm localrun recommend --for thinking",
        ),
        (lambda: advice.with_ability("audio", [], ORDER), "llm localrun search voxtral"),
        (
            lambda: advice.smaller(BIG, [BIG, MIDDLE, SMALL, OTHER], 3 * 10**9),
            "llm -m local/gguf/Qwen3-4B prompt",
        ),
        (
            lambda: advice.smaller(BIG, [BIG, MIDDLE, SMALL, OTHER], 15 * 10**8),
            "llm -m local/gguf/Qwen3-1B prompt",
        ),
        (
            lambda: advice.smaller(EMBEDDERS[1], EMBEDDERS, 15 * 10**8),
            "llm embed -m local/gguf/Vec-1B -c text",
        ),
        (lambda: advice.smaller(BIG, [BIG, OTHER], 4 * 10**9), "llm localrun pull qwen3-0.6b"),
    ],
)
def test_what_to_do(said: Callable[[], str], command: str) -> None:
    text = said()
    assert commands_in(text) == [command]
    assert text.endswith("`") or text.endswith("` searches for one")
    parse(command)


def test_nothing_smaller_is_known() -> None:
    assert advice.smaller(BIG, [BIG, OTHER], 10**6) == ""
    assert advice.smaller(SMALL, [BIG, SMALL], 10**12) == ""
    assert advice.smaller_to_get("x", "rerank", None, 10**12) == ""


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("-m", "local", "Hi"), "llm localrun pull starter"),
        (("embed", "-m", "local-embed", "-c", "Hi"), "llm localrun pull starter --embed"),
        (("-m", "local-qwen", "Hi"), "llm localrun pull qwen"),
        (("-m", "local-qwen3-0.6b", "Hi"), "llm localrun pull qwen3-0.6b"),
        (("-m", "local-qwen3-0.6b-q8-0", "Hi"), "llm localrun pull qwen3-0.6b -q Q8_0"),
        (("-m", "local-smollm2:q8_0", "Hi"), "llm localrun pull smollm2 -q Q8_0"),
        (("embed", "-m", "local-nomic", "-c", "Hi"), "llm localrun pull nomic"),
    ],
)
def test_name_on_an_empty_machine(
    arguments: tuple[str, ...], command: str, user_path: object, invoke: Invoke
) -> None:
    assert commands_in(one_error(invoke(*arguments))) == [command]
    parse(command)
