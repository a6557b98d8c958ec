"""The names of quantizations and their order, and the roles of files by their names."""

import pytest

from llm_localrun.gguf.files import shard_of
from llm_localrun.names.quantizations import (
    QUALITY,
    file_type_name,
    long_quantization,
    quality_distance,
    quantization_in,
    without_quantization,
)
from llm_localrun.names.roles import other_role

# A name, its quantization, and the name without it.
NAMES = [
    ("Qwen3-8B-Q4_K_M", "Q4_K_M", "Qwen3-8B"),
    ("Hermes-2-Pro.Q5_K_M", "Q5_K_M", "Hermes-2-Pro"),
    ("model_q4_k_m", "Q4_K_M", "model"),
    ("gemma-3-4b-it-q4_0", "Q4_0", "gemma-3-4b-it"),
    ("gemma-3-4b-it-qat-q4_0", "Q4_0", "gemma-3-4b-it-qat"),
    ("gemma-3-27b-it-qat", "", "gemma-3-27b-it-qat"),
    ("Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL", "UD-Q4_K_XL", "Qwen3-30B-A3B-Instruct-2507"),
    ("DeepSeek-R1-ud-iq1_s", "UD-IQ1_S", "DeepSeek-R1"),
    ("Qwen3-8B.i1-Q4_K_M", "Q4_K_M", "Qwen3-8B"),
    ("Llama-3.1-8B.i1-IQ3_XXS", "IQ3_XXS", "Llama-3.1-8B"),
    ("Qwen2.5-7B-Instruct-Q6_K_L", "Q6_K_L", "Qwen2.5-7B-Instruct"),
    ("gemma-2-2b-it-Q3_K_XL", "Q3_K_XL", "gemma-2-2b-it"),
    ("Model-Q2_K_XXL", "Q2_K_XXL", "Model"),
    ("Model-Q3_K_XS", "Q3_K_XS", "Model"),
    ("Model-Q2_K_S", "Q2_K_S", "Model"),
    ("Model-Q2_K", "Q2_K", "Model"),
    ("Model-Q3_K", "Q3_K_M", "Model"),
    ("Model-Q4_K", "Q4_K_M", "Model"),
    ("Model-Q5_K", "Q5_K_M", "Model"),
    ("Model-Q6_K", "Q6_K", "Model"),
    ("Model-Q8_0", "Q8_0", "Model"),
    ("Model-Q4_1", "Q4_1", "Model"),
    ("Model-Q5_0", "Q5_0", "Model"),
    ("Model-Q5_1", "Q5_1", "Model"),
    ("Model-Q1_0", "Q1_0", "Model"),
    ("Model-Q2_0", "Q2_0", "Model"),
    ("Model-Q4_0_4_4", "Q4_0_4_4", "Model"),
    ("Model-Q4_0_4_8", "Q4_0_4_8", "Model"),
    ("Model-Q4_0_8_8", "Q4_0_8_8", "Model"),
    *((f"Model-{name}", name, "Model") for name in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS")),
    *((f"Model-{name}", name, "Model") for name in ("IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS")),
    *((f"Model-{name}", name, "Model") for name in ("IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS")),
    *((f"Model-{name}", name, "Model") for name in ("TQ1_0", "TQ2_0", "BF16", "F16", "F32")),
    ("tinyllama-fp16", "F16", "tinyllama"),
    ("tinyllama.fp32", "F32", "tinyllama"),
    ("Qwen3-8B-FP8", "FP8", "Qwen3-8B"),
    ("gpt-oss-20b-mxfp4", "MXFP4", "gpt-oss-20b"),
    ("gpt-oss-20b-MXFP4_MOE", "MXFP4_MOE", "gpt-oss-20b"),
    ("Nemotron-3-NVFP4", "NVFP4", "Nemotron-3"),
    ("Model-f16-q4_0", "Q4_0", "Model"),
    (
        "Qwen2.5-Coder-7B-Q8_0-GGUF_qwen2.5-coder-7b-q8_0",
        "Q8_0",
        "Qwen2.5-Coder-7B-GGUF_qwen2.5-coder-7b",
    ),
    ("Qwen3.8-27B-Uncensored-Q4_K_P", "Q4_K_P", "Qwen3.8-27B-Uncensored"),
    ("Qwen3.5-9B-Q4_K_M-imatrix", "Q4_K_M", "Qwen3.5-9B-imatrix"),
    # MLX.
    *((f"Qwen3-8B-{bits}bit", f"{bits}bit", "Qwen3-8B") for bits in (2, 3, 4, 5, 6, 8)),
    ("qwen3-8b-mlx@4BIT", "4bit", "qwen3-8b-mlx"),
    ("Qwen3-8B-4-bit", "4bit", "Qwen3-8B"),
    ("Qwen3-4B-4bit-DWQ", "4bit-DWQ", "Qwen3-4B"),
    ("Qwen3-30B-A3B-8bit-DWQ", "8bit-DWQ", "Qwen3-30B-A3B"),
    ("qwen3-1.7b-4bit-dwq-053125", "4bit-DWQ", "qwen3-1.7b"),
    ("Qwen3-4B-4bit-DWQ-v2", "4bit-DWQ", "Qwen3-4B"),
    ("gpt-oss-20b-MXFP4-Q8", "MXFP4", "gpt-oss-20b"),
    ("Qwen3-Embedding-8B-mxfp8", "MXFP8", "Qwen3-Embedding-8B"),
    ("gemma-3n-E4B-it-bf16", "BF16", "gemma-3n-E4B-it"),
    # vLLM and SGLang.
    ("Qwen2.5-7B-Instruct-AWQ", "AWQ", "Qwen2.5-7B-Instruct"),
    ("Qwen2.5-7B-Instruct-GPTQ-Int4", "GPTQ-INT4", "Qwen2.5-7B-Instruct"),
    ("Qwen3-30B-A3B-AWQ-4bit", "AWQ-4bit", "Qwen3-30B-A3B"),
    ("DeepSeek-R1-0528-Qwen3-8B-4bit-AWQ", "4bit-AWQ", "DeepSeek-R1-0528-Qwen3-8B"),
    ("Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "W4A16", "Meta-Llama-3.1-8B-Instruct"),
    ("Meta-Llama-3.1-8B-Instruct-quantized.w8a8", "W8A8", "Meta-Llama-3.1-8B-Instruct"),
    ("Meta-Llama-3.1-8B-Instruct-FP8-dynamic", "FP8", "Meta-Llama-3.1-8B-Instruct"),
    ("Qwen3-14B-unsloth-bnb-4bit", "4bit", "Qwen3-14B"),
    ("qwen3-4b-int4", "INT4", "qwen3-4b"),
    ("Q4_K_M", "Q4_K_M", ""),
    ("gemma-3-4b-it-Q4_K_M.gguf", "Q4_K_M", "gemma-3-4b-it.gguf"),
    ("qwen3:8b-q8_0", "Q8_0", "qwen3:8b"),
    ("hf.co/bartowski/Llama-3.2-3B-GGUF:Q4_K_M", "Q4_K_M", "hf.co/bartowski/Llama-3.2-3B-GGUF"),
    ("ai/gemma3:4B-Q4_K_M", "Q4_K_M", "ai/gemma3:4B"),
    ("qwen/qwen3-8b@q4_k_m", "Q4_K_M", "qwen/qwen3-8b"),
    ("MOSTLY_Q4_K_M", "Q4_K_M", "MOSTLY"),
    ("Mixtral-8x7B-v0.1-KQ2", "", "Mixtral-8x7B-v0.1-KQ2"),
    ("Phi-3-mini-4k-instruct-q4", "", "Phi-3-mini-4k-instruct-q4"),
    ("Qwen3-8B", "", "Qwen3-8B"),
    ("Qwen3-8B-16bit", "", "Qwen3-8B-16bit"),
    ("Qwen3-8B-4bits", "", "Qwen3-8B-4bits"),
    ("mint4-7b", "", "mint4-7b"),
    ("ModelQ4_K_M", "", "ModelQ4_K_M"),
    ("Model-Q9_0", "", "Model-Q9_0"),
    ("Model-F160", "", "Model-F160"),
    ("", "", ""),
]


@pytest.mark.parametrize(("name", "quantization", "rest"), NAMES, ids=[case[0] for case in NAMES])
def test_quantization_in_a_name(name: str, quantization: str, rest: str) -> None:
    assert quantization_in(name) == quantization
    assert without_quantization(name) == rest


FILE_TYPES = {
    **{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K"},
    **{11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S"},
    **{17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS"},
    **{23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S"},
    **{29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0"},
    **{38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0"},
}


@pytest.mark.parametrize(("number", "name"), FILE_TYPES.items())
def test_file_types(number: int, name: str) -> None:
    assert file_type_name(number) == name
    assert file_type_name(number | 1024) == name


@pytest.mark.parametrize("number", [None, 4, 5, 6, 999, 1024 + 6, -1, 2**32 - 1])
def test_unknown_file_types(number: int | None) -> None:
    assert file_type_name(number) == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("all F32", "F32"),
        ("F16", "F16"),
        ("BF16", "BF16"),
        ("Q4_0", "Q4_0"),
        ("Q4_1", "Q4_1"),
        ("Q8_0", "Q8_0"),
        ("MXFP4 MoE", "MXFP4_MOE"),
        ("NVFP4", "NVFP4"),
        ("Q2_K - Medium", "Q2_K"),
        ("Q2_K - Small", "Q2_K_S"),
        ("Q3_K - Small", "Q3_K_S"),
        ("Q3_K - Medium", "Q3_K_M"),
        ("Q3_K - Large", "Q3_K_L"),
        ("Q4_K - Small", "Q4_K_S"),
        ("Q4_K - Medium", "Q4_K_M"),
        ("Q5_K - Small", "Q5_K_S"),
        ("Q5_K - Medium", "Q5_K_M"),
        ("Q6_K", "Q6_K"),
        ("IQ1_S - 1.5625 bpw", "IQ1_S"),
        ("IQ2_XXS - 2.0625 bpw", "IQ2_XXS"),
        ("IQ3_XXS - 3.0625 bpw", "IQ3_XXS"),
        ("IQ3_S - 3.4375 bpw", "IQ3_S"),
        ("IQ3_S mix - 3.66 bpw", "IQ3_M"),
        ("IQ4_NL - 4.5 bpw", "IQ4_NL"),
        ("TQ1_0 - 1.69 bpw ternary", "TQ1_0"),
        ("(guessed) Q4_K - Medium", "Q4_K_M"),
        ("(guessed) all F32", "F32"),
        ("unknown, may not work", ""),
        ("", ""),
        # Docker Model Runner.
        ("MOSTLY_Q4_K_M", "Q4_K_M"),
        ("MOSTLY_F16", "F16"),
        ("IQ2_XXS/Q4_K_M", "Q4_K_M"),
        ("Q4_K_M", "Q4_K_M"),
        # Ollama's `quantization_level`.
        ("Q4_0", "Q4_0"),
        ("BF16", "BF16"),
        ("MXFP4", "MXFP4"),
        ("nvfp4", "NVFP4"),
        ("int4", "INT4"),
        ("unknown", ""),
        # LM Studio.
        ("4bit", "4bit"),
        ("8BIT", "8bit"),
        ("mxfp4", "MXFP4"),
        ("fp16", "F16"),
        # What it is cannot be known, but two of it are the same.
        ("Q4_K_R4", "Q4_K_R4"),
    ],
)
def test_quantizations_described_for_people(text: str, name: str) -> None:
    assert long_quantization(text) == name


@pytest.mark.parametrize(
    ("stem", "shard"),
    [
        ("Model-Q4_K_M-00001-of-00002", ("Model-Q4_K_M", 1, 2)),
        ("Model-00012-of-00120", ("Model", 12, 120)),
        ("a-00001-of-00002-00002-of-00003", ("a-00001-of-00002", 2, 3)),
        ("Model-Q4_K_M", None),
        ("Model-1-of-2", None),
        ("Model-00001-of-00002-Q4_K_M", None),
        ("-00001-of-00002", None),
        ("00001-of-00002", None),
        ("Model.gguf.part1of2", None),
        ("", None),
    ],
)
def test_shards(stem: str, shard: tuple[str, int, int] | None) -> None:
    assert shard_of(stem) == shard


PROJECTOR = "it is a projector, which lets another model see or hear"
MATRIX = "it is an importance matrix"
DRAFT = "it drafts for another model"


@pytest.mark.parametrize(
    ("stem", "role"),
    [
        ("Qwen3-8B-Q4_K_M", ""),
        ("model", ""),
        ("Llama-3.1-8B-eagle3-merge", ""),
        ("smtp-helper-7b", ""),
        ("mmproj-F16", PROJECTOR),
        ("mmproj-model-f16", PROJECTOR),
        ("gemma-3-4b-it.mmproj-Q8_0", PROJECTOR),
        ("gemma-3-4b-it-MMPROJ-f16", PROJECTOR),
        ("Qwen3-8B.imatrix", MATRIX),
        ("Qwen3-8B-imatrix", MATRIX),
        ("Qwen3.5-9B-Q4_K_M-imatrix", ""),
        ("medpsy-4b-q4_k_m-imat", ""),
        ("imatrix_unsloth", MATRIX),
        ("mtp-Qwen3-8B", DRAFT),
        ("MTP-Qwen3-8B", DRAFT),
        ("eagle3-Llama-3.1-8B", DRAFT),
        ("dflash-Qwen3-8B", DRAFT),
        ("dspark-Qwen3-8B", DRAFT),
        ("ggml-vocab-llama-bpe", "it is a vocabulary without weights"),
        ("._Qwen3-8B-Q4_K_M", "it is what macOS keeps beside a file"),
    ],
)
def test_roles_of_files_that_are_not_models(stem: str, role: str) -> None:
    assert other_role(stem) == role


# A preferred quantization, and others by increasing distance.
NEAR_TO_FAR = [
    ("Q4_K_M", ["Q4_K_M", "Q4_K_S", "Q6_K", "Q8_0", "F16"]),
    ("Q4_K_M", ["Q4_K_M", "Q3_K_M", "Q2_K", "IQ1_S"]),
    ("q4_k_m", ["q4_k_m", "q5_k_m", "q8_0"]),
    ("Q8_0", ["Q8_0", "Q6_K", "Q4_K_M", "Q2_K"]),
    ("F16", ["F16", "BF16", "Q8_0", "Q4_K_M"]),
    ("Q4_K_M", ["UD-Q4_K_XL", "Q5_K_M", "UD-Q8_K_XL", "F32", "other"]),
    ("Q4_K_M", ["UD-Q4_K_XL", "Q3_K_S", "UD-Q2_K_XL", "IQ1_M", "something"]),
    ("Q4_K_M", ["Q4_K_L", "Q5_K_L", "Q6_K_L", "F32", ""]),
    ("Q6_K", ["Q6_K_L", "Q5_K_S", "Q4_0", "Q2_K_L", "unknown"]),
    ("Q8_0", ["UD-Q8_K_XL", "Q6_K", "Q4_K_M"]),
    ("Q6_K", ["UD-Q6_K_XL", "Q5_K_M", "Q4_K_M"]),
    ("Q4_K_M", ["Q4_K_P", "4bit-DWQ", "4bit", "3bit", "2bit"]),
    ("Q4_K_M", ["Q4_K_M", "5bit", "6bit", "8bit", "BF16", "int"]),
    ("4bit", ["4bit", "MXFP4", "3bit", "8bit"]),
    ("8bit", ["W8A8", "MXFP8", "6bit", "AWQ"]),
]


@pytest.mark.parametrize(("preferred", "others"), NEAR_TO_FAR)
def test_quality_distance_grows(preferred: str, others: list[str]) -> None:
    distances = [quality_distance(other, preferred) for other in others]
    assert distances == sorted(set(distances))


@pytest.mark.parametrize("name", QUALITY)
def test_distance_to_itself_is_zero(name: str) -> None:
    assert quality_distance(name, name) == quality_distance(name.lower(), name) == 0


@pytest.mark.parametrize(
    ("quantization", "preferred"), [("", "Q4_K_M"), ("Q9_K", "Q4_K_M"), ("Q4_K_M", "best")]
)
def test_unknown_quantizations_are_farther_than_all_others(
    quantization: str, preferred: str
) -> None:
    farthest = quality_distance(QUALITY[0], QUALITY[-1])
    assert quality_distance(quantization, preferred) > farthest


@pytest.mark.parametrize(
    ("quantization", "like"),
    [
        ("AWQ", "4bit"),
        ("GPTQ-INT4", "4bit"),
        ("GPTQ-INT8", "8bit"),
        ("AWQ-4bit", "4bit"),
        ("8bit-DWQ", "8bit"),
        ("4bit-AWQ", "4bit"),
        ("W4A16", "4bit"),
        ("W8A8", "8bit"),
        ("INT4", "4bit"),
        ("UD-Q4_K_XL", "Q4_K_M"),
        ("Q6_K_P", "Q6_K"),
        ("UD-MXFP4_MOE", "MXFP4_MOE"),
    ],
)
def test_variants_count_as_the_quantization_they_vary(quantization: str, like: str) -> None:
    assert quality_distance(quantization, like) == quality_distance(like, quantization) == 0


def test_every_file_type_has_a_quality() -> None:
    assert set(FILE_TYPES.values()) <= set(QUALITY)
    assert len(set(QUALITY)) == len(QUALITY)
