"""Chooses the type of each tensor when a model is quantized, by llama.cpp's mixes.

A mix has a base type. Tensors that lose most get more bits, and rows whose length is not a multiple
of a type's block size get another type. The rules are those of llama.cpp (src/llama-quant.cpp,
`llama_tensor_get_type`, October 2026), for the mixes that need no importance matrix. Pure.
Converting the tensors is left to `worker`.
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
"""Architectures for which llama.cpp has other rules, which this module lacks."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The facts about a model that the rules need: numbers of layers and experts, attention heads.

    `shares_heads`: four or more query heads share a key and value. `is_70b`: eight share one, as in
    Llama 2 70B; llama.cpp gives the values of these models more bits.
    """

    layers: int
    experts: int = 0
    shares_heads: bool = False
    is_70b: bool = False


def shape_of(header: Header) -> ModelShape:
    """The shape of the model with this header."""
    layers = header.of_architecture("block_count") or 0
    heads = _first_number(header, "attention.head_count")
    shared = _first_number(header, "attention.head_count_kv") or heads
    of_80 = layers == 80 and (
        header.architecture in ("qwen2", "deci", "olmo")
        or (header.architecture == "llama" and heads != shared)
    )
    return ModelShape(
        layers=layers,
        experts=header.of_architecture("expert_count") or 0,
        shares_heads=shared > 0 and heads // shared >= 4,
        is_70b=of_80 or (layers == 68 and header.architecture == "jais2"),
    )


def _first_number(header: Header, key: str) -> int:
    """A number, or the first of a list with one for each layer; 0 if there is none."""
    value = header.metadata.get(f"{header.architecture}.{key}")
    if isinstance(value, tuple):
        value = value[0] if value else 0
    return value if isinstance(value, int) else 0


@dataclass(frozen=True, slots=True)
class _Position:
    """The `number` of a tensor among `count` of its kind, and the other inputs of a rule."""

    number: int
    count: int
    shares_heads: bool
    has_importance: bool


_Condition: TypeAlias = Callable[[_Position], bool]
_Rules: TypeAlias = tuple[tuple[_Condition, TensorType], ...]


def _always(_: _Position) -> bool:
    return True


def _first(count: int) -> _Condition:
    return lambda position: position.number < count


def _first_part(divisor: int) -> _Condition:
    """For the first eighth of the tensors if `divisor` is 8."""
    return lambda position: position.number < position.count // divisor


_first_eighth = _first_part(8)


def _first_eighth_with_importance(position: _Position) -> bool:
    return _first_eighth(position) and position.has_importance


def _first_eighth_without_importance(position: _Position) -> bool:
    return _first_eighth(position) and not position.has_importance


def _ends_and_thirds(position: _Position) -> bool:
    """The first and the last eighth, and every third between them."""
    eighth = position.count // 8
    return (
        position.number < eighth
        or position.number >= 7 * position.count // 8
        or (position.number - eighth) % 3 == 2
    )


def _shared_heads(position: _Position) -> bool:
    return position.shares_heads


@dataclass(frozen=True, slots=True)
class Mix:
    """A quantization: its number in `general.file_type`, and the types of its tensors.

    The type is that of the first rule that holds, else `base`. `values` are the rules for the
    attention's values, `downs` for the feed-forward's down projections. `outputs` is the type of
    the attention's output projections.
    """

    file_type: int
    base: TensorType
    values: _Rules = ()
    downs: _Rules = ()
    outputs: TensorType | None = None


_MIXED_Q6: _Rules = ((_ends_and_thirds, T.Q6_K),)
_IQ4_RULES: tuple[_Rules, _Rules] = (
    ((_shared_heads, T.Q5_K),),
    ((_first_eighth_without_importance, T.Q5_K),),
)

MIXES: Mapping[str, Mix] = {
    "F32": Mix(0, T.F32),
    "F16": Mix(1, T.F16),
    "BF16": Mix(32, T.BF16),
    "Q8_0": Mix(7, T.Q8_0),
    "Q6_K": Mix(18, T.Q6_K),
    "Q5_K_M": Mix(17, T.Q5_K, _MIXED_Q6, _MIXED_Q6),
    "Q5_K_S": Mix(16, T.Q5_K),
    "Q5_1": Mix(9, T.Q5_1),
    "Q5_0": Mix(8, T.Q5_0, downs=((_first_eighth_with_importance, T.Q5_1),)),
    "Q4_K_M": Mix(15, T.Q4_K, _MIXED_Q6, _MIXED_Q6),
    "Q4_K_S": Mix(14, T.Q4_K, ((_first(4), T.Q5_K),), ((_first_eighth, T.Q5_K),)),
    "Q4_1": Mix(3, T.Q4_1),
    "Q4_0": Mix(2, T.Q4_0, downs=((_first_eighth_with_importance, T.Q4_1),)),
    "IQ4_NL": Mix(25, T.IQ4_NL, *_IQ4_RULES),
    "IQ4_XS": Mix(30, T.IQ4_XS, *_IQ4_RULES),
    "Q3_K_L": Mix(13, T.Q3_K, ((_always, T.Q5_K),), ((_always, T.Q5_K),), T.Q5_K),
    "Q3_K_M": Mix(
        12,
        T.Q3_K,
        ((_first(2), T.Q5_K), (_always, T.Q4_K)),
        ((_first_part(16), T.Q5_K), (_always, T.Q4_K)),
        T.Q4_K,
    ),
    "Q3_K_S": Mix(11, T.Q3_K),
    "Q2_K": Mix(
        10, T.Q2_K, ((_shared_heads, T.Q4_K), (_always, T.Q3_K)), ((_always, T.Q3_K),), T.Q3_K
    ),
}

# Models like Mixtral: eight experts share the attention, so that more bits for it cost little.
_MIXTRAL_EXPERTS = 8
_MIXTRAL_OUTPUTS = frozenset({"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"})

# For rows whose length is not a multiple of 256.
_SMALL_BLOCK_TYPES = {
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

# Small tensors, and those that llama.cpp reads in their original type.
_NOT_QUANTIZED = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel"
    r"|per_layer_model_proj|^position_embd\.weight$|^token_types\.weight$|ssm_conv1d"
    r"|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight|time_mix_first\.weight"
    r"|time_mix_(?:[wva][012]|g[12])\.weight|time_mix_decay_w[12]\.weight"
    r"|time_mix_lerp_fused\.weight|attn_rel_b\.weight|\.position_embd|sam\.pos_embd|sam\.neck\."
    r"|sam\.net_|\.rel_pos|\.patch_embd|\.patch_merger|a\.rvq\.codebook|mm\.a\.code_embd"
)


def is_quantizable(tensor: Tensor) -> bool:
    """Whether a tensor is one of the matrices that are quantized."""
    name, is_matrix = tensor.name, any(size > 1 for size in tensor.shape[1:])
    return is_matrix and name.endswith("weight") and not _NOT_QUANTIZED.search(name)


def in_order(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors by layer, then by name: llama.cpp's order of counting and writing."""
    return sorted(tensors, key=lambda tensor: (_layer(tensor.name), tensor.name))


