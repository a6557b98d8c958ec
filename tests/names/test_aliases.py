"""The aliases of models, and the order of those that share an alias."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llm_localrun.models import NAMED_BY_PATH, Endpoint, LocalModel, Purpose, RunsOn
from llm_localrun.names.aliases import (
    CRITERIA,
    Order,
    aliases_of,
    make_names,
    name_models,
    nearest,
    ordered,
    parameters_of,
    reason_before,
    short_name,
)
from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import quantization_in
from tests.support.models import changed as with_facts
from tests.support.models import local_model

GB = 10**9

# A name, the quantization that its server or file gives, and its aliases without "local-".
ALIASES = [
    ("Qwen3-8B-Q4_K_M", "Q4_K_M", "qwen3-8b-q4-k-m-gguf qwen3-8b-q4-k-m qwen3-8b qwen3 qwen"),
    (
        "Qwen3-8B-UD-Q4_K_XL",
        "UD-Q4_K_XL",
        "qwen3-8b-ud-q4-k-xl-gguf qwen3-8b-ud-q4-k-xl qwen3-8b qwen3 qwen",
    ),
    ("Qwen3-8B", "", "qwen3-8b-gguf qwen3-8b qwen3 qwen"),
    (
        "Meta-Llama-3.1-8B-Instruct-Q4_K_M",
        "Q4_K_M",
        "llama3.1-8b-instruct-q4-k-m-gguf llama3.1-8b-instruct-q4-k-m llama3.1-8b-instruct"
        " llama3.1-8b llama3.1 llama",
    ),
    ("mistral:latest", "Q4_K_M", "mistral-q4-k-m-gguf mistral-q4-k-m mistral"),
    (
        "mlx-community/Qwen3-8B-4bit",
        "4bit",
        "qwen3-8b-4bit-gguf qwen3-8b-4bit qwen3-8b qwen3 qwen",
    ),
    (
        "Qwen3-4B-Instruct-2507-4bit-DWQ",
        "4bit-DWQ",
        "qwen3-4b-instruct-2507-4bit-dwq-gguf qwen3-4b-instruct-2507-4bit-dwq"
        " qwen3-4b-instruct-2507 qwen3-4b qwen3 qwen",
    ),
]

EMBEDDING_ALIASES = [
    (
        "text-embedding-nomic-embed-text-v1.5@q8_0",
        "Q8_0",
        "nomic-embed-text-v1.5-q8-0-gguf nomic-embed-text-v1.5-q8-0 nomic-embed-text-v1.5"
        " nomic-embed-text nomic",
    ),
    (
        "text-embedding-qwen3-embedding-0.6b",
        "",
        "qwen3-embedding-0.6b-gguf qwen3-embedding-0.6b qwen3-embedding qwen-embedding qwen",
    ),
]


SERVER = Endpoint(name="box", kind="openai", url="http://127.0.0.1:1")


def model(name: str, /, **known: Any) -> LocalModel:
    """A model at a server if it is loaded or runs elsewhere, otherwise in a file."""
    if known.get("store") != NAMED_BY_PATH and known.keys() & {"loaded", "runs_on"}:
        known["endpoint"] = SERVER
    else:
        known["path"] = f"/models/{name}.gguf"
    facts = {"id": f"local/gguf/{name}", "name": name, "quantization": quantization_in(name)}
    return local_model(**{**facts, **known})


@pytest.mark.parametrize(("name", "quantization", "aliases"), ALIASES, ids=[c[0] for c in ALIASES])
def test_aliases(name: str, quantization: str, aliases: str) -> None:
    found = aliases_of(model(name, quantization=quantization))
    assert found == [*(f"local-{alias}" for alias in aliases.split()), "local"]


@pytest.mark.parametrize(
    ("name", "quantization", "aliases"), EMBEDDING_ALIASES, ids=[c[0] for c in EMBEDDING_ALIASES]
)
def test_aliases_of_embedding_models(name: str, quantization: str, aliases: str) -> None:
    found = aliases_of(model(name, quantization=quantization, purpose="embedding"))
    assert found == [*(f"local-{alias}" for alias in aliases.split()), "local-embed"]


@pytest.mark.parametrize(
    ("name", "quantization", "aliases"),
    [
        ("Qwen3-8B-Q4_K_M", "Q4_K_M", ["local-qwen3-8b-q4-k-m-gguf", "local-qwen3-8b-q4-k-m"]),
        ("qwen", "", ["local-qwen-gguf"]),
        ("local", "Q8_0", ["local-local-q8-0-gguf", "local-local-q8-0"]),
    ],
)
@pytest.mark.parametrize("purpose", ["chat", "embedding"])
def test_file_that_was_only_run_by_its_path_has_specific_aliases(
    name: str, quantization: str, aliases: list[str], purpose: str
) -> None:
    named = model(name, quantization=quantization, store=NAMED_BY_PATH, purpose=purpose)
    assert aliases_of(named) == aliases
    both = with_facts(named, endpoint=SERVER)
    assert len(aliases_of(both)) > len(aliases)
    assert "local" in aliases_of(both) or purpose == "embedding"
    claimed = name_models([named], ORDER, named.purpose)
    assert short_name(named, claimed) == aliases[-1]


def test_file_that_was_only_run_by_its_path_gives_way() -> None:
    """Even if it is newer; and it is no candidate for a general name."""
    named = model("Qwen3-8B-Q4_K_M", store=NAMED_BY_PATH, modified=2.0, id="local/gguf/mine")
    found = model("Qwen3-8B-Q4_K_M", store="folders", modified=1.0)
    claimed = name_models([named, found], ORDER, "chat")
    assert claimed["local-qwen3-8b-q4-k-m"] == [found, named]
    assert claimed["local"] == claimed["local-qwen3"] == [found]
    assert short_name(named, claimed) == "local/gguf/mine"


@pytest.mark.parametrize(
    "model_id",
    [
        "local/ollama/qwen3:8b",
        "local/lmstudio/qwen/qwen3-8b",
        "local/my box/Qwen3-8B",
        "local/通/x",
    ],
)
def test_the_source_is_part_of_the_most_specific_alias(model_id: str) -> None:
    first = aliases_of(model("Qwen3-8B", id=model_id, quantization="Q4_K_M"))[0]
    source = {"my box": "-my-box", "通": ""}.get(name := model_id.split("/")[1], f"-{name}")
    assert first == f"local-qwen3-8b-q4-k-m{source}"


@pytest.mark.parametrize(
    "name", ["", "/", "Q4_K_M", "latest", "通义-7B", "Modèle (neu) 7B!", "-:-"]
)
def test_odd_names_have_usable_aliases(name: str) -> None:
    aliases = aliases_of(model(name))
    assert aliases[-1] == "local"
    assert len(aliases) > 1
    assert len(set(aliases)) == len(aliases)


def test_parameters_come_from_the_server_or_else_from_the_name() -> None:
    assert parameters_of(model("qwen3:8b")) == 8 * GB
    assert parameters_of(model("qwen3:8b", parameters=123)) == 123
    assert parameters_of(model("qwen3:latest")) is None


# The order of models that share a name.

ORDER = Order(
    fits=lambda model: (model.size or 0) <= 13 * GB,
    quantization="Q4_K_M",
    obstacle=lambda model: "its server is off" if model.architecture == OFF else "",
)
OFF = "of a model that cannot run now"

BETTER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "can run now": ({}, {"architecture": OFF}),
    "found by searching": ({"store": "folders"}, {"store": NAMED_BY_PATH}),
    "runs on this machine": ({"runs_on": RunsOn.THIS_MACHINE}, {"runs_on": RunsOn.ANOTHER_MACHINE}),
    "meant for this use": ({"name": "Qwen3-8B"}, {"name": "Qwen3-8B-Base"}),
    "loaded now": ({"loaded": True}, {"loaded": False}),
    "fits in memory": ({"size": 13 * GB}, {"size": 14 * GB}),
    "more parameters": ({"parameters": 8 * GB}, {"parameters": 4 * GB}),
    "quantization nearest the preferred one": (
        {"quantization": "Q4_K_S"},
        {"quantization": "Q8_0"},
    ),
    "newer": ({"modified": 2.0}, {"modified": 1.0}),
    "first by name": ({"id": "local/gguf/a"}, {"id": "local/gguf/b"}),
}


def test_every_criterion_is_in_the_table_in_its_order() -> None:
    assert [criterion.reason for criterion in CRITERIA] == list(BETTER)


@pytest.mark.parametrize(("reason", "pair"), BETTER.items(), ids=[*BETTER])
def test_each_criterion_alone_decides(
    reason: str, pair: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    better, worse = (model("qwen3", **known) for known in pair)
    assert ordered([worse, better], ORDER) == [better, worse]
    assert ordered([better, worse], ORDER) == [better, worse]
    assert reason_before(better, worse, ORDER).partition(" (")[0] == reason


@pytest.mark.parametrize("at", range(len(BETTER)))
def test_each_criterion_outweighs_all_later_ones(at: int) -> None:
    """One model is better by one criterion, the other by all later ones."""
    decisive, *rest = list(BETTER.values())[at:]
    winner: dict[str, Any] = {**decisive[0]}
    loser: dict[str, Any] = {**decisive[1]}
    for better, worse in rest:
        winner.update(worse)
        loser.update(better)
    first, second = model("qwen3", **winner), model("qwen3", **loser)
    assert ordered([second, first], ORDER) == [first, second]
    assert reason_before(first, second, ORDER).partition(" (")[0] == list(BETTER)[at]


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        ({"loaded": True}, {"loaded": None}, "loaded now"),
        ({"loaded": None, "modified": 1.0}, {"loaded": False}, "newer"),
        ({"size": None}, {"size": 90 * GB}, "fits in memory"),
        ({"size": None, "modified": 1.0}, {"size": 1}, "newer"),
        ({"parameters": 1}, {"parameters": None}, "more parameters"),
        ({"name": "qwen3:8b"}, {"name": "qwen3:4b"}, "more parameters"),
        ({"name": "qwen3:4b", "parameters": 9 * GB}, {"name": "qwen3:8b"}, "more parameters"),
        ({"runs_on": RunsOn.THIS_MACHINE}, {"runs_on": RunsOn.UNKNOWN}, "runs on this machine"),
        ({"runs_on": RunsOn.THIS_MACHINE}, {"runs_on": RunsOn.CLOUD}, "runs on this machine"),
        (
            {"quantization": "Q2_K"},
            {"quantization": ""},
            "quantization nearest the preferred one",
        ),
    ],
)
def test_unknown_values_are_no_advantage(
    better: dict[str, Any], worse: dict[str, Any], reason: str
) -> None:
    first, second = model("qwen3", **better), model("qwen3", **worse)
    assert ordered([second, first], ORDER) == [first, second]
    assert reason_before(first, second, ORDER).partition(" (")[0] == reason


# Pairs of models; the first one is preferred.
BETTER_SUITED = [
    # Of similar size: a general model before one for a single task.
    ("qwen3:14b", "qwen2.5-coder:14b"),
    ("qwen3:8b", "qwen3-vl:8b"),
    ("deepseek-r1:14b", "deepseek-coder-v2:16b"),
    ("qwen3:4b", "qwen2.5-coder:7b"),
    ("qwen2.5:7b", "qwen2-math:7b"),
    ("mistral:7b", "llava:13b"),
    # A much larger model for a single task before a small general one.
    ("qwen2.5-coder:32b", "qwen3:0.6b"),
    ("qwen3-coder:30b", "qwen3:4b"),
    ("Qwen2.5-VL-7B-Instruct", "SmolLM2-135M-Instruct"),
    ("llama3.2-vision:11b", "llama3.2:3b"),
    # A model that cannot answer comes last, whatever its size.
    ("qwen3:0.6b", "Qwen3-32B-Base"),
    ("llama3.2:1b", "llama-guard3:8b"),
]


@pytest.mark.parametrize(("better", "worse"), BETTER_SUITED)
def test_purpose_of_a_model_counts(better: str, worse: str) -> None:
    first, second = model(better), model(worse)
    assert ordered([second, first], ORDER) == [first, second]


def test_loaded_base_model_comes_after_a_chat_model() -> None:
    editors = model("qwen2.5-coder:1.5b-base", loaded=True)
    chat = model("qwen3:8b", loaded=False)
    assert ordered([editors, chat], ORDER) == [chat, editors]


@pytest.mark.parametrize("purpose", ["rerank", "decision", "other"])
def test_models_that_llm_has_no_command_for_have_no_aliases(purpose: Purpose) -> None:
    only = model("qwen3:8b", purpose=purpose, parameters=8_000_000_000, loaded=True)
    assert aliases_of(only) == []
    assert name_models([only], ORDER, purpose) == {}
    assert short_name(only, {}) == only.id
    assert [each.aliases for each in make_names([only], ORDER)] == [[]]


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({"loaded": True}, {"loaded": False}, "loaded now"),
        (
            {"parameters": 8_190_000_000},
            {"parameters": 596_000_000},
            "more parameters (8.19B; the next: 596M)",
        ),
        (
            {"name": "qwen3:8b"},
            {"name": "qwen3-vl:8b"},
            "more parameters (8B; the next: 8B for pictures, half of which count)",
        ),
        ({"parameters": 4 * GB}, {"name": "mistral"}, "more parameters (4B; the next: unknown)"),
        (
            {"quantization": "Q4_K_M"},
            {"quantization": "Q8_0"},
            "quantization nearest the preferred one (Q4_K_M; the next: Q8_0)",
        ),
        (
            {"name": "Qwen3-8B"},
            {"name": "Qwen3-8B-Base"},
            "meant for this use (the next: for completion)",
        ),
        ({}, {"architecture": OFF}, "can run now (the next: its server is off)"),
        ({}, {"store": NAMED_BY_PATH}, "found by searching (the next: only run by its path)"),
    ],
)
def test_reasons_give_the_compared_values(
    first: dict[str, Any], second: dict[str, Any], reason: str
) -> None:
    assert reason_before(model("qwen3", **first), model("qwen3", **second), ORDER) == reason


@pytest.mark.parametrize(
    ("preferred", "expected"),
    [("Q4_K_M", "Q4_K_M"), ("q8_0", "Q8_0"), ("IQ2_M", "Q2_K"), ("F32", "F16")],
)
def test_preferred_quantization(preferred: str, expected: str) -> None:
    models = [model(f"Qwen3-8B-{name}") for name in ("F16", "Q2_K", "Q4_K_M", "Q8_0")]
    assert ordered(models, Order(lambda _: True, preferred))[0].quantization == expected


def test_a_model_has_no_reason_to_come_before_itself() -> None:
    same = model("Qwen3-8B-Q4_K_M")
    assert reason_before(same, same, ORDER) == ""


# Names for all models together.

CATALOGUE = [
    model("Qwen3-8B-Q4_K_M", size=5 * GB),
    model("Qwen3-8B-Q8_0", size=9 * GB),
    model("Qwen3-4B-Q4_K_M", size=3 * GB),
    model("Qwen2.5-Coder-7B-Instruct-Q4_K_M", size=5 * GB),
    model("gemma-3-27b-it-Q4_K_M", size=17 * GB),
    model("smollm2:135m", loaded=True, quantization="Q4_1"),
    model("nomic-embed-text-v1.5.Q8_0", purpose="embedding"),
    model("snowflake-arctic-embed:latest", purpose="embedding", quantization="F16"),
]


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("local-qwen3-8b-q4-k-m", ["Qwen3-8B-Q4_K_M"]),
        ("local-qwen3-8b-q8-0", ["Qwen3-8B-Q8_0"]),
        ("local-qwen3-8b", ["Qwen3-8B-Q4_K_M", "Qwen3-8B-Q8_0"]),
        ("local-qwen3", ["Qwen3-8B-Q4_K_M", "Qwen3-8B-Q8_0", "Qwen3-4B-Q4_K_M"]),
        (
            "local-qwen",
            [
                "Qwen3-8B-Q4_K_M",
                "Qwen3-8B-Q8_0",
                "Qwen3-4B-Q4_K_M",
                "Qwen2.5-Coder-7B-Instruct-Q4_K_M",
            ],
        ),
        (
            "local",
            [
                "smollm2:135m",
                "Qwen3-8B-Q4_K_M",
                "Qwen3-8B-Q8_0",
                "Qwen3-4B-Q4_K_M",
                "Qwen2.5-Coder-7B-Instruct-Q4_K_M",
                "gemma-3-27b-it-Q4_K_M",
            ],
        ),
    ],
)
def test_name_models(alias: str, expected: list[str]) -> None:
    named = name_models(CATALOGUE, ORDER, "chat")
    assert [model.name for model in named[alias]] == expected


# The models of a machine: source, name and quantization.
MACHINE = [
    ("ollama", "qwen3:8b", "Q4_K_M"),
    ("ollama", "qwen2.5-coder:7b", "Q4_K_M"),
    ("ollama", "qwen2.5vl:7b", "Q4_K_M"),
    ("ollama", "llama3.2:3b", "Q4_K_M"),
    ("ollama", "llama3.2-vision:11b", "Q4_K_M"),
    ("ollama", "deepseek-r1:7b", "Q4_K_M"),
    ("ollama", "mistral-small3.2:24b", "Q4_K_M"),
    ("ollama", "gemma3:4b", "Q4_K_M"),
    ("ollama", "hermes3:8b", "Q4_0"),
    ("lmstudio", "qwen/qwen3-8b", "Q4_K_M"),
    ("lmstudio", "openai/gpt-oss-20b", "MXFP4"),
    ("lmstudio", "google/gemma-3-12b", "4bit"),
    ("lmstudio", "qwen/qwen3-30b-a3b-2507", "8bit"),
    ("gguf", "Qwen3-8B-Q8_0", "Q8_0"),
    ("gguf", "DeepSeek-R1-Distill-Llama-8B-Q4_K_M", "Q4_K_M"),
    ("gguf", "microsoft_Phi-4-mini-instruct-Q4_K_M", "Q4_K_M"),
    ("gguf", "SmolLM2-135M-Instruct.Q4_1", "Q4_1"),
    ("gguf", "Qwen2.5-Coder-1.5B-Q8_0", "Q8_0"),
    ("gguf", "Llama-4-Scout-17B-16E-Instruct-UD-Q2_K_XL-00001-of-00002", "UD-Q2_K_XL"),
    ("box", "Qwen/Qwen2.5-7B-Instruct-AWQ", "AWQ"),
]
ON_MACHINE = [
    model(name, id=f"local/{source}/{name}", quantization=quantization)
    for source, name, quantization in MACHINE
]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("local-qwen", "lmstudio/qwen/qwen3-30b-a3b-2507"),
        ("local-qwen3", "lmstudio/qwen/qwen3-30b-a3b-2507"),
        ("local-qwen3-30b-a3b", "lmstudio/qwen/qwen3-30b-a3b-2507"),
        ("local-qwen3-8b", "lmstudio/qwen/qwen3-8b"),
        ("local-qwen3-8b-q4-k-m", "lmstudio/qwen/qwen3-8b"),
        ("local-qwen3-8b-q4-k-m-ollama", "ollama/qwen3:8b"),
        ("local-qwen3-8b-q8-0", "gguf/Qwen3-8B-Q8_0"),
        ("local-qwen2.5", "box/Qwen/Qwen2.5-7B-Instruct-AWQ"),
        ("local-qwen2.5-7b", "box/Qwen/Qwen2.5-7B-Instruct-AWQ"),
        ("local-qwen2.5-coder", "ollama/qwen2.5-coder:7b"),
        ("local-qwen-coder", "ollama/qwen2.5-coder:7b"),
        ("local-qwen2.5-coder-1.5b", "gguf/Qwen2.5-Coder-1.5B-Q8_0"),
        ("local-qwen2.5-vl", "ollama/qwen2.5vl:7b"),
        ("local-llama3.2", "ollama/llama3.2:3b"),
        ("local-llama3.2-3b", "ollama/llama3.2:3b"),
        ("local-llama3.2-vision", "ollama/llama3.2-vision:11b"),
        ("local-llama4", "gguf/Llama-4-Scout-17B-16E-Instruct-UD-Q2_K_XL-00001-of-00002"),
        ("local-deepseek-r1", "gguf/DeepSeek-R1-Distill-Llama-8B-Q4_K_M"),
        ("local-deepseek-r1-7b", "ollama/deepseek-r1:7b"),
        ("local-deepseek-r1-8b", "gguf/DeepSeek-R1-Distill-Llama-8B-Q4_K_M"),
        ("local-deepseek", "gguf/DeepSeek-R1-Distill-Llama-8B-Q4_K_M"),
        ("local-gpt-oss", "lmstudio/openai/gpt-oss-20b"),
        ("local-gpt-oss-20b", "lmstudio/openai/gpt-oss-20b"),
        ("local-gemma3", "lmstudio/google/gemma-3-12b"),
        ("local-gemma3-4b", "ollama/gemma3:4b"),
        ("local-gemma3-12b-4bit", "lmstudio/google/gemma-3-12b"),
        ("local-mistral-small", "ollama/mistral-small3.2:24b"),
        ("local-mistral", "ollama/mistral-small3.2:24b"),
        ("local-phi4", "gguf/microsoft_Phi-4-mini-instruct-Q4_K_M"),
        ("local-phi4-mini", "gguf/microsoft_Phi-4-mini-instruct-Q4_K_M"),
        ("local-hermes3", "ollama/hermes3:8b"),
        ("local-smollm2", "gguf/SmolLM2-135M-Instruct.Q4_1"),
        ("local", "lmstudio/qwen/qwen3-30b-a3b-2507"),
    ],
)
def test_aliases_on_a_machine(typed: str, meant: str) -> None:
    assert name_models(ON_MACHINE, ORDER, "chat")[typed][0].id == f"local/{meant}"


def test_aliases_do_not_depend_on_the_order_in_which_models_are_found() -> None:
    expected = name_models(ON_MACHINE, ORDER, "chat")
    chance = random.Random(0)
    for _ in range(50):
        found = chance.sample(ON_MACHINE, len(ON_MACHINE))
        assert name_models(found, ORDER, "chat") == expected


def test_loading_a_model_changes_no_other_name() -> None:
    """Otherwise, names would change when a server starts or stops."""
    before = name_models(ON_MACHINE, ORDER, "chat")
    for at, each in enumerate(ON_MACHINE):
        changed = with_facts(each, loaded=True, endpoint=SERVER)
        after = name_models([*ON_MACHINE[:at], changed, *ON_MACHINE[at + 1 :]], ORDER, "chat")
        assert after.keys() == before.keys()
        for alias, claimants in before.items():
            others = [other for other in claimants if other != each]
            assert [other for other in after[alias] if other != changed] == others


def test_every_model_has_a_unique_short_name() -> None:
    """Even if two are variants of one model, or at two servers."""
    named = name_models(ON_MACHINE, ORDER, "chat")
    names = {short_name(each, named) for each in ON_MACHINE}
    assert len(names) == len(ON_MACHINE)
    assert names <= named.keys()


def test_aliases_need_no_quoting_and_are_not_ids() -> None:
    odd = [
        model(name, id=f"local/my box/{name}") for name in ("通义 (x)/Modèle_7B", "A'B", "../x$")
    ]
    named = name_models([*ON_MACHINE, *odd], ORDER, "chat")
    assert [alias for alias in named if not re.fullmatch(r"local(?:-[a-z0-9.]+)*", alias)] == []
    assert named.keys().isdisjoint(each.id for each in ON_MACHINE)


def test_each_name_is_parsed_once() -> None:
    parse_name.cache_clear()
    for _ in range(3):
        name_models(ON_MACHINE, ORDER, "chat")
    assert parse_name.cache_info().misses == len({each.name for each in ON_MACHINE})


def test_name_models_separates_purposes() -> None:
    chat = name_models(CATALOGUE, ORDER, "chat")
    embedding = name_models(CATALOGUE, ORDER, "embedding")
    assert "local-embed" not in chat
    assert "local" not in embedding
    assert {model.name for model in embedding["local-embed"]} == {
        "nomic-embed-text-v1.5.Q8_0",
        "snowflake-arctic-embed:latest",
    }
    assert name_models([], ORDER, "chat") == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen3-8B-Q4_K_M", "local-qwen3-8b"),
        ("Qwen3-8B-Q8_0", "local-qwen3-8b-q8-0"),
        ("Qwen3-4B-Q4_K_M", "local-qwen3-4b"),
        ("Qwen2.5-Coder-7B-Instruct-Q4_K_M", "local-qwen2.5-coder-7b"),
        ("smollm2:135m", "local-smollm2-135m"),
        ("nomic-embed-text-v1.5.Q8_0", "local-nomic-embed-text-v1.5"),
        ("snowflake-arctic-embed:latest", "local-snowflake-arctic-embed"),
    ],
)
def test_short_names(name: str, expected: str) -> None:
    (wanted,) = (each for each in CATALOGUE if each.name == name)
    assert short_name(wanted, name_models(CATALOGUE, ORDER, wanted.purpose)) == expected


def test_model_without_an_alias_of_its_own_is_named_by_its_id() -> None:
    first = model("Qwen3-8B-Q4_K_M", modified=2.0)
    second = model("Qwen3-8B-Q4_K_M", id="local/gguf/Qwen3-8B-Q4_K_M@abcdef", modified=1.0)
    named = name_models([first, second], ORDER, "chat")
    assert short_name(first, named) == "local-qwen3-8b"
    assert short_name(second, named) == "local/gguf/Qwen3-8B-Q4_K_M@abcdef"


def test_short_name_has_all_words_if_base_and_size_are_not_enough() -> None:
    thinking, instruct = model("Qwen3-30B-A3B-Thinking-2507"), model("Qwen3-30B-A3B-Instruct-2507")
    named = name_models([thinking, instruct], ORDER, "chat")
    assert short_name(thinking, named) == "local-qwen3-30b-a3b-thinking-2507"
    assert short_name(instruct, named) == "local-qwen3-30b-a3b-instruct-2507"
    assert short_name(instruct, name_models([instruct], ORDER, "chat")) == "local-qwen3-30b"


KNOWN = ("local", "local-qwen3-8b", "local-qwen3", "local-qwen", "local-llama3.2", "local-smollm2")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("local-qwen4", ["local-qwen"]),
        ("local-qwen3-8", ["local-qwen3-8b"]),
        ("local-llama32", ["local-llama3.2"]),
        ("local-smolm2", ["local-smollm2"]),
        ("zzz", []),
    ],
)
def test_nearest(name: str, expected: Sequence[str]) -> None:
    assert nearest(name, KNOWN)[:1] == expected


Ask = Callable[[], list[str]]


@pytest.mark.parametrize(
    ("ask", "count"),
    [
        (lambda: nearest("local-qwen", KNOWN), 3),
        (lambda: nearest("local-qwen", KNOWN, 1), 1),
        (lambda: nearest("local-qwen", iter(KNOWN), 99), len(KNOWN)),
        (lambda: nearest("local-qwen", []), 0),
    ],
)
def test_nearest_returns_at_most_count_names(ask: Ask, count: int) -> None:
    assert len(ask()) == count
