"""Models' names as people and tools write them, and the aliases that users may type for them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llm_localrun.catalogue import LocalModel
from llm_localrun.gguf.names import quantization_in
from llm_localrun.model_names import parse_name
from llm_localrun.naming import (
    CRITERIA,
    Order,
    aliases_of,
    name_models,
    nearest,
    ordered,
    parameters_of,
    reason_before,
    short_name,
)

# A name, and the family, the base and the size that a user would give its model.
NAMES = [
    # Files, as publishers name them.
    ("Qwen3-8B-Q4_K_M", "qwen", "qwen3", "8b"),
    ("Qwen_Qwen3-8B-Q4_K_M", "qwen", "qwen3", "8b"),
    ("Qwen3-8B.i1-Q4_K_M", "qwen", "qwen3", "8b"),
    ("Qwen3-8B-UD-Q4_K_XL", "qwen", "qwen3", "8b"),
    ("Qwen3-0.6B-Q8_0", "qwen", "qwen3", "0.6b"),
    ("Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL", "qwen", "qwen3", "30b"),
    ("Qwen2.5-Coder-7B-Instruct-Q6_K_L", "qwen", "qwen2.5-coder", "7b"),
    ("Qwen2.5-VL-7B-Instruct-Q8_0", "qwen", "qwen2.5-vl", "7b"),
    ("QwQ-32B-Q4_K_M", "qwq", "qwq", "32b"),
    ("Meta-Llama-3.1-8B-Instruct-Q4_K_M", "llama", "llama3.1", "8b"),
    ("Meta-Llama-3-8B-Instruct.Q4_K_M", "llama", "llama3", "8b"),
    ("Llama-3.2-1B-Instruct-f16", "llama", "llama3.2", "1b"),
    ("llama-2-7b-chat.Q4_K_M", "llama", "llama2", "7b"),
    ("Llama-4-Scout-17B-16E-Instruct-UD-Q2_K_XL", "llama", "llama4-scout", "17b"),
    ("codellama-7b-instruct.Q4_K_M", "codellama", "codellama", "7b"),
    ("tinyllama-1.1b-chat-v1.0.Q4_K_M", "tinyllama", "tinyllama", "1.1b"),
    ("mistral-7b-instruct-v0.2.Q4_K_M", "mistral", "mistral", "7b"),
    ("mixtral-8x7b-instruct-v0.1.Q4_K_M", "mixtral", "mixtral", "8x7b"),
    ("Mistral-Small-24B-Instruct-2501-Q4_K_M", "mistral", "mistral-small", "24b"),
    ("Ministral-8B-Instruct-2410-Q4_K_M", "ministral", "ministral", "8b"),
    ("Codestral-22B-v0.1-Q4_K_M", "codestral", "codestral", "22b"),
    ("google_gemma-3-4b-it-Q4_K_M", "gemma", "gemma3", "4b"),
    ("gemma-3-4b-it-qat-q4_0", "gemma", "gemma3", "4b"),
    ("gemma-3-270m-it-Q8_0", "gemma", "gemma3", "270m"),
    ("phi-4-Q4_K_M", "phi", "phi4", ""),
    ("phi-2.Q4_K_M", "phi", "phi2", ""),
    ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M", "deepseek", "deepseek-r1-distill-qwen", "7b"),
    ("gpt-oss-20b-mxfp4", "gpt", "gpt-oss", "20b"),
    ("openai_gpt-oss-20b-MXFP4", "gpt", "gpt-oss", "20b"),
    ("SmolLM2-135M-Instruct.Q4_1", "smollm", "smollm2", "135m"),
    ("HuggingFaceTB_SmolLM3-3B-Q4_K_M", "smollm", "smollm3", "3b"),
    ("granite-3.3-8b-instruct-Q4_K_M", "granite", "granite3.3", "8b"),
    ("LiquidAI_LFM2-8B-A1B-Q4_K_M", "lfm", "lfm2", "8b"),
    ("THUDM_GLM-4-32B-0414-Q4_K_M", "glm", "glm4", "32b"),
    ("openhermes-2.5-mistral-7b.Q4_K_M", "openhermes", "openhermes2.5-mistral", "7b"),
    ("zephyr-7b-beta.Q4_K_M", "zephyr", "zephyr", "7b"),
    ("EXAONE-4.0-1.2B-Q4_K_M", "exaone", "exaone4.0", "1.2b"),
    ("solar-10.7b-instruct-v1.0.Q4_K_M", "solar", "solar", "10.7b"),
    ("starcoder2-15b-Q4_K_M", "starcoder", "starcoder2", "15b"),
    # Names without a size: what tunes and dates a model is no part of what it is.
    ("Mistral-Nemo-Instruct-2407-Q4_K_M", "mistral", "mistral-nemo", ""),
    ("microsoft_Phi-4-mini-instruct-Q4_K_M", "phi", "phi4-mini", ""),
    ("Phi-3.5-mini-instruct-Q4_K_M", "phi", "phi3.5-mini", ""),
    ("DeepSeek-Coder-V2-Lite-Instruct-Q4_K_M", "deepseek", "deepseek-coder-v2-lite", ""),
    ("Devstral-Small-2507-Q4_K_M", "devstral", "devstral-small", ""),
    # 4k and 128k are contexts, not sizes.
    ("Phi-3-mini-4k-instruct-Q4_K_M", "phi", "phi3-mini", ""),
    ("microsoft/Phi-3-mini-128k-instruct", "phi", "phi3-mini", ""),
    ("gemma-3n-E4B-it-Q4_K_M", "gemma", "gemma3n", "e4b"),
    # The owner of the original may have a hyphen too.
    ("deepseek-ai_DeepSeek-R1-0528-Qwen3-8B-Q4_K_M", "deepseek", "deepseek-r1-0528-qwen3", "8b"),
    ("ibm-granite_granite-3.3-8b-instruct-Q4_K_M", "granite", "granite3.3", "8b"),
    ("zai-org_GLM-4.5-Air-Q4_K_M", "glm", "glm4.5-air", ""),
    # As older llama.cpp keeps what it has fetched: OWNER_REPOSITORY_FILE.
    ("ggml-org_gemma-3-4b-it-GGUF_gemma-3-4b-it-Q4_K_M", "gemma", "gemma3", "4b"),
    ("unsloth_Qwen3-8B-GGUF_Qwen3-8B-Q4_K_M", "qwen", "qwen3", "8b"),
    # A letter is no family.
    ("h2o-danube3-4b-chat-Q4_K_M", "h2o", "h2o-danube3", "4b"),
    ("r1-1776:70b", "r1", "r1-1776", "70b"),
    # Ollama.
    ("qwen3:8b", "qwen", "qwen3", "8b"),
    ("qwen3:latest", "qwen", "qwen3", ""),
    ("qwen3:30b-a3b", "qwen", "qwen3", "30b"),
    ("qwen3:4b-thinking-2507-q8_0", "qwen", "qwen3", "4b"),
    ("llama3.2:3b", "llama", "llama3.2", "3b"),
    ("llama3.2:latest", "llama", "llama3.2", ""),
    ("llama3.2:1b-instruct-fp16", "llama", "llama3.2", "1b"),
    ("llama3.3:70b-instruct-q4_K_M", "llama", "llama3.3", "70b"),
    ("gemma3:4b", "gemma", "gemma3", "4b"),
    ("gemma3:27b-it-qat", "gemma", "gemma3", "27b"),
    ("gemma3n:e4b", "gemma", "gemma3n", "e4b"),
    ("mistral:latest", "mistral", "mistral", ""),
    ("mistral-nemo:12b", "mistral", "mistral-nemo", "12b"),
    ("mistral-small3.2:24b", "mistral", "mistral-small3.2", "24b"),
    ("phi3:mini", "phi", "phi3-mini", ""),
    ("phi4-mini:3.8b", "phi", "phi4-mini", "3.8b"),
    ("deepseek-r1:7b", "deepseek", "deepseek-r1", "7b"),
    ("deepseek-coder-v2:16b", "deepseek", "deepseek-coder-v2", "16b"),
    ("gpt-oss:20b", "gpt", "gpt-oss", "20b"),
    ("gpt-oss:120b-cloud", "gpt", "gpt-oss", "120b"),
    ("smollm2-native:latest", "smollm", "smollm2-native", ""),
    ("hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "llama", "llama3.2", "3b"),
    ("mannix/llama3.1-8b-abliterated:q5_K_M", "llama", "llama3.1", "8b"),
    # LM Studio.
    ("qwen/qwen3-8b", "qwen", "qwen3", "8b"),
    ("qwen/qwen3-8b@q8_0", "qwen", "qwen3", "8b"),
    ("openai/gpt-oss-20b", "gpt", "gpt-oss", "20b"),
    ("google/gemma-4-26b-a4b", "gemma", "gemma4", "26b"),
    ("meta-llama-3.1-8b-instruct@q4_k_m", "llama", "llama3.1", "8b"),
    ("qwen3-8b-mlx@4bit", "qwen", "qwen3", "8b"),
    ("mistralai/devstral-small-2507", "devstral", "devstral-small", ""),
    # What vLLM and others serve under the names of repositories, or of files.
    ("Qwen/Qwen3-8B", "qwen", "qwen3", "8b"),
    ("Qwen/Qwen3-8B-FP8", "qwen", "qwen3", "8b"),
    ("Qwen/Qwen2.5-7B-Instruct-AWQ", "qwen", "qwen2.5", "7b"),
    ("meta-llama/Llama-3.1-8B-Instruct", "llama", "llama3.1", "8b"),
    ("mistralai/Mistral-7B-Instruct-v0.3", "mistral", "mistral", "7b"),
    ("mlx-community/Qwen3-8B-4bit", "qwen", "qwen3", "8b"),
    ("gemma-3-4b-it-Q4_K_M.gguf", "gemma", "gemma3", "4b"),
    ("ggml-org/gemma-3-4b-it-GGUF:Q4_K_M", "gemma", "gemma3", "4b"),
    ("ai/gemma3:4B-Q4_K_M", "gemma", "gemma3", "4b"),
    ("koboldcpp/Qwen3-8B-Q4_K_M", "qwen", "qwen3", "8b"),
    ("my model 7B", "my", "my-model", "7b"),
    ("model", "model", "model", ""),
    # Embedding models.
    ("nomic-embed-text-v1.5.Q8_0", "nomic", "nomic-embed-text", ""),
    ("nomic-embed-text:latest", "nomic", "nomic-embed-text", ""),
    ("text-embedding-nomic-embed-text-v1.5", "nomic", "nomic-embed-text", ""),
    ("text-embedding-nomic-embed-text-v1.5@q8_0", "nomic", "nomic-embed-text", ""),
    ("text-embedding-qwen3-embedding-0.6b", "qwen", "qwen3-embedding", "0.6b"),
    ("Qwen3-Embedding-0.6B-Q8_0", "qwen", "qwen3-embedding", "0.6b"),
    ("embeddinggemma-300M-Q8_0", "embeddinggemma", "embeddinggemma", "300m"),
    ("mxbai-embed-large:335m", "mxbai", "mxbai-embed-large", "335m"),
    ("text-embedding-mxbai-embed-large-v1", "mxbai", "mxbai-embed-large", ""),
    ("bge-m3:567m", "bge", "bge-m3", "567m"),
    ("BAAI/bge-large-en-v1.5", "bge", "bge-large-en", ""),
    ("intfloat/e5-mistral-7b-instruct", "e5", "e5-mistral", "7b"),
]


@pytest.mark.parametrize(("name", "family", "base", "size"), NAMES, ids=[case[0] for case in NAMES])
def test_names(name: str, family: str, base: str, size: str) -> None:
    parsed = parse_name(name)
    assert (parsed.family, "-".join(parsed.base), parsed.size) == (family, base, size)


# A name, the quantization that its server or file gives, and its aliases less "local-".
ALIASES = [
    ("Qwen3-8B-Q4_K_M", "Q4_K_M", "qwen3-8b-q4-k-m qwen3-8b qwen3 qwen"),
    ("Qwen3-8B-UD-Q4_K_XL", "UD-Q4_K_XL", "qwen3-8b-ud-q4-k-xl qwen3-8b qwen3 qwen"),
    ("Qwen3-8B.i1-Q4_K_M", "Q4_K_M", "qwen3-8b-q4-k-m qwen3-8b qwen3 qwen"),
    ("Qwen3-8B", "", "qwen3-8b qwen3 qwen"),
    (
        "Meta-Llama-3.1-8B-Instruct-Q4_K_M",
        "Q4_K_M",
        "llama3.1-8b-instruct-q4-k-m llama3.1-8b-instruct llama3.1-8b llama3.1 llama",
    ),
    (
        "mistral-7b-instruct-v0.2.Q4_K_M",
        "Q4_K_M",
        "mistral-7b-instruct-v0.2-q4-k-m mistral-7b-instruct-v0.2 mistral-7b mistral",
    ),
    (
        "Qwen3-30B-A3B-Instruct-2507-IQ4_XS",
        "IQ4_XS",
        "qwen3-30b-a3b-instruct-2507-iq4-xs qwen3-30b-a3b-instruct-2507 qwen3-30b qwen3 qwen",
    ),
    (
        "Mistral-Nemo-Instruct-2407-Q4_K_M",
        "Q4_K_M",
        "mistral-nemo-instruct-2407-q4-k-m mistral-nemo-instruct-2407 mistral-nemo mistral",
    ),
    (
        "microsoft_Phi-4-mini-instruct-Q4_K_M",
        "Q4_K_M",
        "phi4-mini-instruct-q4-k-m phi4-mini-instruct phi4-mini phi",
    ),
    (
        "ggml-org_gemma-3-4b-it-GGUF_gemma-3-4b-it-Q4_K_M",
        "Q4_K_M",
        "gemma3-4b-it-q4-k-m gemma3-4b-it gemma3-4b gemma3 gemma",
    ),
    (
        "unsloth_Qwen3-8B-GGUF_Qwen3-8B-Q4_K_M",
        "Q4_K_M",
        "qwen3-8b-q4-k-m qwen3-8b qwen3 qwen",
    ),
    ("gpt-oss-20b-mxfp4", "MXFP4", "gpt-oss-20b-mxfp4 gpt-oss-20b gpt-oss gpt"),
    ("mistral:latest", "Q4_K_M", "mistral-q4-k-m mistral"),
    ("qwen3:8b", "Q4_K_M", "qwen3-8b-q4-k-m qwen3-8b qwen3 qwen"),
    ("qwen3:30b-a3b", "Q4_K_M", "qwen3-30b-a3b-q4-k-m qwen3-30b-a3b qwen3-30b qwen3 qwen"),
    (
        "llama3.2:1b-instruct-fp16",
        "F16",
        "llama3.2-1b-instruct-f16 llama3.2-1b-instruct llama3.2-1b llama3.2 llama",
    ),
    ("gpt-oss:120b-cloud", "", "gpt-oss-120b-cloud gpt-oss-120b gpt-oss gpt"),
    ("qwen/qwen3-8b", "Q4_K_M", "qwen3-8b-q4-k-m qwen3-8b qwen3 qwen"),
    ("qwen/qwen3-8b@q8_0", "Q8_0", "qwen3-8b-q8-0 qwen3-8b qwen3 qwen"),
    ("qwen3-8b-mlx@4bit", "4bit", "qwen3-8b-4bit qwen3-8b qwen3 qwen"),
    ("mlx-community/Qwen3-8B-4bit", "4bit", "qwen3-8b-4bit qwen3-8b qwen3 qwen"),
    ("Qwen/Qwen3-8B-FP8", "FP8", "qwen3-8b-fp8 qwen3-8b qwen3 qwen"),
    ("Qwen/Qwen2.5-7B-Instruct-AWQ", "", "qwen2.5-7b-instruct-awq qwen2.5-7b qwen2.5 qwen"),
]

EMBEDDING_ALIASES = [
    (
        "text-embedding-nomic-embed-text-v1.5@q8_0",
        "Q8_0",
        "nomic-embed-text-v1.5-q8-0 nomic-embed-text-v1.5 nomic-embed-text nomic embed",
    ),
    ("nomic-embed-text:latest", "F16", "nomic-embed-text-f16 nomic-embed-text nomic embed"),
    (
        "text-embedding-qwen3-embedding-0.6b",
        "",
        "qwen3-embedding-0.6b qwen3-embedding qwen embed",
    ),
    (
        "embeddinggemma-300M-Q8_0",
        "Q8_0",
        "embeddinggemma-300m-q8-0 embeddinggemma-300m embeddinggemma embed",
    ),
]


def model(name: str, /, **known: Any) -> LocalModel:
    """A file of that name, with the quantization that it carries."""
    return LocalModel.model_validate(
        {
            "id": f"local/gguf/{name}",
            "name": name,
            "quantization": quantization_in(name),
            **known,
        }
    )


@pytest.mark.parametrize(("name", "quantization", "aliases"), ALIASES, ids=[c[0] for c in ALIASES])
def test_aliases(name: str, quantization: str, aliases: str) -> None:
    found = aliases_of(model(name, quantization=quantization))
    assert found == [*(f"local-{alias}" for alias in aliases.split()), "local"]


@pytest.mark.parametrize(
    ("name", "quantization", "aliases"), EMBEDDING_ALIASES, ids=[c[0] for c in EMBEDDING_ALIASES]
)
def test_aliases_of_embedding_models(name: str, quantization: str, aliases: str) -> None:
    found = aliases_of(model(name, quantization=quantization, purpose="embedding"))
    assert found == [f"local-{alias}" for alias in aliases.split()]


@pytest.mark.parametrize(
    ("alias", "names"),
    [
        ("local-llama3.2-3b", ["Llama-3.2-3B-Instruct-Q4_K_M", "llama3.2:3b", "llama-3.2-3b"]),
        ("local-gemma3-4b", ["google_gemma-3-4b-it-Q4_K_M", "gemma3:4b", "google/gemma-3-4b-it"]),
        ("local-gpt-oss-20b", ["gpt-oss-20b-MXFP4", "gpt-oss:20b", "openai/gpt-oss-20b"]),
        ("local-gemma3n-e4b", ["gemma-3n-E4B-it-Q4_K_M", "gemma3n:e4b", "google/gemma-3n-e4b"]),
        ("local-mistral-nemo", ["Mistral-Nemo-Instruct-2407-Q4_K_M", "mistral-nemo:12b"]),
        ("local-phi4-mini", ["microsoft_Phi-4-mini-instruct-Q4_K_M", "phi4-mini:3.8b"]),
        ("local-phi3-mini", ["Phi-3-mini-4k-instruct-Q4_K_M", "phi3:mini"]),
        ("local-nomic-embed-text", ["nomic-embed-text-v1.5.Q8_0", "nomic-embed-text:latest"]),
    ],
)
def test_one_name_for_a_model_wherever_it_comes_from(alias: str, names: list[str]) -> None:
    assert [name for name in names if alias not in aliases_of(model(name))] == []


@pytest.mark.parametrize(
    "name", ["", "/", "...", "Q4_K_M", ".gguf", "gguf", "latest", "7b", "通义-7B", "-:-", "a/b/"]
)
def test_odd_names_have_usable_aliases_too(name: str) -> None:
    aliases = aliases_of(model(name))
    assert aliases[-1] == "local"
    assert len(aliases) > 1
    assert len(set(aliases)) == len(aliases)
    assert all(alias.startswith("local-") and " " not in alias for alias in aliases[:-1])
    assert all(alias.removeprefix("local-") for alias in aliases[:-1])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen3-8B", 8_000_000_000),
        ("Qwen3-0.6B", 600_000_000),
        ("smollm2:135m", 135_000_000),
        ("mixtral-8x7b", 56_000_000_000),
        ("gemma3n:e4b", 4_000_000_000),
        ("Qwen3-30B-A3B", 30_000_000_000),
        ("solar-10.7b", 10_700_000_000),
        ("phi-4", None),
        ("Phi-3-mini-4k-instruct", None),
        ("LongChat-32k-v1", None),
        ("qwen3:latest", None),
    ],
)
def test_parameters_that_a_name_promises(name: str, parameters: int | None) -> None:
    assert parse_name(name).parameters == parameters
    assert parameters_of(model(name)) == parameters
    assert parameters_of(model(name, parameters=123)) == 123


# The order of models that share a name.

GB = 10**9
ORDER = Order(memory=16 * GB, quantization="Q4_K_M")

BETTER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "runs on this machine": ({"runs_on": "this machine"}, {"runs_on": "another machine"}),
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
    assert reason_before(better, worse, ORDER) == reason


@pytest.mark.parametrize("at", range(len(BETTER)))
def test_each_criterion_outweighs_all_that_follow(at: int) -> None:
    """One model is better by a single criterion, the other by every later one."""
    decisive, *rest = list(BETTER.values())[at:]
    winner: dict[str, Any] = {**decisive[0]}
    loser: dict[str, Any] = {**decisive[1]}
    for better, worse in rest:
        winner.update(worse)
        loser.update(better)
    first, second = model("qwen3", **winner), model("qwen3", **loser)
    assert ordered([second, first], ORDER) == [first, second]
    assert reason_before(first, second, ORDER) == list(BETTER)[at]


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
        ({"runs_on": "this machine"}, {"runs_on": "unknown"}, "runs on this machine"),
        ({"runs_on": "this machine"}, {"runs_on": "cloud"}, "runs on this machine"),
        (
            {"quantization": "Q2_K"},
            {"quantization": ""},
            "quantization nearest the preferred one",
        ),
    ],
)
def test_what_nobody_said_is_no_advantage(
    better: dict[str, Any], worse: dict[str, Any], reason: str
) -> None:
    first, second = model("qwen3", **better), model("qwen3", **worse)
    assert ordered([second, first], ORDER) == [first, second]
    assert reason_before(first, second, ORDER) == reason


def test_without_a_known_memory_everything_fits() -> None:
    small = model("qwen3", size=GB, modified=1.0)
    huge = model("qwen3", size=900 * GB, modified=2.0)
    assert ordered([small, huge], Order(None, "Q4_K_M")) == [huge, small]


@pytest.mark.parametrize(
    ("preferred", "expected"),
    [("Q4_K_M", "Q4_K_M"), ("q8_0", "Q8_0"), ("IQ2_M", "Q2_K"), ("F32", "F16")],
)
def test_preferred_quantization(preferred: str, expected: str) -> None:
    models = [model(f"Qwen3-8B-{name}") for name in ("F16", "Q2_K", "Q4_K_M", "Q8_0")]
    assert ordered(models, Order(None, preferred))[0].quantization == expected


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
                "Qwen2.5-Coder-7B-Instruct-Q4_K_M",
                "Qwen3-4B-Q4_K_M",
            ],
        ),
        (
            "local",
            [
                "smollm2:135m",
                "Qwen3-8B-Q4_K_M",
                "Qwen3-8B-Q8_0",
                "Qwen2.5-Coder-7B-Instruct-Q4_K_M",
                "Qwen3-4B-Q4_K_M",
                "gemma-3-27b-it-Q4_K_M",
            ],
        ),
    ],
)
def test_name_models(alias: str, expected: list[str]) -> None:
    named = name_models(CATALOGUE, ORDER, "chat")
    assert [model.name for model in named[alias]] == expected


def test_name_models_keeps_purposes_apart() -> None:
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
        ("nomic-embed-text-v1.5.Q8_0", "local-nomic-embed-text"),
        ("snowflake-arctic-embed:latest", "local-snowflake-arctic-embed"),
    ],
)
def test_short_names(name: str, expected: str) -> None:
    (wanted,) = (each for each in CATALOGUE if each.name == name)
    assert short_name(wanted, name_models(CATALOGUE, ORDER, wanted.purpose)) == expected


def test_model_of_which_every_name_is_taken_goes_by_its_id() -> None:
    first = model("Qwen3-8B-Q4_K_M", modified=2.0)
    second = model("Qwen3-8B-Q4_K_M", id="local/gguf/Qwen3-8B-Q4_K_M@abcdef", modified=1.0)
    named = name_models([first, second], ORDER, "chat")
    assert short_name(first, named) == "local-qwen3-8b"
    assert short_name(second, named) == "local/gguf/Qwen3-8B-Q4_K_M@abcdef"


def test_all_words_tell_apart_what_base_and_size_do_not() -> None:
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
def test_nearest_gives_no_more_than_asked_for(ask: Ask, count: int) -> None:
    assert len(ask()) == count
