"""Which type each tensor of a model gets when it is quantized: llama.cpp's mixes.

A mix has a base type; tensors that suffer most are given more bits, and rows that a type's blocks
do not divide another type. The rules are those of llama.cpp (src/llama-quant.cpp,
`llama_tensor_get_type`, October 2026), for the mixes that need no importance matrix.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from llm_localrun.gguf.header import Header, Tensor
from llm_localrun.gguf.tensor_types import BLOCKS, TensorType, type_name

T = TensorType

NOT_COVERED = frozenset({"falcon", "glm5-next"})
"""Architectures for which llama.cpp has rules of their own that are not repeated here."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rules ask of a model: its layers, its experts, and how it shares attention heads.

    `shares_heads`: four or more query heads share a key and value. `is_70b`: llama.cpp gives the
    values more bits in models of the Llama 2 70B kind, where eight share one.
    """

    layers: int
    experts: int = 0
    shares_heads: bool = False
    is_70b: bool = False


def shape_of(header: Header) -> Shape:
    """The shape that a header describes."""
    layers = header.of_architecture("block_count") or 0
    heads = _first(header, "attention.head_count")
    shared = _first(header, "attention.head_count_kv") or heads
    of_80 = layers == 80 and (
        header.architecture in ("qwen2", "deci", "olmo")
        or (header.architecture == "llama" and heads != shared)
    )
    return Shape(
        layers=layers,
        experts=header.of_architecture("expert_count") or 0,
        shares_heads=shared > 0 and heads // shared >= 4,
        is_70b=of_80 or (layers == 68 and header.architecture == "jais2"),
    )


def _first(header: Header, key: str) -> int:
    """A number, or the first of a number for each layer; 0 if there is none."""
    value = header.metadata.get(f"{header.architecture}.{key}")
    if isinstance(value, tuple):
        value = value[0] if value else 0
    return value if isinstance(value, int) else 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor stands among its kind, and what else a rule may ask."""

    number: int
    count: int
    shares_heads: bool
    has_importance: bool


_Condition: TypeAlias = Callable[[_Place], bool]
_Rules: TypeAlias = tuple[tuple[_Condition, TensorType], ...]


def _always(_: _Place) -> bool:
    return True


def _first_two(place: _Place) -> bool:
    return place.number < 2


def _first_four(place: _Place) -> bool:
    return place.number < 4


def _first_sixteenth(place: _Place) -> bool:
    return place.number < place.count // 16


def _first_eighth(place: _Place) -> bool:
    return place.number < place.count // 8


def _first_eighth_informed(place: _Place) -> bool:
    return _first_eighth(place) and place.has_importance


def _first_eighth_blind(place: _Place) -> bool:
    return _first_eighth(place) and not place.has_importance


def _ends_and_thirds(place: _Place) -> bool:
    """The first and the last eighth, and every third of those between."""
    eighth = place.count // 8
    return (
        place.number < eighth
        or place.number >= 7 * place.count // 8
        or (place.number - eighth) % 3 == 2
    )


def _shared_heads(place: _Place) -> bool:
    return place.shares_heads


@dataclass(frozen=True, slots=True)
class Mix:
    """A quantization: its number as `general.file_type`, and what its tensors get.

    The first rule that holds for a tensor is taken, else `base`. `values` are the attention's,
    `downs` the feed-forward's last matrices, `outputs` the attention's last ones.
    """

    file_type: int
    base: TensorType
    values: _Rules = ()
    downs: _Rules = ()
    outputs: TensorType | None = None


