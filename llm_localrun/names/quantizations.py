"""The names of quantizations and of GGUF files, and what a header's `general.file_type` stands for.

Quantizations are spelled as their makers do: Q4_K_M (llama.cpp), 4bit (MLX), AWQ (vLLM).
"""

import functools
import re

# In brackets what tells one from another; around them what only says how it came about.
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
# What stands beside models under names of their own, as llama.cpp and its tools give them.
_ROLES = (
    (re.compile(r"^\._"), "it is what macOS keeps beside a file"),
    (
        re.compile(r"mmproj", re.IGNORECASE),
        "it is a projector, which lets another model see or hear",
    ),
    (re.compile(r"^(?:mtp|eagle3|dflash|dspark)-", re.IGNORECASE), "it drafts for another model"),
    (re.compile(r"^ggml-vocab-", re.IGNORECASE), "it is a vocabulary without weights"),
)
_ALIASES = {"FP16": "F16", "FP32": "F32", "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

# llama.cpp's `enum llama_ftype` (include/llama.h, b11549).
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
_GUESSED = 1024

# From least to most faithful; neighbours are a matter of judgement.
QUALITY = (
    *("IQ1_S", "IQ1_M", "Q1_0", "TQ1_0", "IQ2_XXS", "IQ2_XS", "TQ2_0", "2bit", "Q2_0", "IQ2_S"),
    *("IQ2_M", "Q2_K_S", "Q2_K", "IQ3_XXS", "IQ3_XS", "3bit", "Q3_K_S", "IQ3_S", "IQ3_M"),
    *("Q3_K_M", "Q3_K_L", "MXFP4", "MXFP4_MOE", "IQ4_XS", "Q4_0", "4bit", "IQ4_NL", "NVFP4"),
    *("Q4_K_S", "4bit-DWQ", "Q4_K_M", "Q4_1", "Q5_K_S", "Q5_0", "5bit", "Q5_K_M", "Q5_1"),
    *("6bit", "Q6_K", "MXFP8", "8bit", "Q8_0", "FP8", "BF16", "F16", "F32"),
)
_PLACES = {name.upper(): place for place, name in enumerate(QUALITY)}


def quantization_in(name: str) -> str:
    """The quantization that `name` carries, as its makers spell it; "" if none.

    The last match counts: `F16-Q4_0` is a Q4_0.
    """
    matches = _QUANTIZATION.findall(name)
    if not matches:
        return ""
    found: str = re.sub(r"-?BIT", "bit", matches[-1].upper())
    return _ALIASES.get(found, found)


def without_quantization(name: str) -> str:
    """`name` less every quantization in it."""
    return _QUANTIZATION.sub("", name)


def with_quantization(name: str, quantization: str) -> str:
    """`name` with another quantization in the place of the last one in it, or at its end."""
    *_, last = [None, *_QUANTIZATION.finditer(name)]
    if last is None:
        return f"{name}-{quantization}"
    separator = last[0][0] if last[0][0] in "-._:@" else ""
    return name[: last.start()] + separator + quantization + name[last.end() :]


def file_type_name(file_type: int | None) -> str:
    """The name of `general.file_type`; "" if unknown."""
    return "" if file_type is None else _FILE_TYPES.get(file_type & ~_GUESSED, "")


_LONG_SUFFIXES = {"Small": "_S", "Medium": "_M", "Large": "_L"}
_LONG_NAMES = {
    "all F32": "F32",
    "MXFP4 MoE": "MXFP4_MOE",
    "IQ3_S mix - 3.66 bpw": "IQ3_M",
    "Q2_K - Medium": "Q2_K",
}


def long_quantization(text: str) -> str:
    """A server's word for a quantization, made for people, to the usual one; "" if unknown.

    llama-server writes `Q4_K - Medium`; Docker Model Runner `MOSTLY_Q4_K_M`, and
    `IQ2_XXS/Q4_K_M` for what is a Q4_K_M.
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
    """How far apart two quantizations are in `QUALITY`; unknown ones are far from everything."""
    places = _place(quantization), _place(preferred)
    return len(QUALITY) if -1 in places else abs(places[0] - places[1])


@functools.cache
def _place(quantization: str) -> int:
    """The place in `QUALITY` of a quantization or of the one that it varies; -1 if unknown."""
    name = quantization.upper().removeprefix("UD-")
    if name not in _PLACES:
        # Larger variants of the K ones: Q4_K_XL, Q6_K_L, Q4_K_P.
        name = re.sub(r"_(?:X*L|P)$", "", name)
        name = {**_ALIASES, "Q8_K": "Q8_0"}.get(name, name)
    if name not in _PLACES and (bits := re.search(r"(?:^|INT|W|-)([2-8])(?:BIT|A|$)", name)):
        name = f"{bits[1]}BIT"
    return _PLACES.get({"AWQ": "4BIT", "GPTQ": "4BIT"}.get(name, name), -1)


def quality(quantization: str) -> int:
    """The place of a quantization in `QUALITY`; -1 for one that is not there."""
    return QUALITY.index(quantization) if quantization in QUALITY else -1


def other_role(stem: str) -> str:
    """What a file of this name is instead of a model, in half a sentence; "" for a model."""
    before, imatrix, _ = stem.lower().partition("imatrix")
    if imatrix and not quantization_in(before):
        # "Qwen3-8B.imatrix" is a matrix, "Qwen3-8B-Q4_K_M-imatrix" was made with one.
        return "it is an importance matrix"
    return next((role for pattern, role in _ROLES if pattern.search(stem)), "")


def canonical(quantization: str) -> str:
    """A quantization as the user writes it, in the spelling that models bear: FP16 is F16."""
    return (quantization_in(quantization) or quantization).upper()
