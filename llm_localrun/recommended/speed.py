"""How many tokens a second a model will generate on this machine.

For each token, a model reads its active weights and the cache of the conversation, at the speed
that `bandwidth` measures for their types, and each layer takes some time however small it is. What
llm's log says of models that ran here (`log`) corrects that.
"""

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llm_localrun.gguf.files import checked_header, parts_of
from llm_localrun.gguf.header import Header, Tensor
from llm_localrun.gguf.tensor_types import type_name
from llm_localrun.names.quantizations import canonical
from llm_localrun.recommended.bandwidth import Rates, rates_of, this_machine

_STEPS_PER_LAYER = 110
"""What a layer takes besides reading its weights, in small operations. llama.cpp's graph has 35
nodes for a layer (b11549); attention, and dividing a matrix among threads, take several each."""
_CACHE_TYPE = "F16"
_FINER, _FINER_SHARE = "Q6_K", 0.3
"""Q4_K_M and Q5_K_M are not of one type: llama.cpp makes the output matrix, and half of two others,
finer. That is 0.25 of the bytes of a model with 8B parameters, and 0.36 with 1.5B."""
_BLOCK_WEIGHTS = 256
_UNDIVIDED = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What llama.cpp takes instead where blocks of 256 weights do not divide a row."""
_LEAST_FACTOR, _MOST_FACTOR = 0.5, 2.0
"""Of measured to predicted speeds: one that is further off says little of the machine."""
_UNREAD = re.compile(r"token_embd|per_layer_token_embd|token_types|position_embd|rope_freqs")
"""Tables of which a token reads one row."""
_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class TokenCost:
    """What generating one token takes.

    `active_bytes` is the bytes of weights that are read, `cache_bytes` those of the conversation's
    cache. `quantization` is the type of most weights, `layers` how many there are, `width` the
    weights in most rows, 0 if unknown. `types` has the bytes by the name of a tensor type, where
    the tensors are known.
    """

    active_bytes: int
    cache_bytes: int = 0
    quantization: str = ""
    layers: int = 0
    width: int = 0
    types: Mapping[str, int] = field(default_factory=dict)

    def seconds(self, rates: Rates) -> float:
        """By the figures of this machine."""
        types = self.types or _types_of(self.quantization, self.active_bytes, self.width)
        reading = sum(size / rates.of(name) for name, size in types.items())
        cached = self.cache_bytes / rates.of(_CACHE_TYPE)
        return reading + cached + self.layers * _STEPS_PER_LAYER * rates.step


@dataclass(frozen=True, slots=True)
class Run:
    """A model that ran here, and the tokens a second that it generated."""

    cost: TokenCost
    tokens_per_second: float


def expected_speed(
    cost: TokenCost, runs: Iterable[Run] = (), *, has_gpu: bool = False
) -> float | None:
    """Tokens a second; None if it cannot be told. Measures this machine once if it has to (0.5 s).

    The processor's figures say nothing of a GPU. There, what ran before tells how many bytes a
    second it reads.
    """
    rates = None if has_gpu else rates_of(this_machine())
    return speed_by(rates, cost, runs)


def speed_by(rates: Rates | None, cost: TokenCost, runs: Iterable[Run]) -> float | None:
    """Tokens a second by a machine's figures, corrected by the models that ran there."""

    def work(cost: TokenCost) -> float:
        return cost.seconds(rates) if rates else float(cost.active_bytes + cost.cache_bytes)

    factors = [run.tokens_per_second * work(run.cost) for run in runs]
    if not (factors or rates) or work(cost) <= 0:
        return None
    factor = statistics.median(factors) if factors else 1.0
    if rates:
        factor = min(max(factor, _LEAST_FACTOR), _MOST_FACTOR)
    return factor / work(cost)


def cost_of_file(path: str) -> TokenCost:
    """The cost of the model in the GGUF file at `path`, all parts, at the start of a conversation.

    Raises `BadModelFile`.
    """
    first = Path(path)
    return cost_of_headers([checked_header(str(part)) for part in parts_of(first) or [first]])


def cost_of_headers(headers: Iterable[Header]) -> TokenCost:
    """The cost of a model whose parts have these headers."""
    first, *others = headers
    tensors = [tensor for header in (first, *others) for tensor in header.tensors]
    has_output = any(tensor.name == "output.weight" for tensor in tensors)
    layers = first.of_architecture("block_count") or 0
    # These predict further tokens: llama.cpp does not run them.
    layers -= first.of_architecture("nextn_predict_layers") or 0
    experts = first.of_architecture("expert_count") or 1
    active_share = (first.of_architecture("expert_used_count") or experts) / experts
    types: Counter[str] = Counter()
    for tensor in tensors:
        is_tied = tensor.name == "token_embd.weight" and not has_output
        if is_tied or _is_read(tensor, layers):
            share = active_share if "_exps" in tensor.name else 1
            types[type_name(tensor.type)] += int((tensor.size or 0) * share)
    return TokenCost(types.total(), layers=layers, types=types)


def _is_read(tensor: Tensor, layers: int) -> bool:
    """Whether each token reads all of a tensor."""
    block = _BLOCK.match(tensor.name)
    return int(block[1]) < layers if block else not _UNREAD.match(tensor.name)


def _types_of(quantization: str, size: int, width: int) -> Mapping[str, int]:
    """The bytes of each type in a model of `size` bytes whose tensors are not known."""
    quantization = canonical(quantization)
    found = re.search(r"I?Q\d_(?:K|\d|[A-Z]+)|MXFP4|BF16|F16|F32", quantization)
    name = found[0] if found else ""
    has_finer = name in ("Q4_K", "Q5_K") and not quantization.endswith("_S")
    finer = int(_FINER_SHARE * size) if has_finer else 0
    instead = _UNDIVIDED if width % _BLOCK_WEIGHTS else {}
    types = {name: size - finer, _FINER: finer} if finer else {name: size}
    return {instead.get(each, each): part for each, part in types.items()}