MIXES: Mapping[str, Mix] = {
    "F32": Mix(0, T.F32),
    "F16": Mix(1, T.F16),
    "BF16": Mix(32, T.BF16),
    "Q8_0": Mix(7, T.Q8_0),
    "Q6_K": Mix(18, T.Q6_K),
    "Q5_K_M": Mix(17, T.Q5_K, ((_ends_and_thirds, T.Q6_K),), ((_ends_and_thirds, T.Q6_K),)),
    "Q5_K_S": Mix(16, T.Q5_K),
    "Q5_1": Mix(9, T.Q5_1),
    "Q5_0": Mix(8, T.Q5_0, downs=((_first_eighth_informed, T.Q5_1),)),
    "Q4_K_M": Mix(15, T.Q4_K, ((_ends_and_thirds, T.Q6_K),), ((_ends_and_thirds, T.Q6_K),)),
    "Q4_K_S": Mix(14, T.Q4_K, ((_first_four, T.Q5_K),), ((_first_eighth, T.Q5_K),)),
    "Q4_1": Mix(3, T.Q4_1),
    "Q4_0": Mix(2, T.Q4_0, downs=((_first_eighth_informed, T.Q4_1),)),
    "IQ4_NL": Mix(25, T.IQ4_NL, ((_shared_heads, T.Q5_K),), ((_first_eighth_blind, T.Q5_K),)),
    "IQ4_XS": Mix(30, T.IQ4_XS, ((_shared_heads, T.Q5_K),), ((_first_eighth_blind, T.Q5_K),)),
    "Q3_K_L": Mix(13, T.Q3_K, ((_always, T.Q5_K),), ((_always, T.Q5_K),), T.Q5_K),
    "Q3_K_M": Mix(
        12,
        T.Q3_K,
        ((_first_two, T.Q5_K), (_always, T.Q4_K)),
        ((_first_sixteenth, T.Q5_K), (_always, T.Q4_K)),
        T.Q4_K,
    ),
    "Q3_K_S": Mix(11, T.Q3_K),
    "Q2_K": Mix(
        10, T.Q2_K, ((_shared_heads, T.Q4_K), (_always, T.Q3_K)), ((_always, T.Q3_K),), T.Q3_K
    ),
}

_FLOATS = (T.F32, T.F16, T.BF16)

# Mixtral's kind: eight experts share the attention, so that more bits for it cost little.
_MIXTRAL_EXPERTS = 8
_MIXTRAL_OUTPUTS = frozenset({"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"})

# For rows that the blocks of 256 do not divide.
_NARROWER = {
    T.Q2_K: T.Q4_0,
    T.Q3_K: T.Q4_0,
    T.Q4_K: T.Q5_0,
    T.Q5_K: T.Q5_1,
    T.Q6_K: T.Q8_0,
    T.IQ4_XS: T.IQ4_NL,
}

EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")
_VALUES = ("attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight")
_LAYER = re.compile(r"blk\.(\d+)\.")

# Small, or read as they are by llama.cpp's code.
_LEFT_ALONE = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel"
    r"|per_layer_model_proj|^position_embd\.weight$|^token_types\.weight$|ssm_conv1d"
    r"|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight|time_mix_first\.weight"
    r"|time_mix_(?:[wva][012]|g[12])\.weight|time_mix_decay_w[12]\.weight"
    r"|time_mix_lerp_fused\.weight|attn_rel_b\.weight|\.position_embd|sam\.pos_embd|sam\.neck\."
    r"|sam\.net_|\.rel_pos|\.patch_embd|\.patch_merger|a\.rvq\.codebook|mm\.a\.code_embd"
)


def is_quantizable(tensor: Tensor) -> bool:
    """Whether a tensor is one of the matrices that quantizing is about."""
    is_matrix = any(size > 1 for size in tensor.shape[1:])
    return is_matrix and tensor.name.endswith("weight") and _LEFT_ALONE.search(tensor.name) is None


def in_order(tensors: Iterable[Tensor]) -> list[Tensor]:
    """By layer, then by name: the order in which llama.cpp counts and writes them."""
    return sorted(tensors, key=lambda tensor: (_layer(tensor.name), tensor.name))


def _layer(name: str) -> int:
    match = _LAYER.match(name)
    return int(match[1]) if match else -1


def types_for(
    quantization: str, tensors: Sequence[Tensor], shape: Shape, *, has_importance: bool
) -> dict[str, int]:
    """The type that each tensor gets, by its name. `quantization` is one of `MIXES`."""
    names = {tensor.name for tensor in tensors}
    recipe = _Recipe(
        quantization,
        shape,
        has_importance,
        values=sum(name.endswith(_VALUES) for name in names),
        is_tied="output.weight" not in names,
    )
    return {
        tensor.name: recipe.type_of(tensor) if is_quantizable(tensor) else tensor.type
        for tensor in in_order(tensors)
    }


