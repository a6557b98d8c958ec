"""What the name of a GGUF file and its header's `general.file_type` say."""

import re

_QUANTIZATION = re.compile(
    r"(?:^|[-._:@])"
    r"((?:UD-|i1-)?(?:Q4_0_[48]_[48]"
    r"|I?Q[1-8]_(?:0|1|K(?:_(?:XXL|XL|L|M|S|XS))?|XXS|XS|S|M|L|NL)"
    r"|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32|FP8))(?=$|[-._])",
    re.IGNORECASE,
)
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")
# What stands beside models under names of their own, as llama.cpp and its tools give them.
_ROLES = (
    (re.compile(r"^\._"), "it is what macOS keeps beside a file"),
    (
        re.compile(r"mmproj", re.IGNORECASE),
        "it is a projector, which lets another model see or hear",
    ),
    (re.compile(r"imatrix", re.IGNORECASE), "it is an importance matrix"),
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
    *("IQ1_S", "IQ1_M", "Q1_0", "TQ1_0", "IQ2_XXS", "IQ2_XS", "TQ2_0", "Q2_0", "IQ2_S", "IQ2_M"),
    *("Q2_K_S", "Q2_K", "IQ3_XXS", "IQ3_XS", "Q3_K_S", "IQ3_S", "IQ3_M", "Q3_K_M", "Q3_K_L"),
    *("MXFP4", "MXFP4_MOE", "IQ4_XS", "Q4_0", "IQ4_NL", "NVFP4", "Q4_K_S", "Q4_K_M", "Q4_1"),
    *("Q5_K_S", "Q5_0", "Q5_K_M", "Q5_1", "Q6_K", "Q8_0", "FP8", "BF16", "F16", "F32"),
)


def quantization_in(name: str) -> str:
    """The quantization that `name` carries, as llama.cpp spells it; "" if none.

    The last match counts: `F16-Q4_0` is a Q4_0.
    """
    matches = _QUANTIZATION.findall(name)
    if not matches:
        return ""
    found: str = matches[-1].upper()
    if found.startswith("I1-"):
        # An importance matrix went into making the file; its format is the same.
        found = found.removeprefix("I1-")
    return _ALIASES.get(found, found)


def without_quantization(name: str) -> str:
    """`name` less the last quantization in it."""
    *_, last = [None, *_QUANTIZATION.finditer(name)]
    return name if last is None else name[: last.start()] + name[last.end() :]


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
    """llama-server's name for people, `Q4_K - Medium` say, to the usual one."""
    text = text.removeprefix("(guessed) ")
    if text.startswith("unknown"):
        return ""
    if text in _LONG_NAMES:
        return _LONG_NAMES[text]
    name, _, rest = text.partition(" - ")
    return name + _LONG_SUFFIXES.get(rest, "")


def quality_distance(quantization: str, preferred: str) -> int:
    """How far apart two quantizations are in `QUALITY`; unknown ones are far from everything."""
    base = quantization.upper().removeprefix("UD-")
    if base not in QUALITY:
        # Larger variants of the K ones: Q4_K_XL, Q6_K_L.
        base = re.sub(r"_X*L$", "", base)
        base = {**_ALIASES, "Q8_K": "Q8_0"}.get(base, base)
    try:
        return abs(QUALITY.index(base) - QUALITY.index(preferred.upper()))
    except ValueError:
        return len(QUALITY)


def quality(quantization: str) -> int:
    """The place of a quantization in `QUALITY`; -1 for one that is not there."""
    return QUALITY.index(quantization) if quantization in QUALITY else -1


def is_projector_name(stem: str) -> bool:
    """Whether the name is one of a projector, which lets another model see or hear."""
    return "mmproj" in stem.lower()


def shard_of(stem: str) -> tuple[str, int, int] | None:
    """Name, number from 1, and count of a split file's part; None if `stem` is a whole file's."""
    match = _SHARD.match(stem)
    return match and (match["stem"], int(match["number"]), int(match["count"]))


def other_role(stem: str) -> str:
    """What a file of this name is instead of a model, in half a sentence; "" for a model."""
    return next((role for pattern, role in _ROLES if pattern.search(stem)), "")
