"""The files of a repository to variants, and which of them fits a machine."""

import io
from collections.abc import Sequence

import pytest

from llm_localrun.gguf.header import read_summary
from llm_localrun.pull.recommend import Fit, Geometry, best, geometry_of, largest_context
from llm_localrun.pull.variants import HubFile, Variant, variant_of, variants_in
from tests.gguf.test_header import LITTLE

pytestmark = pytest.mark.pure

UINT32 = 4


def files(*paths: str) -> list[HubFile]:
    return [HubFile(path, 10, "") for path in paths]


def shown(variants: Sequence[Variant]) -> list[tuple[str, list[str]]]:
    return [(v.quantization, [file.path for file in v.files]) for v in variants]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["README.md", "config.json", "a.safetensors", "a.gguf.part1of2"], []),
        (
            ["x-Q4_K_M.gguf", "x-Q8_0.GGUF"],
            [("Q4_K_M", ["x-Q4_K_M.gguf"]), ("Q8_0", ["x-Q8_0.GGUF"])],
        ),
        (["x.i1-Q4_K_M.gguf"], [("Q4_K_M", ["x.i1-Q4_K_M.gguf"])]),
        (["Q8_0/model.gguf"], [("Q8_0", ["Q8_0/model.gguf"])]),
        (["model.gguf"], [("", ["model.gguf"])]),
        (["imatrix.gguf", "ggml-vocab-x.gguf", "mtp-x.gguf", "x-mmproj-f16.gguf"], []),
        (
            ["b/x-F16-00002-of-00002.gguf", "b/x-F16-00001-of-00002.gguf"],
            [("F16", ["b/x-F16-00002-of-00002.gguf", "b/x-F16-00001-of-00002.gguf"])],
        ),
        (["x-F16-00001-of-00003.gguf", "x-F16-00003-of-00003.gguf"], []),
        (["b/x-F16-00001-of-00002.gguf", "c/x-F16-00002-of-00002.gguf"], []),
        (
            ["x-Q4_0.gguf", "mmproj-F32.gguf", "mmproj-BF16.gguf"],
            [("Q4_0", ["mmproj-BF16.gguf", "x-Q4_0.gguf"])],
        ),
        (
            ["x-Q4_0.gguf", "mmproj-Q8_0.gguf", "mmproj-model-f16.gguf", "mmproj-F32.gguf"],
            [("Q4_0", ["mmproj-model-f16.gguf", "x-Q4_0.gguf"])],
        ),
        (
            ["x-1b-Q4_0.gguf", "y-1b-Q4_0.gguf", "mmproj-y-1b-f16.gguf"],
            [("Q4_0", ["x-1b-Q4_0.gguf"]), ("Q4_0", ["mmproj-y-1b-f16.gguf", "y-1b-Q4_0.gguf"])],
        ),
        (
            ["x-1b-Q4_0-00001-of-00001.gguf", "mmproj-x-1b-f16.gguf", "mmproj-f32.gguf"],
            [("Q4_0", ["mmproj-x-1b-f16.gguf", "x-1b-Q4_0-00001-of-00001.gguf"])],
        ),
    ],
)
def test_variants(paths: list[str], expected: list[tuple[str, list[str]]]) -> None:
    assert shown(variants_in(files(*paths))) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("x-F16-00002-of-00002.gguf", ["x-F16-00002-of-00002.gguf", "x-F16-00001-of-00002.gguf"]),
        ("mmproj-f16.gguf", ["mmproj-f16.gguf"]),
        ("other.gguf", None),
    ],
)
def test_variant_of_a_file(path: str, expected: list[str] | None) -> None:
    there = files("x-F16-00001-of-00002.gguf", "x-F16-00002-of-00002.gguf", "mmproj-f16.gguf")
    found = variant_of(path, there)
    names = found and [file.path for file in found.files if "mmproj" not in file.path]
    assert (names or (found and [found.path])) == expected


LLAMA_8B = {
    "block_count": 32,
    "attention.head_count": 32,
    "attention.head_count_kv": 8,
    "embedding_length": 4096,
    "context_length": 131_072,
}


