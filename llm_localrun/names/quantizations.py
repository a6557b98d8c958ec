"""The names of quantizations: in file and model names, in GGUF headers, and from fine to coarse.

They are spelled as their makers spell them: Q4_K_M (llama.cpp), 4bit (MLX), AWQ (vLLM). Which
variant to use is decided in `aliases` and `resolve`, and for a pull in `pull.fitting`.
"""

import functools
import re

# The group is the quantization; what is around it only says how it was made.
_QUANTIZATION = re.compile(
    r"""(?:^|[-._:@])(?:i1-|quantized\.|(?:unsloth-)?bnb-)?(
      (?:UD-)?(?:Q4_0_[48]_[48]
        |I?Q[1-8]_(?:0|1|K(?:_(?:XXL|XL|L|M|S|XS|P))?|XXS|XS|S|M|L|NL)
        |TQ[12]_0 |MXFP4(?:_MOE)?)
      |MXFP8 |NVFP4 |BF16 |FP?16 |FP?32 |FP8
      |[2-8]-?bit(?:-(?:DWQ|AWQ))?
      |(?:AWQ|GPTQ)(?:-(?:INT)?[48](?:-?bit)?)? |INT[48] |W[48]A(?:8|16)
    )(?:(?<=DWQ)-(?:v\d+|\d{4,8})|(?<=MXFP4)-Q[48]|(?<=FP8)-dynamic)?(?=$|[-._])""",
    re.IGNORECASE | re.VERBOSE,
)
_ALIASES = {"FP16": "F16", "FP32": "F32", "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

# llama.cpp's `enum llama_ftype` (include/llama.h, b11549); "" for a number that it no longer uses.
_FILE_TYPES = dict(
    enumerate(
        (
            *("F32", "F16", "Q4_0", "Q4_1", "", "", "", "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S"),
            *("Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS"),
            *("IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ3_M"),
            *("IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16", "", "", "", "TQ1_0", "TQ2_0"),
            *("MXFP4_MOE", "NVFP4", "Q1_0", "Q2_0"),
        )
    )
)
_GUESSED = 1024
"""The flag `LLAMA_FTYPE_GUESSED`."""

# From the lowest quality to the highest. The order of neighbors is our judgment.
QUALITY = (
    *("IQ1_S", "IQ1_M", "Q1_0", "TQ1_0", "IQ2_XXS", "IQ2_XS", "TQ2_0", "2bit", "Q2_0", "IQ2_S"),
    *("IQ2_M", "Q2_K_S", "Q2_K", "IQ3_XXS", "IQ3_XS", "3bit", "Q3_K_S", "IQ3_S", "IQ3_M"),
    *("Q3_K_M", "Q3_K_L", "MXFP4", "MXFP4_MOE", "IQ4_XS", "Q4_0", "4bit", "IQ4_NL", "NVFP4"),
    *("Q4_K_S", "4bit-DWQ", "Q4_K_M", "Q4_1", "Q5_K_S", "Q5_0", "5bit", "Q5_K_M", "Q5_1"),
    *("6bit", "Q6_K", "MXFP8", "8bit", "Q8_0", "FP8", "BF16", "F16", "F32"),
)
_INDEXES = {name.upper(): index for index, name in enumerate(QUALITY)}


def quantization_in(name: str) -> str:
    """The quantization in a model's or file's name: `Q4_K_M` in `qwen3-8b-q4_k_m`; "" if none.

    The last one counts: `F16-Q4_0` is a Q4_0.
    """
    matches = _QUANTIZATION.findall(name)
    if not matches:
        return ""
    quantization: str = re.sub(r"-?BIT", "bit", matches[-1].upper())
    return _ALIASES.get(quantization, quantization)


def without_quantization(name: str) -> str:
    """`name` without the quantizations in it."""
    return _QUANTIZATION.sub("", name)


def with_quantization(name: str, quantization: str) -> str:
    """`name` with its last quantization replaced, or with one appended if it has none."""
    *_, last = [None, *_QUANTIZATION.finditer(name)]
    if last is None:
        return f"{name}-{quantization}"
    separator = last[0][0] if last[0][0] in "-._:@" else ""
    return name[: last.start()] + separator + quantization + name[last.end() :]


def file_type_name(file_type: int | None) -> str:
    """The quantization for the number `general.file_type` of a header; "" if unknown."""
    return "" if file_type is None else _FILE_TYPES.get(file_type & ~_GUESSED, "")


_LONG_SUFFIXES = {"Small": "_S", "Medium": "_M", "Large": "_L"}
_LONG_NAMES = {
    "all F32": "F32",
    "MXFP4 MoE": "MXFP4_MOE",
    "IQ3_S mix - 3.66 bpw": "IQ3_M",
    "Q2_K - Medium": "Q2_K",
}


def long_quantization(text: str) -> str:
    """The usual name of a quantization that a server describes for people; "" if unknown.

    `Q4_K_M` for `Q4_K - Medium` (llama-server), `MOSTLY_Q4_K_M` and `IQ2_XXS/Q4_K_M` (Docker Model
    Runner).
    """
    text = text.removeprefix("(guessed) ").rpartition("/")[2]
    if text.startswith("unknown"):
        return ""
    if text in _LONG_NAMES:
        return _LONG_NAMES[text]
    name, _, rest = text.partition(" - ")
    name = name.removeprefix("MOSTLY_") + _LONG_SUFFIXES.get(rest, "")
    return name if without_quantization(name) else quantization_in(name)


def quality_distance(quantization: str, preferred: str) -> int:
    """The distance of two quantizations in `QUALITY`; the largest of all if one is unknown."""
    indexes = _index(quantization), _index(preferred)
    return len(QUALITY) if -1 in indexes else abs(indexes[0] - indexes[1])


@functools.cache
def _index(quantization: str) -> int:
    """The index in `QUALITY` of a quantization, or of the one it is a variant of; -1 if unknown."""
    name = quantization.upper().removeprefix("UD-")
    if name not in _INDEXES:
        # Larger variants of K quantizations: Q4_K_XL, Q6_K_L, Q4_K_P.
        name = re.sub(r"_(?:X*L|P)$", "", name)
        name = {**_ALIASES, "Q8_K": "Q8_0"}.get(name, name)
    if name not in _INDEXES and (bits := re.search(r"(?:^|INT|W|-)([2-8])(?:BIT|A|$)", name)):
        name = f"{bits[1]}BIT"
    return _INDEXES.get({"AWQ": "4BIT", "GPTQ": "4BIT"}.get(name, name), -1)


def quality(quantization: str) -> int:
    """The index of a quantization in `QUALITY`; -1 if it is not there."""
    return QUALITY.index(quantization) if quantization in QUALITY else -1


def canonical(quantization: str) -> str:
    """A quantization that the user typed, in the spelling of the catalogue: F16 for fp16."""
    return (quantization_in(quantization) or quantization).upper()