def _layer(name: str) -> int:
    match = _LAYER.match(name)
    return int(match[1]) if match else -1


def types_for(
    quantization: str, tensors: Sequence[Tensor], shape: ModelShape, *, has_importance: bool
) -> dict[str, int]:
    """The type of each tensor, by its name. `quantization` is one of `MIXES`."""
    names = {tensor.name for tensor in tensors}
    recipe = _Recipe(
        quantization,
        MIXES[quantization],
        shape,
        has_importance,
        value_count=sum(name.endswith(_VALUES) for name in names),
        is_tied="output.weight" not in names,
    )
    return {
        tensor.name: recipe.type_of(tensor) if is_quantizable(tensor) else tensor.type
        for tensor in in_order(tensors)
    }


@dataclass(slots=True)
class _Recipe:
    """Applies a mix to one tensor after the other: some rules count the tensors before.

    `value_count` is the number of tensors with the attention's values. `is_tied` says that the
    embedding produces the tokens, too.
    """

    quantization: str
    mix: Mix
    shape: ModelShape
    has_importance: bool
    value_count: int
    is_tied: bool
    values_seen: int = 0
    downs_seen: int = 0

    def type_of(self, tensor: Tensor) -> TensorType:
        if self.mix.base in (T.F32, T.F16, T.BF16):
            return self.mix.base
        return _type_for_width(self._preferred_type(tensor), tensor.shape[0])

    def _preferred_type(self, tensor: Tensor) -> TensorType:
        name = tensor.name
        if name == "output.weight" or (self.is_tied and name in EMBEDDINGS):
            return self._output_matrix(tensor)
        if name.endswith(_VALUES):
            return self._attention_value()
        if name.endswith("attn_k.weight") and self.shape.experts == _MIXTRAL_EXPERTS:
            return T.Q8_0
        if "ffn_down" in name:
            return self._feed_forward_down(name)
        if name.endswith("attn_output.weight"):
            return self._attention_output()
        return self.mix.base

    def _output_matrix(self, tensor: Tensor) -> TensorType:
        """For the matrix that produces tokens, which often is the embedding too."""
        if tensor.shape[0] % BLOCKS[self.mix.base][0] or self.mix.base == T.Q8_0:
            return T.Q8_0
        return T.Q6_K

    def _attention_value(self) -> TensorType:
        chosen = self._apply_rules(self.mix.values, self.values_seen, self.value_count)
        self.values_seen += 1
        if self.shape.experts == _MIXTRAL_EXPERTS:
            return T.Q8_0
        if self.shape.is_70b and chosen in (T.Q3_K, T.Q4_K):
            return T.Q5_K
        return chosen

    def _feed_forward_down(self, name: str) -> TensorType:
        # The tensors of experts are not in the order of their layers.
        number = _layer(name) if self.shape.experts > 1 else self.downs_seen
        self.downs_seen += 1
        return self._apply_rules(self.mix.downs, number, self.shape.layers)

    def _attention_output(self) -> TensorType:
        if self.shape.experts == _MIXTRAL_EXPERTS:
            return T.Q5_K if self.quantization in _MIXTRAL_OUTPUTS else self.mix.base
        return self.mix.outputs or self.mix.base

    def _apply_rules(self, rules: _Rules, number: int, count: int) -> TensorType:
        position = _Position(number, count, self.shape.shares_heads, self.has_importance)
        return next((kind for holds, kind in rules if holds(position)), self.mix.base)