def geometry(*more: bytes, **numbers: int) -> Geometry:
    entries = [
        LITTLE.string("general.architecture", "llama"),
        *(LITTLE.scalar(f"llama.{key}", UINT32, value) for key, value in numbers.items()),
        *more,
        LITTLE.string("tokenizer.ggml.model", "gpt2"),
    ]
    return geometry_of(read_summary(io.BytesIO(LITTLE.file(entries))))


@pytest.mark.parametrize(
    ("numbers", "bytes_per_token"),
    [
        # 32 layers x 8 heads x (128 + 128) numbers x 2 bytes, which llama.cpp logs as 128 KiB.
        (LLAMA_8B, 131_072),
        ({**LLAMA_8B, "attention.key_length": 256, "attention.value_length": 128}, 196_608),
        ({k: v for k, v in LLAMA_8B.items() if k != "attention.head_count_kv"}, 524_288),
        ({k: v for k, v in LLAMA_8B.items() if k != "block_count"}, None),
        ({k: v for k, v in LLAMA_8B.items() if k != "embedding_length"}, None),
        ({**LLAMA_8B, "attention.head_count": 0}, None),
        ({}, None),
    ],
)
def test_bytes_per_token(numbers: dict[str, int], bytes_per_token: int | None) -> None:
    assert geometry(**numbers).bytes_per_token == bytes_per_token
    assert geometry(**numbers).trained == numbers.get("context_length")


def test_heads_that_differ_from_layer_to_layer() -> None:
    per_layer = LITTLE.array("llama.attention.head_count_kv", UINT32, [8, 0, 8, 0])
    numbers = {k: v for k, v in LLAMA_8B.items() if k != "attention.head_count_kv"}
    numbers["block_count"] = 4
    assert geometry(per_layer, **numbers).bytes_per_token == 16 * 256 * 2


def test_numbers_that_cannot_be() -> None:
    negative = [LITTLE.scalar(f"llama.{key}", 5, -value) for key, value in LLAMA_8B.items()]
    assert geometry(*negative) == Geometry(None, None)


GB = 10**9


@pytest.mark.parametrize(
    ("memory", "trained", "per_token", "context"),
    [
        (5.1, 131_072, 131_072, 0),
        (5.3, 131_072, 131_072, 2048),
        (6.1, 131_072, 131_072, 8192),
        (9.5, 131_072, 131_072, 32_768),
        (100.0, 131_072, 131_072, 131_072),
        (100.0, 40_960, 131_072, 40_960),
        (100.0, 512, 131_072, 512),
        (100.0, None, 131_072, 8192),
        (5.1, 131_072, None, None),
        (4.9, 131_072, None, 0),
    ],
)
def test_largest_context(
    memory: float, trained: int | None, per_token: int | None, context: int | None
) -> None:
    found = largest_context(5 * GB, Geometry(per_token, trained), lambda size: size <= memory * GB)
    assert found == context


def fits(**contexts: int | None) -> list[Fit]:
    return [
        Fit(Variant(name, tuple(files(f"x-{name}.gguf"))), context)
        for name, context in contexts.items()
    ]


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        (fits(Q2_K=131_072, Q4_K_M=32_768, Q8_0=8192), "Q4_K_M"),
        (fits(Q2_K=131_072, Q4_K_S=32_768, Q8_0=8192), "Q4_K_S"),
        (fits(Q2_K=131_072, Q3_K_M=8192, Q4_K_M=4096, Q8_0=0), "Q3_K_M"),
        (fits(Q2_K=4096, Q3_K_M=2048, Q4_K_M=0), "Q2_K"),
        (fits(Q4_K_M=512, Q8_0=512), "Q4_K_M"),
        (fits(Q4_K_M=None, Q8_0=None), "Q4_K_M"),
        (fits(Q4_K_M=0, Q8_0=0), None),
        ([], None),
    ],
)
def test_best(found: list[Fit], chosen: str | None) -> None:
    best_one = best(found, "Q4_K_M")
    assert (best_one and best_one.variant.quantization) == chosen


def test_best_of_two_with_one_quantization_is_the_first() -> None:
    two = [Variant("Q4_0", tuple(files(path))) for path in ("b-Q4_0.gguf", "a-Q4_0.gguf")]
    best_one = best([Fit(variant, None) for variant in two], "Q4_K_M")
    assert best_one is not None
    assert best_one.variant.path == "a-Q4_0.gguf"
