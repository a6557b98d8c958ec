"""Grouping the files of a repository into variants."""

from collections.abc import Sequence

import pytest

from llm_localrun.pull.variants import HubFile, Variant, variant_of, variants_in

pytestmark = pytest.mark.pure


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