def _type_for_width(kind: TensorType, width: int) -> TensorType:
    """`kind`, or the type that replaces it for rows of `width` weights."""
    if width % BLOCKS[kind][0] == 0:
        return kind
    smaller = _SMALL_BLOCK_TYPES.get(kind, kind)
    return T.F16 if width % BLOCKS[smaller][0] else smaller


def bits_per_weight(tensors: Iterable[Tensor]) -> float:
    """The mean number of bits that a weight takes."""
    sizes = [(tensor.size or 0, tensor.weights) for tensor in tensors]
    return 8 * sum(size for size, _ in sizes) / max(1, sum(weights for _, weights in sizes))


def shares(tensors: Iterable[Tensor]) -> dict[str, float]:
    """The share of the weights that each type has, the largest first: {"Q4_K": 0.9, …}."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        weights[type_name(tensor.type)] += tensor.weights
    return {name: count / weights.total() for name, count in weights.most_common()}


def share_too_narrow(quantization: str, tensors: Iterable[Tensor]) -> float:
    """The share of the weights in rows whose length is not a multiple of the base type's block."""
    mix = MIXES.get(quantization)
    if mix is None:
        return 0.0
    weights: Counter[bool] = Counter()
    for tensor in filter(is_quantizable, tensors):
        weights[tensor.shape[0] % BLOCKS[mix.base][0] != 0] += tensor.weights
    return weights[True] / max(1, weights.total())
