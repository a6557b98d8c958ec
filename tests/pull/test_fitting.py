"""Which variant of a repository's model is chosen, and how each fits a machine."""

import pytest

from llm_localrun.gguf.header import Header
from llm_localrun.memory.fit import UNLIMITED, Fit
from llm_localrun.pull.fitting import VariantFit, best_variant, fit_of_variant
from llm_localrun.pull.variants import HubFile, Variant
from tests.support.published_models import QWEN3_32B

MACHINE = 25 * 10**9


def variant(quantization: str, path: str = "", size: int = 10) -> Variant:
    return Variant(quantization, (HubFile(path or f"x-{quantization}.gguf", size, ""),))


@pytest.mark.parametrize(
    ("size", "memory", "fit"),
    [
        pytest.param(17_830_000_000, MACHINE, Fit(25_088), id="a part of its context"),
        pytest.param(21_650_000_000, MACHINE, Fit(10_752), id="hardly more than its weights"),
        pytest.param(24_400_000_000, MACHINE, Fit(0), id="too large"),
        pytest.param(5_000_000_000, MACHINE, Fit(40_960), id="all of its context"),
        pytest.param(24_400_000_000, None, UNLIMITED, id="memory unknown"),
    ],
)
def test_fit_of_a_variant(size: int, memory: int | None, fit: Fit) -> None:
    assert fit_of_variant(variant("Q4_K_M", size=size), Header(QWEN3_32B), memory) == fit


@pytest.mark.parametrize(("size", "fit"), [(21_000_000_000, UNLIMITED), (22_600_000_000, Fit(0))])
def test_fit_without_a_header(size: int, fit: Fit) -> None:
    assert fit_of_variant(variant("Q4_K_M", size=size), Header({}), MACHINE) == fit


def fits(**contexts: int | None) -> list[VariantFit]:
    return [VariantFit(variant(name), Fit(context)) for name, context in contexts.items()]


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
def test_best(found: list[VariantFit], chosen: str | None) -> None:
    best_one = best_variant(found, "Q4_K_M")
    assert (best_one and best_one.quantization) == chosen


def test_best_of_two_with_one_quantization_is_the_first() -> None:
    two = [VariantFit(variant("Q4_0", path), UNLIMITED) for path in ("b.gguf", "a.gguf")]
    best_one = best_variant(two, "Q4_K_M")
    assert best_one is not None
    assert best_one.path == "a.gguf"