class _Recipe:
    """A mix, applied to one tensor after the other: some rules count what has come before."""

    def __init__(
        self, quantization: str, shape: Shape, has_importance: bool, values: int, is_tied: bool
    ) -> None:
        self._quantization = quantization
        self._mix = MIXES[quantization]
        self._shape = shape
        self._has_importance = has_importance
        self._values = values
        self._is_tied = is_tied
        self._values_seen = 0
        self._downs_seen = 0

    def type_of(self, tensor: Tensor) -> TensorType:
        if self._mix.base in _FLOATS:
            return self._mix.base
        return fitting(self._wanted(tensor), tensor.shape[0])

    def _wanted(self, tensor: Tensor) -> TensorType:
        name = tensor.name
        if name == "output.weight" or (self._is_tied and name in EMBEDDINGS):
            return self._last(tensor)
        if name.endswith(_VALUES):
            return self._value()
        if name.endswith("attn_k.weight") and self._shape.experts == _MIXTRAL_EXPERTS:
            return T.Q8_0
        if "ffn_down" in name:
            return self._down(name)
        if name.endswith("attn_output.weight"):
            return self._output()
        return self._mix.base

    def _last(self, tensor: Tensor) -> TensorType:
        """Of the matrix that makes tokens, often the one that reads them too."""
        if tensor.shape[0] % BLOCKS[self._mix.base][0] or self._mix.base == T.Q8_0:
            return T.Q8_0
        return T.Q6_K

    def _value(self) -> TensorType:
        chosen = self._ruled(self._mix.values, self._values_seen, self._values)
        self._values_seen += 1
        if self._shape.experts == _MIXTRAL_EXPERTS:
            return T.Q8_0
        if self._shape.is_70b and chosen in (T.Q3_K, T.Q4_K):
            return T.Q5_K
        return chosen

    def _down(self, name: str) -> TensorType:
        # Those of the experts do not come in the order of their layers.
        number = _layer(name) if self._shape.experts > 1 else self._downs_seen
        self._downs_seen += 1
        return self._ruled(self._mix.downs, number, self._shape.layers)

    def _output(self) -> TensorType:
        if self._shape.experts == _MIXTRAL_EXPERTS:
            return T.Q5_K if self._quantization in _MIXTRAL_OUTPUTS else self._mix.base
        return self._mix.outputs or self._mix.base

    def _ruled(self, rules: _Rules, number: int, count: int) -> TensorType:
        place = _Place(number, count, self._shape.shares_heads, self._has_importance)
        return next((kind for holds, kind in rules if holds(place)), self._mix.base)


def fitting(kind: TensorType, width: int) -> TensorType:
    """`kind`, or what is taken in its stead for rows of `width` weights."""
    if width % BLOCKS[kind][0] == 0:
        return kind
    narrower = _NARROWER.get(kind, kind)
    return T.F16 if width % BLOCKS[narrower][0] else narrower


def bits_per_weight(tensors: Iterable[Tensor]) -> float:
    """The bits that a weight takes in the mean."""
    sizes = [(tensor.size or 0, tensor.weights) for tensor in tensors]
    return 8 * sum(size for size, _ in sizes) / max(1, sum(weights for _, weights in sizes))


def shares(tensors: Iterable[Tensor]) -> dict[str, float]:
    """Which part of the weights is stored in which type, by its name; the largest first."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        weights[type_name(tensor.type)] += tensor.weights
    return {name: count / weights.total() for name, count in weights.most_common()}


def share_too_narrow(quantization: str, tensors: Iterable[Tensor]) -> float:
    """Which part of the weights stands in rows that the blocks of a quantization do not divide."""
    mix = MIXES.get(quantization)
    if mix is None:
        return 0.0
    weights: Counter[bool] = Counter()
    for tensor in filter(is_quantizable, tensors):
        weights[tensor.shape[0] % BLOCKS[mix.base][0] != 0] += tensor.weights
    return weights[True] / max(1, weights.total())
